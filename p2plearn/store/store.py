"""What this node keeps: courses, their chunks, and the way to and from the user's disk. The room's front door.

Promises:
- What was acknowledged (a publish that returned, a ``Download.commit`` that returned) survives SIGKILL and a power cut.
- Bytes that come out have the hash they are asked for by, or an error comes out instead; how long the operating system
  is trusted with what was hashed once, ``holding`` says.
- After a crash at any moment the store opens, everything acknowledged is there, and what was half done is either gone
  (publish, checkout, sweep) or goes on where it was (download).
- Room is reserved before the first byte; a full disk is an error that says so, and the store works again after.

Layout below HOME/store: ``FORMAT``, ``catalogue.sqlite``, ``courses/`` (manifest and index of each course),
``extents/`` (the chunks), ``unlisted/`` (``orphans``), ``begun`` (``part_folders``). One process at a time: ``FORMAT``
is locked. Not for network file systems.

Blocking and thread-safe: call it from worker threads. Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.errors import NoSpace, P2plearnError, PeerFault, Refused, StoreProblem, UsageProblem
from p2plearn.store import opening
from p2plearn.store.bringing import recount_below
from p2plearn.store.catalogue import CourseRow
from p2plearn.store.check import Damage, still_damaged, verify
from p2plearn.store.checkout import (
    CheckedOut,
    Progress,
    checkout_fresh,
    destination_problem,
    is_free,
    record,
)
from p2plearn.store.course_files import CourseFileDamaged
from p2plearn.store.custody import CustodyRecords
from p2plearn.store.download import Download
from p2plearn.store.downloads import Downloads
from p2plearn.store.follow import Following
from p2plearn.store.gc import Sweep, sweep
from p2plearn.store.holding import Holding
from p2plearn.store.in_place import folder_of, serve_in_place
from p2plearn.store.part_folders import PartFolders
from p2plearn.store.parts import StoreParts
from p2plearn.store.presence import Presence, Seen
from p2plearn.store.problems import disk_problem
from p2plearn.store.publish import Author, Published, PublishMeta, add_course, publish
from p2plearn.store.reconcile import check_occupied, checkout_over
from p2plearn.store.space import StoreLimits, Usage, free_bytes
from p2plearn.store.unfinished import Unfinished

log = logging.getLogger("p2plearn.store")


def _ignore(*_: int) -> None:
    """A report that nobody reads."""


def _never() -> bool:
    return False


class Store:
    """See the head of this file. ``Store.open``, then any call from any thread, then ``close``."""

    def __init__(self, parts: StoreParts, lock: int) -> None:
        self._parts = parts
        self._lock_fd = lock
        self.custody = CustodyRecords(parts.catalogue)
        self._presence = Presence(parts)
        self._downloads = Downloads(parts)
        self._part_folders = PartFolders(parts.directory)
        self._unfinished = Unfinished(parts)

    # Opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, home: Path, limits: StoreLimits | None = None, author: bytes = b"") -> Self:
        """Open the store of a home, making it if there is none, and clean up after a crash.

        A catalogue that is lost or damaged is built anew; ``notices`` then says so. What ``author``, the public key of
        this home's person, signed counts as published then, where nothing else says how it came here. Raises
        StoreProblem: a newer format, another process has it open, a disk that fails.
        """
        lock, parts = opening.open_parts(home, limits or StoreLimits(), author)
        store = cls(parts, lock)
        store._part_folders.clear()
        return store

    def close(self) -> None:
        """Close it; downloads that are still open are committed first. Further calls, but this one, are errors."""
        if self._lock_fd < 0:
            return
        problem = self._downloads.end()
        self._parts.files.close()
        harmed = self._parts.catalogue.harmed
        self._parts.catalogue.close()
        if problem is None and not harmed and self._parts.in_place():
            opening.seal(self._parts.directory)
        os.close(self._lock_fd)
        self._lock_fd = -1
        if problem is not None:
            raise problem

    # Publishing ---------------------------------------------------------------------------------------------------

    def publish(
        self,
        source: Path,
        meta: PublishMeta,
        *,
        sign: Callable[[bytes], bytes],
        author: bytes,
        now: int,
        chunker: str = "fastcdc",
        follow_symlinks: bool = False,
        no_copy: bool = False,
        skip_special: bool = False,
        report: Callable[[int, int, int, int], None] = _ignore,
        cancelled: Callable[[], bool] = _never,
        seen: Callable[[str], SignedManifest | None] = lambda _: None,
    ) -> Published:
        """A folder or file as a course; durable when it returns. See ``ingest`` and ``publish`` for the promises.

        ``report`` gets bytes done, bytes in all, files done, files in all; ``cancelled`` is asked now and then;
        ``seen``: see ``publish.Author``.
        Raises UsageProblem, Refused (everything that can't be published, by name), SourceChanged, NoSpace,
        StoreProblem, Interrupted.
        """
        return publish(
            self._parts,
            source,
            meta,
            Author(author, sign, seen),
            now=now,
            chunker_kind=chunker,
            follow_symlinks=follow_symlinks,
            no_copy=no_copy,
            skip_special=skip_special,
            report=report,
            cancelled=cancelled,
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """What the person should know of this opening: damage that was met, and what became of it."""
        return tuple(self._parts.notices)

    @property
    def as_left(self) -> bool:
        """Whether the catalogue was, at the opening, byte for byte what this program had closed."""
        return self._parts.as_left

    def tell(self, words: str) -> None:
        """Add what another part of the home had to say of its opening; nothing if there are no words."""
        if words:
            self._parts.notices.append(words)

    # What is here ---------------------------------------------------------------------------------------------------

    def courses(self) -> list[CourseRow]:
        """Every course, newest first."""
        return self._parts.catalogue.courses()

    def names(self, *, complete: bool = False) -> list[bytes]:
        """The hash of every course; see ``Catalogue.names``."""
        return self._parts.catalogue.names(complete=complete)

    def course(self, course: bytes) -> CourseRow | None:
        """One course."""
        return self._parts.catalogue.course(course)

    def have_bytes(self, row: CourseRow) -> int:
        """Bytes of a course that are here now; its row tells only those that are committed.

        With them come those that a killed download had written: the next one hashes them before it counts on them.
        """
        live = self._downloads.have_bytes(row.course)
        return row.have_bytes + self._unfinished.bytes_of(row) if live is None else live

    def signed_manifest(self, course: bytes) -> SignedManifest | None:
        """A course's manifest, checked."""
        kept = self._parts.catalogue.manifest(course)
        if kept is None:
            return None
        try:
            return open_manifest(*kept, course)
        except PeerFault as error:
            raise StoreProblem(f"The catalogue holds a damaged manifest of course {course.hex()}: {error}.") from error

    def put_manifest(self, signed: SignedManifest, why: str = "seen") -> None:
        """Keep a course's manifest; nothing else of the course has to be here."""
        with self._parts.catalogue.writing() as db:
            add_course(db, signed, why=why, now=int(time.time()), indexed=False)

    def index_bytes(self, course: bytes) -> bytes | None:
        """A course's index as it travels; None if it isn't here (any more: one found damaged is forgotten)."""
        row = self._parts.catalogue.course(course)
        if row is None or not row.indexed:
            return None
        try:
            signed, raw = self._parts.course_files.read_raw(course)
        except CourseFileDamaged:
            self._parts.drop_index(course)
            return None
        return raw if len(raw) == signed.manifest.index_bytes else None

    def holding(self, course: bytes) -> Holding | None:
        """What is here of a course, for reading; None unless its index is. Sees what a running download puts."""
        placement = self._parts.placement(course, refresh=course not in self._downloads)
        return Holding(self._parts, placement) if placement is not None else None

    # Fetching -------------------------------------------------------------------------------------------------------

    def begin_download(
        self,
        signed: SignedManifest,
        index_raw: bytes,
        index: Index,
        wanted: Sequence[FileEntry] | None = None,
        why: str = "fetched",
        *,
        checkout: Path | None = None,
        give: bool = False,
        follow: bool = True,
        look_in: Sequence[Path] = (),
    ) -> Download:
        """Reserve room for the wanted files (None: all) and go on where an earlier download of the course stopped.

        While a download of this course is open, the same one is returned, wanting more where ``wanted`` says so; each
        ``close`` ends one use. With ``checkout``, room for the files at that place is checked, too; with ``give`` as
        well, they are laid so that ``checkout`` can give them away; with ``follow``, large ones are written beside the
        place as they come (``take_following``). Without ``give`` what lies in files of the user's is copied into the
        store first (``bringing``). What is missing is looked for at ``checkout``, and in the folders ``look_in``.
        Raises NoSpace before anything is written, StoreProblem.
        """
        if checkout is not None:
            self._part_folders.note(checkout)
        give = give and not self.custody.is_given_room(signed.course)
        download = self._downloads.begin(
            signed, index_raw, index, wanted, why, checkout=checkout, give=give, follow=follow, look_in=look_in
        )
        self._unfinished.taken_up(signed.course)
        return download

    # To the user's disk -----------------------------------------------------------------------------------------------

    def check_destination(self, signed: SignedManifest, index: Index, dest: Path) -> None:
        """Raise Refused if ``checkout`` would refuse ``dest``: asked before the first byte of a course is fetched."""
        real = Path(os.path.realpath(dest))
        home = Path(os.path.realpath(self._parts.home))
        if real in (real.parent, home) or home in real.parents:
            raise Refused(f"A course can't be written to {dest}.", "Choose a folder of its own (-o DIR).")
        if not is_free(real) and not self._is_checkout(real, signed):
            check_occupied(signed, index, real)

    def _is_checkout(self, real: Path, signed: SignedManifest) -> bool:
        """Whether a place is on record as a checkout of this course, or of another version of it."""
        there = self._parts.catalogue.checkout_course(os.fsencode(real))
        if there is None or there == signed.course:
            return there is not None
        row, series = self._parts.catalogue.course(there), signed.manifest.series
        return row is not None and (row.author, row.series) == (signed.manifest.author, series.name)

    def _version_there(self, real: Path, course: bytes) -> Index | None:
        """The index of another version that was checked out at a place; None if it isn't known here any more."""
        there = self._parts.catalogue.checkout_course(os.fsencode(real))
        other = None if there is None or there == course else self.holding(there)
        return None if other is None else other.index

    def checkout(
        self,
        course: bytes,
        dest: Path,
        files: Sequence[FileEntry] | None = None,
        report: Callable[[int, int, int, int], None] = _ignore,
        cancelled: Callable[[], bool] = _never,
        *,
        following: Following | None = None,
        give: bool = False,
        known: Collection[str] = (),
        unfinished: bool = False,
    ) -> CheckedOut:
        """Write a course, or some of its files, to ``dest``: a folder (a course of one file becomes DEST/NAME).

        ``following`` is what the download wrote there already (``Download.take_following``); it is used up. With
        ``give``, what can be had without a copy becomes the user's (``alone``); ``keep_in_place`` has to follow.
        ``known`` are paths that this same get has written there: what is there now is left. ``unfinished``: another
        call writes the rest (``growing``); until then a checkout of another version stays on record as that.

        Raises UsageProblem if it isn't here, Refused for a destination with other files in it, StoreDamage,
        ChunkMissing for a file that isn't all here, NoSpace, StoreProblem, Interrupted.
        """
        holding = self.holding(course)
        if holding is None:
            raise UsageProblem(f"Course {course.hex()} is not in this store.", f"p2plearn get {course.hex()}")
        # What the user names may be a link; from here on no link is followed.
        dest = Path(os.path.realpath(dest))
        self._part_folders.note(dest)
        chosen = holding.index.files if files is None else files
        folders = holding.index.folders if files is None else ()
        progress = Progress(chosen, report, cancelled)
        ours = self._is_checkout(dest, holding.signed)
        with holding:
            if is_free(dest):
                giver = self._parts.catalogue if give and not self.custody.is_given_room(course) else None
                done = checkout_fresh(holding, dest, chosen, folders, progress, following=following, giver=giver)
            else:
                if unfinished and not ours:  # on record ahead of the first part file, which else were a stranger's
                    check_occupied(holding.signed, holding.index, dest)
                    record(self._parts, dest, course)
                    ours = True
                done = checkout_over(
                    holding,
                    dest,
                    chosen,
                    folders,
                    progress,
                    ours=ours,
                    replaced=self._parts.home / "replaced",
                    before=self._version_there(dest, course) if ours else None,
                    known=known,
                    unfinished=unfinished,
                )
        if not (unfinished and ours):
            record(self._parts, dest, course)
        recount_below(self._parts, dest)
        return done

    def keep_in_place(
        self,
        course: bytes,
        dest: Path,
        files: Sequence[FileEntry] | None = None,
        cancelled: Callable[[], bool] = _never,
        *,
        known: Mapping[str, os.stat_result] = MappingProxyType({}),
    ) -> int:
        """Let the checkout at ``dest`` be what is kept of a course, and free the store's own copy; bytes freed.

        ``known`` is what that checkout has handed over. See ``in_place``. What others trust this store to keep for
        them stays. Raises UsageProblem if the course isn't here, NoSpace, StoreProblem, Interrupted.
        """
        holding = self.holding(course)
        if holding is None:
            raise UsageProblem(f"Course {course.hex()} is not in this store.", f"p2plearn get {course.hex()}")
        chosen = holding.index.files if files is None else files
        try:
            if not self.custody.is_given_room(course):
                with holding:
                    serve_in_place(self._parts, holding, Path(os.path.realpath(dest)), chosen, cancelled, known=known)
        finally:
            freed = self.gc().freed  # gives the store a copy of its own, too, where it still needs one
        return freed

    # Keeping house ----------------------------------------------------------------------------------------------------

    def verify(
        self,
        course: bytes | None = None,
        report: Callable[[int, int], None] = _ignore,
        cancelled: Callable[[], bool] = _never,
    ) -> list[Damage]:
        """Hash all that is stored of one course, or of all; damaged chunks are dropped and will be fetched anew."""
        courses = [row.course for row in self.courses()] if course is None else [course]
        return verify(self._parts, courses, report, cancelled)

    def look(self) -> Seen:
        """See whether all that is said to be here is still on the disk under its name; see ``Presence``.

        Between two downloads the catalogue's log gives its room back. One call at a time. Raises StoreProblem.
        """
        try:
            seen = self._presence.look()
        except OSError as error:
            raise disk_problem(error, "looking at what is stored") from error
        if not self._downloads.busy():
            self._parts.catalogue.fold()
        return seen

    def folder_of(self, holding: Holding) -> str:
        """The user's own folder that some of a course is served from; empty where the store has all of it itself."""
        return folder_of(self._parts, holding)

    def still_damaged(self, findings: Sequence[Damage]) -> list[Damage]:
        """Those of verify's findings that hold although a download may have mended them."""
        return still_damaged(self._parts, findings)

    def checkouts(self, course: bytes) -> list[str]:
        """Folders that were made from a course and are still there."""
        return [path for path in map(os.fsdecode, self._parts.catalogue.checkouts(course)) if os.path.isdir(path)]

    def remove(self, course: bytes) -> Sweep:
        """Forget a course and free what only it needed. Raises Refused while it is fetched, NoSpace, StoreProblem.

        Then it is here as before; else it is gone, and what couldn't be freed (``left``) is for a later sweep.
        """
        self.forget(course)
        return self._sweep_after()

    def _sweep_after(self) -> Sweep:
        """``gc`` for what is done already, whatever becomes of its room."""
        try:
            return self.gc()
        except P2plearnError as error:
            log.warning("nothing more is freed for now: %s", error.message)
            return Sweep(0, 0, 0, (error.message,))

    def give_up(self, course: bytes) -> bool:
        """``remove`` what is kept for others alone; False, and nothing done, if this node's person wants it by now.

        They may have begun to (``CustodyRecords.claim``) since the caller looked.
        """
        if not self.forget(course, given_up=True):
            return False
        self._sweep_after()
        return True

    def forget(self, course: bytes, *, given_up: bool = False) -> bool:
        """Forget a course; ``gc`` frees what only it needed, once for any number of them. Raises as ``remove``.

        ``given_up``: only if it is kept for others alone; False if it isn't.
        """
        with self._downloads.of_course(course):
            if course in self._downloads:
                raise Refused("That course is being fetched right now.", "Stop the get first, then remove it.")
            with self._parts.gate:
                row = self._parts.catalogue.course(course)
                if given_up and row is not None and row.why != "custody":
                    return False
                try:
                    self._forget(course)
                except NoSpace:
                    # Deleting writes, too. On a full disk the reserve makes the room; it is made anew at the next open.
                    (self._parts.directory / opening.RESERVE).unlink(missing_ok=True)
                    self._forget(course)
                self._parts.forget(course)
                with contextlib.suppress(OSError):  # without a row it is swept at the next open
                    self._parts.course_files.remove(course)
        return True

    def claim(self, course: bytes, why: str) -> bool:
        """``CustodyRecords.claim``; whether the course is in the catalogue, and so stays. Not while it is given up."""
        with self._parts.gate:
            self.custody.claim(course, why)
            return self._parts.catalogue.course(course) is not None

    def _forget(self, course: bytes) -> None:
        with self._parts.catalogue.writing() as db:
            db.execute("DELETE FROM downloads WHERE course = ?", (course,))
            db.execute("DELETE FROM courses WHERE course = ?", (course,))

    def gc(self, dry_run: bool = False) -> Sweep:
        """Free what no course needs, and what killed checkouts left. Raises NoSpace, StoreProblem."""
        if not dry_run:
            self._part_folders.clear()
        return sweep(self._parts, self._downloads.busy, dry_run=dry_run)

    @property
    def home(self) -> Path:
        """The home it is in."""
        return self._parts.home

    def usage(self) -> Usage:
        """How much is kept, and how much could be."""
        limits = self._parts.budget.limits
        free = free_bytes(self._parts.directory)
        return Usage(self._parts.catalogue.held_bytes(), limits.quota, free, limits.min_free)


__all__ = [
    "CheckedOut",
    "CourseRow",
    "Damage",
    "Download",
    "Holding",
    "PublishMeta",
    "Published",
    "Store",
    "StoreLimits",
    "Sweep",
    "Usage",
    "destination_problem",
]
