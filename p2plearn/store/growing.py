"""A checkout that grows while its course is still coming: each file is there, complete, soon after its last chunk.

Files appear in the order they are asked for in, and none before those ahead of it, so that a learner can begin with the
first. The folder is on record as a checkout from the first file on: whatever ends the get, the next goes on in it.

In: a download that runs, from a thread of the caller's now and then. Out: files in the destination, each by one rename
(``reconcile``). Imports ``course`` and siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.store.download import Download
from p2plearn.store.placement import bit
from p2plearn.store.store import Store

_BATCH_FILES = 512
_BATCH_BYTES = 256 << 20
"""What is written between two looks at the clock, at most, or one file: so much is looked at again by a checkout that
comes after an interruption in the middle of it."""


class Growing:
    """See the head of this file. One thread at a time calls ``more``; what is public may be read by others."""

    def __init__(self, store: Store, download: Download, dest: Path, files: Sequence[FileEntry]) -> None:
        self._store = store
        self._download = download
        self._dest = dest
        self._files = files
        self._next = 0
        """The first of ``files`` that isn't written yet,"""
        self._here = 0
        """and how many of its chunks were seen to be here."""
        self.there: set[str] = set()
        """Paths in the course of the files that can be opened."""
        self.written = 0
        """How many of them weren't there before."""
        self.replaced: list[str] = []
        """The user's own that stood in their place, by path in the course,"""
        self.replaced_into: Path | None = None
        """and where they were moved to."""

    @property
    def done(self) -> bool:
        """All files are there."""
        return self._next == len(self._files)

    def more(self, cancelled: Callable[[], bool]) -> None:
        """Write all files whose turn it is and that are complete. Raises what ``Store.checkout`` does."""
        while not cancelled():
            batch = self._ready()
            if not batch:
                return
            out = self._store.checkout(self._download.course, self._dest, batch, cancelled=cancelled, unfinished=True)
            self._next += len(batch)
            self._here = 0
            self.there.update(entry.path for entry in batch)
            self.written += out.written_files
            if out.replaced_into is not None:
                self.replaced += out.replaced
                self.replaced_into = self.into(out.replaced_into)

    def into(self, directory: Path) -> Path:
        """Where all is that was replaced, with what has gone to ``directory``: there, or above several of such."""
        return directory if self.replaced_into in (None, directory) else directory.parent

    def _ready(self) -> list[FileEntry]:
        batch: list[FileEntry] = []
        size, have = 0, self._download.placement.have
        for entry in self._files[self._next : self._next + _BATCH_FILES]:
            if batch and size + entry.size > _BATCH_BYTES:
                break
            here = 0 if batch else self._here  # not asked again of each chunk of a large file every second
            while here < entry.count and bit(have, entry.first + here):
                here += 1
            if here < entry.count:
                if not batch:
                    self._here = here
                break
            batch.append(entry)
            size += entry.size
        return batch
