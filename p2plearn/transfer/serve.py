"""The serving end of ``/p2plearn/chunk/1``: a peer asks for a course, this node gives what it has of it.

In: a stream that a peer opened, the library of what is kept here. Out: manifest, index parts, chunks, each read once
from the store and sent as it was read.

What must hold: a peer costs a bounded amount of memory (two batches), of threads and of time, whatever it asks and
however slowly it reads; nothing is sent that the store didn't find true to its hash; a peer that breaks the protocol
loses its stream (``net.guard`` counts it).
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import trio

from p2plearn.errors import PeerFault, first_error
from p2plearn.transfer import protocol
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.courtesy import Courtesy, Line
from p2plearn.transfer.manners import Refusal
from p2plearn.transfer.protocol import (
    Busy,
    Cancel,
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

T = TypeVar("T")

BATCH_BYTES: Final = 1 << 20
"""Read from the store and sent at once, about; two of them a stream are held."""

MAX_QUEUED: Final = 4 * 4096
"""Slots that a peer may have asked for and not been sent; ours ask for 4,096."""

OPEN_SECONDS: Final = 10.0
"""For the first message, all of 38 bytes, to come."""

IDLE_SECONDS: Final = 120.0
"""A conversation in which nothing is wanted is closed after this."""

STALL_SECONDS: Final = 60.0
"""A peer that wants chunks and reads nothing at all for so long is cut; how slowly it reads is its own affair."""

GIVE_WAY_SECONDS: Final = 5.0
"""When every place is taken, the conversation in which nothing has moved for longest gives way, if for so long. Else a
few peers that ask and don't read, or sit there, would keep everybody else out until ``STALL_SECONDS`` are over."""

NEWS_SECONDS: Final = 0.5
"""How often a peer is told what this node has got meanwhile, when it is fetching the course itself ..."""

PROMPT_SECONDS: Final = 0.1
PROMPT_BYTES: Final = 2 << 20
"""... and how soon once it is so much: what others don't know of they ask the provider for."""


class Shelf(Protocol):
    """What is here of one course; the methods may block and are called in threads."""

    @property
    def have(self) -> bytes:
        """Bitmap of the slots that can be read."""
        ...

    @property
    def complete(self) -> bool:
        """Every slot can be read."""
        ...

    @property
    def slots(self) -> int:
        """Number of slots of the course."""
        ...

    def length(self, slot: int) -> int:
        """Bytes of a slot's chunk."""
        ...

    def read_many(self, slots: Sequence[int]) -> list[bytes | memoryview | None]:
        """The chunks, true to their hashes; None for each that isn't here."""
        ...

    def signed_manifest(self) -> tuple[bytes, bytes]:
        """The manifest's canonical bytes and its signature."""
        ...

    def index_part(self, part: int) -> bytes | None:
        """A part of the index, None beyond its last."""
        ...


@dataclass(slots=True)
class Upload:
    """Counts of what was given, for ``node status``."""

    streams: int = 0
    bytes: int = 0
    chunks: int = 0


