"""One peer's part in a fetch: dial, introduce, check what it says, ask for chunks, hand them on.

In: a peer, and the fetch that it takes part in. Out: manifest, index and chunks delivered to the fetch, in the peer's
own time; whatever the peer does, the session ends without an error of its own, and the fetch's tally says how.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from p2plearn.course.index import Index
from p2plearn.errors import PeerFault, first_error
from p2plearn.transfer import protocol
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.courtesy import Line
from p2plearn.transfer.owing import Owing
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

M = TypeVar("M")

ANSWER_SECONDS: Final = 15.0
"""For a manifest, a bitmap or an index part to come, whatever else comes meanwhile; longer while ``ANSWER_BYTES`` come
in so much time: a part of 256 KiB takes minutes on a line of 2 KiB a second, and its sender is not to blame."""

ANSWER_BYTES: Final = 8 * 1024

MAX_NEWS: Final = 256
"""HAVE_MORE messages kept until the index is there: two minutes of them from a peer that fetches itself."""


class Unreachable(Exception):
    """A peer can't be dialled, or doesn't speak the protocol.

    ``refused``: nothing listens where it was; ``moved``: it may be elsewhere by now, or answer in a moment.
    """

    def __init__(self, words: str, *, refused: bool = False, moved: bool = False) -> None:
        super().__init__(words)
        self.refused = refused
        self.moved = moved


class Declined(Exception):
    """Our own rules forbid to fetch from this peer; the message says which."""


class _PutOff(Exception):
    """The peer is busy from now on."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Peer(Protocol):
    """A peer that can be dialled; equal and hashable by its identity."""

    @property
    def name(self) -> str:
        """Its peer id in text."""

    @property
    def guess(self) -> bool:
        """Nobody said that it has the course; it is asked on the off chance."""

    @property
    def named(self) -> bool:
        """The person who wants the course says to ask it first, however it went before."""

    async def open(self) -> Channel:
        """Dial and open a chunk stream; raises Unreachable."""

    def blame(self, fault: str, *, poisoned: bool = False) -> None:
        """Count a fault against it."""


