"""A real fetch from modelled providers over modelled lines, in simulated time.

The fetch, its sessions and what they decide are the real ones; a stream is replaced by bytes that take as long as the
line needs. All that comes in shares one line, a packet from each provider in turn; besides, each provider has a pace
of its own.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio
from courses import Course, MemoryLanding, bitmap
from trio.testing import MockClock

from p2plearn.errors import P2plearnError
from p2plearn.transfer.channel import StreamOver
from p2plearn.transfer.fetch import Fetch, FetchLimits
from p2plearn.transfer.protocol import (
    FROM_FETCHER,
    FROM_SERVER,
    INDEX_PART,
    Busy,
    Cancel,
    Decoder,
    Have,
    IndexPart,
    ManifestIs,
    Open,
    Want,
    WantIndex,
    chunk_header,
    encode,
)
from p2plearn.transfer.reliance import Reliance
from p2plearn.transfer.session import Unreachable

BUFFER = 32 * 1024
"""Bytes that a provider's system holds: these come even when they are no longer wanted."""


class World:
    """What happens when, and the line into this node: ``rate`` bytes a second for all that comes together."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.came: Counter[int] = Counter()
        """How often each slot has come whole."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._news = trio.lowlevel.ParkingLot()
        self._senders: deque[Conversation] = deque()
        self._sending = False
        self._look_at = float("inf")

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what))
        self._news.unpark_all()

    async def run(self) -> None:
        while True:
            while self._events and self._events[0][0] <= trio.current_time():
                heapq.heappop(self._events)[2]()
            with trio.move_on_at(self._events[0][0]) if self._events else trio.CancelScope():
                await self._news.park()

    def enlist(self, sender: Conversation) -> None:
        self._senders.append(sender)

    def pump(self) -> None:
        """Put the next packet on the line, if it is free and anybody has one."""
        if self._sending:
            return
        now, soonest = trio.current_time(), float("inf")
        for _ in range(len(self._senders)):
            sender = self._senders[0]
            self._senders.rotate(-1)
            if sender.closed:
                self._senders.remove(sender)
            elif sender.free_at > now:
                soonest = min(soonest, sender.free_at)
            elif packet := sender.packet(max(512, min(int(self.rate * 0.2), 32 * 1024))):
                self._sending = True
                self.at(now + len(packet) / self.rate, lambda s=sender, p=packet: self._sent(s, p))  # type: ignore[misc]
                return
            elif sender.free_at > now:
                soonest = min(soonest, sender.free_at)
        if now < soonest < self._look_at or (soonest < float("inf") and self._look_at <= now):
            self._look_at = soonest
            self.at(soonest, self.pump)

    def _sent(self, sender: Conversation, packet: bytes) -> None:
        self._sending = False
        self.at(trio.current_time() + sender.peer.latency / 2, lambda: sender.deliver(packet))
        self.pump()


@dataclass
class Provider:
    """A provider: how far, how quick, and of what kind.

    honest      gives what it is asked for; ``stalls(now)`` says until when its disk sleeps
    mute        takes the call and says nothing
    promises    says that it has everything, gives nothing
    no-chunks   gives the index, and nothing else
    busy        says so, for ever
    away        can't be reached
    """

    world: World
    course: Course
    name: str
    kind: str = "honest"
    latency: float = 0.02
    rate: float = 1e9
    stalls: Callable[[float], float] = lambda now: now
    retry_after: float = 2.0
    opened: int = 0
    faults: list[str] = field(default_factory=list)
    indexes: int = 0
    asked: Counter[int] = field(default_factory=Counter)
    guess = named = False

    async def open(self) -> Any:
        self.opened += 1
        await trio.sleep(3 * self.latency)  # TCP, TLS, the muxer
        if self.kind == "away":
            raise Unreachable("nothing listens there", moved=True)
        return Conversation(self)

    def blame(self, fault: str, *, poisoned: bool = False) -> None:
        self.faults.append(fault)


