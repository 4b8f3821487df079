"""Extents that no row of the catalogue names, as an opening finds them: what may be all that is left of a course stays.

Such a file is one that a crash left before its row was written or after it went; or it was away when the store was
looked at before, on a disk that wasn't mounted, and is back. So what a course lacks is looked for in it, by its list of
contents, or where it has none that is whole (a sector of it can't be read any more, say) by the hashes of all chunks
that the courses here have. What is found, and right, counts again. Without a list, and with bytes in it that nobody can
tell the use of while a course lacks something, it is set aside under ``ASIDE`` and named. All else is for
``sweep_orphans``: what nobody lacks, and what was never finished.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from p2plearn.course.index import Index
from p2plearn.store import contents
from p2plearn.store.catalogue import add_chunks, add_extent
from p2plearn.store.course_files import CourseFileDamaged
from p2plearn.store.durable import sync_directory, sync_file
from p2plearn.store.extents import ALIGNMENT, SUFFIX, is_extent
from p2plearn.store.parts import StoreParts

log = logging.getLogger("p2plearn.store")

ASIDE: Final = "unlisted"
"""The folder, beside ``extents/``, of what was set aside. Nothing here reads or deletes what is in it."""

_PATIENCE: Final = 2048
"""Places in a row that no chunk begins at, after which an extent is searched no further: each costs hashing a megabyte
and the start of the node waits, some seconds in all. What lies behind stays, set aside.
"""

_THREADS = 2


def take_back(parts: StoreParts, known: set[str]) -> set[str]:
    """Give extents without a row (not ``known``) that have what a course here lacks one again; their names.

    Others that may have it are moved aside. Raises OSError, StoreProblem.
    """
    back: set[str] = set()
    for name in sorted(entry.name for entry in os.scandir(parts.extents) if entry.name.endswith(SUFFIX)):
        if name in known or not is_extent(parts.extents / name):
            continue
        fd = os.open(parts.extents / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            listed = _listed(fd)
            took = _by_hashes(parts, name, fd) if listed is None else _by_list(parts, name, fd, listed)
        finally:
            os.close(fd)
        if took:
            back.add(name)
    return back


def _by_list(parts: StoreParts, name: str, fd: int, listed: Sequence[contents.Entry]) -> bool:
    lacking = {digest for digest, _, _ in listed}
    lacking -= set(parts.catalogue.locate(list(lacking)))
    courses = parts.courses_with(lacking)
    right = [entry for entry in right_chunks(fd, {}) if entry[0] in lacking] if courses else []
    return _adopt(parts, name, fd, right)


def _by_hashes(parts: StoreParts, name: str, fd: int) -> bool:
    """The same without a list; whether it has a row now. What may have more than was found is set aside besides."""
    if not _short(parts):
        return False
    lengths: dict[int, set[bytes]] = {}
    for row in parts.catalogue.courses():
        with contextlib.suppress(CourseFileDamaged):
            if row.indexed:
                note_lengths(lengths, parts.course_files.read(row.course)[1])
    found = list(contents.search(fd, lengths, ALIGNMENT, _PATIENCE))
    here = parts.catalogue.locate([digest for digest, _, _ in found])
    took = _adopt(parts, name, fd, [entry for entry in found if entry[0] not in here])
    if not _is_explained(found, os.fstat(fd).st_size) and _short(parts):
        _set_aside(parts, name, took=took)
    return took


def _short(parts: StoreParts) -> bool:
    """Whether a course here lacks anything: of its chunks, or the index that would say which they are."""
    return any(
        row.have_bytes != row.bytes if row.indexed else row.whole or row.have_bytes for row in parts.catalogue.courses()
    )


def _is_explained(found: Sequence[contents.Entry], size: int) -> bool:
    """Whether an extent of that size is chunks that were found, from the first to the last, and a list of them."""
    at = 0
    for _, offset, length in found:
        if offset - at >= ALIGNMENT:
            return False
        at = offset + length
    return size - at <= contents.size_for(len(found))


def _adopt(parts: StoreParts, name: str, fd: int, right: Sequence[contents.Entry]) -> bool:
    """Give an extent a row, and rows to those chunks of it; whether there are any."""
    if not right:
        return False
    sync_file(fd)  # a row means that its bytes are on the disk
    facts = os.fstat(fd)
    with parts.catalogue.writing() as db:
        extent = add_extent(db, name, min(facts.st_size, facts.st_blocks * 512))
        add_chunks(db, ((digest, extent, at, length) for digest, at, length in right))
    for course in parts.courses_with([digest for digest, _, _ in right]):
        parts.recount(course)
    log.warning("%s is back, with %d chunks that were missing", parts.extents / name, len(right))
    return True


def _set_aside(parts: StoreParts, name: str, *, took: bool) -> None:
    """Move an extent to where nothing deletes it; one that was taken back has a second name there."""
    folder = parts.directory / ASIDE
    folder.mkdir(mode=0o700, exist_ok=True)
    path, aside = parts.extents / name, folder / name
    if took:
        with contextlib.suppress(OSError):  # it was before; or no links here, and it stays until a sweep compacts it
            os.link(path, aside, follow_symlinks=False)
    else:
        os.rename(path, aside)
    sync_directory(folder)
    sync_directory(parts.extents)
    words = (
        f"What is in {path} can't all be told: its list of contents is damaged. Courses here lack something that it "
        f"may have, so it was set aside as {aside}. `p2plearn verify --repair` fetches what is missing; delete it "
        "when all is well."
    )
    log.warning("%s", words)
    parts.notices.append(words)


# What is in an extent ----------------------------------------------------------------------------------------------


def note_lengths(known: dict[int, set[bytes]], index: Index) -> None:
    """Add the digests of a course's chunks, by length, to those that ``right_chunks`` knows."""
    for slot, length in enumerate(index.lengths):
        known.setdefault(length, set()).add(index.digest(slot))


def right_chunks(fd: int, lengths: dict[int, set[bytes]]) -> list[contents.Entry]:
    """The chunks of an open extent that are what they are said to be; without a list those of ``lengths``."""
    listed = _listed(fd)
    if listed is None:
        # Of an older format, or cut short: slower, and what lies behind a damaged chunk may not be found.
        return list(contents.search(fd, lengths, ALIGNMENT))

    def is_right(entry: contents.Entry) -> bool:
        digest, offset, length = entry
        try:
            return hashlib.sha256(os.pread(fd, length, offset)).digest() == digest
        except OSError:
            return False  # a sector that can't be read

    with ThreadPoolExecutor(_THREADS, "rebuild") as threads:
        verdicts = threads.map(is_right, listed, chunksize=64)
        return [entry for entry, right in zip(listed, verdicts, strict=True) if right]


def _listed(fd: int) -> list[contents.Entry] | None:
    """The list of an open extent; None where there is none that can be read."""
    try:
        return contents.read(fd)
    except OSError:
        return None