class _Place:
    """One conversation, and since when nothing has moved in it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._began = trio.current_time()
        self.scope = trio.CancelScope()

    @property
    def still_since(self) -> float:
        """When something last moved."""
        # Under limits of our own it is we who keep it waiting.
        now = self._channel.rules is not None
        return trio.current_time() if now else max(self._began, self._channel.sent_at)


def _nobody(_course: bytes) -> None:
    """Who asks for a course concerns nobody."""


class ChunkService:
    """Answers every peer that opens a chunk stream. ``shelf`` finds a course here, or None."""

    def __init__(
        self,
        shelf: Callable[[bytes], Awaitable[Shelf | None]],
        *,
        max_streams: int,
        threads: int = 2,
        courtesy: Courtesy | None = None,
    ) -> None:
        self._shelf = shelf
        self._max_streams = max_streams
        self._threads = trio.CapacityLimiter(threads)
        self._courtesy = courtesy
        self._places: set[_Place] = set()
        self.upload = Upload()

    async def serve(self, channel: Channel, called: Callable[[bytes], None] = _nobody) -> None:
        """One conversation, to its end; ``called`` is told the course that is asked for.

        Raises PeerFault for a peer that breaks the protocol.
        """
        if len(self._places) >= self._max_streams and not self._made_room():
            await channel.send(Busy(2.0))
            await channel.close()
            return
        if self._courtesy is None:
            await self._serve(channel, None, called)
        else:
            with self._courtesy.line(channel) as line:
                await self._serve(channel, line, called)

    def _made_room(self) -> bool:
        """Whether somebody had to give way."""
        stillest = min(self._places, key=lambda place: place.still_since, default=None)
        if stillest is None or trio.current_time() - stillest.still_since < GIVE_WAY_SECONDS:
            return False
        self._places.discard(stillest)
        stillest.scope.cancel()
        return True

    async def _serve(self, channel: Channel, line: Line | None, called: Callable[[bytes], None]) -> None:
        self.upload.streams += 1
        fault: PeerFault | None = None
        place = _Place(channel)
        self._places.add(place)
        try:
            with place.scope:
                await self._converse(channel, line, called)
        except* StreamOver:
            pass  # the peer has what it came for, or lost its line
        except* _NoMore as group:
            with contextlib.suppress(StreamOver):
                await channel.send(Busy(first_error(group).refusal.seconds))
        except* PeerFault as group:
            fault = first_error(group)
        finally:
            self._places.discard(place)
            self.upload.streams -= 1
        if fault is not None:
            raise fault
        if place.scope.cancelled_caught:
            await channel.reset()
        else:
            await channel.close()

    async def _converse(self, channel: Channel, line: Line | None, called: Callable[[bytes], None]) -> None:
        with trio.move_on_after(OPEN_SECONDS) as silent:
            first, *more = await channel.receive()
        if silent.cancelled_caught:
            raise PeerFault("chunk protocol: opened a stream and said nothing")
        if not isinstance(first, Open):
            raise PeerFault("chunk protocol: a conversation begins with OPEN")
        called(first.course)
        shelf = await self._shelf(first.course)
        if shelf is None:
            await channel.send(NotHere())
            return
        if line is not None:
            _check(line)
        if first.want_manifest:
            raw, signature = shelf.signed_manifest()
            await channel.send(ManifestIs(signature, raw))
        await _Upload(self, channel, shelf).run(more)


async def _send_politely(rules: Line, pieces: Sequence[bytes | memoryview]) -> None:
    _check(rules)
    await rules.send(pieces)


def _check(rules: Line) -> None:
    """Raises _NoMore when this peer is not to be served now."""
    refusal = rules.why_not_serve()
    if refusal is not None:
        raise _NoMore(refusal)


class _NoMore(Exception):
    """Manners forbid to go on just now."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.words)
        self.refusal = refusal


