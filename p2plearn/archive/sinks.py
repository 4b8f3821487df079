"""Where an export goes: a file that appears whole and can be gone on with, or a pipe.

``FileSink`` writes to ``FILE.p2plearn-part`` and renames it once everything is on the disk. What an earlier run wrote
there is used as far as it is what would be written now: each block is compared by its head and hashed, so neither a
power cut nor another export's leftover gets into the file. The first difference ends that; the rest is written anew.

Blocking. Imports ``errors``, ``store`` and siblings.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import select
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from p2plearn.archive.car import encode_head
from p2plearn.errors import Interrupted, NoSpace, P2plearnError, Refused, UsageProblem
from p2plearn.store.behind import Behind
from p2plearn.store.durable import Piece, sync_directory, sync_file
from p2plearn.store.problems import size_text
from p2plearn.store.space import free_bytes

PART: Final = ".p2plearn-part"
"""Put behind a file's name until it is complete."""

_SETTLE_BYTES: Final = 64 * 1024 * 1024
"""Written between two fsyncs: a stick that is slower than memory must not take minutes at "100 %"."""
_RUN_BYTES: Final = 4 * 1024 * 1024
"""Written with one call: past the page cache, where the disk lets us."""
_POLL_MS: Final = 200


class Sink(Protocol):
    """Takes a CAR file from its first byte on."""

    kept: int
    """Bytes that an earlier run wrote and that were right."""
    size: int
    """Bytes so far."""

    def header(self, raw: bytes) -> None:
        """The file's first bytes."""
        ...

    def has(self, cid: bytes, length: int) -> bool:
        """Whether this block stands next already; then it counts as written."""
        ...

    def block(self, cid: bytes, pieces: Sequence[Piece]) -> None:
        """Write a block."""
        ...

    def finish(self) -> None:
        """Nothing more comes: make it durable, and visible."""
        ...


