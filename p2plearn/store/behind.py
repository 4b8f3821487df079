"""How large files are written: past the page cache where the system lets us, else behind, and out of memory soon after.

A course is written once, to the store and to the user's folder, and seldom read soon. Through the page cache that
costs a fresh page for every 4 KiB, pushes out what the user's other programs need, and leaves the fsync at the end
with all of it; on a machine whose memory is lent by a host fresh pages cost more than everything else. Measured for
1 GiB on such a machine: 6 to 11 s through the cache with an fsync, 1.1 s past it.

Past the cache (``O_DIRECT``) memory, offset and length must be multiples of the disk's block: a run's whole blocks go
that way from an aligned buffer, its two ragged ends through the cache. The kernel keeps the two views of a file equal.
Where that isn't to be had (tmpfs, some network and encrypted file systems) each full stripe is written back while more
comes, and its memory given back some stripes later.

Imports siblings and the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence

from p2plearn.store.durable import Piece, settle_behind, start_writeback, write_all

STRIPE = 16 * 1024 * 1024
"""Bytes written back at a time."""

BLOCK = 4096
"""What disks that are sold are aligned to; one that wants more refuses, and is written through the cache."""

LEAST_DIRECT = 256 * 1024
"""Shorter runs go through the cache: each direct write waits for the disk."""

_BUFFER = 4 * 1024 * 1024


class Behind:
    """Writes runs of large files; see the head of this file.

    ``keep`` is how many bytes stay in memory where the cache is used, for whoever reads them soon. Thread-safe. Close
    it before the descriptors it was given, when nothing writes any more.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep // STRIPE
        self._lock = threading.Lock()
        self._filled: Counter[tuple[int, int]] = Counter()
        self._full: deque[tuple[int, int]] = deque()
        self._direct: dict[int, int] = {}
        """Descriptor -> one of the same file that writes past the cache, or -1."""
        self._opened: list[int] = []
        self._buffers: list[mmap.mmap] = []

    def write(self, fd: int, pieces: Sequence[Piece], offset: int) -> None:
        """Write the pieces back to back at ``offset`` (each byte of a file once); raises OSError."""
        length = sum(map(len, pieces))
        if length >= LEAST_DIRECT and self._direct_fd(fd) >= 0:
            self._write_direct(fd, pieces, offset, length)
        else:
            write_all(fd, pieces, offset)
            self._wrote(fd, offset, length)

    def close(self) -> None:
        """Let go of descriptors and buffers."""
        with self._lock:
            for direct in self._opened:
                os.close(direct)
            self._opened.clear()
            self._direct.clear()
            for buffer in self._buffers:
                buffer.close()
            self._buffers.clear()

    # Past the cache -------------------------------------------------------------------------------------------------

    def _direct_fd(self, fd: int) -> int:
        with self._lock:
            if fd not in self._direct:
                self._direct[fd] = _reopen_direct(fd)
                self._opened += [self._direct[fd]] if self._direct[fd] >= 0 else []
            return self._direct[fd]

    def _write_direct(self, fd: int, pieces: Sequence[Piece], offset: int, length: int) -> None:
        with self._buffer() as buffer:
            base = offset - offset % BLOCK
            fill = offset - base
            begin = fill
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    step = min(len(rest), _BUFFER - fill)
                    buffer[fill : fill + step] = rest[:step]
                    fill += step
                    rest = rest[step:]
                    if fill == _BUFFER:
                        self._put(fd, buffer, base, begin, fill)
                        base += fill
                        begin = fill = 0
            self._put(fd, buffer, base, begin, fill)

    def _put(self, fd: int, buffer: memoryview, base: int, begin: int, end: int) -> None:
        """Write ``buffer[begin:end]`` at ``base + begin``: whole blocks past the cache, the rest through it."""
        first, last = -(-begin // BLOCK) * BLOCK, end // BLOCK * BLOCK
        if last <= first:
            first = last = end
        if begin < first:
            write_all(fd, [buffer[begin:first]], base + begin)
        if first < last:
            written = 0
            direct = self._direct_fd(fd)
            if direct >= 0:
                try:
                    written = os.pwrite(direct, buffer[first:last], base + first)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._direct[fd] = -1  # not on this disk after all
            if written < last - first:
                write_all(fd, [buffer[first + written : last]], base + first + written)
        if last < end:
            write_all(fd, [buffer[last:end]], base + last)

    @contextlib.contextmanager
    def _buffer(self) -> Iterator[memoryview]:
        with self._lock:
            memory = self._buffers.pop() if self._buffers else mmap.mmap(-1, _BUFFER)
        with memoryview(memory) as view:
            yield view
        with self._lock:
            self._buffers.append(memory)

    # Through it -----------------------------------------------------------------------------------------------------

    def _wrote(self, fd: int, offset: int, length: int) -> None:
        full: list[tuple[int, int]] = []
        old: list[tuple[int, int]] = []
        with self._lock:
            end = offset + length
            while offset < end:
                stripe = (fd, offset // STRIPE)
                step = min(end, (stripe[1] + 1) * STRIPE) - offset
                self._filled[stripe] += step
                offset += step
                if self._filled[stripe] >= STRIPE:
                    del self._filled[stripe]
                    full.append(stripe)
            self._full.extend(full)
            while len(self._full) > self._keep:
                old.append(self._full.popleft())
        for fd_, number in full:
            start_writeback(fd_, number * STRIPE, STRIPE)
        for fd_, number in old:
            settle_behind(fd_, number * STRIPE, STRIPE)


def _reopen_direct(fd: int) -> int:
    """Another descriptor of the same file that writes past the page cache; -1 where there is no such thing."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return -1
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | flag | os.O_CLOEXEC)
    except OSError:
        return -1
