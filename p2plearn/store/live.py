"""Which chunks are live while a sweep goes through them, and others publish, fetch and remove beside it.

Live is every digest in the index of a course in the catalogue, and every digest that a running publish relies on. Of a
digest the first eight bytes are remembered, 8 MB a million: where two chunks have them in common, the dead one stays.

What must hold: nothing that a course or a publish relies on is taken for dead, also if that began since the sweep did.
So before each step the courses of the catalogue are compared with those that were counted in (``uncounted``), under the
gate that the step holds; a course that has gone meanwhile keeps its chunks until the next sweep.

Imports ``course`` and siblings.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
from array import array
from collections.abc import Iterable
from typing import Final

from p2plearn.course.digests import DIGEST
from p2plearn.store.course_files import CourseFileDamaged
from p2plearn.store.parts import StoreParts

log = logging.getLogger("p2plearn.store")

_WORD: Final = 8


class Live:
    """What is live in a store, for one sweep."""

    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts
        self._words = [array("Q") for _ in range(256)]
        """The beginnings of live digests as numbers, by the first byte."""
        self._counted: set[bytes] = set()
        self._changes = -1
        self._everything = False

    def uncounted(self, db: sqlite3.Connection) -> list[bytes]:
        """Courses that ``count`` has to be told of before anything can be called dead. Under the gate, which is held
        from here until what is dead has gone.

        While the index of a course can't be read nobody knows which chunks are its own: then every chunk is live, until
        the index was fetched again (``verify --repair``) or the course removed.
        """
        if db.total_changes == self._changes:
            return []
        new: list[bytes] = []
        harmed = 0
        for course, indexed, why in db.execute("SELECT course, indexed, why FROM courses"):
            if not indexed:
                harmed += why != "seen"  # (of those only the manifest was ever here)
            elif course not in self._counted:
                new.append(course)
        if harmed and not self._everything:
            log.warning("%d courses have lost their index: nothing is freed until that is mended", harmed)
            self._everything = True
        if not new:
            self._changes = db.total_changes
        return new

    def looked(self, db: sqlite3.Connection) -> None:
        """What has changed in the catalogue since ``uncounted`` was the sweep's own doing."""
        self._changes = db.total_changes

    def count(self, courses: Iterable[bytes]) -> None:
        """Count in what these courses consist of; a course whose index turns out damaged is noted as such."""
        for course in courses:
            try:
                digests = self._parts.course_files.digests(course)
            except CourseFileDamaged:
                self._look_again(course)
                continue
            words = memoryview(digests).cast("Q")[:: DIGEST // _WORD]
            for first, word in zip(digests[::DIGEST], words, strict=True):
                self._words[first].append(word)
            self._counted.add(course)

    def _look_again(self, course: bytes) -> None:
        """A course may have been removed, or its index mended, while its file was read."""
        with self._parts.gate, self._parts.catalogue.writing() as db:
            try:
                self._parts.course_files.digests(course)
            except CourseFileDamaged:
                db.execute("UPDATE courses SET indexed = 0, have_bytes = 0 WHERE course = ?", (course,))

    def dead(self, digests: list[bytes]) -> set[bytes]:
        """Those of ``digests``, which are in ascending order, that nobody needs. After ``uncounted`` was empty."""
        if self._everything or not digests:
            return set()
        live: set[int] = set()
        for words in self._words[digests[0][0] : digests[-1][0] + 1]:
            live.update(words)
        pinned = list(self._parts.pins.values())
        return {
            digest
            for digest in digests
            if _word(digest) not in live and not any(digest in relied_on for relied_on in pinned)
        }


def _word(digest: bytes) -> int:
    return int.from_bytes(digest[:_WORD], sys.byteorder)
