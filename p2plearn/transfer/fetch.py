"""The fetching end of ``/p2plearn/chunk/1``: one course, from as many peers at once as have it.

In: a course hash, peers that may have it (a stream of them, which may go on), a place to put chunks. Out: the signed
manifest, the index, and a landing in which every wanted chunk is verified and durable; or an error that says how many
peers were found, tried and unreachable.

    participants -> OPEN -> manifest checked -> index checked -> landing (space reserved)
                 -> scheduler <-> sessions: chunk -> hash -> landing -> commit

What must hold: a chunk counts only after its hash was seen to be right; memory is bounded by ``FetchLimits.pending``
however many peers send; a peer's fault costs that peer, never the fetch, as long as somebody honest has the course.

Who takes part is decided in ``participants``, what is asked of whom in ``scheduler``. Imports ``course``, ``errors``
and siblings.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from p2plearn.course.index import Index, decode_index
from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.errors import P2plearnError, first_error
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.landing import Candidates, Land, Landing
from p2plearn.transfer.participants import Participants
from p2plearn.transfer.protocol import Chunk, ManifestIs
from p2plearn.transfer.reliance import Reliance
from p2plearn.transfer.scheduler import Scheduler
from p2plearn.transfer.session import ANSWER_SECONDS, Peer, Session
from p2plearn.transfer.tally import FileCount, Standing, Tally

WRITE_BATCH: Final = 4 << 20
"""Bytes hashed and written in one go, at most."""

WORTHWHILE: Final = 1 << 20
GATHER_SECONDS: Final = 0.005
"""Less than this many bytes wait so long for more: each batch costs a thread's turn and a call to the disk, and at the
pace of a fast line more is there by then. (Without it 1 GiB went in 1,900 batches of half a MiB.)
"""

TICK_SECONDS: Final = 0.25

EAGER_TICK_SECONDS: Final = 0.05
EAGER_SHARE: Final = 0.01
"""Between two looks at who should bring something, while nobody does; this share of the time for which nobody did where
that is more: who was waited for for long isn't missed by the moment."""

INDEX_RATE: Final = 64 * 1024
"""For the index to come from those who were asked first, before others are: several times as long as answers take, and
what it needs at so many bytes a second."""

WRITERS: Final = 2
"""Threads that write (and hash): one works while the other's batch is on its way."""

FEW_CORES: Final = 2
"""With so few a chunk is hashed as it comes, in the loop's own thread: its bytes are still in that core's cache, and
no other thread waits for the interpreter's lock or for a core. On two cores, with both ends of a fetch on them, 0.9
times the time that hashing in the writers' threads takes; with more cores those have one of their own."""


