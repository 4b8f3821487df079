"""Whether what is said to be here is still on the disk under its name. A look at names and inodes, never at bytes.

A file that was deleted can be read for as long as it is open, so reading proves nothing of the disk: after a restart
it is gone. One look is one pass over the names in ``extents/`` and over at most ``BATCH`` of the user's own files
(published without copying), those after the last ones; it may be taken every few seconds.

What is gone of the store's own leaves the catalogue, as with ``verify``. A file of the user's that is gone or was
changed stays known, for it may be on a drive that isn't plugged in; but it isn't counted as here until it is back.

Blocking; one thread at a time. Imports siblings.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from p2plearn.store.check import drop_gone
from p2plearn.store.parts import StoreParts

BATCH: Final = 500
"""Files of the user's looked at in one go: a few milliseconds."""


class Seen(NamedTuple):
    """Courses of which ``changed`` more or less is here than before; those that were ``replaced`` have to be hashed."""

    changed: frozenset[bytes]
    replaced: frozenset[bytes]


class Presence:
    """See the head of this file. ``look`` now and then."""

    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts
        self._directory = _identity(os.stat(parts.extents))
        self._away: set[int] = set()
        """Files of the user's that weren't as recorded when last looked at."""
        self._at = 0
        self._begun = False

    def look(self) -> Seen:
        """What has changed since the last look. Raises StoreProblem, OSError."""
        catalogue = self._parts.catalogue
        gone, replaced = self._own()
        suspects = catalogue.digests_in(self._users())
        # A user's file may have come back while no node ran.
        unsure = [] if self._begun else [row for row in catalogue.courses() if row.whole and not row.complete]
        self._begun = True
        if not (gone or replaced or suspects or unsure):
            return Seen(frozenset(), frozenset())
        before = {row.course: row.have_bytes for row in catalogue.courses()}
        if gone:
            drop_gone(self._parts)
        suspected = set(self._parts.courses_with(suspects))
        for course in {*suspected, *(row.course for row in unsure)}:
            self._parts.recount(course)
        # A checkout that replaced files has counted anew itself, and told nobody.
        changed = {
            row.course
            for row in catalogue.courses()
            if row.have_bytes != before.get(row.course) or (row.course in suspected and not row.complete)
        }
        others = self._parts.courses_with(catalogue.digests_in(replaced))
        return Seen(frozenset(changed), frozenset(others))

    def _own(self) -> tuple[bool, set[int]]:
        """Whether an extent of the store's own seems to be gone; those open that have another file in their place."""
        parts = self._parts
        known = parts.catalogue.own_extents()
        # No folder, or another one in its place, is a disk being changed, not files that were deleted.
        if not parts.extents.exists() or _identity(os.stat(parts.extents)) != self._directory:
            return False, set()
        with os.scandir(parts.extents) as entries:
            inodes = {entry.name: entry.inode() for entry in entries if entry.is_file(follow_symlinks=False)}
        replaced = {
            extent
            for extent, inode in parts.files.inodes().items()
            if extent in known and inodes.get(known[extent], inode) != inode
        }
        for extent in replaced:
            parts.files.forget(extent)
        return any(name not in inodes for name in known.values()), replaced

    def _users(self) -> set[int]:
        """Files of the user's that went, changed, or came back, of the next ``BATCH``."""
        extents = self._parts.catalogue.users_files(self._at, BATCH)
        self._at = extents[-1] if len(extents) == BATCH else 0
        usable = self._parts.usable()
        away = {extent for extent in extents if not usable(extent)}
        turned = away ^ (self._away & set(extents))
        self._away ^= turned
        for extent in turned:
            self._parts.files.forget(extent)
        return turned


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