class Session:
    """One peer's part in a fetch, from dialling it to its last chunk."""

    def __init__(self, fetch: Fetch, peer: Peer) -> None:
        self._fetch = fetch
        self._peer = peer
        self._channel: Channel | None = None
        self._inbox: deque[protocol.Message] = deque()
        self._cancels: list[int] = []
        self._kicked = trio.lowlevel.ParkingLot()
        self._was_kicked = False
        self._scope = trio.CancelScope()
        self._noted = self._brought = 0  # bytes heard, and those of chunks, that the scheduler knows of
        self._at_work = False
        self._index_parts = 0  # asked for and not come
        self._held_up = False
        self._met = False  # it answered, or can't be reached, which may change
        self._asked = False
        self._given_before = 0
        self._owing = Owing()  # an answer to OPEN, or a part of the index
        self._index_from: int | None = None  # bytes heard when the index was asked for
        self._answered = math.inf  # seconds that the answer took
        self.resting = False
        """Told to come back later; takes up no place meanwhile."""

    @property
    def at_work(self) -> bool:
        """Past dialling and introductions, or waiting for its turn."""
        return self._at_work

    def waited(self, now: float) -> float:
        """Seconds for which the peer has owed an answer to our first words, or the index, and brought next to nothing
        of it; 0 when it owes neither.
        """
        return self._owing.waited(now, None if self._channel is None else self._channel.heard)

    @property
    def heard(self) -> int:
        """Bytes that came in the conversation that goes on."""
        return 0 if self._channel is None else self._channel.heard

    @property
    def index_bytes(self) -> int:
        """Bytes that came since it was asked for the index; 0 when it wasn't."""
        return 0 if self._index_from is None else max(self.heard - self._index_from, 0)

    def _set_to_work(self) -> None:
        self._at_work = True
        self._fetch.participants.news()

    async def run(self) -> None:
        """Everything with this peer; ends without raising whatever the peer does."""
        name, tally = self._peer.name, self._fetch.tally
        try:
            with self._scope:
                while (pause := await self._once()) is not None:
                    self.resting = True
                    self._set_to_work()
                    await trio.sleep(pause)
                    self.resting = False
        except* Unreachable as group:
            if not self._peer.guess:
                error = first_error(group)
                tally.unreachable[name] = str(error)
                if isinstance(error, Unreachable) and error.moved:
                    tally.moved.add(name)
            self._met = True
        except* Declined as group:
            tally.declined[name] = str(first_error(group))
            self._met = True
        except* PeerFault as group:
            tally.faulty[name] = str(first_error(group))
            self._peer.blame(str(first_error(group)))
            logger.debug("peer %s: %s", name, first_error(group))
        except* StreamOver as group:
            logger.debug("peer %s: stream over: %s", name, first_error(group))
        finally:
            self._set_to_work()
            gave = self._fetch.participants.given[name] > self._given_before
            self._fetch.participants.over(name, fruitless=not self._met or (self._asked and not gave))

    async def _once(self) -> float | None:
        """One conversation; how long to wait before the next, None when there is no next."""
        courtesy = self._fetch.courtesy
        if courtesy is not None and courtesy.paused:
            self._set_to_work()
            await courtesy.not_paused()
        channel = self._channel = await self._peer.open()
        self._inbox.clear()
        self._fetch.tally.unreachable.pop(self._peer.name, None)
        self._fetch.tally.moved.discard(self._peer.name)
        pause: float | None = None
        try:
            if courtesy is None:
                pause = await self._converse(channel)
            else:
                with courtesy.line(channel) as line:
                    self._check(line)
                    pause = await self._converse(channel)
        except* _PutOff as group:
            pause = first_error(group).seconds
            self._fetch.participants.put_off(self._peer.name)
        finally:
            self._owing.over(trio.current_time(), channel.heard)
            self._channel, self._index_from = None, None
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await channel.reset()
        return pause

    async def _converse(self, channel: Channel) -> float | None:
        fetch = self._fetch
        want_manifest = fetch.signed is None
        self._owing.asked(trio.current_time(), channel.heard)
        await channel.send(Open(fetch.course, want_manifest))
        if want_manifest:
            answer = await self._answer(channel, ManifestIs)
            if not isinstance(answer, ManifestIs):
                return self._turned_away(answer)
            fetch.manifest_came(answer)
        have = await self._answer(channel, Have)
        self._owing.answered()
        if not isinstance(have, Have):
            return self._turned_away(have)
        fetch.tally.found.add(self._peer.name)
        fetch.tally.busy.discard(self._peer.name)
        if fetch.signed is None:
            raise AssertionError("the manifest came")
        if have.slots != fetch.signed.manifest.chunks:
            raise PeerFault(f"chunk protocol: a bitmap of {have.slots} slots for {fetch.signed.manifest.chunks}")
        self._set_to_work()
        news: list[HaveMore] = []
        await fetch.need_index(lambda: self._fetch_index(channel, news))
        await fetch.begun.wait()
        await self._fetch_chunks(channel, have, news)
        return None

    def _turned_away(self, answer: protocol.Message) -> float | None:
        """The peer won't give the course: how long to wait, None for ever."""
        self._met = True
        self._owing.answered()
        if isinstance(answer, Busy):
            if not self._peer.guess:  # it may have the course, and then has it still later
                self._fetch.participants.put_off(self._peer.name)
            return _patience(answer)
        if not self._peer.guess:
            self._fetch.tally.not_here.add(self._peer.name)
        return None

    async def _answer(self, channel: Channel, expected: type[ManifestIs | Have]) -> protocol.Message:
        """The next message, which must be ``expected`` or a refusal."""
        message = await self._in_time(channel, lambda: self._next(channel), "answer")
        if math.isinf(self._answered):
            self._answered = trio.current_time() - self._owing.asked_at
            self._fetch.participants.places.answered(self._answered)
        if not isinstance(message, (expected, NotHere, Busy)):
            raise PeerFault(f"chunk protocol: {type(message).__name__} instead of {expected.__name__}")
        return message

    async def _in_time(self, channel: Channel, wait: Callable[[], Awaitable[M]], what: str) -> M:
        """What ``wait`` brings, as long as it comes at all (``ANSWER_BYTES``); raises PeerFault."""
        while True:
            heard = channel.heard
            with trio.move_on_after(ANSWER_SECONDS) as scope:
                message = await wait()
            if not scope.cancelled_caught:
                return message
            if channel.heard - heard < ANSWER_BYTES:
                raise PeerFault(f"chunk protocol: no {what} within {ANSWER_SECONDS:.0f} s")

    async def _next(self, channel: Channel) -> protocol.Message:
        if not self._inbox:
            self._inbox.extend(await channel.receive())
        return self._inbox.popleft()

    async def _fetch_index(self, channel: Channel, news: list[HaveMore]) -> bytes:
        if self._fetch.signed is None:
            raise AssertionError("the manifest comes first")
        parts = self._fetch.signed.manifest.index
        self._index_parts = len(parts)
        self._index_from = channel.heard
        self._owing.asked(trio.current_time(), channel.heard)
        await channel.send(WantIndex(0, len(parts)))
        got: list[bytes] = []
        while len(got) < len(parts):
            message = await self._in_time(channel, lambda: self._index_part(channel, news), "index part")
            wanted = parts[len(got)]
            raw = message.raw
            if message.part != len(got) or len(raw) != wanted.length or sha256(raw).digest() != wanted.digest:
                raise PeerFault("an index part is not what the manifest says")
            got.append(raw)
            if channel.rules is not None:
                channel.rules.asked(len(raw))
        return b"".join(got)

    async def _index_part(self, channel: Channel, news: list[HaveMore]) -> IndexPart:
        while True:
            match await self._next(channel):
                case IndexPart() as message:
                    self._index_parts -= 1
                    self._owing.answered()
                    return message
                case HaveMore() as message:
                    if len(news) == MAX_NEWS:
                        raise PeerFault("chunk protocol: more news than answers")
                    news.append(message)
                case other:
                    raise PeerFault(f"chunk protocol: {type(other).__name__} instead of the index")

    async def _fetch_chunks(self, channel: Channel, have: Have, news: Sequence[HaveMore]) -> None:
        fetch, name = self._fetch, self._peer.name
        scheduler = fetch.scheduler
        if scheduler is None or fetch.index is None:
            raise AssertionError("begun")
        scheduler.joined(name, have.bitmap, trio.current_time(), self._answered)
        self._noted, self._brought = channel.heard, channel.brought
        self._met, self._given_before = True, fetch.participants.given[name]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, channel, scheduler)
            waiting: Sequence[protocol.Message] = (*news, *self._inbox)
            self._inbox.clear()
            while True:
                for message in waiting:
                    self._hear(message, scheduler, fetch.index)
                self._held_up = True
                await fetch.room()
                self._held_up = False
                self.kick()
                waiting = await channel.receive()

    def _hear(self, message: protocol.Message, scheduler: Scheduler[str], index: Index) -> None:
        name = self._peer.name
        match message:
            case Chunk(slot, _, length):
                self._owing.answered()
                if self._channel is not None:
                    self._brought = self._channel.brought  # what is whole is told by itself
                if slot >= len(index) or length != index.length(slot):
                    raise PeerFault(f"chunk protocol: slot {slot} with {length} bytes")
                match scheduler.arrived(name, slot, trio.current_time()):
                    case Arrival.CHECK:
                        self._fetch.deliver(name, message)
                    case Arrival.UNASKED:
                        raise PeerFault(f"chunk protocol: slot {slot} was not asked for")
            case HaveMore(ranges):
                if scheduler.has_more(name, ranges):
                    self._fetch.participants.somebody_grew()
            case Missing(ranges):
                scheduler.missing(name, ranges)
                self._fetch.participants.kick_all()
            case IndexPart() if self._index_parts:
                self._index_parts -= 1  # asked for, and meanwhile brought by another
                self._owing.answered()
            case Busy() as busy:
                raise _PutOff(_patience(busy))
            case other:
                raise PeerFault(f"chunk protocol: {type(other).__name__} among chunks")

    async def _ask(self, channel: Channel, scheduler: Scheduler[str]) -> None:
        """Tell the peer what is wanted, and what no longer is, whenever that changes."""
        while True:
            pieces: list[bytes] = []
            if self._cancels:
                pieces.extend(protocol.messages_of(Cancel, self._cancels))
                self._cancels.clear()
            rules, wait = channel.rules, math.inf
            if rules is None:
                wants = scheduler.next_wants(self._peer.name, trio.current_time())
            else:
                wants, wait = self._next_wants(rules, scheduler)
            pieces.extend(protocol.messages_of(Want, wants))
            self._asked = self._asked or bool(wants)
            if pieces:
                await channel.send_pieces(pieces)
                continue
            with contextlib.nullcontext() if rules is None else trio.move_on_after(wait):
                while not self._was_kicked:
                    await self._kicked.park()
            self._was_kicked = False

    def _next_wants(self, rules: Line, scheduler: Scheduler[str]) -> tuple[list[int], float]:
        """What to ask for within our own rules, and if nothing, after how many seconds to look again."""
        name, now = self._peer.name, trio.current_time()
        if scheduler.idle_for(name, now):  # not before all that was asked for has come: it is paid for
            rules.nothing_owed()
            self._check(rules)
        room, wait = rules.may_ask()
        if not room:
            return [], wait
        wants = scheduler.next_wants(name, now, None if math.isinf(room) else room)
        if self._fetch.index is not None:
            rules.asked(sum(map(self._fetch.index.length, wants)))
        return wants, math.inf

    def _check(self, rules: Line) -> None:
        """Raises Declined when nothing may be fetched from this peer."""
        refusal = rules.why_not_fetch(for_others=self._fetch.for_others)
        if refusal is not None:
            raise Declined(refusal.words)

    # -- told by the fetch ---------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Think again about what to ask for."""
        self._was_kicked = True
        self._kicked.unpark_all()

    def cancel(self, slot: int) -> None:
        """Another peer brought it first."""
        self._cancels.append(slot)
        self.kick()

    def stop(self) -> None:
        """The peer was silent for too long, lied too often, or makes room for another."""
        self._scope.cancel()

    def note_bytes(self, scheduler: Scheduler[str], now: float) -> None:
        """Tell the scheduler whether bytes came since the last call, if only part of a chunk.

        While the disk holds us up, nothing can come, which is not the peer's fault.
        """
        if self._channel is None or self._peer.name not in scheduler.peers:
            return
        if self._held_up:
            scheduler.held_up(self._peer.name, now)
        elif self._channel.heard != self._noted:
            scheduler.heard(self._peer.name, now, self._channel.brought - self._brought)
            self._noted, self._brought = self._channel.heard, self._channel.brought


def _patience(busy: Busy) -> float:
    return min(max(busy.retry_after, 0.5), 30.0)
