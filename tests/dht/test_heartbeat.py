"""Whom a node asks whether they are there, and how often. On a virtual clock; the other nodes are made up."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2plearn.dht.custody import Node
from p2plearn.dht.heartbeat import AWAY_SECONDS, Vigil
from p2plearn.dht.liveness import Life
from p2plearn.transfer.session import Unreachable

DEAD = Node(b"d" * 32)
INTERVAL = 10.0


class Nobody:
    """Calls that find nobody where they were; ``asked`` are the moments, ``connected`` who seems to be there."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.connected: list[Node] = []

    async def open(self, node: Node, protocol: str) -> Any:
        """See ``Calls``."""
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        raise Unreachable("nobody listens there", refused=True)

    def nodes(self) -> list[Node]:
        """See ``Calls``."""
        return self.connected

    async def nearest(self, name: bytes) -> list[Node]:
        """See ``Calls``."""
        await trio.lowlevel.checkpoint()
        return []


@pytest.fixture
def autojump_clock() -> MockClock:
    """Time that passes as soon as everybody waits for it."""
    return MockClock(autojump_threshold=0)


async def _nothing(_: Node) -> None:
    await trio.lowlevel.checkpoint()


async def test_the_dead_are_asked_ever_more_seldom(autojump_clock: MockClock) -> None:
    calls = Nobody()
    alive = Node(b"a" * 32)
    vigil = Vigil(calls, lambda _: (0, False, b""), lambda: {DEAD, alive}, _nothing, INTERVAL)

    async def hear() -> None:
        while True:
            vigil._heard(alive, vigil.beat_for(DEAD))
            await trio.sleep(INTERVAL / 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        nursery.start_soon(vigil.run)
        await trio.sleep(3600.0)
        assert vigil.detector.life(DEAD) is Life.DOWN
        assert 3600.0 / AWAY_SECONDS <= len(calls.asked) <= 3600.0 / AWAY_SECONDS + 12
        gaps = [later - earlier for earlier, later in zip(calls.asked, calls.asked[1:], strict=False)]
        assert max(gaps) <= AWAY_SECONDS + INTERVAL

        # There is a connection again: it is asked at every beat.
        calls.connected, calls.asked = [DEAD], []
        await trio.sleep(10 * INTERVAL)
        assert len(calls.asked) >= 9

        # It said something, and is silent again: as if for the first time.
        calls.connected = []
        vigil._heard(DEAD, vigil.beat_for(alive))
        assert vigil.detector.life(DEAD) is Life.ALIVE
        calls.asked = []
        await trio.sleep(4 * INTERVAL)
        assert len(calls.asked) >= 3
        nursery.cancel_scope.cancel()
