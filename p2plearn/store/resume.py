"""What an interrupted download left on the disk: found again by the hashes, so that it isn't fetched twice.

Imports ``course`` and siblings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Final

from p2plearn.course.index import Index
from p2plearn.store.extents import written_ranges

THREADS: Final = 2

BATCH: Final = 64
"""Slots hashed by one task."""


def written(fd: int, index: Index, slots: Sequence[int], offsets: Sequence[int]) -> Iterator[list[int]]:
    """Those of ``slots`` whose whole place in an extent was written at some time, a batch at a time.

    ``offsets`` has the place of every slot of the course.
    """
    ranges = list(written_ranges(fd))
    at = 0
    batch: list[int] = []
    for slot in sorted(slots, key=offsets.__getitem__):
        start = offsets[slot]
        while at < len(ranges) and ranges[at][1] <= start:
            at += 1
        if at == len(ranges):
            break
        if ranges[at][0] <= start and start + index.lengths[slot] <= ranges[at][1]:
            batch.append(slot)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def right(fd: int, index: Index, slots: Sequence[int], offsets: Sequence[int]) -> list[int]:
    """Those of ``slots`` whose chunk is in its place, by its hash."""
    found = []
    for slot in slots:
        try:
            chunk = os.pread(fd, index.lengths[slot], offsets[slot])
        except OSError:
            continue  # a sector that can't be read: fetched again
        if hashlib.sha256(chunk).digest() == index.digest(slot):
            found.append(slot)
    return found
