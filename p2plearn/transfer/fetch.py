"""The fetching end of ``/p2plearn/chunk/1``: one course, from as many peers at once as have it.

In: a course hash, peers that may have it (a stream of them, which may go on), a place to put chunks. Out: the signed
manifest, the index, and a landing in which every wanted chunk is verified and durable; or an error that says how many
peers were found, tried and unreachable.

    candidates -> dial -> OPEN -> manifest checked -> index checked -> landing (space reserved)
               -> scheduler <-> peers: chunk -> hash -> landing -> commit

What must hold: a chunk counts only after its hash was seen to be right; memory is bounded by ``FetchLimits.pending``
however many peers send; a peer's fault costs that peer, never the fetch, as long as somebody honest has the course.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from p2plearn.course.index import Index, decode_index
from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.errors import P2plearnError, first_error
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.landing import Candidates, Land, Landing
from p2plearn.transfer.protocol import Chunk, ManifestIs
from p2plearn.transfer.reliance import WRONG, Reliance
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

WRITERS: Final = 2
"""Threads that hash and write: one works while the other's batch is on its way."""

LOOK_AGAIN_SECONDS: Final = 15.0
"""How often more peers are looked for while some are at work."""

LOOKUPS: Final = 3
"""Rounds of looking for providers without any that helps, before it is said that nobody has it."""

MOVED_SECONDS: Final = 30.0
"""How long a provider that is not where it was said to be is looked up again, with nobody else left: a machine that
changes networks notices within 4 s, looks at its addresses every 10 s, and then tells the network."""

MOVED_EVERY: Final = 5.0
"""Seconds between two such look-ups, at most."""

PATIENCE_SECONDS: Final = 60.0
"""How long peers that fetch the course themselves may get nothing that is lacking here, with nobody else left."""

BUSY_SECONDS: Final = 600.0
"""How long nothing may come while everybody who has the course says that they are busy: a lesson's rush is over by
then; who is busy for longer may be so for ever, and the person should know."""

TRIES: Final = 3
"""Conversations with a peer that is asked and gives nothing, before it is left alone for the rest of this fetch."""

CALLERS: Final = 32
"""Peers remembered that asked this node for the course while it had none of it yet; the last ones stay."""

IDLE_SECONDS: Final = 5.0
"""A peer that wasn't asked for anything for so long makes room when another waits for a place."""


