"""What of a course lies in the user's files, and what of it a download must not go on relying on.

A person may change or delete a file at any time. Only a course that is kept in place (``in_place``) may count on them;
any other get, custody and import take a copy into the store first. So does a get that keeps the course in place, of
what lies in files that its own checkout is about to replace.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.store import users_files
from p2plearn.store.catalogue import ExtentRow
from p2plearn.store.gathering import Offer
from p2plearn.store.holding import Holding
from p2plearn.store.parts import StoreParts
from p2plearn.store.placement import NOWHERE, Placement, file_extent
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.tree import READ, Tree

MayStay = Callable[[ExtentRow], bool]
"""Whether what lies in one of the user's files may be relied on there."""

_BATCH = 4 * 1024 * 1024
"""Bytes read and written in one go."""


def none_stay(_row: ExtentRow) -> bool:
    """Of no file of the user's."""
    return False


def all_stay(_row: ExtentRow) -> bool:
    """Of each of them."""
    return True


def stay_unless_replaced(placement: Placement, dest: Path) -> MayStay:
    """For a course that is to be kept in place at ``dest``: files that its checkout replaces or drops don't count.

    One that has all of its chunks where the course has them is left as it is.
    """
    unchanged = {(extent, os.fsencode(dest / entry.path), entry.size) for extent, entry in _as_they_are(placement)}
    below = os.fsencode(dest) + b"/"

    def stays(row: ExtentRow) -> bool:
        path = row.path or b""
        return not path.startswith(below) or (row.id, path, row.size) in unchanged

    return stays


def _as_they_are(placement: Placement) -> Iterator[tuple[int, FileEntry]]:
    """(extent, file) of the files that have all of their chunks in one extent, from its beginning on."""
    for entry in placement.index.files:
        extent = file_extent(
            entry, placement.index.lengths, lambda slot: (placement.extents[slot], placement.offsets[slot])
        )
        if extent != NOWHERE:
            yield extent, entry


def in_users_files(parts: StoreParts, placement: Placement, slots: Iterable[int], may_stay: MayStay) -> set[int]:
    """Those of ``slots`` whose chunks lie in files of the user's that may not be relied on."""
    verdicts: dict[int, bool] = {}
    found = set()
    for slot in slots:
        extent = placement.extents[slot]
        if extent == NOWHERE:
            continue
        if extent not in verdicts:
            row = parts.catalogue.extent(extent)
            verdicts[extent] = row is not None and row.name is None and not may_stay(row)
        if verdicts[extent]:
            found.add(slot)
    return found


def read_right(parts: StoreParts, holding: Holding, slots: Sequence[int]) -> Iterator[list[Offer]]:
    """The chunks of ``slots`` in batches, each hashed, whatever was known of it; what isn't right any more is left out
    and taken out of the catalogue.
    """
    for batch in _batches(holding.index, slots):
        try:
            chunks: list[bytes | memoryview | None] = [*holding.read_all(batch)]
        except (ChunkMissing, StoreDamage):
            chunks = [_read(holding, slot) for slot in batch]
        right: list[Offer] = []
        wrong: list[tuple[bytes, int, int]] = []
        for slot, chunk in zip(batch, chunks, strict=True):
            digest = holding.index.digest(slot)
            if chunk is None:
                continue
            if hashlib.sha256(chunk).digest() == digest:
                right.append((slot, [chunk]))
            else:
                wrong.append((digest, holding.placement.extents[slot], holding.placement.offsets[slot]))
        if wrong:
            parts.quarantine(wrong)
        yield right


def _read(holding: Holding, slot: int) -> bytes | None:
    try:
        return holding.read(slot)
    except (ChunkMissing, StoreDamage):
        return None


def _batches(index: Index, slots: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for slot in slots:
        batch.append(slot)
        size += index.lengths[slot]
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def found_in(folder: Path, indexes: Sequence[Index], index: Index, missing: Sequence[int]) -> Iterator[list[Offer]]:
    """Chunks of ``missing`` that lie in a folder, where one of ``indexes`` has them; each hashed. In batches.

    Never follows a link, and reads regular files only. What can't be read isn't there.
    """
    lacking = {index.digest(slot): slot for slot in missing}
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with Tree(root) as tree:
            for one in indexes:
                for entry in one.files:
                    if lacking:
                        yield from _found_in_file(tree, one, entry, lacking)
    finally:
        os.close(root)


def _found_in_file(tree: Tree, index: Index, entry: FileEntry, lacking: dict[bytes, int]) -> Iterator[list[Offer]]:
    if not any(index.digest(slot) in lacking for slot in range(entry.first, entry.first + entry.count)):
        return
    *folders, name = entry.path.split("/")
    try:
        fd = os.open(name, READ, dir_fd=tree.existing(folders))
    except OSError:
        return
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        offset, size = 0, 0
        batch: list[Offer] = []
        for slot in range(entry.first, entry.first + entry.count):
            digest, length = index.digest(slot), index.lengths[slot]
            if digest in lacking:
                try:
                    chunk = os.pread(fd, length, offset)
                except OSError:
                    chunk = b""
                if hashlib.sha256(chunk).digest() == digest:
                    batch.append((lacking.pop(digest), [chunk]))
                    size += length
                if size >= _BATCH:
                    yield batch
                    batch, size = [], 0
            offset += length
        if batch:
            yield batch
    finally:
        os.close(fd)


def recount_below(parts: StoreParts, folder: Path) -> None:
    """Count anew the courses of which parts lay in files of a folder that aren't as they were: it was written over."""
    with parts.gate:
        with parts.catalogue.reading() as db:
            extents = users_files.below(db, os.fsencode(folder) + b"/")
        usable = parts.usable()
        digests = parts.catalogue.digests_in(extent for extent in extents if not usable(extent))
        for course in parts.courses_with(digests):
            parts.recount(course)
