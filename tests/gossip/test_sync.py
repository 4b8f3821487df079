"""Exchanges between real hosts: what is said gets everywhere, whoever was away, and hostile peers are named ones."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.gossip import envelope as env
from p2plearn.gossip import turns
from p2plearn.gossip.envelope import CATALOGUE, Content, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.sync import Sync
from p2plearn.gossip.turns import MAX_TURN, PROTOCOL, Turn
from p2plearn.net.dial import connect
from p2plearn.net.guard import StreamGuard
from p2plearn.net.standing import Fault
from tests.gossip.people import COURSE, Person, person, question
from tests.hosts import eventually, running_host


@dataclass
class Talker:
    """A node as far as this room goes."""

    host: BasicHost
    guard: StreamGuard
    feed: Feed
    sync: Sync

    @property
    def info(self) -> PeerInfo:
        return PeerInfo(self.host.get_id(), self.host.get_transport_addrs())

    async def meet(self, other: Talker) -> None:
        await connect(self.host, other.info, 5.0)

    def say(self, who: Person, body: env.Body) -> Envelope:
        envelope = self.feed.write(who.key, who.private.sign, body, COURSE, time.time())
        self.sync.announce(envelope)
        return envelope

    def digest(self) -> object:
        return self.feed.digest(COURSE), self.feed.digest(CATALOGUE)


async def _no_providers(_: bytes) -> list[PeerInfo]:
    return []


@asynccontextmanager
async def talker(path: Path) -> AsyncIterator[Talker]:
    async with running_host() as (host, guard), trio.open_nursery() as nursery:
        with contextlib.closing(Feed(path)) as feed:
            sync = Sync(
                host, feed, follows=lambda: {CATALOGUE, COURSE}, refuse=lambda _: False, providers=_no_providers,
                blame=lambda peer, detail: guard.blame(peer, Fault.PROTOCOL, detail),
            )  # fmt: skip
            host.set_stream_handler(TProtocol(PROTOCOL), sync.serve)
            await nursery.start(sync.run)
            yield Talker(host, guard, feed, sync)
            nursery.cancel_scope.cancel()


async def test_a_line_of_nodes_some_of_which_meet_late(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        a, b, c, d = [await stack.enter_async_context(talker(tmp_path / f"{n}.sqlite")) for n in range(4)]
        for n in range(30):  # before anybody met anybody
            a.say(person("ada"), question(f"early {n}"))
            d.say(person("dan"), env.Rating("", 1 + n % 5))
        await a.meet(b)
        await c.meet(d)
        await eventually(lambda: a.digest() == b.digest() and c.digest() == d.digest(), 10)
        assert a.digest() != d.digest()
        await b.meet(c)  # the partition heals
        await eventually(lambda: len({one.digest() for one in (a, b, c, d)}) == 1, 20)
        # From here on news go down the line by hints, quickly.
        said = a.say(person("ada"), question("Did you hear?"))
        await eventually(lambda: d.feed.raws([said.id], {COURSE}, 100)[0], 9)
        assert {one.guard.faults for one in (a, b, c, d)} == {0}


Attack = Callable[[Any], Awaitable[None]]


def _frame(*envelopes: bytes) -> bytes:
    return turns.encode(Turn(envelopes=list(envelopes)))


async def garbage(stream: Any) -> None:
    await stream.write(b"\x00\x00\x00\x05hello")


async def a_length_of_4_gib(stream: Any) -> None:
    await stream.write(b"\xff\xff\xff\xff")


async def a_length_of_nothing(stream: Any) -> None:
    await stream.write(b"\x00\x00\x00\x00")


async def cut_in_the_middle(stream: Any) -> None:
    await stream.write((MAX_TURN).to_bytes(4, "big") + b"x" * 10)
    await stream.close()


async def unsigned(stream: Any) -> None:
    await stream.write(_frame(bytes(64) + person("eve").says(question()).raw[64:]))


async def in_the_name_of_another(stream: Any) -> None:
    content = person("ada").says(question("I said that?")).content
    packed = person("ada").says(question("I said that?")).raw[64:]
    assert isinstance(content, Content)
    await stream.write(_frame(person("eve").private.sign(env.SIGNED_PREFIX + packed) + packed))


async def oversized(stream: Any) -> None:
    await stream.write(_frame(b"x" * 60_000))


async def replayed(stream: Any) -> None:
    raw = person("eve").says(question(), time=int(time.time())).raw
    for _ in range(20):
        await stream.write(_frame(*[raw] * 400))


@pytest.mark.parametrize(
    "attack",
    [
        garbage, a_length_of_4_gib, a_length_of_nothing, cut_in_the_middle, unsigned, in_the_name_of_another, oversized,
        replayed,
    ],
)  # fmt: skip
async def test_hostile_peers_are_counted_and_change_nothing(tmp_path: Path, attack: Attack) -> None:
    async with talker(tmp_path / "a.sqlite") as a, running_host() as (eve, _):
        said = a.say(person("ada"), question())
        await connect(eve, a.info, 5.0)
        stream = await eve.new_stream(a.host.get_id(), [TProtocol(PROTOCOL)])
        with contextlib.suppress(Exception):  # it may be reset while it writes
            await attack(stream)
        await eventually(lambda: a.guard.faults, 20)
        kept = {key[8:] for key in a.feed.keys(COURSE)}
        assert said.id in kept
        assert len(kept) <= 2  # what is replayed is kept once
        async with talker(tmp_path / "b.sqlite") as b:  # and all goes on
            await b.meet(a)
            await eventually(lambda: b.digest() == a.digest(), 20)


async def test_elsewhere_and_from_the_future_is_dropped_without_blame(tmp_path: Path) -> None:
    """Clocks of honest people are off, and who forwards can't know what this node follows."""
    async with talker(tmp_path / "a.sqlite") as a, running_host() as (eve, _):
        await connect(eve, a.info, 5.0)
        stream = await eve.new_stream(a.host.get_id(), [TProtocol(PROTOCOL)])
        elsewhere = person("eve").says(question(), hashlib.sha256(b"elsewhere").digest())
        future = person("eve").says(question(), time=int(time.time()) + 10_000)
        await stream.write(_frame(elsewhere.raw, future.raw))
        with trio.fail_after(5):
            assert await stream.read(4)
        await stream.close()
        await eventually(lambda: a.sync.figures.refused == 2)
        assert (a.feed.digest(COURSE)[0], a.guard.faults) == (0, 0)


