"""The files of a course in flat arrays: path, size, chunks. A course may have a million of them.

Some 20 bytes a file and its path, where an object for each takes ten times that. An entry is made when it is asked for.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from operator import sub
from typing import Final, NamedTuple, cast, overload

_AT_ONCE: Final = 1024
"""Paths that are taken apart together: a decoding of text for each of them would cost more than the rest."""


class FileEntry(NamedTuple):
    """A file: its path, its size in bytes, its first slot and how many slots it has (none when empty)."""

    path: str
    size: int
    first: int
    count: int  # type: ignore[assignment] # tuple has a method of this name, which nobody needs here


_entry = cast("Callable[[tuple[str, int, int, int]], FileEntry]", partial(tuple.__new__, FileEntry))
"""As fast as the tuple that it is: a course is gone through file by file some ten times."""


class FileTable(Sequence[FileEntry]):
    """Files one after the other, their slots one after the other, too. ``append`` is for who makes it."""

    __slots__ = ("_ends", "_firsts", "_paths", "_sizes")

    def __init__(self) -> None:
        self._paths = bytearray()
        self._ends: array[int] = array("Q", [0])  # of file i's path is item i + 1
        self._sizes: array[int] = array("Q")
        self._firsts: array[int] = array("Q", [0])  # and of the file that comes next the last

    def append(self, path: str, size: int, count: int) -> None:
        """One more file, with the ``count`` slots that follow. ``path`` is valid Unicode, ``size`` under 2^64."""
        self._paths += path.encode()
        self._ends.append(len(self._paths))
        self._sizes.append(size)
        self._firsts.append(self._firsts[-1] + count)

    def __len__(self) -> int:
        """How many files."""
        return len(self._sizes)

    @overload
    def __getitem__(self, at: int) -> FileEntry: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[FileEntry, ...]: ...

    def __getitem__(self, at: int | slice) -> FileEntry | tuple[FileEntry, ...]:
        """The file with that number, or some of them."""
        if isinstance(at, slice):
            return tuple(self[number] for number in range(*at.indices(len(self))))
        size = self._sizes[at]  # raises IndexError
        at %= len(self._sizes)
        first = self._firsts[at]
        return FileEntry(self.path(at), size, first, self._firsts[at + 1] - first)

    def __iter__(self) -> Iterator[FileEntry]:
        """All files."""
        counts = map(sub, islice(self._firsts, 1, None), self._firsts)
        return map(_entry, zip(self.paths(), self._sizes, self._firsts, counts, strict=False))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileTable):
            return NotImplemented
        mine = (self._paths, self._ends, self._sizes, self._firsts)
        return mine == (other._paths, other._ends, other._sizes, other._firsts)

    __hash__ = None  # type: ignore[assignment]

    def path(self, number: int) -> str:
        """The path of a file, by its number from 0."""
        return self._paths[self._ends[number] : self._ends[number + 1]].decode()

    def paths(self) -> Iterator[str]:
        """The path of each file."""
        for at in range(0, len(self), _AT_ONCE):
            ends = self._ends[at : at + _AT_ONCE + 1]
            first = ends[0]
            raw = self._paths[first : ends[-1]]
            text = raw.decode()
            if len(text) == len(raw):  # a byte a character
                yield from [text[start - first : end - first] for start, end in pairwise(ends)]
            else:
                yield from [raw[start - first : end - first].decode() for start, end in pairwise(ends)]

    @property
    def slots(self) -> int:
        """Slots of all files together."""
        return self._firsts[-1]

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(self._sizes)

    def number_of(self, slot: int) -> int:
        """The number of the file that a slot belongs to."""
        # The last that begins at or before it; empty files, which begin where the next one does, sort lower.
        return bisect_right(self._firsts, slot, 0, len(self._sizes)) - 1
