"""Extents: the large files that chunks lie in, back to back in course order.

One extent a publish, one a download: a course is then a few long runs on the disk, made durable by one fsync, read
and copied with large requests. Files of a course of 4 KiB and more begin on a 4 KiB boundary, so that file systems
that share blocks can share them. What lies between the chunks is zero.

An extent of the store's own is only ever written where no chunk row points. An *external* extent is one of the
user's files (publish without copying): it counts only while size, modification time and inode are as recorded. Those
can be put back by whoever changes a file; its change time can't, so when that moves, what is known of the file's bytes
is in doubt, and they are hashed again before they count.

``ExtentFiles`` keeps a bounded number of them open. Unlinking an extent harms no read that is under way.

Imports ``errors``, ``named_file`` and siblings.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from p2plearn.course.index import Index
from p2plearn.named_file import is_named
from p2plearn.store.catalogue import Catalogue, ExtentRow
from p2plearn.store.durable import sync_directory
from p2plearn.store.originals import Originals
from p2plearn.store.past_cache import PastCache

ALIGNMENT = 4096
"""Where files of a course begin in an extent; the block size of nearly every file system."""

OPEN_FILES = 128
"""Extents kept open at once. A course has a few; only courses that were never copied have one a file."""

_CHANGE_TIMES = 16_384
"""Files of the user's whose change time is remembered (2 MiB); of others, what is read is hashed each time they are
opened.
"""

_ORIGINALS = 8
"""Extents of which it is known what they were copied from: those that were published last."""

SUFFIX = ".extent"
UNFINISHED = ".new"
"""How the name of an extent ends, behind ``SUFFIX``, until its list of contents is in it; till then it is nobody's."""
_MODE = 0o600


class ExtentGone(LookupError):
    """No such extent any more: it was swept or compacted. Look the chunk up again."""


class ExternalChanged(Exception):
    """One of the user's files that chunks refer to is gone or not as it was; the message says how."""


def create_extent(directory: Path) -> tuple[str, int]:
    """A new empty extent file, ``UNFINISHED``; its name and a descriptor for reading and writing. Raises OSError."""
    name = secrets.token_hex(12) + SUFFIX + UNFINISHED
    fd = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    return name, fd


def finish_extent(directory: Path, name: str) -> str:
    """Give an extent that has its list the name that the catalogue may know it by; which that is. Raises OSError.

    The caller syncs the directory, and only then adds the row.
    """
    finished = name.removesuffix(UNFINISHED)
    os.rename(directory / name, directory / finished)
    return finished


