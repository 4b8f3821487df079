"""Making bytes stay: the one place where this package asks the system to put something on the disk.

Crash promise of ``write_atomic``: after SIGKILL or a power cut at any moment the path holds either all of the old
bytes or all of the new ones, and once the call has returned, the new ones. What a crash leaves beside the path ends in
``TEMPORARY`` and may be deleted by whoever opens the directory next.

A failed fsync is never tried again on the same descriptor: the kernel may have dropped the pages and call the next
one a success. The error goes up and what was written counts as not written.

Imports ``named_file`` and the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from p2plearn.named_file import KnownFolder

TEMPORARY = ".p2plearn-new"
"""How the names of half-written files end."""

IOV_MAX = 1024
"""Pieces in one gathering write; what Linux and macOS both take."""

Piece = bytes | bytearray | memoryview
"""A run of bytes as it came; never copied on its way to the disk."""

_SYNC_FILE_RANGE_WRITE = 2
_SYNC_FILE_RANGE_WAIT = 1 | 2 | 4

_libc: ctypes.CDLL | None
try:
    _libc = ctypes.CDLL(None, use_errno=True)
except OSError:  # a Python without a C library to load: the fallbacks below do
    _libc = None


def sync_file(fd: int) -> None:
    """Put a file's bytes and its length on the disk; raises OSError, after which the file counts as unwritten."""
    if sys.platform == "darwin":
        # There fsync only reaches the drive's cache.
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        os.fsync(fd)
    else:
        os.fdatasync(fd)


def sync_directory(path: Path | str) -> None:
    """Put the names in a directory on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(fd: int) -> None:
    """Put everything written so far to the file system of ``fd`` on the disk: one call for any number of files."""
    if _libc is not None and hasattr(_libc, "syncfs"):
        if _libc.syncfs(fd) == 0:
            return
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.sync()


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range now, so that the fsync at the end finds little left; only a hint."""
    if _libc is not None and hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def settle_behind(fd: int, offset: int, length: int) -> None:
    """Wait until a range that was written is on its way to the disk, and give its memory back; only a hint.

    For large files that are written once and not read soon. Their pages then serve for the next ones: on a machine
    whose memory is lent by a host, or already full, fresh pages cost more than everything else (measured for a copy of
    1 GiB: 3.3 s without, 0.8 s with it).
    """
    if _libc is not None and hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WAIT)
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def write_all(fd: int, pieces: Sequence[Piece], offset: int) -> None:
    """Write the pieces back to back at ``offset``, without joining them; raises OSError, bytes then undefined."""
    if len(pieces) > IOV_MAX:
        for start in range(0, len(pieces), IOV_MAX):
            group = pieces[start : start + IOV_MAX]
            write_all(fd, group, offset)
            offset += sum(map(len, group))
        return
    total = sum(map(len, pieces))
    written = os.pwritev(fd, pieces, offset)
    if written == total:
        return
    # Rare: a signal, or a disk that fills up. Go on where it stopped, so that the error has a name.
    rest = memoryview(b"".join(pieces))
    while written < total:
        step = os.pwrite(fd, rest[written:], offset + written)
        if step == 0:
            raise OSError(5, os.strerror(5))
        written += step


def write_atomic(path: Path, pieces: Iterable[Piece], mode: int = 0o600, *, within: KnownFolder | None = None) -> None:
    """Write a whole file: temporary name, write, fsync, rename, fsync the directory. Raises OSError.

    Pieces that are not a sequence are made and written one after the other: the whole needn't be in memory.
    ``within``: the path's folder; nothing is written where another is in that place by now.
    """
    temporary = f".{path.name}-{secrets.token_hex(4)}{TEMPORARY}"
    with (within or KnownFolder(path.parent)).opened() as folder:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
        try:
            try:
                at = 0
                groups: Iterable[Sequence[Piece]]
                groups = [pieces] if isinstance(pieces, Sequence) else ([one] for one in pieces)
                for group in groups:
                    write_all(fd, group, at)
                    at += sum(map(len, group))
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)
