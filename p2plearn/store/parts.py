"""The parts of an open store that its operations share, and the rules between them.

``gate`` orders what looks chunks up in order to rely on them (opening a course, planning a download, a publish that
meets a chunk it knows) against what takes chunks away (sweep, compaction). Hold it for looking up and noting down,
never while bytes are read, hashed or written.

Imports ``course``, ``errors``, ``named_file`` and siblings.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from p2plearn.course.digests import each
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.errors import StoreProblem
from p2plearn.named_file import is_named
from p2plearn.store.catalogue import Catalogue
from p2plearn.store.course_files import CourseFileDamaged, CourseFiles
from p2plearn.store.extents import ExtentFiles
from p2plearn.store.placement import Placement
from p2plearn.store.problems import disk_problem
from p2plearn.store.space import Budget, StoreLimits

log = logging.getLogger("p2plearn.store")

FORMAT = "FORMAT"
"""The file that says what is in a store's folder; locked for as long as the store is open."""

_RECENT = 16
"""Courses whose placement stays in memory after the last reader is gone, so that they needn't be hashed anew."""


class StoreParts:
    """Catalogue, files, budget and open placements of one store."""

    def __init__(self, home: Path, catalogue: Catalogue, limits: StoreLimits, lock: int) -> None:
        self.home = home
        self._lock = lock
        self.directory = home / "store"
        self.extents = self.directory / "extents"
        self.catalogue = catalogue
        self.files = ExtentFiles(self.extents, catalogue, self._doubt)
        self.course_files = CourseFiles(self.directory / "courses")
        self.budget = Budget(limits, self.directory)
        self.notices: list[str] = []
        self.as_left = False
        """At the opening the catalogue was byte for byte as it had been closed."""
        """What the person should know of the opening."""
        self.gate = threading.RLock()
        self.sweeping = threading.Lock()
        """One sweep at a time. Taken before ``gate``, never while holding it."""
        self.pins: dict[object, set[bytes]] = {}
        """Digests that a running publish relies on, by publish: live for every sweep. Under ``gate``."""
        self.lent: dict[bytes, set[bytes]] = {}
        """By course that is about to be kept in place: digests that the store took from files its checkout replaces, to
        be given back to it. Emptied by whatever else begins to rely on what the store has. Under ``gate``."""
        self._placements: weakref.WeakValueDictionary[bytes, Placement] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[bytes, Placement] = OrderedDict()
        self._forgotten: weakref.WeakSet[Placement] = weakref.WeakSet()
        """Those of courses that were removed while somebody read them."""

    def in_place(self) -> bool:
        """Whether what this store has open is what lies at its home's path: another home may be there by now."""
        try:
            return is_named(self.directory / FORMAT, self._lock)
        except OSError:
            return False

    def check_in_place(self) -> None:
        """Raise StoreProblem unless what was written below the home's path is what the catalogue is about to name."""
        if not self.in_place():
            raise StoreProblem(
                f"The store in {self.home} was deleted or moved, or its disk is not plugged in any more.",
                "Bring it back, then stop the node and start it again.",
            )

    def placement(self, course: bytes, *, refresh: bool = True) -> Placement | None:
        """Where a course's chunks lie; None unless its index is here. A damaged index file counts as none.

        ``refresh`` looks for what other courses brought since: not for a course that is being fetched and asked often.
        """
        with self.gate:
            known = self._placements.get(course)
            if known is not None:
                return self._remember(self._refreshed(known) if refresh else known)
            row = self.catalogue.course(course)
            if row is None or not row.indexed:
                return None
            try:
                signed, index = self.course_files.read(course)
            except CourseFileDamaged:
                self.drop_index(course)
                return None
            return self._remember(self._load(signed, index))

    def placement_of(self, signed: SignedManifest, index: Index) -> Placement:
        """The same for a course that may not be in the catalogue yet."""
        with self.gate:
            known = self._placements.get(signed.course)
            return self._remember(self._refreshed(known) if known is not None else self._load(signed, index))

    def _refreshed(self, placement: Placement) -> Placement:
        usable = self.usable()
        placement.drop_unusable(usable)
        if not placement.complete:
            placement.locate(self.catalogue, usable)
        return placement

    def _load(self, signed: SignedManifest, index: Index) -> Placement:
        placement = Placement(signed, index)
        placement.locate(self.catalogue, self.usable())
        return placement

    def _remember(self, placement: Placement) -> Placement:
        self._placements[placement.course] = placement
        self._recent[placement.course] = placement
        self._recent.move_to_end(placement.course)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return placement

    def relocate(self, placement: Placement, slots: Sequence[int]) -> None:
        """Look up anew where slots lie, after their rows were changed."""
        with self.gate:
            placement.locate_again(self.catalogue, self.usable(), slots)

    def forget(self, course: bytes) -> None:
        """Drop a course's placement; whoever still holds it keeps it for himself, true to what becomes of extents."""
        with self.gate:
            placement = self._placements.pop(course, None)
            if placement is not None:
                self._forgotten.add(placement)
            self._recent.pop(course, None)

    def open_placements(self) -> list[Placement]:
        """Those in memory."""
        with self.gate:
            return [*self._placements.values(), *self._forgotten]

    def _doubt(self, extent: int) -> None:
        """Whatever was known good of an extent is to be hashed again before it counts."""
        for placement in self.open_placements():
            placement.doubt(extent)

    def usable(self) -> Usability:
        """A fresh judge of which extents' chunks count."""
        return Usability(self.catalogue)

    def drop_index(self, course: bytes) -> None:
        """Note that a course's index is no longer here; it will be fetched again."""
        with self.catalogue.writing() as db:
            db.execute("UPDATE courses SET indexed = 0, have_bytes = 0 WHERE course = ?", (course,))

    def check_index(self, course: bytes) -> None:
        """Read a course's file again, whatever is known: a damaged one is written anew from memory, or dropped."""
        with self.gate:
            row = self.catalogue.course(course)
            if row is None or not row.indexed:
                return
            try:
                self.course_files.read(course)
            except CourseFileDamaged as damage:
                known = self._placements.get(course)
                if known is None:
                    self.drop_index(course)
                    return
                log.warning("the index of %s was damaged (%s) and is written anew", course.hex(), damage)
                try:
                    self.course_files.write(known.signed, known.index.encode())
                except OSError as error:
                    raise disk_problem(error, "writing a damaged index anew") from error

    def recount(self, course: bytes) -> None:
        """Count anew how many bytes of a course are here."""
        placement = self.placement(course)
        if placement is not None:
            with self.catalogue.writing() as db:
                db.execute("UPDATE courses SET have_bytes = ? WHERE course = ?", (placement.have_bytes, course))

    def quarantine(self, chunks: Iterable[tuple[bytes, int, int]]) -> None:
        """Take damaged chunks (digest, extent, offset) out of the catalogue, every open course, and the counts."""
        chunks = list(chunks)
        digests = {chunk[0] for chunk in chunks}
        with self.gate:
            with self.catalogue.writing() as db:
                db.executemany("DELETE FROM chunks WHERE digest = ? AND extent = ? AND offset = ?", chunks)
            usable = self.usable()
            for placement in self.open_placements():
                slots = [slot for digest in digests for slot in placement.slots_of(digest)]
                if slots:
                    placement.locate_again(self.catalogue, usable, slots)
            for course in self.courses_with(digests):
                self.recount(course)

    def courses_with(self, digests: Collection[bytes]) -> list[bytes]:
        """Courses that any of these chunks belongs to; an index that turns out damaged is dropped."""
        found = []
        wanted = frozenset(digests)
        for row in self.catalogue.courses() if wanted else ():
            if not row.indexed:
                continue
            try:
                held = self.course_files.digests(row.course)
            except CourseFileDamaged:
                self.drop_index(row.course)
                continue
            if not wanted.isdisjoint(each(held)):
                found.append(row.course)
        return found


class Usability:
    """Which extents' chunks count: the store's own always, the user's files while they look as recorded."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[int, bool] = {}

    def __call__(self, extent: int) -> bool:
        """True if they do; each extent is looked at once."""
        known = self._known.get(extent)
        if known is None:
            known = self._known[extent] = self._look(extent)
        return known

    def _look(self, extent: int) -> bool:
        row = self._catalogue.extent(extent)
        if row is None or row.path is None:
            return row is not None
        try:
            facts = os.lstat(row.path)
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime_ns, facts.st_ino) == (row.size, row.mtime_ns, row.inode)