def start_of_file(cursor: int, size: int) -> int:
    """Where a course's file of ``size`` bytes begins in an extent that is filled up to ``cursor``."""
    return -(-cursor // ALIGNMENT) * ALIGNMENT if size >= ALIGNMENT else cursor


class Layout(NamedTuple):
    """Slots in the order they lie in an extent, where each begins, and where the last ends."""

    slots: array[int]
    offsets: array[int]
    end: int


def plan_layout(index: Index, wanted: bytearray) -> Layout:
    """Places for the slots whose byte in ``wanted`` is 1.

    Slots in course order. ``wanted`` has one byte a slot and names at most one slot of each digest.
    """
    slots, offsets, cursor = array("I"), array("Q"), 0
    lengths = index.lengths
    for entry in index.files:
        end = entry.first + entry.count
        slot = wanted.find(1, entry.first, end)
        if slot >= 0:
            cursor = start_of_file(cursor, entry.size)
        while slot >= 0:
            slots.append(slot)
            offsets.append(cursor)
            cursor += lengths[slot]
            slot = wanted.find(1, slot + 1, end)
    return Layout(slots, offsets, cursor)


def written_ranges(fd: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the parts of a file that were ever written; all of it where the system can't tell."""
    end = os.fstat(fd).st_size
    position = 0
    while position < end:
        if hasattr(os, "SEEK_DATA"):
            try:
                position = os.lseek(fd, position, os.SEEK_DATA)
                stop = os.lseek(fd, position, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == 6:  # ENXIO: only a hole is left
                    return
                stop = end
        else:
            stop = end
        yield position, stop
        position = stop


def external_state(facts: os.stat_result, row: ExtentRow) -> str:
    """How one of the user's files differs from what was recorded; empty if it doesn't."""
    if facts.st_size != row.size:
        return f"it has {facts.st_size} bytes now, {row.size} when it became part of the course"
    if facts.st_mtime_ns != row.mtime_ns or facts.st_ino != row.inode:
        return "it was changed or replaced since it became part of the course"
    return ""


class _Open:
    """An open extent: its descriptor, how many reads are using it, its row when it is external."""

    __slots__ = ("ahead", "fd", "originals", "past", "pins", "row", "stale")

    def __init__(self, fd: int, row: ExtentRow | None, originals: Originals | None) -> None:
        self.fd = fd
        self.row = row
        self.ahead = True
        self.originals = originals
        self.past: PastCache | None = None
        self.pins = 0
        self.stale = False

    def close(self) -> None:
        os.close(self.fd)
        if self.past is not None:
            self.past.close()


class ExtentFiles:
    """Open extents by id, least recently used closed first, never one that is being read. Thread-safe."""

    def __init__(
        self, directory: Path, catalogue: Catalogue, doubt: Callable[[int], None], limit: int = OPEN_FILES
    ) -> None:
        """``doubt`` is called with each external extent of which it isn't certain that nobody has written to it."""
        self.directory = directory
        self._catalogue = catalogue
        self._doubt = doubt
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._originals: OrderedDict[str, Originals] = OrderedDict()
        self._change_times: OrderedDict[int, int] = OrderedDict()

    def copied_from(self, name: str, originals: Originals) -> None:
        """Note what the extent of that name, which nobody has read yet, was copied from."""
        with self._lock:
            if originals:
                self._originals[name] = originals
            while len(self._originals) > _ORIGINALS:
                self._originals.popitem(last=False)

    def pin(self, extent: int, *, named: bool = False) -> _Open:
        """An open extent that stays open until ``unpin``. Raises ExtentGone, ExternalChanged, OSError.

        ``named``: it is the file that has the name now. One that was deleted can be read for as long as it is open.
        """
        with self._lock:
            entry = self._open.get(extent)
            if entry is not None:
                entry.pins += 1
                self._open.move_to_end(extent)
        if entry is not None and named and not self._has_name(extent, entry):
            self.unpin(entry)
            self.forget(extent)
            entry = None
        if entry is None:
            entry = self._add(extent)
        if entry.row is not None:
            facts = os.fstat(entry.fd)
            state = external_state(facts, entry.row)
            if state:
                self.unpin(entry)
                self.forget(extent)
                raise ExternalChanged(f"{entry.row.user_path}: {state}")
            self._note_change_time(extent, facts.st_ctime_ns)
        return entry

    def _note_change_time(self, extent: int, changed: int) -> None:
        known = self._change_times.get(extent)
        if known == changed:
            return
        # Before it is noted: who pins at the same time must not find the old trust beside the new time.
        self._doubt(extent)
        with self._lock:
            self._change_times[extent] = changed
            self._change_times.move_to_end(extent)
            while len(self._change_times) > _CHANGE_TIMES:
                self._change_times.popitem(last=False)

    def left_alone(self, extent: int, path: str, since: float) -> None:
        """Note that a user's file was read and hashed after ``since`` (wall clock), if it wasn't changed since then."""
        with contextlib.suppress(OSError):
            changed = os.stat(path, follow_symlinks=False).st_ctime_ns
            if changed < since * 1e9:
                with self._lock:
                    self._change_times[extent] = changed

    def _has_name(self, extent: int, entry: _Open) -> bool:
        row = entry.row or self._catalogue.extent(extent)
        if row is None:
            return False
        try:
            return is_named(row.user_path if row.name is None else self.directory / row.file_name, entry.fd)
        except OSError:
            return False

    def inodes(self) -> dict[int, int]:
        """The inode of each extent that is open."""
        with self._lock:
            return {extent: os.fstat(entry.fd).st_ino for extent, entry in self._open.items()}

    def unpin(self, entry: _Open) -> None:
        """End a read."""
        with self._lock:
            entry.pins -= 1
            if entry.stale and entry.pins == 0:
                entry.close()

    def read_ahead(self, entry: _Open, *, ahead: bool) -> None:
        """Say whether what follows a read of a pinned extent is worth having in memory; a hint to the system."""
        with self._lock:
            if entry.ahead is not ahead:
                entry.ahead = ahead
                with contextlib.suppress(OSError, AttributeError):
                    os.posix_fadvise(entry.fd, 0, 0, os.POSIX_FADV_NORMAL if ahead else os.POSIX_FADV_RANDOM)

    def past_cache(self, entry: _Open) -> PastCache | None:
        """How a pinned extent is read past the page cache; None for a file of the user's, which others read, too."""
        with self._lock:
            if entry.past is None and entry.row is None:
                entry.past = PastCache(entry.fd)
            return entry.past

    def _add(self, extent: int) -> _Open:
        row = self._catalogue.extent(extent)
        if row is None:
            raise ExtentGone(extent)
        originals = self._originals.get(row.file_name)  # names are never given twice, numbers may be
        entry = _Open(self._open_file(row), row if row.name is None else None, originals)
        with self._lock:
            other = self._open.get(extent)
            if other is not None:
                entry.close()
                entry = other
            else:
                self._open[extent] = entry
            entry.pins += 1
            self._open.move_to_end(extent)
            for key in [key for key, one in self._open.items() if one.pins == 0][: len(self._open) - self._limit]:
                self._open.pop(key).close()
        return entry

    def _open_file(self, row: ExtentRow) -> int:
        if row.name is None:
            try:
                return os.open(row.user_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                reason = os.strerror(error.errno or 0).lower()
                raise ExternalChanged(f"{row.user_path}: {reason}") from None
        path = self.directory / row.file_name
        if not is_extent(path):
            raise ExtentGone(row.id)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise ExtentGone(row.id) from None

    def forget(self, extent: int) -> None:
        """Close an extent as soon as nobody reads it, so that the next ``pin`` opens it anew."""
        with self._lock:
            entry = self._open.pop(extent, None)
            if entry is not None:
                entry.stale = True
                if entry.pins == 0:
                    entry.close()

    def close(self) -> None:
        """Close all."""
        for extent in list(self._open):
            self.forget(extent)


def is_extent(path: Path) -> bool:
    """Whether an extent's name has a file that can be read: not a folder, link or pipe that somebody put there.

    One of our own that was closed to us is opened again. Raises OSError when the disk doesn't say.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    if not os.access(path, os.R_OK):
        with contextlib.suppress(OSError):  # another user's
            os.chmod(path, _MODE)
    return os.access(path, os.R_OK)


def remove_extent(directory: Path, name: str) -> None:
    """Unlink an extent file that no row refers to any more; it being gone already is fine. A folder in its place is
    somebody's, and stays.
    """
    path = directory / name
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)


def sweep_orphans(directory: Path, known: set[str], report: Callable[[str], None] | None = None) -> int:
    """Delete extent files without a row: publishes that never committed. Returns how many bytes that freed.

    What can't be read stays, for it may be all that is left of a course, until somebody opens it again.
    """
    freed = 0
    with os.scandir(directory) as entries:
        files = [entry for entry in entries if entry.name not in known and entry.is_file(follow_symlinks=False)]
    orphans = [entry for entry in files if os.access(entry.path, os.R_OK)]
    for entry in orphans:
        freed += entry.stat(follow_symlinks=False).st_size
        os.unlink(entry.path)
        if report is not None:
            report(entry.name)
    if orphans:
        sync_directory(directory)
    return freed
