"""Whom a node asks for signs of life, and how often, on a clock of its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import trio
import trio.testing

from p2plearn.dht.custody import Node
from p2plearn.dht.heartbeat import FRESH, Vigil
from p2plearn.dht.liveness import Life
from p2plearn.dht.messages import Beat, encode
from p2plearn.transfer.session import Unreachable

GONE = {hashlib.sha256(b"gone %d" % n).digest() for n in range(100)}
THERE = {hashlib.sha256(b"there %d" % n).digest() for n in range(5)}
INTERVAL = 10.0


async def nothing(_: Node) -> None:
    pass


class Wires:
    """Nodes that are gone take long not to answer; those that are there answer. ``vigil`` watches all of them."""

    def __init__(self) -> None:
        self.dialled: Counter[Node] = Counter()
        self.gone = set(GONE)
        self.vigil = Vigil(self, lambda _: (0, False, b""), lambda: GONE | THERE, nothing, INTERVAL)

    async def open(self, node: Node, protocol: str) -> Any:
        self.dialled[node] += 1
        if node in self.gone:
            await trio.sleep_forever()
        self.vigil._heard(node, self.vigil.beat_for(node))
        raise Unreachable("it has said all that matters here")

    def nodes(self) -> list[Node]:
        return list(THERE)

    async def nearest(self, name: bytes) -> list[Node]:
        return list(THERE)


async def test_however_many_are_gone_for_ever_those_who_are_there_are_heard_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wires = Wires()
    vigil = wires.vigil
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vigil.run)
        await trio.sleep(3 * 3600.0)
        early = sum(wires.dialled[node] for node in GONE)
        assert all(vigil.detector.life(node) is Life.ALIVE for node in THERE)
        wires.dialled.clear()
        await trio.sleep(3600.0)
        nursery.cancel_scope.cancel()
    assert all(vigil.detector.life(node) is Life.DOWN for node in GONE)
    # After three hours every ten minutes, not six times a minute.
    assert sum(wires.dialled[node] for node in GONE) <= 7 * len(GONE)
    assert all(wires.dialled[node] >= 300 for node in THERE)
    assert early < 60 * len(GONE)


async def test_a_network_that_was_cut_in_two_and_is_whole_again_is_seen_as_one_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wires = Wires()
    vigil = wires.vigil
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vigil.run)
        await trio.sleep(2 * 3600.0)
        assert all(vigil.detector.life(node) is Life.DOWN for node in GONE)
        wires.gone.clear()  # and none of them asks by itself
        one = min(GONE)
        vigil._heard(one, vigil.beat_for(one))
        await trio.sleep(3 * INTERVAL)
        assert all(vigil.detector.life(node) is Life.ALIVE for node in GONE | THERE)
        nursery.cancel_scope.cancel()


async def test_nobody_waits_twice_for_who_is_silent_nor_at_all_for_who_is_known_to_be_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vigil = Wires().vigil

    async def confirm() -> tuple[set[Node], float]:
        """Who is silent, and how long it took to find out."""
        begun = trio.current_time()
        silent = await vigil.confirm(GONE | THERE, 1.0, begun, everybody=False)
        assert all(vigil.is_silent(node) for node in GONE)
        assert all(vigil.is_heard(node) for node in THERE)
        return silent, trio.current_time() - begun

    async with trio.open_nursery() as nursery:
        nursery.start_soon(vigil.run)
        await trio.sleep(1.5 * INTERVAL)
        assert all(vigil.detector.life(node) is Life.ALIVE for node in GONE)
        for node in THERE:
            vigil._heard(node, vigil.beat_for(node))
        assert await confirm() == (GONE, 1.0)  # they may be asleep since a moment ago: that isn't known yet
        assert await confirm() == (GONE, 0.0)
        await trio.sleep(20 * INTERVAL)
        assert all(vigil.detector.life(node) is Life.DOWN for node in GONE)
        assert await confirm() == (set(), 0.0)
        nursery.cancel_scope.cancel()


async def test_a_beat_that_was_overtaken_takes_back_nothing(autojump_clock: trio.testing.MockClock) -> None:
    vigil, node = Wires().vigil, min(THERE)
    vigil.detector.watch(node, trio.current_time())

    def hear(sequence: int, *, leaving: bool) -> None:
        vigil._heard(node, Beat(sequence, 60, 5, leaving, b""))

    hear(7, leaving=False)
    hear(9, leaving=True)
    for late in (8, 9):
        hear(late, leaving=False)
        assert vigil.is_leaving(node)
        assert node in vigil.goodbyes
        assert vigil.detector.life(node) is Life.LEFT
    hear(10, leaving=False)
    assert vigil.is_there(node)
    # Nor can a node silence itself, with a number that none is above or a clock that was put back, but by silence.
    hear(2**64 - 1, leaving=True)
    await trio.sleep((FRESH - 0.5) * INTERVAL)
    hear(11, leaving=False)
    assert vigil.is_leaving(node)
    await trio.sleep(INTERVAL)
    hear(12, leaving=False)
    assert vigil.is_there(node)
    assert vigil.told[node].beat.sequence == 12


async def test_a_goodbye_counts_that_was_said_before_anybody_watched(autojump_clock: trio.testing.MockClock) -> None:
    circle: set[Node] = set()
    node = min(THERE)
    vigil = Vigil(Wires(), lambda _: (0, False, b""), lambda: circle, nothing, INTERVAL)
    vigil._heard(node, Beat(1, 60, 5, True, b""))
    circle.add(node)
    vigil._keep_to(circle, trio.current_time())
    assert vigil.detector.life(node) is Life.LEFT
    await trio.sleep(10 * INTERVAL)
    assert vigil.detector.gone_for_good(node, trio.current_time())
    vigil._heard(node, Beat(2, 60, 5, False, b""))
    vigil._keep_to(circle, trio.current_time())
    assert vigil.detector.life(node) is Life.ALIVE


async def test_a_node_that_starts_again_is_not_taken_for_an_older_beat(autojump_clock: trio.testing.MockClock) -> None:
    watching, node = Wires().vigil, min(THERE)

    def incarnation(leaving: bool, clock: float) -> Vigil:
        return Vigil(Wires(), lambda _: (5, leaving, b""), set, nothing, INTERVAL, clock=lambda: clock)

    first, late = incarnation(True, 1_000.0), incarnation(True, 1_000.0)
    for _ in range(1_000):
        beat = first.beat_for(node)
    watching._heard(node, beat)
    again = incarnation(False, 1_002.0)
    watching._heard(node, again.beat_for(node))
    assert watching.is_there(node)
    watching._heard(node, late.beat_for(node))  # said before it ended, and long under way
    assert watching.is_there(node)


async def test_what_is_asked_is_answered_with_the_newest(autojump_clock: trio.testing.MockClock) -> None:
    """The answer to a question is overtaken by a beat on a stream of the other's own."""
    node = min(THERE)

    class Overtaken:
        def __init__(self) -> None:
            self.sent = b""

        async def write(self, raw: bytes) -> None:
            self.sent += raw

        async def read(self, _: int) -> bytes:
            vigil._heard(node, Beat(6, 60, 5, True, b""))
            return encode(Beat(5, 60, 5, False, bytes(16)))

        async def reset(self) -> None:
            pass

    class Calls(Wires):
        async def open(self, node: Node, protocol: str) -> Any:
            return Overtaken()

    vigil = Calls().vigil
    answer = await vigil.ask(node)
    assert answer is not None
    assert (answer.sequence, answer.leaving) == (6, True)