class _Upload:
    """The part of a conversation in which chunks are asked for and sent."""

    def __init__(self, service: ChunkService, channel: Channel, shelf: Shelf) -> None:
        self._service = service
        self._channel = channel
        self._shelf = shelf
        self._queue: dict[int, None] = {}  # slots in the order in which they are sent, each once
        self._under_way = 0  # batches being read or sent
        self._sending = False
        self._index_wanted: deque[int] = deque()
        self._work = trio.Event()
        self._told = shelf.have
        self._ready, self._batches = trio.open_memory_channel[list[bytes | memoryview]](0)

    async def run(self, first: Sequence[protocol.Message]) -> None:
        await self._channel.send(Have(self._shelf.slots, self._told))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_store)
            nursery.start_soon(self._send)
            nursery.start_soon(self._watch)
            if not self._shelf.complete:
                nursery.start_soon(self._tell_news)
            try:
                for message in first:
                    self._hear(message)
                while True:
                    with trio.move_on_after(IDLE_SECONDS) as idle:
                        for message in await self._channel.receive():
                            self._hear(message)
                    if idle.cancelled_caught and not (self._queue or self._index_wanted or self._under_way):
                        break
            except StreamOver:
                pass
            nursery.cancel_scope.cancel()

    def _hear(self, message: protocol.Message) -> None:
        match message:
            case Want(ranges):
                slots = self._shelf.slots
                for start, count in ranges:
                    if start + count > slots:
                        raise PeerFault(f"chunk protocol: slot {start + count - 1} of a course with {slots}")
                    if len(self._queue) + count > MAX_QUEUED:
                        raise PeerFault("chunk protocol: more wanted at once than makes sense")
                    self._queue.update(dict.fromkeys(range(start, start + count)))
            case Cancel(ranges):
                if sum(count for _, count in ranges) > MAX_QUEUED:
                    raise PeerFault("chunk protocol: more taken back than can have been wanted")
                for start, count in ranges:
                    for slot in range(start, start + count):
                        self._queue.pop(slot, None)
            case WantIndex(start, count):
                if count > 256 or len(self._index_wanted) > 256:
                    raise PeerFault("chunk protocol: more index than there can be")
                self._index_wanted.extend(range(start, start + count))
            case _:
                raise PeerFault("chunk protocol: OPEN comes once")
        self._work.set()

    async def _read_store(self) -> None:
        """Turn what is wanted into batches ready to be sent, one ahead of the sender."""
        while True:
            self._under_way += 1  # before the queues get shorter: idle means that nothing is owed
            if self._index_wanted:
                part = self._index_wanted.popleft()
                raw = await self._in_thread(lambda part=part: self._shelf.index_part(part))  # type: ignore[misc]
                if raw is None:
                    raise PeerFault(f"chunk protocol: index part {part} doesn't exist")
                await self._ready.send([protocol.encode(IndexPart(part, raw))])
            elif slots := self._next_slots():
                chunks = await self._in_thread(lambda slots=slots: self._shelf.read_many(slots))  # type: ignore[misc]
                await self._ready.send(self._pieces(slots, chunks))
            else:
                self._under_way -= 1
                self._work = trio.Event()
                await self._work.wait()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._service._threads)

    def _next_slots(self) -> list[int]:
        slots: list[int] = []
        size = 0
        # Under a rule one at a time: a batch is sent whole, and a pause should not wait for a slow one.
        enough = BATCH_BYTES if self._channel.rules is None else 1
        for slot in self._queue:
            slots.append(slot)
            size += self._shelf.length(slot)
            if size >= enough:
                break
        for slot in slots:
            del self._queue[slot]
        return slots

    def _pieces(self, slots: Sequence[int], chunks: Sequence[bytes | memoryview | None]) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = []
        missing: list[int] = []
        for slot, chunk in zip(slots, chunks, strict=True):
            if chunk is None:
                missing.append(slot)
                continue
            pieces.append(protocol.chunk_header(slot, len(chunk)))
            pieces.append(chunk)
            self._service.upload.chunks += 1
            self._service.upload.bytes += len(chunk)
        pieces.extend(protocol.messages_of(Missing, missing))
        return pieces

    async def _send(self) -> None:
        async for pieces in self._batches:
            self._sending = True
            rules = self._channel.rules
            if rules is None:
                await self._channel.send_pieces(pieces)
            else:
                await _send_politely(rules, pieces)
            self._sending = False
            self._under_way -= 1

    async def _watch(self) -> None:
        """Cut a peer that asks, but doesn't read."""
        while True:
            sent, sending = self._channel.sent, self._sending
            await trio.sleep(STALL_SECONDS)
            if sending and self._sending and self._channel.sent == sent:
                raise PeerFault("chunk protocol: asks, but doesn't read")

    async def _tell_news(self) -> None:
        """This node is still fetching the course: pass on what it gets."""
        waited = 0.0
        while not self._shelf.complete or self._told != self._shelf.have:
            pause = min(PROMPT_SECONDS, NEWS_SECONDS)
            await trio.sleep(pause)
            waited += pause
            now = self._shelf.have
            fresh = _fresh(self._told, now)
            if not fresh:
                self._told = now  # what was lost is news again when it comes back
                continue
            if waited < NEWS_SECONDS and sum(map(self._shelf.length, fresh)) < PROMPT_BYTES:
                continue
            self._told, waited = now, 0.0
            for message in protocol.messages_of(HaveMore, fresh):
                await self._channel.send_pieces([message])


def _fresh(old: bytes, new: bytes) -> list[int]:
    """Slots whose bit is in ``new`` and not in ``old``; bitmaps that are nearly equal cost next to nothing."""
    gained = (int.from_bytes(new, "big") & ~int.from_bytes(old, "big")).to_bytes(len(new), "big")
    return [
        slot
        for byte in re.finditer(rb"[^\0]", gained)
        for slot in range(byte.start() * 8, byte.start() * 8 + 8)
        if gained[byte.start()] & (0x80 >> (slot & 7))
    ]
