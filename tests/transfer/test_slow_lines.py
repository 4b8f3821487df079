"""A real fetch over modelled lines, in simulated time: haste with those who bring nothing costs slow lines nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from courses import Course, make_course
from lines import Outcome, Provider, World, fetched

from p2plearn.transfer.fetch import Fetch
from p2plearn.transfer.reliance import Reliance

MODEM = 4_000.0
SLOW = 30_000.0
"""Bytes a second, for all peers of a fetch together."""

SMALL = make_course(24, 64 * 1024, seed=3)
MANY_SLOTS = make_course(4096, 16, seed=5)
"""Its index is several times as large as its chunks."""


def honest(world: World, course: Course, count: int, **more: Any) -> list[Provider]:
    return [Provider(world, course, f"honest{at}", **more) for at in range(count)]


def complete(outcome: Outcome, course: Course) -> None:
    assert outcome.error is None
    assert outcome.fetch.standing.verified_bytes == outcome.fetch.standing.wanted_bytes
    assert not any(peer.faults for peer in outcome.peers)


@pytest.mark.parametrize(("rate", "slots"), [(MODEM, 400), (SLOW, 4096)])
@pytest.mark.parametrize("count", [8, 20])
def test_an_index_that_comes_slowly_is_asked_of_two(monkeypatch, rate: float, slots: int, count: int):
    """Nobody who brings it makes room for another, nobody else is called for it, nobody is doubted."""
    course = MANY_SLOTS if slots == 4096 else make_course(slots, 16, seed=6)
    outcome = fetched(
        monkeypatch, course, lambda world: honest(world, course, count, latency=0.2), rate=rate, only_index=True
    )
    assert outcome.error is None
    assert sum(peer.indexes for peer in outcome.peers) <= 2
    assert outcome.conversations <= 16
    assert outcome.seconds < 3 * len(course.index_raw) / rate + 5
    assert not any(outcome.reliance.doubted(peer.name, outcome.now) for peer in outcome.peers)


@pytest.mark.parametrize("count", [1, 8, 20])
def test_a_slow_line_brings_a_course_in_about_its_time(monkeypatch, count: int):
    outcome = fetched(
        monkeypatch, SMALL, lambda world: honest(world, SMALL, count, latency=0.2), rate=SLOW, limit=1000.0
    )
    complete(outcome, SMALL)
    assert outcome.twice < 0.6 * SMALL.bytes
    assert outcome.seconds < 2.5 * SMALL.bytes / SLOW
    assert outcome.conversations <= count


@pytest.mark.parametrize("latency", [0.6, 1.5])
def test_a_satellite_line(monkeypatch, latency: float):
    outcome = fetched(monkeypatch, SMALL, lambda world: honest(world, SMALL, 8, latency=latency), rate=3e5)
    complete(outcome, SMALL)
    assert outcome.twice < 0.6 * SMALL.bytes
    assert outcome.conversations == 8


def test_a_disk_that_sleeps_is_waited_for_and_not_doubted(monkeypatch):
    outcome = fetched(
        monkeypatch,
        SMALL,
        lambda world: honest(world, SMALL, 1, stalls=lambda now: max(now, 7.5)),
        rate=1e7,
    )
    complete(outcome, SMALL)
    assert outcome.conversations == 1
    assert not outcome.twice
    assert not outcome.reliance.doubted("honest0", outcome.now)


@pytest.mark.parametrize("kind", ["mute", "promises", "no-chunks"])
@pytest.mark.parametrize("first", [[], ["busy"]], ids=["", "one busy"])
def test_a_crowd_holds_up_an_honest_peer_for_seconds(monkeypatch, kind: str, first: list[str]):
    """One that says for ever that it is busy doesn't keep the others from being passed over."""

    def peers(world: World) -> list[Provider]:
        kinds = [*first, *([kind] * 30), "honest"]
        return [Provider(world, SMALL, f"{each}{at}", each) for at, each in enumerate(kinds)]

    outcome = fetched(monkeypatch, SMALL, peers)
    complete(outcome, SMALL)
    assert outcome.seconds < 12.0
    assert outcome.conversations <= 40


def test_who_waits_for_ten_minutes_wakes_up_seldom(monkeypatch):
    outcome = fetched(monkeypatch, SMALL, lambda world: [Provider(world, SMALL, "busy", "busy", retry_after=30.0)])
    assert outcome.error is not None
    assert outcome.seconds > 600.0
    assert outcome.steps < 1000


def test_where_all_places_are_taken_for_long_nobody_is_in_a_hurry(monkeypatch):
    """Two more than there are places for, and a line that needs minutes."""
    course = make_course(24, 256 * 1024, seed=4)
    eight, ten = (
        fetched(monkeypatch, course, lambda world, count=count: honest(world, course, count), rate=SLOW)
        for count in (8, 10)
    )
    assert ten.error is None
    assert ten.steps < 1.5 * eight.steps + 1000


def test_a_pause_makes_nobody_hurry(monkeypatch):
    """Who was waited for during a pause isn't late: afterwards there are no more conversations than without one."""

    class Pausing:
        """Paused for the first ten minutes."""

        def __init__(self) -> None:
            self.until = 600.0

        @property
        def paused(self) -> bool:
            return trio.current_time() < self.until

        def paused_words(self) -> str:
            return "paused"

        async def not_paused(self) -> None:
            await trio.sleep_until(self.until)

        def line(self, _channel: Any) -> Any:
            return Unlimited()

    class Unlimited:
        def __enter__(self) -> Unlimited:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def why_not_fetch(self, *, for_others: bool) -> None:
            return None

    def crowd(world: World) -> list[Provider]:
        return [*(Provider(world, SMALL, f"mute{at}", "mute") for at in range(40)), Provider(world, SMALL, "honest")]

    dialled: list[int] = []

    async def look(fetch: Fetch) -> None:
        await trio.sleep_until(600.05)
        dialled.append(len(fetch.participants._sessions))

    outcome = fetched(monkeypatch, SMALL, crowd, courtesy=Pausing(), meanwhile=look)
    assert outcome.error is None
    assert dialled[0] <= 10


def test_whoever_could_not_be_reached_once_brings_at_once_what_only_it_has(monkeypatch):
    reliance = Reliance()
    for _ in range(5):
        reliance.ended("only", 0.0, wrong=False, gave=False, waited=0.0, patience=8.0, unreachable=True)
    outcome = fetched(monkeypatch, SMALL, lambda world: [Provider(world, SMALL, "only")], reliance=reliance)
    complete(outcome, SMALL)
    assert outcome.seconds < 1.0
    assert not reliance.doubted("only", outcome.now)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize(
    "course", [make_course(0), make_course(1), make_course(6, twins=5)], ids=["nothing", "one chunk", "duplicates"]
)
def test_the_smallest_courses(monkeypatch, course: Course, in_order: bool):
    def peers(world: World) -> list[Provider]:
        return [*(Provider(world, course, f"x{at}", "no-chunks") for at in range(9)), Provider(world, course, "honest")]

    outcome = fetched(monkeypatch, course, peers, in_order=in_order)
    complete(outcome, course)
    assert outcome.seconds < 5.0
    everything = dict(enumerate(course.chunks))
    again = fetched(monkeypatch, course, peers, in_order=in_order, kept=everything, known=True)
    complete(again, course)
    assert not again.conversations
