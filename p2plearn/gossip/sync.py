"""Exchanges between this node and its peers: what keeps every record of a feed the same. The delivery guarantee.

- With each peer that connects, soon (later while courses are given or fetched here); then with one at random every
  PERIOD_SECONDS: all feeds that both follow.
- What is new here is told at once, as ids, to a few peers (FAN_OUT), who ask for what they lack and pass it on: the
  quick way. Nothing depends on it.
- A feed that is followed anew is looked for among the course's providers, and again every FOLLOW_SECONDS: those who
  talk about a course needn't be neighbours.

In: a host, the record (``feed``), which feeds are followed here. Out: a record that is as its peers' are. With whom to
begin is decided in ``meetings``, how turns go over a stream is ``framing``'s, what is made of them ``exchange``'s.

What must hold: a peer has a bounded number of exchanges, of bytes a turn, of seconds a turn and in all, and of what it
brings in a time (``intake``). What fails at this end, a full disk say, ends one exchange, and no other.

Imports ``errors``, ``net`` and siblings.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.errors import PeerFault
from p2plearn.gossip import framing
from p2plearn.gossip.envelope import CATALOGUE, Content
from p2plearn.gossip.exchange import Exchange
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.intake import Blame, Intake
from p2plearn.gossip.meetings import Meetings
from p2plearn.gossip.news import News
from p2plearn.gossip.turns import PROTOCOL, Turn, decode, encode
from p2plearn.net.contained import safely
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.standing import Fault

if TYPE_CHECKING:
    from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

log = logging.getLogger("p2plearn.gossip")

PERIOD_SECONDS: Final = 20.0
"""Between exchanges with a random peer, more or less half of it. An exchange with nothing to say costs 200 bytes."""
LOOK_SECONDS: Final = 0.5
"""How often connected peers are looked at for new ones."""
FOLLOW_SECONDS: Final = 300.0
FAN_OUT: Final = 6
"""Peers told of what is new here. With 6 each, news reaches everybody in some hops with overwhelming probability."""
FIRST_SECONDS: Final = 10.0
"""For a peer that opened an exchange to begin it."""
EXCHANGE_SECONDS: Final = 600.0
DIAL_SECONDS: Final = 8.0
AT_ONCE: Final = 4
"""Exchanges begun by this node at a time."""
COMPARED_AT_ONCE: Final = 3
PROVIDERS_ASKED: Final = 3
LOOKS: Final = 6
"""Times that others who follow a course are looked for at once, after 2, 4, 8, … s, until one of them answered."""

Providers = Callable[[bytes], Awaitable[list[PeerInfo]]]


@dataclass(slots=True)
class Figures:
    """Counts since the start, for status."""

    exchanges: int = 0
    received: int = 0
    sent: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    compared: float = field(default_factory=time.monotonic)
    """When records were last compared with a peer to the end; the start, until they were."""

    equal: bool = False
    """Whether they ever were."""

    def compared_now(self) -> None:
        """Records were compared with a peer to the end."""
        self.compared, self.equal = time.monotonic(), True

    @property
    def lag(self) -> float:
        """Seconds since then: how old what is lacking here may be."""
        return time.monotonic() - self.compared


class Sync:
    """``serve`` answers peers; ``run`` calls them. ``follows`` may block and is asked before each exchange."""

    def __init__(
        self,
        host: BasicHost,
        feed: Feed,
        *,
        follows: Callable[[], Collection[bytes]],
        refuse: Callable[[Content], bool],
        providers: Providers,
        blame: Blame,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """``busy``: this node gives or fetches a course just now."""
        self._host = host
        self._busy = busy
        self._feed = feed
        self._follows = follows
        self._refuse = refuse
        self._providers = providers
        self._blame = blame
        self.intake = Intake(blame)
        self._nursery: trio.Nursery | None = None
        self._calls = trio.CapacityLimiter(AT_ONCE)
        mine = host.get_id().to_bytes()
        self._meetings: Meetings[ID] = Meetings(lambda peer: mine < peer.to_bytes())
        self._news = News()
        self.announce = self._news.announce
        self.figures = Figures()
        self._compared: set[ID] = set()
        """Connected peers with whom the catalogue was compared to the end since they came."""
        self._waited_for: set[ID] = set()
        """Connected peers who were once waited for in vain: nobody waits for them again."""

    # -- answering ------------------------------------------------------------------------------------------------

    async def serve(self, stream: INetStream) -> None:
        """One exchange that a peer began. Raises PeerFault; ``net.guard`` counts it."""
        exchange = await self._new_exchange()
        peer = stream.muxed_conn.peer_id
        compared, catalogue, patience = False, False, FIRST_SECONDS
        with trio.fail_after(EXCHANGE_SECONDS):
            try:
                while True:
                    turn = await self._receive(stream, patience)
                    patience = framing.TURN_SECONDS
                    if turn is None:
                        if compared:
                            self.figures.compared_now()
                        if catalogue:
                            self._compared.add(peer)
                        break
                    compared = compared or bool(turn.ranges)
                    catalogue = catalogue or CATALOGUE in turn.ranges
                    if turn.ranges:
                        self._meetings.met(peer)
                    answer, goes_on = await self.intake.think(exchange, turn, peer, brought=True)
                    self._tell_on(exchange, peer)
                    if answer is not None:
                        await self._send(stream, answer)
                    if not goes_on:
                        if self.intake.may_fetch(peer):
                            self._meetings.catch_up(peer, trio.current_time())
                        break  # enough of this peer for now; others have news too
            finally:
                self._count(exchange)
        await stream.close()

    # -- calling --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep records the same, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._meet, nursery)
                nursery.start_soon(self._go_round)
                nursery.start_soon(self._tell_news)
                nursery.start_soon(self._seek)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def seek(self, course: bytes) -> int:
        """Exchange that course's feed with some of its providers and a few neighbours; with how many providers it
        worked.
        """
        found = (await self._providers(course))[:PROVIDERS_ASKED]
        providers = {info.peer_id for info in found}
        worked = 0

        async def one(info: PeerInfo) -> None:
            nonlocal worked
            ended = await self._exchange(info, [course])
            worked += ended and info.peer_id in providers

        async with trio.open_nursery() as nursery:
            for info in found:
                nursery.start_soon(one, info)
            others = [peer for peer in self._host.get_connected_peers() if peer not in providers]
            for peer in random.sample(others, min(FAN_OUT, len(others))):
                nursery.start_soon(one, PeerInfo(peer, []))
        return worked

    async def compare_catalogue(self, seconds: float) -> None:
        """Compare the catalogue with some of the peers with whom that hasn't been done since they connected. Returns
        when it has, at once where there are none, and in so many seconds in any case; what isn't done then goes on.
        Who wasn't done in time isn't waited for a second time.
        """
        left = sorted(set(self._host.get_connected_peers()) - self._compared - self._waited_for, key=ID.to_bytes)
        if not left or self._nursery is None:
            return
        done = trio.Event()

        async def compare(peers: list[ID]) -> None:
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(self._exchange, PeerInfo(peer, []), [CATALOGUE])
            done.set()

        asked = random.sample(left, min(COMPARED_AT_ONCE, len(left)))
        self._nursery.start_soon(compare, asked)
        with trio.move_on_after(seconds):
            await done.wait()
        self._waited_for.update(set(asked) - self._compared)

    def look_for(self, course: bytes) -> trio.Event:
        """Seek a course's feed, again and again until somebody had it; the event is set after the first time."""
        done = trio.Event()
        if self._nursery is not None:
            self._nursery.start_soon(self._look_for, course, done)
        return done

    async def _look_for(self, course: bytes, done: trio.Event) -> None:
        for look in range(1, LOOKS + 1):
            worked = await safely(log, "a look for others who follow a course", self.seek, course)
            done.set()
            if worked:
                return
            await trio.sleep(2.0**look)

    async def _meet(self, nursery: trio.Nursery) -> None:
        """Exchange with each peer that connects."""

        async def exchange(peer: ID) -> None:
            await self._exchange(PeerInfo(peer, []), None)

        while True:
            here = set(self._host.get_connected_peers())
            self._compared &= here
            self._waited_for &= here
            for peer in self._meetings.due(here, trio.current_time(), busy=self._busy()):
                nursery.start_soon(exchange, peer)
            await trio.sleep(LOOK_SECONDS)

    async def _go_round(self) -> None:
        """Exchange with a random peer now and then."""
        while True:
            await trio.sleep(PERIOD_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            await safely(log, "forgetting what expired", trio.to_thread.run_sync, self._feed.sweep, time.time())
            peers = list(self._host.get_connected_peers())
            if peers:
                await self._exchange(PeerInfo(random.choice(peers), []), None)  # noqa: S311

    async def _seek(self) -> None:
        """Look for others who follow a course, one course after the other."""
        while True:
            await trio.sleep(FOLLOW_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            await safely(log, "a look for others who follow a course", self._seek_one)

    async def _seek_one(self) -> None:
        courses = [feed for feed in await self._followed() if any(feed)]
        if courses:
            await self.seek(random.choice(courses))  # noqa: S311

    async def _tell_news(self) -> None:
        while True:
            fresh, heard = await self._news.gather()
            peers = list(self._host.get_connected_peers())
            chosen = random.sample(peers, min(FAN_OUT, len(peers)))
            async with trio.open_nursery() as nursery:
                for peer in chosen:
                    news: dict[bytes, list[bytes]] = {}
                    for name, feed in fresh.items():
                        if heard.get(name) != peer:
                            news.setdefault(feed, []).append(name)
                    if news:
                        nursery.start_soon(self._hint, peer, news)

    async def _hint(self, peer: ID, news: dict[bytes, list[bytes]]) -> None:
        await self._exchange(PeerInfo(peer, []), None, news)

    async def _exchange(
        self, info: PeerInfo, feeds: list[bytes] | None, news: dict[bytes, list[bytes]] | None = None
    ) -> bool:
        """One exchange that we begin, about ``feeds`` (None: all), or to tell ``news``; whether it came to its end."""
        ended = await safely(log, f"an exchange with {info.peer_id}", self._call, info, feeds, news)
        if ended is None:
            self._meetings.failed(info.peer_id, trio.current_time())
        return bool(ended)

    async def _call(self, info: PeerInfo, feeds: list[bytes] | None, news: dict[bytes, list[bytes]] | None) -> bool:
        """``_exchange``, but raises what fails at this end."""
        async with self._calls:
            exchange = await self._new_exchange()
            try:
                with trio.fail_after(DIAL_SECONDS):
                    if not self._host.is_peer_connected(info.peer_id):
                        await connect(self._host, info, DIAL_SECONDS)
                    stream = await self._host.new_stream(info.peer_id, [TProtocol(PROTOCOL)])
            except (*framing.OVER, ConnectFailed):
                self._meetings.failed(info.peer_id, trio.current_time())
                return False
            try:
                with trio.fail_after(EXCHANGE_SECONDS):
                    await self._converse(stream, exchange, info.peer_id, feeds, news)
                    await stream.close()
            except PeerFault as fault:
                self._blame(info.peer_id, str(fault), Fault.PROTOCOL)
            except framing.OVER as error:
                log.debug("an exchange with %s ended: %s", info.peer_id, error)
            except trio.Cancelled:
                # Or else the peer waits for a turn that never comes, and holds it against us.
                with trio.CancelScope(shield=True):
                    await framing.reset(stream)
                raise
            except Exception:
                await framing.reset(stream)
                raise
            else:
                self._meetings.worked(info.peer_id)
                if news is None:
                    self.figures.compared_now()
                    if feeds is None or CATALOGUE in feeds:
                        self._compared.add(info.peer_id)
                return True
            finally:
                self._count(exchange)
            await framing.reset(stream)
            self._meetings.failed(info.peer_id, trio.current_time())
            return False

    async def _converse(
        self,
        stream: INetStream,
        exchange: Exchange,
        peer: ID,
        feeds: list[bytes] | None,
        news: dict[bytes, list[bytes]] | None,
    ) -> None:
        if news is not None:
            turn = exchange.hint(news)
        else:
            chosen = feeds if feeds is not None else list(await self._followed())
            random.shuffle(chosen)  # who follows more than fit gets to all of them in time
            turn = await self.intake.begin(exchange, chosen)
        while True:
            await self._send(stream, turn)
            answer = await self._receive(stream)
            if answer is None:
                return
            said, goes_on = await self.intake.think(exchange, answer, peer, brought=False)
            self._tell_on(exchange, peer)
            if said is None or not goes_on or (said.empty and not answer.more):
                return
            turn = said

    # -- both -----------------------------------------------------------------------------------------------------

    async def _followed(self) -> Collection[bytes]:
        return await trio.to_thread.run_sync(self._follows)

    async def _new_exchange(self) -> Exchange:
        return Exchange(self._feed, await self._followed(), time.time, self._refuse, self.intake.admit)

    def _tell_on(self, exchange: Exchange, peer: ID) -> None:
        """Pass on what this turn brought, and count it."""
        new, exchange.counts.new = exchange.counts.new, []
        exchange.counts.fresh += len(new)
        self.figures.received += len(new)
        for envelope in new:
            self.announce(envelope, peer)

    def _count(self, exchange: Exchange) -> None:
        self.figures.exchanges += 1
        self.figures.sent += exchange.counts.sent
        self.intake.dropped.update(exchange.counts.dropped)

    async def _send(self, stream: INetStream, turn: Turn) -> None:
        raw = encode(turn)
        self.figures.bytes_out += len(raw)
        await framing.send(stream, raw)

    async def _receive(self, stream: INetStream, patience: float = framing.TURN_SECONDS) -> Turn | None:
        """The peer's next turn; None when it has closed. Raises PeerFault, TooSlowError."""
        packed = await framing.receive(stream, patience)
        if packed is None:
            return None
        self.figures.bytes_in += framing.HEAD + len(packed)
        return decode(packed)