def few_cores() -> bool:
    """Whether this process may use ``FEW_CORES`` at most."""
    mine = getattr(os, "sched_getaffinity", None)
    return (len(mine(0)) if mine is not None else os.cpu_count() or 1) <= FEW_CORES


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may take: peers at once, bytes received and not yet written, seconds of a peer's silence."""

    peers: int = 8
    pending: int = 8 << 20
    silence: float = 8.0


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A chunk that came from ``peer``; ``right``: what its hash said, None while nobody looked."""

    peer: str
    chunk: Chunk
    right: bool | None


class Fetch:
    """One course on its way here. Use :meth:`run` once; ``tally`` and ``standing`` can be read at any time."""

    def __init__(
        self,
        course: bytes,
        candidates: Candidates,
        *,
        signed: SignedManifest | None,
        index: Index | None,
        roll: Callable[[int], int],
        in_order: bool = False,
        limits: FetchLimits | None = None,
        courtesy: Courtesy | None = None,
        reliance: Reliance | None = None,
        for_others: bool = False,
        me: str | None = None,
    ) -> None:
        self.course = course
        self.signed = signed
        self.index = index = index if signed is not None else None  # which course's, only its manifest says
        self.index_raw: bytes | None = None
        self.tally = Tally()
        self.standing = Standing()
        self.scheduler: Scheduler[str] | None = None
        self.begun = trio.Event()
        self.courtesy = courtesy
        self.for_others = for_others
        self._me = me
        self._roll = roll
        self._in_order = in_order
        self._limits = limits or FetchLimits()
        self.participants = Participants(
            candidates,
            lambda peer: Session(self, peer),
            self.tally,
            self.standing,
            places=self._limits.peers,
            silence=self._limits.silence,
            courtesy=courtesy,
            reliance=reliance,
        )
        self._index_turn = trio.Semaphore(2)
        self._index_known = trio.Event()
        if index is not None:
            self._index_known.set()
        self._landing: Landing | None = None
        self._verify_at_once = few_cores()
        self._arrived: deque[_Arrived] = deque()
        self._pending = 0
        """Bytes that came and aren't judged yet."""
        self._waiting = 0
        """Those of them that no writer has taken yet."""
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._finished = trio.Event()

    async def run(self, land: Land | None) -> None:
        """Fetch manifest and index, and unless ``land`` is None all that the landing lacks.

        Raises NobodyHasIt, IntegrityProblem (everybody who has it sends something wrong), and whatever ``land`` and
        its landing raise. What was put in the landing stays there, also when this is cancelled.
        """
        failure: P2plearnError | None = None
        landing: Landing | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.participants.look, nursery)
                await self._index_known.wait()
                if land is not None:
                    landing = await self._transfer(land, nursery)
                nursery.cancel_scope.cancel()
        except* P2plearnError as group:
            failure = first_error(group)
        if failure is not None:
            raise failure
        if landing is not None:  # the peers are gone by now: however long the disk takes, none of them is missed
            self.standing.stage, self.standing.waiting_for = "committing", "the disk"
            await trio.to_thread.run_sync(landing.commit)

    async def _transfer(self, land: Land, nursery: trio.Nursery) -> Landing:
        if self.signed is None or self.index is None:
            raise AssertionError("the index is known")
        self.standing.stage, self.standing.waiting_for = "reserving", "space on this disk"
        raw, self.index_raw = self.index_raw, None  # megabytes that nobody needs once the landing has them
        landing = self._landing = await land(self.signed, raw, self.index)
        del raw
        wanted = landing.missing()
        self.scheduler = Scheduler(
            wanted,
            len(self.index),
            self.index.length,
            self._roll,
            in_order=self._in_order,
            silence=self._limits.silence,
            me=self._me,
        )
        self.participants.schedule_with(self.scheduler)
        self.standing.stage, self.standing.waiting_for = "fetching", ""
        self.standing.wanted_bytes = self.scheduler.remaining_bytes
        self.standing.files = FileCount(self.index, wanted)
        del wanted
        if not self.scheduler.finished:
            nursery.start_soon(self._tick)
            nursery.start_soon(self.participants.answer_callers, nursery)
            for _ in range(WRITERS):
                nursery.start_soon(self._write, landing)
        self.begun.set()
        if not self.scheduler.finished:
            await self._finished.wait()
        return landing

    @property
    def flows(self) -> bool:
        """Several take part, and what is lacking here they have."""
        scheduler = self.scheduler
        return scheduler is not None and len(scheduler.peers) > 1 and not scheduler.starved

    def called_by(self, peer: Peer) -> None:
        """``peer`` asks this node for the course: it may take part."""
        self.participants.called_by(peer)

    # -- manifest and index --------------------------------------------------------------------------------------

    def manifest_came(self, message: ManifestIs) -> None:
        """Check a manifest; raises PeerFault when it isn't this course's."""
        if self.signed is None:
            self.signed = open_manifest(message.raw, message.signature, self.course)

    async def need_index(self, fetch_index: Callable[[], Awaitable[bytes]]) -> None:
        """Have the index, by ``fetch_index`` unless another session brings it first."""
        if self.signed is None:
            raise AssertionError("the manifest comes first")
        # Two at a time, but a peer that takes long keeps nobody waiting for longer than a slow line would.
        size = sum(part.length for part in self.signed.manifest.index)
        needs = min(size / INDEX_RATE, ANSWER_SECONDS)
        in_turn = await self._wait_for_index(size, needs)
        try:
            if self._index_known.is_set():
                return
            self.participants.expect_index(needs)
            with trio.CancelScope() as scope:

                async def stop_when_known() -> None:
                    await self._index_known.wait()
                    scope.cancel()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop_when_known)
                    raw = await fetch_index()
                    index = await trio.to_thread.run_sync(decode_index, raw, self.signed.manifest)
                    if not self._index_known.is_set():
                        self.index_raw, self.index = raw, index
                        self._index_known.set()
        finally:
            if in_turn:
                self._index_turn.release()

    async def _wait_for_index(self, size: int, needs: float) -> bool:
        """Wait for the turn to ask for the index; False when those whose turn it is take too long.

        That is when ``size`` bytes would need more than ``ANSWER_SECONDS`` at the pace at which bytes come. Nobody can
        bring more of them than there are, so two that don't come to an end hold up the others for twice that.
        """
        began, before = trio.current_time(), self.participants.index_bytes
        wait = min(self.participants.places.patience + needs, ANSWER_SECONDS)
        while True:
            with trio.move_on_after(wait) as waiting:
                await self._index_turn.acquire()
            if not waiting.cancelled_caught:
                return True
            waited, came = trio.current_time() - began, self.participants.index_bytes - before
            if came < size * waited / ANSWER_SECONDS:
                return False

    # -- chunks --------------------------------------------------------------------------------------------------

    def deliver(self, peer: str, chunk: Chunk) -> None:
        """A chunk that was asked for came; it waits to be written, and to be verified unless that is done now."""
        if self._landing is None:
            raise AssertionError("begun")
        right = self._landing.is_chunk(chunk.slot, chunk.pieces) if self._verify_at_once else None
        self._arrived.append(_Arrived(peer, chunk, right))
        self._pending += chunk.length
        self._waiting += chunk.length
        self.standing.fetched_bytes += chunk.length
        self._work.unpark()

    async def room(self) -> None:
        """Wait while too much is waiting to be written."""
        while self._pending > self._limits.pending:
            await self._room.park()

    async def _write(self, landing: Landing) -> None:
        scheduler = self.scheduler
        if scheduler is None:
            raise AssertionError("begun")
        while True:
            while not self._arrived:
                await self._work.park()
            if self._waiting < WORTHWHILE:
                await trio.sleep(GATHER_SECONDS)
            batch: list[_Arrived] = []
            size = 0
            while self._arrived and size < WRITE_BATCH:
                batch.append(self._arrived.popleft())
                size += batch[-1].chunk.length
            self._waiting -= size
            good = await trio.to_thread.run_sync(_put, landing, batch)
            self._pending -= size
            self._room.unpark_all()
            for arrived, is_good in zip(batch, good, strict=True):
                self._judge(scheduler, arrived.peer, arrived.chunk, is_good)
            if scheduler.finished:
                self._finished.set()

    def _judge(self, scheduler: Scheduler[str], name: str, chunk: Chunk, is_good: bool) -> None:
        if is_good:
            self.participants.gave(name)
            self.standing.verified_bytes += chunk.length
            self.standing.files.verified(chunk.slot)
            self.participants.cancel(scheduler.verified(chunk.slot), chunk.slot)
            return
        self.participants.lied(name, chunk.slot)
        if scheduler.rejected(name, chunk.slot):
            self.participants.stop([name])
        self.participants.kick_all()

    async def _tick(self) -> None:
        scheduler = self.scheduler
        if scheduler is None:
            raise AssertionError("begun")
        before = 0
        while True:
            dry = scheduler.dry_for(trio.current_time())
            eager = dry > (EAGER_TICK_SECONDS if self.standing.verified_bytes else 0.0)
            await trio.sleep(min(max(EAGER_TICK_SECONDS, EAGER_SHARE * dry), TICK_SECONDS) if eager else TICK_SECONDS)
            now = trio.current_time()
            self.participants.note_bytes(scheduler, now)
            self.participants.stop(scheduler.tick(now))
            self.standing.peers = len(scheduler.peers)
            # While bytes flow nothing is waited for, however full a buffer is.
            moved, before = self.standing.verified_bytes != before, self.standing.verified_bytes
            self.standing.waiting_for = "" if moved else self._waiting_for(scheduler)
            self.participants.kick_all()

    def _waiting_for(self, scheduler: Scheduler[str]) -> str:
        if self.courtesy is not None and self.courtesy.paused:
            return self.courtesy.paused_words()
        if not scheduler.peers:
            return f"a provider ({self.tally.words()})"
        if self._pending > self._limits.pending // 2:
            return "the disk"
        if scheduler.starved:
            self.participants.news()
            return f"somebody who has the rest ({self.tally.words()})"
        return ""


def _put(landing: Landing, batch: Sequence[_Arrived]) -> list[bool]:
    """Write those of a batch that are what their hashes say; which these are."""
    offers = [(arrived.chunk.slot, arrived.chunk.pieces) for arrived in batch]
    verdicts = [
        landing.is_chunk(*offer) if arrived.right is None else arrived.right
        for offer, arrived in zip(offers, batch, strict=True)
    ]
    landing.put_verified([offer for offer, right in zip(offers, verdicts, strict=True) if right])
    return verdicts
