"""The downloads of a store that are open: one a course, whoever else wants of it meanwhile.

What must hold: nothing is planned before there is room for it; what a sweep or a person's ``remove`` does is kept from
what is being fetched (``busy``, ``of_course``).

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.errors import P2plearnError, Refused
from p2plearn.store.bringing import all_stay, found_in, none_stay, stay_unless_replaced
from p2plearn.store.checkout import is_free, is_large
from p2plearn.store.download import Download
from p2plearn.store.follow import Following, largest
from p2plearn.store.parts import StoreParts
from p2plearn.store.problems import disk_problem
from p2plearn.store.publish import add_course
from p2plearn.store.share import can_share
from p2plearn.store.space import check_disk


class _Place(NamedTuple):
    """Where a download is to be checked out to: which files, whether nothing is there yet, whether it is on the store's
    disk, whether that shares blocks, and which files may become the user's without being copied.
    """

    dest: Path
    files: Sequence[FileEntry]
    free: bool
    same_disk: bool
    shares: bool
    given: Sequence[FileEntry]

    def without(self, alone: Sequence[FileEntry]) -> list[FileEntry]:
        """The files that are none of ``alone``."""
        passed_over = {entry.first for entry in alone}
        return [entry for entry in self.files if not entry.count or entry.first not in passed_over]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What somebody wants of a course: ``wanted`` files (None: all), and a ``place`` to check them out to. ``give``: it
    is kept in place, so the user's files may count; ``look_in`` are folders that may have some of it.
    """

    wanted: Sequence[FileEntry] | None
    place: _Place | None
    give: bool
    look_in: Sequence[Path]

    @property
    def folders(self) -> list[Path]:
        """Where some of the course may lie: a place that isn't free is one of them."""
        return [*self.look_in, *([] if self.place is None or self.place.free else [self.place.dest])]


