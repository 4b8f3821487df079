"""Reading past the page cache what is read once.

A published course was written past the cache (``behind``), so the first peer that fetches it finds nothing there.
Through the cache each 4 KiB then costs a fresh page, and pushes out what other programs need, for bytes that this peer
won't ask for again. So what is in memory is taken from there, the rest straight from the disk into an aligned buffer.
What is in memory the kernel is asked first (cachestat, Linux 6.5): a read that finds nothing there, though it says that
it won't wait, sets readahead going, 8 MiB at a time on some disks, and all would go through the cache after all.
Whoever expects to read the same bytes again should read through the cache instead.

Also memory that fits: aligned as the disk wants it, so that what is in it is written without being copied.

Imports siblings and the standard library.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Final, cast

from p2plearn.store.durable import Piece

BLOCK: Final = 4096
"""What disks that are sold are aligned to; one that wants more refuses, and is read and written through the cache."""

LEAST: Final = 256 * 1024
"""Shorter runs are better read through the cache: it reads ahead, a direct read waits for the disk."""

_CACHESTAT: Final = 451
"""cachestat(2), for which C libraries have no name yet; system calls as young as it have one number everywhere but on
Alpha."""

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Pages(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent"))


def in_memory(fd: int, offset: int, length: int, *, but: int = 0) -> bool:
    """Whether a range of a file, ``but`` for so many pages, is in the page cache; False where that can't be told."""
    if _libc is None or length <= 0:
        return False
    pages = _Pages()
    if _libc.syscall(_CACHESTAT, fd, ctypes.byref(_Range(offset, length)), ctypes.byref(pages), 0):
        return False
    page = mmap.PAGESIZE
    return int(pages.cached) + but >= (offset + length - 1) // page - offset // page + 1


def read_in_memory(fd: int, length: int, offset: int, *, but: int = 0) -> bytes | None:
    """``length`` bytes from ``offset`` on if they are in memory, as ``in_memory`` has it; None if not. Raises OSError.

    Read into ``bytes``, whose memory nobody clears first.
    """
    if not in_memory(fd, offset, length, but=but):
        return None
    raw = os.pread(fd, length, offset)
    return raw if len(raw) == length else None


class PastCache:
    """A second way to read a file that is open as ``fd``; ``close`` it when nobody reads any more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._direct = reopen_direct(fd, os.O_RDONLY)
        self._refused = self._direct < 0

    def read(self, offset: int, length: int) -> bytes | memoryview | None:
        """``length`` bytes at ``offset``; None when they can't be had this way, whatever the reason."""
        if self._refused:
            return None
        try:
            if (there := read_in_memory(self._fd, length, offset)) is not None:
                return there
        except OSError:
            return None
        first = offset - offset % BLOCK
        end = -(-(offset + length) // BLOCK) * BLOCK
        blocks = aligned(end - first)
        try:
            got = os.preadv(self._direct, [blocks], first)
        except OSError as error:
            self._refused = error.errno == errno.EINVAL  # then it can't be done on this disk after all
            return None
        return blocks[offset - first : offset - first + length] if got >= offset - first + length else None

    def close(self) -> None:
        """Let go of the second descriptor."""
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1


def reopen_direct(fd: int, access: int) -> int:
    """Another descriptor of the same file, for ``access``, that passes the page cache by; -1 where there is none."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return -1
    try:
        return os.open(f"/proc/self/fd/{fd}", access | flag | os.O_CLOEXEC)
    except OSError:
        return -1


def aligned(size: int) -> memoryview:
    """Memory of ``size`` bytes that begins on a block."""
    memory = bytearray(size + BLOCK)
    shift = -_address(memory) % BLOCK
    return memoryview(memory)[shift : shift + size]


def as_one(pieces: Sequence[Piece]) -> memoryview | None:
    """The pieces as one view, where each follows the one before in the same memory; None where they don't."""
    first = pieces[0]
    if len(pieces) == 1 or not isinstance(first, memoryview):
        return memoryview(first) if len(pieces) == 1 else None
    try:
        start = end = _address(first)
        for piece in pieces:
            if not isinstance(piece, memoryview) or piece.obj is not first.obj or _address(piece) != end:
                return None
            end += len(piece)
        base = _address(cast(bytearray, first.obj))
    except TypeError:
        return None  # what can't be written to doesn't tell its address
    return memoryview(first.obj)[start - base : end - base]


def lies_like(piece: Piece, offset: int) -> bool:
    """Whether a piece that belongs at ``offset`` of a file begins as far from a block's begin as it will there."""
    try:
        return (_address(piece) - offset) % BLOCK == 0
    except TypeError:
        return False


def _address(memory: Piece) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
