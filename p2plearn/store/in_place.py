"""A checkout becomes what is kept of a course: its bytes are on this disk once, in the user's own files.

After ``get --no-copy``. Large files that lie alone in an extent were made the user's as they are (``alone``). Every
other one is read and every chunk hashed before the store lets go of its own copy; a file that isn't the course's (any
more) keeps its copy in the store, and so do chunks that other courses need. What lay in another file of the user's is
found here from then on, whoever needs it: that file may be the one which this checkout has replaced. From then on it is
as after ``publish --no-copy``: the files count only while size, time and inode are as recorded.

Crash promise: one transaction says that the chunks lie in the user's files; the store's own go afterwards, by a sweep.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from p2plearn.course.digests import each
from p2plearn.course.file_table import FileEntry
from p2plearn.errors import Interrupted
from p2plearn.store import users_files
from p2plearn.store.course_files import CourseFileDamaged
from p2plearn.store.holding import Holding
from p2plearn.store.parts import StoreParts
from p2plearn.store.placement import NOWHERE
from p2plearn.store.tree import READ, Tree

_PLACE_ANEW = """
INSERT INTO chunks VALUES (?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET extent = excluded.extent, offset = excluded.offset
WHERE length = excluded.length AND (? OR extent NOT IN (SELECT id FROM extents))
"""
"""A chunk of (digest, extent, offset, length) lies there now. One in the store's own extents does so only where the
last value says that no other course needs it; one in a file of the user's always: the newest file counts."""


def serve_in_place(
    parts: StoreParts,
    holding: Holding,
    dest: Path,
    files: Sequence[FileEntry],
    cancelled: Callable[[], bool],
    *,
    known: Mapping[str, os.stat_result],
) -> int:
    """Note that the chunks of ``files`` lie in the checkout at ``dest``; returns how many of the files are right there.

    ``known`` says by path in the course how files looked when they were right. Nothing is freed yet: that is for a
    sweep. Raises StoreProblem, Interrupted.
    """
    ours: list[tuple[os.stat_result, FileEntry]] = []
    root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Tree(root) as tree:
            for entry in files:
                if cancelled():
                    raise Interrupted("Interrupted: the course is in the store and in its folder.")
                facts = known.get(entry.path)
                if facts is None and entry.count:
                    facts = _facts_if_right(holding, tree, entry)
                if facts is not None:
                    ours.append((facts, entry))
    finally:
        os.close(root)
    with parts.gate:
        needed = _needed_elsewhere(parts, holding)
        with parts.catalogue.writing() as db:
            folder = os.fsencode(dest)
            looks = (
                (os.path.join(folder, os.fsencode(entry.path)), facts.st_size, facts.st_mtime_ns, facts.st_ino)
                for facts, entry in ours
            )
            for extent, (_, entry) in zip(users_files.add(db, folder, looks), ours, strict=True):
                places = [(digest, extent, at, length) for at, digest, length in _places(holding, entry)]
                db.executemany(_PLACE_ANEW, ((*row, row[0] not in needed) for row in places))
    parts.relocate(holding.placement, [slot for _, one in ours for slot in range(one.first, one.first + one.count)])
    return len(ours)


def _facts_if_right(holding: Holding, tree: Tree, entry: FileEntry) -> os.stat_result | None:
    """How a file of the checkout looks, if it holds the course's bytes; None if it doesn't."""
    *folders, name = entry.path.split("/")
    try:
        fd = os.open(name, READ, dir_fd=tree.existing(folders))
    except OSError:
        return None
    try:
        before = os.fstat(fd)
        offset = 0
        for slot in range(entry.first, entry.first + entry.count):
            chunk = os.pread(fd, holding.index.lengths[slot], offset)
            if hashlib.sha256(chunk).digest() != holding.index.digest(slot):
                return None
            offset += len(chunk)
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # read once; others' pages matter more
        after = os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    same = (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    return after if same and after.st_size == entry.size else None


def _needed_elsewhere(parts: StoreParts, holding: Holding) -> set[bytes]:
    """Digests of this course that others here have, too: what the store has of those stays its own."""
    mine = {holding.index.digest(slot) for slot in range(len(holding.index))}
    found: set[bytes] = set()
    for row in parts.catalogue.courses():
        if row.course == holding.course or not row.indexed:
            continue
        with contextlib.suppress(CourseFileDamaged):
            found.update(mine.intersection(each(parts.course_files.digests(row.course))))
    # Taken from files that this checkout has replaced: nobody else counted on the store's having it.
    found -= parts.lent.pop(holding.course, set())
    return found.union(*(mine & pinned for pinned in parts.pins.values()))


def _places(holding: Holding, entry: FileEntry) -> Iterator[tuple[int, bytes, int]]:
    """(offset in the file, digest, length) of each of its chunks."""
    offset = 0
    for slot in range(entry.first, entry.first + entry.count):
        yield offset, holding.index.digest(slot), holding.index.lengths[slot]
        offset += holding.index.lengths[slot]


def folder_of(parts: StoreParts, holding: Holding) -> str:
    """The folder of the user's that a course, or some of it, is served from (a course of one file: that file); empty
    where the store has all of it itself.
    """
    placement, found = holding.placement, ""
    for extent in sorted(set(placement.extents) - {NOWHERE}):
        row = parts.catalogue.extent(extent)
        if row is None or row.path is None:
            continue
        path = placement.file_of(placement.extents.index(extent)).path
        if holding.signed.manifest.kind == "folder" and row.user_path.endswith(f"/{path}"):
            return row.user_path.removesuffix(f"/{path}")
        found = found or row.user_path  # by another name: a file may be there twice
    return found
