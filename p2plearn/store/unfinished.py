"""What a killed download had written: counted so that it can be shown, until the next one hashes it and commits it.

A download commits when it ends, so what one that was killed had written is on the disk and in no row. Where its chunks
were to lie is recorded, and a file knows by blocks which of its parts were ever written (``resume.written``): that is
counted, once a course and without reading a byte of it. It counts for nobody but whoever looks: only what is hashed is
here.

Blocking and thread-safe. Imports siblings.
"""

from __future__ import annotations

import os
import threading
from array import array

from p2plearn.store import resume
from p2plearn.store.catalogue import CourseRow, PlanRow
from p2plearn.store.extents import is_extent
from p2plearn.store.parts import StoreParts
from p2plearn.store.placement import Placement, bit


class Unfinished:
    """The counts of one store."""

    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts
        self._known: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def taken_up(self, course: bytes) -> None:
        """A download of it has begun: it knows what it found, and commits that."""
        with self._lock:
            self._known[course] = 0

    def bytes_of(self, row: CourseRow) -> int:
        """Bytes of a course that were written and not committed. Raises StoreProblem."""
        if row.complete or not row.indexed:
            return 0
        with self._lock:
            known = self._known.get(row.course)
        if known is None:
            counted = self._count(row.course)
            with self._lock:
                known = self._known.setdefault(row.course, counted)
        return known

    def _count(self, course: bytes) -> int:
        plans = self._parts.catalogue.plans(course)
        placement = self._parts.placement(course) if plans else None
        return sum(self._written(plan, placement) for plan in plans) if placement is not None else 0

    def _written(self, plan: PlanRow, placement: Placement) -> int:
        index = placement.index
        offsets = array("Q", bytes(8 * len(index)))
        planned = array("I", plan.slots)
        for slot, offset in zip(planned, array("Q", plan.offsets), strict=True):
            offsets[slot] = offset
        slots = [slot for slot in planned if not bit(placement.have, slot)]
        path = self._parts.extents / plan.extent.file_name
        try:
            if not is_extent(path):
                return 0
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return 0  # a power cut may have taken it: it will be fetched again
        try:
            return sum(
                index.lengths[twin]
                for batch in resume.written(fd, index, slots, offsets)
                for slot in batch
                for twin in placement.twins.get(slot, (slot,))
            )
        finally:
            os.close(fd)