class Downloads:
    """``begin`` one; it is here until its last use has closed it. From any thread."""

    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts
        self._live: dict[bytes, Download] = {}
        self._opening: dict[bytes, threading.Lock] = {}
        self._mutex = threading.Lock()

    def __contains__(self, course: bytes) -> bool:
        """Whether a download of ``course`` is open."""
        with self._mutex:
            return course in self._live

    def have_bytes(self, course: bytes) -> int | None:
        """Bytes of a course that are here while a download of it is open; None when none is."""
        with self._mutex:
            live = self._live.get(course)
        return None if live is None else live.have_bytes

    def of_course(self, course: bytes) -> threading.Lock:
        """Held while a download of ``course`` begins."""
        with self._mutex:
            return self._opening.setdefault(course, threading.Lock())

    def busy(self) -> set[int]:
        """Extents that are being written to."""
        with self._mutex:
            return {extent for download in self._live.values() for extent in download.extents}

    def end(self) -> P2plearnError | None:
        """Commit all that are open; returns what went wrong with the last one with which something did."""
        problem: P2plearnError | None = None
        with self._mutex:
            live = list(self._live.values())
        for download in live:
            try:
                download.end()
            except P2plearnError as error:
                problem = error
        return problem

    def begin(
        self,
        signed: SignedManifest,
        index_raw: bytes,
        index: Index,
        wanted: Sequence[FileEntry] | None,
        why: str,
        *,
        checkout: Path | None,
        give: bool,
        follow: bool,
        look_in: Sequence[Path],
    ) -> Download:
        """See ``Store.begin_download``."""
        course = signed.course
        files = index.files if wanted is None else wanted
        place = None if checkout is None else self._place(course, checkout, files, give)
        wish = _Wish(wanted, place, give, look_in)
        with self.of_course(course):
            with self._mutex:
                live = self._live.get(course)
                if live is not None:
                    live.share()
            if live is not None:
                self._join(live, wish)
                return live
            download = self._start(signed, index_raw, index, wish, why=why)
            if place is not None and follow:
                self._follow(download, place)
            return download

    def _place(self, course: bytes, checkout: Path, files: Sequence[FileEntry], give: bool) -> _Place:
        dest = Path(os.path.realpath(checkout))
        free = False
        # Only a hint: the checkout will say what is wrong with its destination.
        with contextlib.suppress(OSError, Refused):
            free = is_free(dest)
        if not free and self._parts.catalogue.checkout_course(os.fsencode(dest)) == course:
            # As far as sizes tell: what was written before the last get ended needs no room again.
            files = [entry for entry in files if _size(dest / entry.path) != entry.size]
        there = _existing(dest)
        same_disk = os.stat(there).st_dev == os.stat(self._parts.directory).st_dev
        given = largest(files) if give and free and same_disk else []
        # Asked once: the answer is tried for on the disk.
        return _Place(dest, files, free, same_disk, can_share(self._parts.extents, there), given)

    def _follow(self, download: Download, place: _Place) -> None:
        """Have a download write the large files of its checkout as they come, where nothing stands in the way."""
        if place.shares or not place.free or not download.missing_bytes:
            return  # where blocks can be shared, nothing need be written there
        files = place.without(download.alone(place.given))
        with contextlib.suppress(OSError):
            if Following.pays(files):
                download.follow(Following(download.index, place.dest, files))

    def _join(self, live: Download, wish: _Wish) -> None:
        """Have a download that is under way bring this, too; closes it for who asks if that can't be."""
        with _closed_if_it_fails(live):
            live.want(wish.wanted)
            self._rely(live, wish)
            live.plan_missing(beside=self._beside(wish.place, []))
            self._have_from_here(live, wish)

    def _start(self, signed: SignedManifest, index_raw: bytes, index: Index, wish: _Wish, *, why: str) -> Download:
        parts, course = self._parts, signed.course
        with parts.gate:
            row = parts.catalogue.course(course)
            fresh_file = row is None or not row.indexed
            # Until the course is in the catalogue, a sweep could take what is found here.
            download = Download(parts, parts.placement_of(signed, index), self._ended)

            def keep() -> None:
                if fresh_file:
                    try:
                        parts.course_files.write(signed, index_raw)
                    except OSError as error:
                        raise disk_problem(error, "keeping the course's index") from error

            def note(db: sqlite3.Connection) -> None:
                add_course(db, signed, why=why, now=int(time.time()), indexed=True)
                db.execute("UPDATE courses SET have_bytes = ? WHERE course = ?", (download.have_bytes, course))

            with _closed_if_it_fails(download), contextlib.ExitStack() as undo:
                if fresh_file:  # until something says that this index is here, nothing may be remembered of it
                    undo.callback(parts.forget, course)
                for plan in parts.catalogue.plans(course):
                    download.adopt(plan)
                download.want(wish.wanted)
                self._rely(download, wish)
                alone = [] if wish.place is None else download.alone(wish.place.given)
                download.plan_missing(note, before=keep, beside=self._beside(wish.place, alone), apart=alone)
                with self._mutex:
                    self._live[course] = download
                undo.pop_all()
        with _closed_if_it_fails(download):
            download.resume()
            self._have_from_here(download, wish)
        return download

    def _rely(self, download: Download, wish: _Wish) -> None:
        """Say what of a download may stay in the user's files: only what is kept in place counts on them."""
        if not wish.give:
            with self._parts.gate:
                self._parts.lent.clear()
            download.rely_on(none_stay)
        elif wish.place is None:
            download.rely_on(all_stay)
        else:
            download.rely_on(stay_unless_replaced(download.placement, wish.place.dest))

    def _have_from_here(self, download: Download, wish: _Wish) -> None:
        """Take what is on this machine already: in files that may not be relied on, and in checkouts."""
        brought = download.bring_in()
        if wish.give:
            with self._parts.gate:
                self._parts.lent.setdefault(download.course, set()).update(brought)
        for folder in wish.folders:
            missing = download.missing()
            if not missing:
                return
            there = self._parts.catalogue.checkout_course(os.fsencode(folder))
            other = None if there is None or there == download.course else self._parts.placement(there)
            indexes = [download.index, *([] if other is None else [other.index])]
            found = 0
            for offers in found_in(folder, indexes, download.index, missing):
                download.put_many(offers)
                found += sum(download.index.lengths[slot] for slot, _ in offers)
            if found:
                download.found_bytes += found
                download.commit()

    def _beside(self, place: _Place | None, alone: Sequence[FileEntry]) -> int:
        """Bytes that checking out will take on the store's own disk; on another one they are checked for at once.

        ``alone`` are files that will be the store's own.
        """
        if place is None:
            return 0
        size = sum(entry.size for entry in place.without(alone) if not (place.shares and is_large(entry)))
        if place.shares or place.same_disk:
            return size
        check_disk(_existing(place.dest), size, 0, f"Writing the course to {place.dest}")
        return 0

    def _ended(self, download: Download) -> None:
        with self._mutex:
            if self._live.get(download.course) is download:
                del self._live[download.course]


@contextlib.contextmanager
def _closed_if_it_fails(download: Download) -> Iterator[None]:
    try:
        yield
    except BaseException:
        download.close()
        raise


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1


def _existing(place: Path) -> Path:
    """The nearest directory that is there, of a place or above it."""
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place
