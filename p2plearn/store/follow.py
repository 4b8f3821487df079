"""A checkout that is written while its course is still coming: the large files, as their chunks are verified.

Reading a large course back to write it to the user's folder costs as much as fetching it did; here the same pieces go
to both places while they are in memory. What did not pass through (chunks that were here before, twins, files that are
small or too many) is filled in from the store by ``checkout``, which alone decides what is complete and moves it into
place. Whatever goes wrong here ends the following, never the download.

In: verified chunks, from any thread. Out: a part directory beside the destination, and which slots are written in it.
Imports ``course`` and siblings.
"""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.store.behind import STRIPE, Behind
from p2plearn.store.durable import Piece
from p2plearn.store.gathering import Offer
from p2plearn.store.tree import Tree, make_part, remove_stale_parts, remove_tree

LARGE = 4 * 1024 * 1024
"""Files of at least so many bytes are followed; smaller ones are written as quickly at the end."""

MOST_FILES = 64
"""Files followed at once, the largest first: each holds a descriptor."""


def largest(files: Sequence[FileEntry]) -> list[FileEntry]:
    """Those of ``files`` that are worth a descriptor while they come, the largest first."""
    return sorted((entry for entry in files if entry.size >= LARGE), key=lambda entry: -entry.size)[:MOST_FILES]


class Following:
    """See the head of this file. ``take`` while the download runs, then ``checkout`` uses it up, or ``abandon``."""

    def __init__(self, index: Index, dest: Path, files: Sequence[FileEntry]) -> None:
        """Make the part directory; raises OSError when that can't be, and then nothing is left behind."""
        self.dest = dest
        self._index = index
        self._entries = sorted(largest(files), key=lambda entry: entry.first)
        self._fds: list[int] = []
        self._offsets: array[int] = array("Q", bytes(8 * len(index)))
        self._file_of: array[int] = array("h", [-1]) * len(index)
        self._written = bytearray(len(index))
        self._behind = Behind(keep=2 * STRIPE)
        self._lock = threading.Lock()
        self._users = 0
        self._usable = True
        dest.parent.mkdir(parents=True, exist_ok=True)
        self._above = os.open(dest.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.part, self.root = "", -1
        try:
            remove_stale_parts(dest.name, self._above)
            self.part, self.root = make_part(dest.name, self._above)
            with Tree(self.root) as tree:
                for number, entry in enumerate(self._entries):
                    self._fds.append(tree.create(entry.path))
                    self._place(number, entry)
        except BaseException:
            self.abandon()
            raise

    def _place(self, number: int, entry: FileEntry) -> None:
        offset = 0
        for slot in range(entry.first, entry.first + entry.count):
            self._offsets[slot], self._file_of[slot] = offset, number
            offset += self._index.lengths[slot]

    @staticmethod
    def pays(files: Sequence[FileEntry]) -> bool:
        """Whether any of the files would be followed."""
        return any(entry.size >= LARGE for entry in files)

    @property
    def usable(self) -> bool:
        """Whether what is in the part directory can be relied on."""
        return self._usable

    def fd(self, entry: FileEntry) -> int | None:
        """The descriptor of a followed file; None for one that isn't."""
        number = self._file_of[entry.first] if entry.count else -1
        return self._fds[number] if number >= 0 and self._entries[number].path == entry.path else None

    def written(self, slot: int) -> bool:
        """Whether a slot's chunk is in its place."""
        return bool(self._written[slot])

    def take(self, offers: Sequence[Offer]) -> None:
        """Write verified chunks into their files; those of files that aren't followed are passed over."""
        with self._lock:
            if not self._usable:
                return
            self._users += 1
        try:
            self._write(sorted(offers, key=lambda offer: offer[0]))
        except OSError:
            self._usable = False  # the checkout will meet the same disk, and has the words
        finally:
            with self._lock:
                self._users -= 1
                last = not self._usable and not self._users
            if last:
                self._remove()

    def _write(self, offers: Sequence[Offer]) -> None:
        run: list[Piece] = []
        slots: list[int] = []
        for slot, pieces in offers:
            number = self._file_of[slot]
            if number < 0:
                continue
            if slots and (slot != slots[-1] + 1 or self._file_of[slots[-1]] != number):
                self._flush(slots, run)
                run, slots = [], []
            run.extend(pieces)
            slots.append(slot)
        self._flush(slots, run)

    def _flush(self, slots: Sequence[int], run: Sequence[Piece]) -> None:
        if not slots:
            return
        fd, offset = self._fds[self._file_of[slots[0]]], self._offsets[slots[0]]
        self._behind.write(fd, run, offset)
        for slot in slots:
            self._written[slot] = 1

    def done(self) -> None:
        """The part directory was moved into place: let go of it."""
        self._usable = False
        self.part = ""
        self._remove()

    def abandon(self) -> None:
        """Remove what was written. Harmless after ``done``, and when called again."""
        with self._lock:
            self._usable = False
            busy = self._users
        if not busy:
            self._remove()

    def _remove(self) -> None:
        with self._lock:
            fds, self._fds = self._fds, []
            root, self.root = self.root, -1
            above, self._above = self._above, -1
            part, self.part = self.part, ""
        self._behind.close()
        for fd in (*fds, root):
            if fd >= 0:
                os.close(fd)
        if above >= 0:
            if part:
                with contextlib.suppress(OSError):  # the next checkout removes stale parts
                    remove_tree(part, above)
            os.close(above)
