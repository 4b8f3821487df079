"""Whose turn it is to show what: the order of challenges, on a virtual clock, with nobody to answer but a notebook."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.ledger import Ledger
from p2plearn.dht.proving import CHALLENGES, ROUND, Challenges
from p2plearn.dht.receipts import sign_receipt
from tests.gossip.people import person

OTHER = person("the other holder")


class Notebook:
    """A keeper of ``units`` that another node says it has, too; who is asked for what is written down."""

    def __init__(self, units: list[Unit], can_show: bool = True) -> None:
        me = person("me")
        self.ledger = Ledger(me.key, me.private.sign)
        for unit in units:
            self.ledger.state(unit, 1000, 3, True, 1)
            self.ledger.merge([sign_receipt(unit, OTHER.key, 1, 3, True, OTHER.private.sign)])
        self.limits = SimpleNamespace(interval=10.0)
        self.vigil = SimpleNamespace(is_there=lambda node: True)
        self.asking = self
        self.asked: list[Unit] = []
        self._can_show = can_show

    async def challenge(self, unit: Unit, node: Node) -> bool:
        self.asked.append(unit)
        return self._can_show

    def disprove(self, unit: Unit, node: Node) -> None:
        entry = self.ledger.entry(unit)
        assert entry is not None
        entry.disproved.add(node)


def made(count: int) -> list[Unit]:
    return [Unit(os.urandom(32), 0) for _ in range(count)]


async def go(notebook: Notebook, seed: int, intervals: float) -> None:
    keeper: Any = notebook
    challenges = Challenges(keeper, random.Random(seed).random)
    for _ in range(int(intervals)):
        await challenges.look()
        await trio.sleep(notebook.limits.interval)


async def test_a_machine_that_is_started_anew_each_day_asks_for_others_each_time(autojump_clock: MockClock) -> None:
    units = made(10)
    notebook = Notebook(units)
    for day in range(80):
        await go(notebook, day, 2 * CHALLENGES)  # two or three, then it is shut
    assert set(notebook.asked) == set(units)


async def test_however_many_there_are_a_round_is_a_day(autojump_clock: MockClock) -> None:
    units = made(1000)
    notebook = Notebook(units)
    await go(notebook, 1, 1.2 * ROUND)  # the pauses are random
    assert set(notebook.asked) == set(units)
    assert len(notebook.asked) < 2 * len(units)


async def test_who_fails_once_is_asked_for_more_but_not_for_everything_at_once(autojump_clock: MockClock) -> None:
    notebook = Notebook(made(500), can_show=False)
    await go(notebook, 1, 1)
    assert 15 < len(notebook.asked) <= 25
