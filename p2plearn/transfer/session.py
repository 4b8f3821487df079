"""One peer's part in a fetch: dial, introduce, check what it says, ask for chunks, hand them on.

In: a peer, and the fetch that it takes part in. Out: manifest, index and chunks delivered to the fetch, in the peer's
own time; whatever the peer does, the session ends without an error of its own, and the fetch's tally says how.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

import trio

from p2plearn.course.index import Index
from p2plearn.errors import PeerFault, first_error
from p2plearn.transfer import protocol
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.protocol import (
    Busy,
    Cancel,
    Chunk,
    Have,
    HaveMore,
    IndexPart,
    ManifestIs,
    Missing,
    NotHere,
    Open,
    Want,
    WantIndex,
)
from p2plearn.transfer.scheduler import Arrival, Scheduler

if TYPE_CHECKING:
    from p2plearn.transfer.fetch import Fetch

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 15.0
"""For a manifest, a bitmap or an index part to come."""


class Unreachable(Exception):
    """A peer can't be dialled, or doesn't speak the protocol."""


class Peer(Protocol):
    """A peer that can be dialled; equal and hashable by its identity."""

    @property
    def name(self) -> str:
        """Its peer id in text."""
        ...

    @property
    def guess(self) -> bool:
        """Nobody said that it has the course; it is asked on the off chance."""
        ...

    async def open(self) -> Channel:
        """Dial and open a chunk stream; raises Unreachable."""
        ...

    def blame(self, fault: str, *, poisoned: bool = False) -> None:
        """Count a fault against it."""
        ...


class Session:
    """One peer's part in a fetch, from dialling it to its last chunk."""

    def __init__(self, fetch: Fetch, peer: Peer) -> None:
        self._fetch = fetch
        self._peer = peer
        self._channel: Channel | None = None
        self._inbox: deque[protocol.Message] = deque()
        self._news: list[protocol.Message] = []
        self._cancels: list[int] = []
        self._kicked = trio.lowlevel.ParkingLot()
        self._was_kicked = False
        self._scope = trio.CancelScope()
        self._noted = 0
        self._at_work = False

    @property
    def at_work(self) -> bool:
        """Past dialling and introductions, or waiting for its turn."""
        return self._at_work

    def _set_to_work(self) -> None:
        self._at_work = True
        self._fetch.session_news()

    async def run(self) -> None:
        """Everything with this peer; ends without raising whatever the peer does."""
        name, tally = self._peer.name, self._fetch.tally
        try:
            with self._scope:
                while (pause := await self._once()) is not None:
                    self._set_to_work()
                    await trio.sleep(pause)
        except* Unreachable as group:
            if not self._peer.guess:
                tally.unreachable[name] = str(first_error(group))
        except* PeerFault as group:
            tally.faulty[name] = str(first_error(group))
            self._peer.blame(str(first_error(group)))
            logger.debug("peer %s: %s", name, first_error(group))
        except* StreamOver as group:
            logger.debug("peer %s: stream over: %s", name, first_error(group))
        finally:
            self._set_to_work()
            self._fetch.session_over(name)

    async def _once(self) -> float | None:
        """One conversation; how long to wait before the next, None when there is no next."""
        channel = self._channel = await self._peer.open()
        self._fetch.tally.unreachable.pop(self._peer.name, None)
        try:
            return await self._converse(channel)
        finally:
            self._channel = None
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await channel.reset()

    async def _converse(self, channel: Channel) -> float | None:
        fetch = self._fetch
        await channel.send(Open(fetch.course, want_manifest=fetch.signed is None))
        have: Have | None = None
        while have is None:
            match await self._answer(channel):
                case ManifestIs() as message:
                    fetch.manifest_came(message)
                case Have() as message:
                    have = message
                    fetch.tally.found.add(self._peer.name)
                case NotHere():
                    if not self._peer.guess:
                        fetch.tally.not_here.add(self._peer.name)
                    return None
                case Busy(retry_after):
                    return min(max(retry_after, 0.5), 30.0)
                case other:
                    raise PeerFault(f"chunk protocol: {type(other).__name__} before the bitmap")
        if fetch.signed is None:
            raise PeerFault("chunk protocol: no manifest, though it was asked for")
        if have.slots != fetch.signed.manifest.chunks:
            raise PeerFault(f"chunk protocol: a bitmap of {have.slots} slots for {fetch.signed.manifest.chunks}")
        await fetch.need_index(lambda: self._fetch_index(channel))
        self._set_to_work()
        await fetch.begun.wait()
        await self._fetch_chunks(channel, have)
        return None

    async def _answer(self, channel: Channel) -> protocol.Message:
        if not self._inbox:
            with trio.move_on_after(ANSWER_SECONDS) as scope:
                self._inbox.extend(await channel.receive())
            if scope.cancelled_caught:
                raise PeerFault(f"chunk protocol: no answer within {ANSWER_SECONDS:.0f} s")
        return self._inbox.popleft()

    async def _fetch_index(self, channel: Channel) -> bytes:
        if self._fetch.signed is None:
            raise AssertionError("the manifest comes first")
        parts = self._fetch.signed.manifest.index
        await channel.send(WantIndex(0, len(parts)))
        got: list[bytes] = []
        while len(got) < len(parts):
            match await self._answer(channel):
                case IndexPart(part, raw):
                    wanted = parts[len(got)]
                    if part != len(got) or len(raw) != wanted.length or sha256(raw).digest() != wanted.digest:
                        raise PeerFault("an index part is not what the manifest says")
                    got.append(raw)
                case HaveMore() as news:
                    self._news.append(news)
                case other:
                    raise PeerFault(f"chunk protocol: {type(other).__name__} instead of the index")
        return b"".join(got)

    async def _fetch_chunks(self, channel: Channel, have: Have) -> None:
        fetch, name = self._fetch, self._peer.name
        scheduler = fetch.scheduler
        if scheduler is None or fetch.index is None:
            raise AssertionError("begun")
        scheduler.joined(name, have.bitmap, trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, channel, scheduler)
            waiting: Sequence[protocol.Message] = (*self._news, *self._inbox)
            self._inbox.clear()
            while True:
                for message in waiting:
                    self._hear(message, scheduler, fetch.index)
                await fetch.room()
                self.kick()
                waiting = await channel.receive()

    def _hear(self, message: protocol.Message, scheduler: Scheduler[str], index: Index) -> None:
        name = self._peer.name
        match message:
            case Chunk(slot, _, length):
                if slot >= len(index) or length != index.length(slot):
                    raise PeerFault(f"chunk protocol: slot {slot} with {length} bytes")
                match scheduler.arrived(name, slot, trio.current_time()):
                    case Arrival.CHECK:
                        self._fetch.deliver(name, message)
                    case Arrival.UNASKED:
                        raise PeerFault(f"chunk protocol: slot {slot} was not asked for")
            case HaveMore(ranges):
                scheduler.has_more(name, ranges)
            case Missing(ranges):
                scheduler.missing(name, ranges)
                self._fetch.kick_all()
            case IndexPart():
                pass  # asked for, and meanwhile brought by another
            case other:
                raise PeerFault(f"chunk protocol: {type(other).__name__} among chunks")

    async def _ask(self, channel: Channel, scheduler: Scheduler[str]) -> None:
        """Tell the peer what is wanted, and what no longer is, whenever that changes."""
        while True:
            pieces: list[bytes] = []
            if self._cancels:
                pieces.extend(protocol.messages_of(Cancel, self._cancels))
                self._cancels.clear()
            pieces.extend(protocol.messages_of(Want, scheduler.next_wants(self._peer.name, trio.current_time())))
            if pieces:
                await channel.send_pieces(pieces)
                continue
            while not self._was_kicked:
                await self._kicked.park()
            self._was_kicked = False

    # -- told by the fetch ---------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Think again about what to ask for."""
        self._was_kicked = True
        self._kicked.unpark_all()

    def cancel(self, slot: int) -> None:
        """Another peer brought it first."""
        self._cancels.append(slot)
        self.kick()

    def lied(self, slot: int, *, give_up: bool) -> None:
        """A chunk of this peer was bad."""
        fault = f"slot {slot} is not what its hash says"
        self._peer.blame(fault, poisoned=True)
        if give_up:
            self._fetch.tally.faulty[self._peer.name] = fault
            self._scope.cancel()

    def stop(self) -> None:
        """The peer was silent for too long."""
        self._scope.cancel()

    def note_bytes(self, scheduler: Scheduler[str], now: float) -> None:
        """Tell the scheduler whether bytes came since the last call, if only part of a chunk."""
        if self._channel is not None and self._channel.heard != self._noted and self._peer.name in scheduler.peers:
            self._noted = self._channel.heard
            scheduler.heard(self._peer.name, now)
