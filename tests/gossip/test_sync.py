"""Exchanges between real hosts: what is said gets everywhere, whoever was away, and hostile peers are named ones."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.gossip import envelope as env
from p2plearn.gossip import turns
from p2plearn.gossip.allowance import Allowance
from p2plearn.gossip.envelope import CATALOGUE, Content, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.meetings import Meetings
from p2plearn.gossip.news import BUSY_SECONDS, GATHER_SECONDS, News
from p2plearn.gossip.sync import Sync
from p2plearn.gossip.turns import MAX_TURN, PROTOCOL, Turn
from p2plearn.net.dial import connect
from p2plearn.net.guard import StreamGuard
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
                blame=lambda peer, detail, kind: guard.blame(peer, kind, detail),
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
        await eventually(lambda: a.digest() == b.digest() and c.digest() == d.digest(), 60)
        assert a.digest() != d.digest()
        await b.meet(c)  # the partition heals
        await eventually(lambda: len({one.digest() for one in (a, b, c, d)}) == 1, 60)
        # From here on news go down the line by hints, quickly.
        said = a.say(person("ada"), question("Did you hear?"))
        await eventually(lambda: d.feed.raws([said.id], {COURSE}, 100)[0], 60)
        assert {one.guard.faults for one in (a, b, c, d)} == {0}


EARLIER = int(time.time())
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
    raw = person("eve").says(question(), time=EARLIER).raw
    for _ in range(20):
        await stream.write(_frame(*[raw] * 400))


async def from_the_future(stream: Any) -> None:
    await stream.write(_frame(person("eve").says(question(), time=int(time.time()) + 10_000).raw))


async def to_another_feed(stream: Any) -> None:
    await stream.write(_frame(person("eve").says(question(), hashlib.sha256(b"elsewhere").digest()).raw))


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (garbage, None), (a_length_of_4_gib, None), (a_length_of_nothing, None), (cut_in_the_middle, None),
        (unsigned, "bad"), (in_the_name_of_another, "bad"), (oversized, "bad"), (replayed, "known"),
        (from_the_future, "early"), (to_another_feed, "elsewhere"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
async def test_hostile_peers_are_counted_scored_and_change_nothing(
    tmp_path: Path, attack: Attack, reason: str | None
) -> None:
    async with talker(tmp_path / "a.sqlite") as a, running_host() as (eve, _):
        said = a.say(person("ada"), question())
        await connect(eve, a.info, 5.0)
        with trio.fail_after(100):
            while not a.guard.faults:  # one that is only turned away comes back
                stream = await eve.new_stream(a.host.get_id(), [TProtocol(PROTOCOL)])
                with contextlib.suppress(Exception), trio.move_on_after(1):  # it may be reset, or not read on
                    await attack(stream)
                await trio.sleep(0.1)
                await stream.reset()
        assert a.guard.standing.points(str(eve.get_id()), trio.current_time()) > 0
        if reason is not None:
            await eventually(lambda: a.sync.intake.dropped[reason], 60)
        kept = {key[8:] for key in a.feed.keys(COURSE)}
        assert said.id in kept
        assert len(kept) <= 2  # what is replayed is kept once
        async with talker(tmp_path / "b.sqlite") as b:  # and all goes on
            await b.meet(a)
            await eventually(lambda: b.digest() == a.digest(), 60)


async def test_the_flood(tmp_path: Path) -> None:
    """One peer brings far more than anybody says, of many identities; it is hung up on, honest talk gets through."""
    eves = [Person(f"eve {n}") for n in range(50)]
    flood = [eves[n % 50].says(question(f"{n}"), time=int(time.time())).raw for n in range(1_000)]
    async with (
        talker(tmp_path / "a.sqlite") as a,
        talker(tmp_path / "b.sqlite") as b,
        running_host() as (eve, _),
        trio.open_nursery() as nursery,
    ):
        a.sync.intake._brought = Allowance(burst=300, rate=1, capacity=8)
        await a.meet(b)

        async def pour() -> None:
            while True:  # comes back as long as it is let in
                with contextlib.suppress(Exception):
                    await connect(eve, a.info, 5.0)
                    stream = await eve.new_stream(a.host.get_id(), [TProtocol(PROTOCOL)])
                    for start in range(0, len(flood), 100):
                        await stream.write(_frame(*flood[start : start + 100]))
                    await stream.reset()
                await trio.sleep(0.05)

        nursery.start_soon(pour)
        for n in range(10):
            said = b.say(person("bob"), question(f"honest {n}"))
            await eventually(lambda said=said: a.feed.raws([said.id], {COURSE}, 100)[0], 60)  # type: ignore[misc]
        await eventually(lambda: a.guard.banned(eve.get_id()), 60)
        nursery.cancel_scope.cancel()
        assert a.sync.intake.dropped["flood"] > 0
        assert not a.guard.banned(b.host.get_id())


async def test_more_than_a_peer_may_bring_is_fetched_without_blame(tmp_path: Path) -> None:
    async with talker(tmp_path / "a.sqlite") as a, talker(tmp_path / "b.sqlite") as b:
        a.sync.intake._brought = Allowance(burst=100, rate=1, capacity=8)
        b.sync.intake._brought = Allowance(burst=100, rate=1, capacity=8)
        said = [person(f"{n % 9}").says(question(f"{n}"), time=int(time.time()) - n).raw for n in range(700)]
        b.feed.take(said, {COURSE}, time.time())
        await b.meet(a)
        await eventually(lambda: a.digest() == b.digest(), 60)
        assert (a.guard.faults, b.guard.faults) == (0, 0)


async def test_an_exchange_that_is_given_up_is_no_fault_of_the_other(tmp_path: Path) -> None:
    """Who stops waiting closes the stream, so that nobody waits for a turn that never comes."""
    async with talker(tmp_path / "a.sqlite") as a, talker(tmp_path / "b.sqlite") as b:
        await a.meet(b)
        for n in range(20):
            with trio.move_on_after(0.002 * n):
                await a.sync._exchange(PeerInfo(b.host.get_id(), []), [COURSE])
        await eventually(lambda: not b.guard._by_protocol[PROTOCOL], 20)
        assert b.guard.faults == 0


async def test_the_catalogue_is_compared_where_it_was_not_yet_and_nobody_is_waited_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meetings, "due", lambda *_, **__: [])  # by themselves they begin nothing
    async with talker(tmp_path / "a.sqlite") as a, talker(tmp_path / "b.sqlite") as b:
        a.say(person("ada"), env.Rating("", 5))
        begun: list[ID] = []
        exchange = b.sync._exchange

        async def noted(info: PeerInfo, feeds: list[bytes] | None, *rest: Any) -> bool:
            if feeds is not None:
                begun.append(info.peer_id)
            return await exchange(info, feeds, *rest)

        monkeypatch.setattr(b.sync, "_exchange", noted)
        await b.sync.compare_catalogue(math.inf)  # nobody is there
        await b.meet(a)
        await b.sync.compare_catalogue(math.inf)
        assert b.feed.digest(CATALOGUE) == a.feed.digest(CATALOGUE)
        assert b.feed.digest(CATALOGUE)[0] == 1
        await b.sync.compare_catalogue(math.inf)
        assert begun == [a.host.get_id()]

        async def silent(_: object) -> None:
            await trio.sleep_forever()

        async with talker(tmp_path / "c.sqlite") as c:
            c.host.set_stream_handler(TProtocol(PROTOCOL), silent)
            await b.meet(c)
            await b.sync.compare_catalogue(0.05)  # it goes on without us
            assert c.host.get_id() not in b.sync._compared
            await b.sync.compare_catalogue(math.inf)  # nobody else is there, and c isn't waited for again


async def test_news_of_others_is_gathered_while_there_is_much_and_ones_own_is_told_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    news, peer = News(), ID(b"somebody")
    said = [person("ada").says(question(f"{n}")) for n in range(30)]
    begun = trio.current_time()
    for one in said[:10]:
        news.announce(one, peer)
    fresh, heard = await news.gather()
    assert (len(fresh), set(heard.values())) == (10, {peer})
    assert trio.current_time() - begun == pytest.approx(GATHER_SECONDS)
    news.announce(said[10], peer)  # much came last time
    begun = trio.current_time()
    assert len((await news.gather())[0]) == 1
    assert trio.current_time() - begun == pytest.approx(BUSY_SECONDS)
    for one in said[11:20]:
        news.announce(one, peer)
    await news.gather()
    news.announce(said[20])  # one's own
    begun = trio.current_time()
    await news.gather()
    assert trio.current_time() - begun == pytest.approx(GATHER_SECONDS)


async def test_a_full_disk_ends_an_exchange_and_neither_the_others_nor_who_tells(tmp_path: Path) -> None:
    """It ended the network part, again with each peer that came, and was held against who told us something."""
    async with talker(tmp_path / "a.sqlite") as a, talker(tmp_path / "b.sqlite") as b:
        for n in range(300):
            b.say(person("bob"), question(f"number {n} " + "x" * 500))
        with a.feed.reading() as db:
            db.execute("PRAGMA max_page_count = 1")  # as many as there are
        await a.meet(b)
        for _ in range(3):
            assert not await a.sync._exchange(PeerInfo(b.host.get_id(), []), [COURSE])
            assert not await b.sync._exchange(PeerInfo(a.host.get_id(), []), [COURSE])
        assert a.digest() != b.digest()
        with a.feed.reading() as db:
            db.execute(f"PRAGMA max_page_count = {2**30}")
        assert await a.sync._exchange(PeerInfo(b.host.get_id(), []), [COURSE])
        await eventually(lambda: a.digest() == b.digest(), 60)
        assert (a.guard.faults, b.guard.faults) == (0, 0)
