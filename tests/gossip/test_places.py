"""Who answers slowly keeps nobody else from being called, and nobody from being told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.gossip import framing, places, sync, turns
from p2plearn.gossip.meetings import Meetings
from p2plearn.gossip.places import BYTES_A_SECOND, WAIT_SECONDS, Places
from p2plearn.gossip.sync import AT_ONCE
from p2plearn.gossip.turns import PROTOCOL, Turn
from p2plearn.net.dial import connect
from tests.gossip.people import COURSE, person, question
from tests.gossip.test_sync import talker
from tests.hosts import eventually, running_host


async def test_a_place_is_kept_by_what_comes_and_not_by_waiting(autojump_clock: trio.testing.MockClock) -> None:
    some = Places(2)
    ended: dict[str, float] = {}

    async def exchange(name: str, moved: int) -> None:
        async with some.one() as place:
            for _ in range(60):
                with place.waiting():
                    await trio.sleep(1.0)
                place.moved += moved
        ended[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(some.run)
        begun = trio.current_time()
        nursery.start_soon(exchange, "brings something", BYTES_A_SECOND)
        nursery.start_soon(exchange, "brings nothing", 0)
        await trio.testing.wait_all_tasks_blocked()
        async with some.one():
            assert WAIT_SECONDS <= trio.current_time() - begun <= WAIT_SECONDS + 2.0
            with trio.move_on_after(40.0):  # the other one keeps its place to the end
                async with some.one():
                    raise AssertionError("a third")
        await trio.sleep(30.0)
        assert ended.keys() == {"brings something", "brings nothing"}  # without a place it went on
        async with some.one(), some.one():
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def slow(begun: list[object]) -> AsyncIterator[PeerInfo]:
    """A peer that answers each turn late, and always promises more."""

    async def answer(stream: Any) -> None:
        begun.append(stream)
        while await framing.receive(stream, 600.0):
            await trio.sleep(2.0)
            await stream.write(turns.encode(Turn(more=True)))

    async with running_host() as (host, _):
        host.set_stream_handler(TProtocol(PROTOCOL), answer)
        yield PeerInfo(host.get_id(), host.get_transport_addrs())


async def test_as_many_slow_ones_as_there_are_places_keep_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meetings, "due", lambda *_, **__: [])  # by themselves they begin nothing
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.5)
    begun: list[object] = []
    ended = 0
    async with contextlib.AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(talker(tmp_path / f"{n}.sqlite")) for n in range(2)]
        dawdlers = [await stack.enter_async_context(slow(begun)) for _ in range(AT_ONCE)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        b.say(person("bob"), question())

        async def exchange(info: PeerInfo) -> None:
            nonlocal ended
            await a.sync._exchange(info, [COURSE])
            ended += 1

        for dawdler in dawdlers:
            nursery.start_soon(exchange, dawdler)
        await eventually(lambda: len(begun) == AT_ONCE, 60)
        await a.meet(b)
        assert await a.sync._exchange(b.info, [COURSE])
        assert a.digest() == b.digest()
        assert not ended
        nursery.cancel_scope.cancel()


async def test_who_is_told_news_and_takes_its_time_keeps_no_later_news_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meetings, "due", lambda *_, **__: [])
    monkeypatch.setattr(sync, "PERIOD_SECONDS", 1e6)
    monkeypatch.setattr(sync, "HINT_SECONDS", 1.0)
    begun: list[object] = []
    async with (
        talker(tmp_path / "a.sqlite") as a,
        talker(tmp_path / "b.sqlite") as b,
        slow(begun) as dawdler,
    ):
        await a.meet(b)
        await connect(a.host, dawdler, 5.0)
        for n in range(3):
            said = a.say(person("ada"), question(f"number {n}"))
            await eventually(lambda said=said: b.feed.raws([said.id], {COURSE}, 100)[0], 60)  # type: ignore[misc]
            await eventually(lambda n=n: len(begun) > n, 60)  # type: ignore[misc]
