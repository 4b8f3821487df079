"""A file that lies alone in an extent can become the user's own without a byte being copied: it is given a second name.

For ``get --no-copy``. The large files of such a course are planned into extents of their own, from the beginning and
back to back, with nothing but the list of contents (``contents``) behind them; that is cut off, and the extent is the
file. Where the store and the destination lie on different disks, or on one that knows no hard links, it is copied as
ever.

Promise: until ``in_place`` has noted that the chunks lie in the user's file, they lie in the store's, too: one file
with two names. Killed in between it stays so until the next sweep, which gives the store a copy of its own (``gc``).
The list being cut off is how that one is told from an extent that a backup has linked.

Imports ``course``, ``named_file`` and siblings.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Sequence

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.named_file import is_named
from p2plearn.store import contents
from p2plearn.store.catalogue import Catalogue, ExtentRow
from p2plearn.store.durable import sync_file
from p2plearn.store.extents import Layout
from p2plearn.store.holding import Holding
from p2plearn.store.placement import NOWHERE, bit, file_extent
from p2plearn.store.tree import FILE_MODE, Tree, umask

_AT_ONCE = 16
"""Chunks hashed at a time: a few MiB."""


def layout_alone(index: Index, entry: FileEntry) -> Layout:
    """Places for the slots of a file in an extent of its own."""
    slots, offsets, cursor = array("I", range(entry.first, entry.first + entry.count)), array("Q"), 0
    for slot in slots:
        offsets.append(cursor)
        cursor += index.lengths[slot]
    return Layout(slots, offsets, cursor)


def extent_of(
    catalogue: Catalogue, entry: FileEntry, lengths: Sequence[int], place: Callable[[int], tuple[int, int]]
) -> ExtentRow | None:
    """The extent of the store's own that holds a file and nothing else; None if none does. See ``file_extent``."""
    extent = file_extent(entry, lengths, place)
    row = None if extent == NOWHERE else catalogue.extent(extent)
    return row if row is not None and row.name is not None and row.length == _whole(entry) else None


def _whole(entry: FileEntry) -> int:
    return entry.size + contents.size_for(entry.count)


def is_handed_over(row: ExtentRow, facts: os.stat_result) -> bool:
    """Whether an extent, whose file looks like ``facts``, is a file of the user's, too."""
    return facts.st_nlink > 1 and facts.st_size < row.length


def hand_over(catalogue: Catalogue, holding: Holding, entry: FileEntry, tree: Tree) -> os.stat_result | None:
    """Give a file its name in ``tree``, and return how it looks; None where it has to be copied instead.

    What was never hashed in this process is hashed first. Raises StoreDamage, ChunkMissing, StoreProblem.
    """
    placement = holding.placement

    def place(slot: int) -> tuple[int, int]:
        with placement.lock:
            return placement.extents[slot], placement.offsets[slot]

    row = extent_of(catalogue, entry, holding.index.lengths, place)
    if row is None:
        return None
    unknown = [slot for slot in range(entry.first, entry.first + entry.count) if not bit(placement.good, slot)]
    for at in range(0, len(unknown), _AT_ONCE):
        holding.read_all(unknown[at : at + _AT_ONCE])
    file = holding.extent_files.directory / row.file_name
    try:
        return _link(os.fspath(file), entry, tree)
    except OSError:
        return None  # the copy will meet the same disk, and has the words


def _link(file: str, entry: FileEntry, tree: Tree) -> os.stat_result:
    # Written through the store's name only: whatever somebody puts in the place of the other one is left alone.
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        above, name = tree.parent(entry.path)
        os.link(file, name, dst_dir_fd=above, follow_symlinks=False)
        try:
            os.ftruncate(fd, entry.size)
            os.fchmod(fd, FILE_MODE & ~umask())
            sync_file(fd)
            facts = os.fstat(fd)
            if not is_named(name, facts, folder=above):
                raise FileExistsError(17, "replaced while it was made", entry.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=above)
            raise
        return facts
    finally:
        os.close(fd)
