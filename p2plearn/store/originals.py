"""The files that a course was copied from: they hold the same bytes, and after a publish they are in memory.

The copy in the store was written past the page cache (``behind``); the first who fetch the course soon after would each
make the disk read it, while the files that it was read from are there. A file counts only as long as nothing shows that
it was touched (size, both times, inode; looked at before and after each reading), and only if it had been left alone
for ``RESTED_SECONDS`` when it was published: until the kernel has written a mapped page back, further changes to it may
leave no trace. Whatever doesn't hold, the caller reads the store's own copy, to which none of this matters.

In: where each file lies in the extent, how it looked. Out: bytes that are in memory. Nothing is kept open.

Imports siblings and the standard library.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from p2plearn.store.past_cache import LEAST, read_in_memory

RESTED_SECONDS: Final = 60
"""Twice the half minute after which Linux writes back what was changed."""

FEW_PAGES: Final = 8
"""So few pages of a range may have left memory: they are read alone, the store's copy would be read whole."""

MOST_FILES: Final = 256
"""Files of one course that are remembered, the first ones: a large course of small files is read from the store."""


class Original(NamedTuple):
    """A file whose bytes lie one after the other in an extent from ``start`` on, and how it was found."""

    start: int
    path: str
    size: int
    mtime_ns: int
    inode: int


class Originals:
    """Those of one extent. Thread-safe."""

    def __init__(self, files: Iterable[Original], published: int) -> None:
        """``files`` by their place in the extent; ``published``: when reading them began, seconds since 1970."""
        self._files: list[tuple[Original, int]] = []
        before = (published - RESTED_SECONDS) * 1_000_000_000
        for file in files:
            if len(self._files) == MOST_FILES:
                break
            try:
                facts = os.lstat(file.path)
            except OSError:
                continue
            if _is(facts, file) and max(facts.st_mtime_ns, facts.st_ctime_ns) <= before:
                self._files.append((file, facts.st_ctime_ns))
        self._starts = [file.start for file, _ in self._files]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._files)

    def read(self, offset: int, length: int) -> bytes | None:
        """``length`` bytes from ``offset`` of the extent on; None unless one file has nearly all of them in memory."""
        at = bisect_right(self._starts, offset) - 1
        if at < 0 or length < LEAST:
            return None
        file, changed = self._files[at]
        begin = offset - file.start
        if begin + length > file.size:
            return None
        try:
            with _Open(file.path) as fd:
                if not _as_was(fd, file, changed):
                    return None
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # a page that left brings no others with it
                raw = read_in_memory(fd, length, begin, but=FEW_PAGES)
                # Looked at after the reading, too: what is written while it goes on shows.
                return raw if _as_was(fd, file, changed) else None
        except OSError:
            return None


class _Open:
    """A descriptor for a while."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _is(facts: os.stat_result, file: Original) -> bool:
    return (facts.st_size, facts.st_mtime_ns, facts.st_ino) == (file.size, file.mtime_ns, file.inode)


def _as_was(fd: int, file: Original, changed: int) -> bool:
    facts = os.fstat(fd)
    return _is(facts, file) and facts.st_ctime_ns == changed