class Conversation:
    """One stream, as ``Channel`` is to a session, with the provider at its other end."""

    rules = None

    def __init__(self, peer: Provider) -> None:
        self.peer = peer
        self.world = peer.world
        self.closed = False
        self.free_at = 0.0
        self.heard = 0
        self._theirs = Decoder(FROM_FETCHER)
        self._ours = Decoder(FROM_SERVER)
        self._out = bytearray()
        self._queue: deque[int] = deque()
        self._messages: list[Any] = []
        self._news = trio.lowlevel.ParkingLot()
        self.world.enlist(self)

    @property
    def brought(self) -> int:
        return self._ours.chunk_bytes

    async def send(self, *messages: Any) -> None:
        await self.send_pieces([encode(message) for message in messages])

    async def send_pieces(self, pieces: Sequence[bytes], *_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raw = b"".join(pieces)
        self.world.at(trio.current_time() + self.peer.latency / 2, lambda: self._hear(raw))

    async def receive(self) -> list[Any]:
        while not self._messages:
            if self.closed:
                raise StreamOver("reset")
            await self._news.park()
        messages, self._messages = self._messages, []
        return messages

    async def reset(self) -> None:
        self.closed = True
        self._news.unpark_all()

    # -- the other end -------------------------------------------------------------------------------------------

    def _hear(self, raw: bytes) -> None:
        peer, course = self.peer, self.peer.course
        for message in self._theirs.feed(raw):
            match message:
                case Open(_, want_manifest) if peer.kind == "busy":
                    self._out += encode(Busy(peer.retry_after))
                case Open(_, want_manifest) if peer.kind != "mute":
                    if want_manifest:
                        self._out += encode(ManifestIs(course.signed.signature, course.signed.raw))
                    self._out += encode(Have(len(course.chunks), bitmap(len(course.chunks), range(len(course.chunks)))))
                case WantIndex() if peer.kind in ("honest", "no-chunks"):
                    peer.indexes += 1
                    for part in range(-(-len(course.index_raw) // INDEX_PART)):
                        self._out += encode(IndexPart(part, course.index_raw[part * INDEX_PART :][:INDEX_PART]))
                case Want(ranges):
                    for first, count in ranges:
                        for slot in range(first, first + count):
                            peer.asked[slot] += 1
                            if peer.kind == "honest":
                                self._queue.append(slot)
                case Cancel(ranges):
                    for first, count in ranges:
                        for slot in range(first, first + count):
                            if slot in self._queue:
                                self._queue.remove(slot)
        self.world.pump()

    def packet(self, size: int) -> bytes:
        now = trio.current_time()
        awake = self.peer.stalls(now)
        if awake > now and len(self._out) < BUFFER and self._queue:
            self.free_at = awake
        else:
            while len(self._out) < BUFFER and self._queue:
                slot = self._queue.popleft()
                body = self.peer.course.chunks[slot]
                self._out += chunk_header(slot, len(body)) + body
        packet = bytes(self._out[:size])
        del self._out[:size]
        if packet:
            self.free_at = now + len(packet) / self.peer.rate
        return packet

    def deliver(self, packet: bytes) -> None:
        if self.closed:
            return
        self.heard += len(packet)
        for message in self._ours.feed(packet):
            if hasattr(message, "slot"):
                self.world.came[message.slot] += 1
            self._messages.append(message)
        self._news.unpark_all()


@dataclass
class Outcome:
    """How a fetch went."""

    seconds: float
    error: P2plearnError | None
    twice: int
    """Bytes of chunks that came again."""
    conversations: int
    steps: int
    """Turns that tasks got."""
    fetch: Fetch
    peers: list[Provider]
    reliance: Reliance
    now: float


class _Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += "lines" not in task.name and "World" not in task.name


async def _inline(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work(*args)


def fetched(
    monkeypatch: Any,
    course: Course,
    peers: Callable[[World], list[Provider]],
    *,
    rate: float = 1e9,
    limit: float = 1e6,
    only_index: bool = False,
    in_order: bool = False,
    reliance: Reliance | None = None,
    kept: dict[int, bytes] | None = None,
    known: bool = False,
    start: float = 0.0,
    meanwhile: Callable[[Fetch], Awaitable[None]] | None = None,
    **more: Any,
) -> Outcome:
    """Fetch ``course`` over a line of ``rate`` bytes a second; at most ``limit`` simulated seconds."""
    monkeypatch.setattr(trio.to_thread, "run_sync", _inline)  # a thread's time is none here
    # Tasks that may go on at the same moment do so in the same order each time, as Hypothesis has it, too.
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio._core._run, "_r", random.Random(1))
    steps = _Steps()
    remembered = Reliance() if reliance is None else reliance

    async def main() -> Outcome:
        if start:
            await trio.sleep(start)
        world = World(rate)
        found = peers(world)

        async def candidates(offer: Callable[[Any], Awaitable[None]]) -> None:
            for peer in found:
                await trio.sleep(0.001)
                await offer(peer)

        fetch = Fetch(
            course.hash,
            candidates,
            signed=course.signed if known else None,
            index=course.index if known else None,
            roll=random.Random(1).randrange,
            in_order=in_order,
            limits=FetchLimits(),
            reliance=remembered,
            **more,
        )

        async def land(_signed: Any, _raw: Any, index: Any) -> Any:
            return MemoryLanding(index, kept)

        began, error = trio.current_time(), None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run)
            if meanwhile is not None:
                nursery.start_soon(meanwhile, fetch)
            try:
                with trio.fail_after(limit):
                    await fetch.run(None if only_index else land)
            except P2plearnError as raised:
                error = raised
            nursery.cancel_scope.cancel()
        twice = sum((times - 1) * len(course.chunks[slot]) for slot, times in world.came.items() if times > 1)
        now = trio.current_time()
        opened = sum(peer.opened for peer in found)
        return Outcome(now - began, error, twice, opened, steps.count, fetch, found, remembered, now)

    return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[steps])