async def test_the_flood(tmp_path: Path) -> None:
    """One peer sends 1,000 new envelopes a second, of as many identities; honest talk beside it gets through."""
    eves = [Person(f"eve {n}") for n in range(50)]
    flood = [eves[n % 50].says(question(f"{n}"), time=int(time.time())).raw for n in range(3_000)]
    async with (
        talker(tmp_path / "a.sqlite") as a,
        talker(tmp_path / "b.sqlite") as b,
        running_host() as (eve, _),
        trio.open_nursery() as nursery,
    ):
        await a.meet(b)
        await connect(eve, a.info, 5.0)

        async def pour() -> None:
            stream = await eve.new_stream(a.host.get_id(), [TProtocol(PROTOCOL)])
            for start in range(0, len(flood), 100):
                await stream.write(_frame(*flood[start : start + 100]))
                await trio.sleep(0.1)

        nursery.start_soon(pour)
        took: list[float] = []
        for n in range(10):
            begun = trio.current_time()
            said = b.say(person("bob"), question(f"honest {n}"))
            await eventually(lambda said=said: a.feed.raws([said.id], {COURSE}, 100)[0], 20)  # type: ignore[misc]
            took.append(trio.current_time() - begun)
        assert sorted(took)[5] < 5.0
        nursery.cancel_scope.cancel()
