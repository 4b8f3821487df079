"""A course being fetched: chunks go straight to their planned place, in any order, from any thread.

Crash promise: the plan (which slot lies where in which extent) is on the disk before the first byte. A chunk that was
written but not committed is found again after SIGKILL by hashing the planned places, so it isn't fetched twice; after
a power cut the same holds for what the disk kept. ``commit`` makes everything put so far survive a power cut, too.

Nothing locks while bytes are hashed and written: two threads that put the same chunk write the same bytes to the same
place. The catalogue is only touched by ``commit`` and when more is planned.

A failed fsync condemns the extent: what it held uncommitted is forgotten, the next download plans a new one.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.errors import P2plearnError, StoreProblem
from p2plearn.store import resume
from p2plearn.store.behind import Behind
from p2plearn.store.bringing import MayStay, in_users_files, read_right
from p2plearn.store.catalogue import PlanRow, add_slots
from p2plearn.store.durable import Piece, sync_file
from p2plearn.store.follow import Following
from p2plearn.store.gathering import Gathering, Offer
from p2plearn.store.holding import Holding
from p2plearn.store.parts import StoreParts
from p2plearn.store.placement import NOWHERE, Placement, bit
from p2plearn.store.planning import Plan, Record
from p2plearn.store.problems import disk_problem

_IN_MEMORY = 128 * 1024 * 1024
"""What of a download stays in the page cache when it is written: other fetchers ask for what came last."""


class Download(Holding):
    """See the head of this file. Made by ``Store.begin_download``; ``close`` it as often as that returned it."""

    def __init__(self, parts: StoreParts, placement: Placement, closed: Callable[[Download], None]) -> None:
        super().__init__(parts, placement)
        self._closed = closed
        self._users = 1
        self._plan = Plan(parts, placement)
        self._commits = threading.Lock()
        self._marking = threading.Lock()
        """Held while slots are noted as written, never while they are."""
        self.found_bytes = 0
        """What was found in the folder that the course is for, or was checked out to, instead of being fetched."""
        self._fresh: array[int] = array("I")
        """Slots written since the last commit."""
        self._broken = ""
        self._behind = Behind(keep=_IN_MEMORY)
        self._following: Following | None = None
        self._gathering = Gathering()

    def follow(self, following: Following) -> None:
        """Write what is put into ``following``, too."""
        self._following = following

    def take_following(self, dest: Path) -> Following | None:
        """What was written for a checkout at ``dest``, now the caller's to use up or abandon."""
        following = self._following
        if following is None or following.dest != Path(os.path.realpath(dest)):
            return None
        self._following = None
        return following if following.usable else None

    @property
    def extents(self) -> set[int]:
        """The extents this download writes to; a sweep leaves them alone."""
        return set(self._plan.fds)

    # Planning ---------------------------------------------------------------------------------------------------

    def want(self, files: Iterable[FileEntry] | None) -> None:
        """Ask for these files too (None: all of them); room is planned for by ``plan_missing``."""
        self._plan.want(files)

    def adopt(self, plan: PlanRow) -> None:
        """Take over what an earlier download planned."""
        self._plan.adopt(plan)

    def rely_on(self, may_stay: MayStay) -> None:
        """Say what of the wanted may stay in the user's files; the rest is planned for, and ``bring_in`` copies it."""
        with self._plan.shape:
            self._plan.unreliable = in_users_files(self._parts, self.placement, self._plan.wanted(), may_stay)

    def alone(self, files: Iterable[FileEntry]) -> list[FileEntry]:
        """Those of ``files`` that each lie in an extent of their own, or can be planned so (see ``alone``)."""
        return self._plan.alone(files)

    def plan_missing(
        self,
        record: Record = lambda db: None,
        *,
        before: Callable[[], None] = lambda: None,
        beside: int = 0,
        apart: Sequence[FileEntry] = (),
    ) -> None:
        """Plan room for what is wanted and has none: one transaction, in which ``record`` may write, too.

        ``before`` runs once there is room, ahead of it. ``beside`` are bytes that something else will take on the same
        disk. Each of ``apart`` (of ``alone``) gets an extent of its own. Raises NoSpace before anything is written,
        StoreProblem.
        """
        self._plan.plan_missing(self, record, before=before, beside=beside, apart=apart)

    def resume(self) -> int:
        """Hash what an earlier run wrote without committing it, and keep what is right. Returns bytes kept."""
        have, offsets = self.placement.have, self._plan.offsets
        todo: list[tuple[int, list[int]]] = []
        for extent, fd in self._plan.fds.items():
            awaited = [slot for slot in self._plan.of_extent(extent) if not bit(have, slot)]
            todo += [(fd, batch) for batch in resume.written(fd, self.index, awaited, offsets)]

        def keep(task: tuple[int, list[int]]) -> int:
            right = resume.right(task[0], self.index, task[1], offsets)
            self._mark([(slot, *self._plan.place(slot)) for slot in right])
            return sum(self.index.lengths[slot] for slot in right)

        with ThreadPoolExecutor(resume.THREADS, "resume") as threads:
            kept = sum(threads.map(keep, todo))
        if kept:
            self.commit()
        return kept

    def bring_in(self) -> set[bytes]:
        """Copy what may not stay in the user's files (``rely_on``) into the store, hashed anew, and commit it.

        What isn't right there any more is missing from now on. A crash leaves the user's files as the place of all of
        it, and the next download copies it again. Returns the digests of what was copied. Raises NoSpace, StoreProblem.
        """
        slots = sorted(self._plan.unreliable)
        for offers in read_right(self._parts, self, slots):
            self._lay(offers, self._mark_moved)
        self._plan.unreliable = set()
        if slots:
            self.commit()
        return {self.index.digest(slot) for slot in slots}

    # Fetching ---------------------------------------------------------------------------------------------------

    def missing(self) -> list[int]:
        """Slots still to fetch, in course order: one for each distinct chunk that is wanted and not here.

        Chunks that turned out damaged since the download began come back here. Raises NoSpace, StoreProblem.
        """
        with self._plan.shape:
            slots = self._plan.missing()
            if not self._broken and any(self._plan.extents[slot] == NOWHERE for slot in slots):
                self.plan_missing()
            return slots

    @property
    def missing_bytes(self) -> int:
        """Bytes of the chunks still to fetch."""
        return self._plan.missing_bytes

    def put(self, slot: int, pieces: Sequence[Piece]) -> bool:
        """Store the chunk of ``slot`` that came in ``pieces``. False, and nothing written, if it isn't that chunk.

        Once it returns True the chunk can be read. Raises NoSpace or StoreProblem when the disk does; ValueError for
        a slot that was never wanted.
        """
        return self.put_many([(slot, pieces)])[0]

    def put_many(self, offers: Sequence[Offer]) -> list[bool]:
        """``put`` for several chunks at once, in any order; neighbours are written with one call."""
        verdicts = [self.is_chunk(slot, pieces) for slot, pieces in offers]
        self.put_verified([offer for offer, right in zip(offers, verdicts, strict=True) if right])
        return verdicts

    def put_verified(self, offers: Sequence[Offer]) -> None:
        """What ``put_many`` does with chunks that ``is_chunk`` said yes to; only such ones may come here."""
        if self._broken:
            raise StoreProblem(self._broken, "Run the same command again.")
        have = self.placement.have
        todo = [offer for offer in offers if not bit(have, offer[0])]
        if todo:
            self._lay(todo, self._mark)

    def _lay(self, offers: Sequence[Offer], mark: Callable[[Sequence[tuple[int, int, int]]], None]) -> None:
        places = {slot: self._plan.place(slot) for slot, _ in offers}
        with self._gathering.laid(offers, places.__getitem__) as laid:
            try:
                self._write(laid, places)
            except OSError as error:
                raise disk_problem(error, f"storing the course {self.signed.manifest.title!r}") from error
            mark([(slot, *places[slot]) for slot, _ in laid])
            if self._following is not None:
                self._following.take(laid)

    def is_chunk(self, slot: int, pieces: Sequence[Piece]) -> bool:
        """Whether the pieces are the chunk of ``slot``: the one place where a chunk that came is verified."""
        if sum(map(len, pieces)) != self.index.length(slot):
            return False
        digest = hashlib.sha256(pieces[0])
        for piece in pieces[1:]:
            digest.update(piece)
        return digest.digest() == self.index.digest(slot)

    def _write(self, offers: Sequence[Offer], places: Mapping[int, tuple[int, int]]) -> None:
        """Write chunks, which come by slot, into their places."""
        run: list[Piece] = []
        run_extent, run_start, run_end = NOWHERE, 0, 0
        for slot, pieces in offers:
            extent, offset = places[slot]
            if run and (extent != run_extent or offset != run_end):
                self._behind.write(self._plan.fds[run_extent], run, run_start)
                run = []
            if not run:
                run_extent = extent
                run_start = run_end = offset
            run.extend(pieces)
            run_end += self.index.lengths[slot]
        self._behind.write(self._plan.fds[run_extent], run, run_start)

    def _mark(self, places: Sequence[tuple[int, int, int]]) -> None:
        leader = self._plan.leader
        with self._marking:
            # ``stored`` says of each slot only once that it is new, so none is committed twice.
            new = self.placement.stored((leader(slot), extent, offset) for slot, extent, offset in places)
            self._fresh.extend(new)
            self._plan.came(new)

    def _mark_moved(self, places: Sequence[tuple[int, int, int]]) -> None:
        with self._marking:
            self.placement.moved(places)
            self._fresh.extend(slot for slot, _, _ in places)

    # Keeping ----------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything put so far durable. Costs an fsync and a transaction: now and then, not once a chunk.

        May run while other threads put. Raises NoSpace or StoreProblem; after a failed fsync the download is over,
        and what wasn't committed has to be fetched again.
        """
        with self._commits:
            if self._broken:
                raise StoreProblem(self._broken, "Run the same command again.")
            with self._marking:
                fresh = self._fresh[:]
                # What is put from here on waits for the next commit; ``have_bytes`` already excludes it.
                have_bytes = self.placement.have_bytes
            here = array("I", (slot for slot in fresh if bit(self.placement.have, slot)))
            plan, lengths = self._plan, self.index.lengths
            try:
                for extent in {plan.extents[slot] for slot in here}:
                    sync_file(plan.fds[extent])
            except OSError as error:
                self._condemn(error)
            with self._parts.catalogue.writing() as db:
                add_slots(db, self.index.digests, here, lambda slot: (*plan.place(slot), lengths[slot]))
                db.execute("UPDATE courses SET have_bytes = ? WHERE course = ?", (have_bytes, self.course))
                done = [(extent,) for extent in list(plan.fds) if self._filled(extent, len(fresh))]
                db.executemany("DELETE FROM downloads WHERE extent = ?", done)
            with self._marking:
                del self._fresh[: len(fresh)]
            self._parts.budget.promise(self, counted=0, disk=self.missing_bytes)

    def _filled(self, extent: int, committed: int) -> bool:
        """Whether every slot planned in an extent is here, and in the catalogue with the first ``committed`` fresh."""
        with self._marking:
            return self._plan.filled(extent, self._fresh[committed:])

    def _condemn(self, error: OSError) -> None:
        """The disk couldn't keep what it took: forget every uncommitted byte of this download, and stop."""
        title = self.signed.manifest.title
        self._broken = f"The disk failed to keep what was fetched of the course {title!r}."
        problem = disk_problem(error, f"making the course {title!r} durable")
        self.placement.lost(list(self._fresh))
        del self._fresh[:]
        # On a failing disk this may fail, too; then the next download hashes what it finds, as after a crash.
        with contextlib.suppress(P2plearnError), self._parts.catalogue.writing() as db:
            db.executemany("DELETE FROM downloads WHERE extent = ?", [(extent,) for extent in self._plan.fds])
        raise problem from error

    def close(self) -> None:
        """Give it back; the last one commits what is left. Raises what ``commit`` raises, closed all the same."""
        with self._plan.shape:
            self._users -= 1
            if self._users:
                return
        self.end()

    def end(self) -> None:
        """Commit and close, whoever still uses it; for the store's own end."""
        try:
            if self._fresh and not self._broken:
                self.commit()
        except BaseException:
            # Not on record, so not here: the next download finds by their hashes what was written, and records it.
            self.placement.lost(list(self._fresh))
            raise
        finally:
            self._closed(self)
            self._parts.budget.release(self)
            if self._following is not None:
                self._following.abandon()
            self._behind.close()
            self._plan.close()

    def share(self) -> None:
        """Count one more user."""
        with self._plan.shape:
            self._users += 1
