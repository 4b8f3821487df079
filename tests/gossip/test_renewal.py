"""Entries of the catalogue over months of virtual time: kept while somebody has the course, with the current copies."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from p2plearn.errors import NoSpace
from p2plearn.gossip import renewal
from p2plearn.gossip.envelope import ENTRY_SECONDS
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.service import People
from p2plearn.identity import SigningKey
from p2plearn.store.store import Store

DAY = 86400
START = 1_790_000_000


@dataclass
class Entry:
    told: int
    copies: int
    times_said: int = 0


def live(entry: Entry, holders: int, begin: float, end: float, rng: random.Random) -> None:
    """``holders`` nodes that have the course, each looking at times of its own."""
    looks = [(begin + rng.random() * renewal.LOOK_SECONDS, n) for n in range(holders)]
    while looks:
        now, who = min(looks)
        looks.remove((now, who))
        if now > end:
            continue
        looks.append((now + renewal.LOOK_SECONDS * rng.uniform(0.2, 1.0), who))
        if renewal.due(entry.told, entry.copies, holders, now, rng.random()):
            entry.told, entry.copies, entry.times_said = int(now), holders, entry.times_said + 1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("holders", [1, 3, 20])
def test_an_entry_lives_as_long_as_somebody_has_the_course(seed: int, holders: int) -> None:
    rng, entry = random.Random(seed), Entry(START, holders)
    for day in range(180):
        live(entry, holders, START + day * DAY, START + (day + 1) * DAY, rng)
        assert START + (day + 1) * DAY - entry.told < ENTRY_SECONDS
    assert 6 <= entry.times_said <= 9  # once in 20 to 30 days, by one of them each time


@pytest.mark.parametrize("seed", range(2))
def test_it_says_the_current_copies_within_a_day(seed: int) -> None:
    rng, entry = random.Random(seed), Entry(START, 1)
    for day, holders in enumerate((3, 3, 2, 5)):
        before = entry.times_said
        live(entry, holders, START + day * DAY, START + (day + 1) * DAY, rng)
        assert entry.copies == holders
        assert entry.times_said - before <= 1


def test_who_comes_back_after_it_expired_says_it_at_once() -> None:
    assert renewal.due(START, 3, 1, START + ENTRY_SECONDS + DAY, 0.999)
    assert not renewal.due(START, 3, 0, START + DAY, 0.0)


class Exchanges:
    """With nobody."""

    async def run(self, *, task_status: Any) -> None:
        task_status.started()
        await trio.sleep_forever()


async def test_an_entry_that_can_not_be_said_again_keeps_no_node_from_taking_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trio.Event()

    async def full(_now: float) -> int:
        tried.set()
        raise NoSpace("the disk is full")

    with (
        contextlib.closing(Store.open(tmp_path)) as store,
        contextlib.closing(Feed(tmp_path / "people.sqlite")) as feed,
    ):
        people = People(feed, store, SigningKey.generate())
        people.join(Exchanges(), lambda _: 0)  # type: ignore[arg-type]
        monkeypatch.setattr(people, "renew", full)
        async with trio.open_nursery() as nursery:
            await nursery.start(people.run)
            await tried.wait()
            nursery.cancel_scope.cancel()