def export_problem(error: OSError, path: Path) -> P2plearnError:
    """What a failing write to ``path`` means, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"The disk of {path} is full.", "Make room there, or take another; the same command goes on where it was."
        )
    if error.errno == errno.EFBIG:
        return NoSpace(
            f"{path} can't grow further: its file system takes no larger files (FAT32: 4 GiB).",
            "Format the stick with exFAT, or export fewer courses at a time.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refused(f"{path} can't be written: {error.strerror}.", "Choose another place with -o FILE.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return UsageProblem(f"{path} can't be written: {error.strerror}.", "Choose another place with -o FILE.")
    return P2plearnError(f"Writing {path} failed: {error.strerror or error}.", "The same command goes on where it was.")


class FileSink:
    """See the head of this file. A context manager: left with an error, the part stays for the next run."""

    def __init__(self, path: Path, *, replace: bool) -> None:
        """Begin or go on; raises Refused, UsageProblem or NoSpace."""
        self._path = path
        self._part = path.with_name(path.name + PART)
        self._replace = replace
        self.kept = 0
        self.size = 0
        self._behind = Behind(keep=0)
        self._run: list[Piece] = []
        self._written = 0
        """Where the run that isn't written yet begins."""
        self._settled = 0
        self._refuse_existing()
        try:
            self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise export_problem(error, path) from None
        try:
            facts = os.fstat(self._fd)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:  # another name of it may be anybody's file
                raise Refused(f"{self._part} is in the way: it is no file of an export's.", "Move it away.")
            self._lock()
            self._old = facts.st_size
        except BaseException:
            os.close(self._fd)
            raise

    def _refuse_existing(self) -> None:
        try:
            facts = os.lstat(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise export_problem(error, self._path) from None
        if stat.S_ISDIR(facts.st_mode):
            raise UsageProblem(f"{self._path} is a folder.", f"Name a file in it: -o {self._path}/courses.car")
        if not self._replace:
            raise Refused(f"{self._path} exists.", "Choose another name, or replace it with --force.")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"Another export writes {self._path} right now.", "Wait for it, or stop it.") from None
        except OSError:
            return  # a file system without locks

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what was begun and not finished stays, but an empty part."""
        if self._fd >= 0:
            with contextlib.suppress(OSError, P2plearnError):
                self._flush()
                if not os.fstat(self._fd).st_size:
                    self._part.unlink()
            self._close()

    def _close(self) -> None:
        self._behind.close()
        os.close(self._fd)
        self._fd = -1

    def expect(self, total: int) -> None:
        """Raise NoSpace unless the disk has room for a file of about ``total`` bytes."""
        free = free_bytes(self._path.parent)
        if total - self._old > free:
            raise NoSpace(
                f"{self._path} will have about {size_text(total)}, and its disk has {size_text(free)} free.",
                "Make room there or take another disk (-o FILE); --only-these leaves other versions out.",
            )

    def header(self, raw: bytes) -> None:
        """See ``Sink``."""
        if self._old >= len(raw) and os.pread(self._fd, len(raw), 0) == raw:
            self.size = self.kept = self._written = len(raw)
        else:
            self._anew()
            self._write([raw])

    def has(self, cid: bytes, length: int) -> bool:
        """See ``Sink``."""
        head = encode_head(cid, length)
        end = self.size + len(head) + length
        if end > self._old:
            self._anew()
            return False
        raw = os.pread(self._fd, len(head) + length, self.size)
        right = raw[: len(head)] == head and hashlib.sha256(memoryview(raw)[len(head) :]).digest() == cid[-32:]
        if not right:
            self._anew()
            return False
        self.size = self.kept = self._written = end
        return True

    def _anew(self) -> None:
        """What stands from here on is not ours to keep."""
        if self._old > self.size:
            try:
                os.ftruncate(self._fd, self.size)
            except OSError as error:
                raise export_problem(error, self._path) from None
        self._old = 0

    def block(self, cid: bytes, pieces: Sequence[Piece]) -> None:
        """See ``Sink``; raises NoSpace and the like."""
        self._anew()
        self._write([encode_head(cid, sum(map(len, pieces))), *pieces])

    def _write(self, pieces: Sequence[Piece]) -> None:
        self._run += pieces
        self.size += sum(map(len, pieces))
        if self.size - self._written >= _RUN_BYTES:
            self._flush()

    def _flush(self) -> None:
        run, self._run = self._run, []
        if not run:
            return
        try:
            self._behind.write(self._fd, run, self._written)
            self._written = self.size
            if self.size - self._settled > _SETTLE_BYTES:
                sync_file(self._fd)
                self._settled = self.size
        except OSError as error:
            raise export_problem(error, self._path) from None

    def finish(self) -> None:
        """See ``Sink``. The file is complete and on the disk, or still the old one, whenever the power goes."""
        try:
            self._anew()
            self._flush()
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
            self._refuse_existing()  # somebody may have put one there meanwhile
            os.rename(self._part, self._path)
            self._close()
            with contextlib.suppress(OSError):  # some file systems don't sync folders
                sync_directory(self._path.parent)
        except OSError as error:
            raise export_problem(error, self._path) from None


class PipeSink:
    """A pipe that somebody reads: nothing to go on with, nothing to make durable."""

    def __init__(self, path: Path, cancelled: Callable[[], bool]) -> None:
        """Open it; raises Refused when nobody reads it."""
        self.kept = 0
        self.size = 0
        self._cancelled = cancelled
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"Nobody reads the pipe {path}: {error.strerror}.") from None

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        os.close(self._fd)

    def expect(self, total: int) -> None:
        """A pipe has room for anything."""

    def header(self, raw: bytes) -> None:
        """See ``Sink``."""
        self._write([raw])

    def has(self, _cid: bytes, _length: int) -> bool:
        """Never: a pipe keeps nothing."""
        return False

    def block(self, cid: bytes, pieces: Sequence[Piece]) -> None:
        """See ``Sink``."""
        self._write([encode_head(cid, sum(map(len, pieces))), *pieces])

    def _write(self, pieces: Sequence[Piece]) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if self._cancelled():
                    raise Interrupted("Interrupted.")
                try:
                    written = os.write(self._fd, rest)
                except BlockingIOError:
                    poll.poll(_POLL_MS)
                    continue
                except OSError as error:
                    raise P2plearnError(f"The reader of the export went away: {error.strerror}.") from None
                self.size += written
                rest = rest[written:]

    def finish(self) -> None:
        """See ``Sink``."""