SECOND_CHOICE_SECONDS: Final = 1.0
"""After so long without anybody else the peer that is doubted least is tried, though the looking goes on."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may take: peers at once, bytes received and not yet written, seconds of a peer's silence."""

    peers: int = 8
    pending: int = 8 << 20
    silence: float = 8.0


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
        self.index = index
        self.index_raw: bytes | None = None
        self.tally = Tally()
        self.standing = Standing()
        self.scheduler: Scheduler[str] | None = None
        self.begun = trio.Event()
        self.courtesy = courtesy
        self._reliance = Reliance() if reliance is None else reliance  # an empty one is false
        self._doubted: dict[str, Peer] = {}
        self.for_others = for_others
        self._candidates = candidates
        self._me = me
        self._callers: deque[Peer] = deque(maxlen=CALLERS)
        self._called = trio.lowlevel.ParkingLot()
        self._roll = roll
        self._in_order = in_order
        self._limits = limits or FetchLimits()
        self._index_turn = trio.Semaphore(2)
        self._index_known = trio.Event()
        if index is not None:
            self._index_known.set()
        self._sessions: dict[str, Session] = {}
        self._known: dict[str, Peer] = {}
        self.given: Counter[str] = Counter()
        """Verified chunks by peer."""
        self._fruitless: Counter[str] = Counter()  # conversations in a row
        self._grown_at = float("-inf")
        self._news = trio.lowlevel.ParkingLot()
        self._arrived: deque[tuple[str, Chunk]] = deque()
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
                nursery.start_soon(self._look_for_peers, nursery)
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
        landing = await land(self.signed, self.index_raw, self.index)
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
        self.standing.stage, self.standing.waiting_for = "fetching", ""
        self.standing.wanted_bytes = self.scheduler.remaining_bytes
        self.standing.files = FileCount(self.index, wanted)
        if not self.scheduler.finished:
            nursery.start_soon(self._tick)
            nursery.start_soon(self._answer_callers, nursery)
            for _ in range(WRITERS):
                nursery.start_soon(self._write, landing)
        self.begun.set()
        if not self.scheduler.finished:
            await self._finished.wait()
        return landing

    # -- peers ---------------------------------------------------------------------------------------------------

    async def _look_for_peers(self, nursery: trio.Nursery) -> None:
        """Keep enough peers at work; raise once there is nobody left to hope for."""
        barren = verified = 0
        moved_at = lost_at = trio.current_time()

        async def begin(peer: Peer) -> None:
            if await self._wanted(peer):
                self._start(nursery, peer)

        async def offered(peer: Peer) -> None:
            if self._reliance.doubted(peer.name, trio.current_time()):
                self._doubted[peer.name] = peer
            else:
                await begin(peer)

        async def second_choice() -> None:
            await trio.sleep(SECOND_CHOICE_SECONDS)
            while not self._sessions:
                for peer in self._least_doubted()[:1]:
                    del self._doubted[peer.name]
                    await begin(peer)
                await trio.sleep(SECOND_CHOICE_SECONDS)

        async def at_work() -> None:
            while any(not session.at_work for session in self._sessions.values()):
                await self._news.park()

        while True:
            if self.courtesy is not None and self.courtesy.paused:
                self.standing.waiting_for = self.courtesy.paused_words()
                await self.courtesy.not_paused()
                moved_at = trio.current_time()
                self.standing.waiting_for = f"a provider ({self.tally.words()})"
            async with trio.open_nursery() as looking:
                looking.start_soon(second_choice)
                await self._candidates(offered)
                looking.cancel_scope.cancel()
            await at_work()
            if self._doubted and (not self._sessions or self._is_starved()):
                for peer in self._least_doubted():
                    await begin(peer)
                await at_work()
            self._doubted.clear()
            moved = self.standing.verified_bytes != verified
            verified = self.standing.verified_bytes
            if moved or not self._sessions.keys() <= self.tally.busy:
                moved_at = trio.current_time()
            elif trio.current_time() - moved_at > BUSY_SECONDS and self.tally.busy:
                self._give_up()
            if self._sessions and not self._is_starved():
                barren, lost_at = 0, trio.current_time()
                if self.scheduler is None:
                    self.standing.waiting_for = f"a provider ({self.tally.words()})"
                await self._rest(LOOK_AGAIN_SECONDS)
                continue
            if moved:
                barren, lost_at = 0, trio.current_time()
            barren += 1
            growing = self.scheduler is not None and self.scheduler.may_grow  # it may be fetching the course itself
            hoping = growing and trio.current_time() - self._grown_at < PATIENCE_SECONDS
            astray = bool(self.tally.moved) and trio.current_time() - lost_at < MOVED_SECONDS
            if barren >= LOOKUPS and not hoping and not astray and not self.tally.busy:
                self._give_up()
            self.standing.waiting_for = f"a provider ({self.tally.hopes()})"
            await self._rest(min(2.0 ** (barren - 1), MOVED_EVERY if astray else LOOK_AGAIN_SECONDS))

    def called_by(self, peer: Peer) -> None:
        """``peer`` asks this node for the course: it fetches it, too, and soon has something of it."""
        self._callers.append(peer)
        self._called.unpark()

    async def _answer_callers(self, nursery: trio.Nursery) -> None:
        # Not before there is an index here: until then neither of two that ask each other can know that it helps.
        while True:
            while self._callers:
                peer = self._callers.popleft()
                if self._may_join(peer.name) and self._has_room():
                    self._start(nursery, peer)
            await self._called.park()

    def _start(self, nursery: trio.Nursery, peer: Peer) -> None:
        self._known[peer.name] = peer
        session = self._sessions[peer.name] = Session(self, peer)
        nursery.start_soon(session.run)

    def _may_join(self, name: str) -> bool:
        known = name in self._sessions or name in self.tally.faulty or name in self.tally.declined
        return not known and self._fruitless[name] < TRIES

    def _has_room(self) -> bool:
        return sum(not session.resting for session in self._sessions.values()) < self._limits.peers

    async def _wanted(self, peer: Peer) -> bool:
        """Whether a peer that was found should take part; waits until there is room for it."""
        name = peer.name
        if not peer.guess:
            self.tally.found.add(name)
        while self._may_join(name):
            if self._has_room():
                return True
            self._make_room()
            with trio.move_on_after(1):
                await self._news.park()
        return False

    def _least_doubted(self) -> list[Peer]:
        """Those that failed lately, the least of them first."""
        now = trio.current_time()
        return sorted(self._doubted.values(), key=lambda peer: self._reliance.doubt(peer.name, now))

    def _make_room(self) -> None:
        """Part with the peer that has been of no use for longest, if for long enough."""
        now = trio.current_time()
        useless = {name: session.waited(now) for name, session in self._sessions.items()}
        if self.scheduler is not None:
            for name, seconds in useless.items():
                idle, silent = self.scheduler.idle_for(name, now), self.scheduler.silent_for(name, now)
                # Whoever drips a byte at a time isn't silent; a slow line that brought nothing yet gets twice as long.
                drips = 0.0 if self.given[name] else self.scheduler.owes_for(name, now) / 2
                useless[name] = max(seconds, idle, silent, drips)
        name = max(useless, key=useless.__getitem__)
        if useless[name] > IDLE_SECONDS:
            self._sessions[name].stop()

    async def _rest(self, seconds: float) -> None:
        """Sleep; cut short when the last peer goes, or when those that are left turn out to lack something."""
        had_peers, was_starved = bool(self._sessions), self._is_starved()
        with trio.move_on_after(seconds):
            while not had_peers or (self._sessions and self._is_starved() is was_starved):
                await self._news.park()

    def _is_starved(self) -> bool:
        return self.scheduler is not None and self.scheduler.starved

    def _give_up(self) -> None:
        raise self.tally.why_not(partly=bool(self._sessions), kept=self.standing.verified_bytes > 0)

    def session_over(self, name: str, *, fruitless: bool) -> None:
        """A session has ended: what it owed goes to the others. ``fruitless`` when it was asked and gave nothing."""
        self._remember(name, self._sessions.pop(name, None))
        self.tally.busy.discard(name)
        self._fruitless[name] += fruitless
        self.session_news()
        if self.scheduler is not None:
            self.scheduler.left(name)
            self.kick_all()

    def _remember(self, name: str, session: Session | None) -> None:
        """Keep in mind for the next get how it went with a peer."""
        now = trio.current_time()
        waited = 0.0 if session is None else session.waited(now)
        if self.scheduler is not None and not (self.courtesy is not None and self.courtesy.paused):
            waited = max(waited, self.scheduler.owes_for(name, now))
        wrong, gave = name in self.tally.faulty, bool(self.given[name])
        self._reliance.ended(name, now, wrong=wrong, gave=gave, waited=waited, patience=self._limits.silence)

    def session_news(self) -> None:
        """A session came to work, or ended."""
        self._news.unpark_all()

    def somebody_grew(self) -> None:
        """This node has got more, or a peer that is fetching too."""
        self._grown_at = trio.current_time()

    def put_off(self, name: str) -> None:
        """A peer is busy and will be asked again; what it owes goes to others meanwhile."""
        self.tally.busy.add(name)
        if self.scheduler is not None:
            self.scheduler.left(name)
        self.kick_all()

    def kick_all(self) -> None:
        """Something changed about what is to be asked for."""
        for session in self._sessions.values():
            session.kick()

    # -- manifest and index --------------------------------------------------------------------------------------

    def manifest_came(self, message: ManifestIs) -> None:
        """Check a manifest; raises PeerFault when it isn't this course's."""
        if self.signed is None:
            self.signed = open_manifest(message.raw, message.signature, self.course)

    async def need_index(self, fetch_index: Callable[[], Awaitable[bytes]]) -> None:
        """Have the index, by ``fetch_index`` unless another session brings it first."""
        # Two at a time, but a peer that takes long keeps nobody waiting for longer than an answer may take.
        with trio.move_on_after(ANSWER_SECONDS) as waiting:
            await self._index_turn.acquire()
        try:
            if self._index_known.is_set():
                return
            if self.signed is None:
                raise AssertionError("the manifest comes first")
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
            if not waiting.cancelled_caught:
                self._index_turn.release()

    # -- chunks --------------------------------------------------------------------------------------------------

    def deliver(self, peer: str, chunk: Chunk) -> None:
        """A chunk that was asked for came; it waits to be checked and written."""
        self._arrived.append((peer, chunk))
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
            batch: list[tuple[str, Chunk]] = []
            size = 0
            while self._arrived and size < WRITE_BATCH:
                batch.append(self._arrived.popleft())
                size += batch[-1][1].length
            self._waiting -= size
            good = await trio.to_thread.run_sync(landing.put_many, [(chunk.slot, chunk.pieces) for _, chunk in batch])
            self._pending -= size
            self._room.unpark_all()
            for (name, chunk), is_good in zip(batch, good, strict=True):
                self._judge(scheduler, name, chunk, is_good)
            if scheduler.finished:
                self._finished.set()

    def _judge(self, scheduler: Scheduler[str], name: str, chunk: Chunk, is_good: bool) -> None:
        if is_good:
            self.tally.gave.add(name)
            self.given[name] += 1
            self.somebody_grew()
            del self._fruitless[name]
            self.standing.verified_bytes += chunk.length
            self.standing.files.verified(chunk.slot)
            for owing in scheduler.verified(chunk.slot):
                if owing in self._sessions:
                    self._sessions[owing].cancel(chunk.slot)
            return
        # Also when it has hung up meanwhile, lest it come back and do it again.
        fault = self.tally.faulty[name] = f"slot {chunk.slot} is not what its hash says"
        self._known[name].blame(fault, poisoned=True)
        if name not in self._sessions:
            self._reliance.failed(name, WRONG, trio.current_time())
        if scheduler.rejected(name, chunk.slot) and name in self._sessions:
            self._sessions[name].stop()
        self.kick_all()

    async def _tick(self) -> None:
        scheduler = self.scheduler
        if scheduler is None:
            raise AssertionError("begun")
        before = 0
        while True:
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            for session in self._sessions.values():
                session.note_bytes(scheduler, now)
            for name in scheduler.tick(now):
                if name in self._sessions:
                    self._sessions[name].stop()
            self.standing.peers = len(scheduler.peers)
            # While bytes flow nothing is waited for, however full a buffer is.
            moved, before = self.standing.verified_bytes != before, self.standing.verified_bytes
            self.standing.waiting_for = "" if moved else self._waiting_for(scheduler)
            self.kick_all()

    def _waiting_for(self, scheduler: Scheduler[str]) -> str:
        if self.courtesy is not None and self.courtesy.paused:
            return self.courtesy.paused_words()
        if not scheduler.peers:
            return f"a provider ({self.tally.words()})"
        if self._pending > self._limits.pending // 2:
            return "the disk"
        if scheduler.starved:
            self.session_news()
            return f"somebody who has the rest ({self.tally.words()})"
        return ""
