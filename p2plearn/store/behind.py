"""How large files are written: past the page cache where the system lets us, else behind, and out of memory soon after.

A course is written once, to the store and to the user's folder, and seldom read soon. Through the page cache that
costs a fresh page for every 4 KiB, pushes out what the user's other programs need, and leaves the fsync at the end
with all of it; on a machine whose memory is lent by a host fresh pages cost more than everything else. Measured for
1 GiB on such a machine: 6 to 11 s through the cache with an fsync, 1.1 s past it.

Past the cache (``O_DIRECT``) memory, offset and length must be multiples of the disk's block: a run's whole blocks go
that way, copied into an aligned buffer unless they lie right already, its two ragged ends through the cache. The kernel
keeps the two views of a file equal. Where that isn't to be had (tmpfs, some network and encrypted file systems) each
full stripe is written back while more comes, and its memory given back some stripes later.

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
from p2plearn.store.past_cache import BLOCK, LEAST, as_one, lies_like, reopen_direct

STRIPE = 16 * 1024 * 1024
"""Bytes written back at a time."""

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
        if length >= LEAST and self._direct_fd(fd) >= 0:
            whole = as_one(pieces)
            if whole is not None and lies_like(whole, offset):
                self._put(fd, whole, offset)
            else:
                self._write_copied(fd, pieces, offset)
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
                self._direct[fd] = reopen_direct(fd, os.O_WRONLY)
                self._opened += [self._direct[fd]] if self._direct[fd] >= 0 else []
            return self._direct[fd]

    def _write_copied(self, fd: int, pieces: Sequence[Piece], offset: int) -> None:
        with self._buffer() as buffer:
            begin = fill = offset % BLOCK
            base = offset - begin
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    step = min(len(rest), _BUFFER - fill)
                    buffer[fill : fill + step] = rest[:step]
                    fill += step
                    rest = rest[step:]
                    if fill == _BUFFER:
                        self._put(fd, buffer[begin:fill], base + begin)
                        base += fill
                        begin = fill = 0
            self._put(fd, buffer[begin:fill], base + begin)

    def _put(self, fd: int, view: memoryview, offset: int) -> None:
        """Write ``view``, which lies like its place at ``offset``: whole blocks past the cache, the rest through it."""
        first = -offset % BLOCK
        last = first + (len(view) - first) // BLOCK * BLOCK
        if last <= first:
            first = last = len(view)
        if first:
            write_all(fd, [view[:first]], offset)
        if first < last:
            written = 0
            direct = self._direct_fd(fd)
            if direct >= 0:
                try:
                    written = os.pwrite(direct, view[first:last], offset + first)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._direct[fd] = -1  # not on this disk after all
            if written < last - first:
                write_all(fd, [view[first + written : last]], offset + first + written)
        if last < len(view):
            write_all(fd, [view[last:]], offset + last)

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
