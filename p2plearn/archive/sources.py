"""Where an import comes from: a file, which may be read again and skipped in, or a pipe.

Blocking. Imports ``errors`` only.
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2plearn.errors import Interrupted, P2plearnError, Refused, UsageProblem

READ_BYTES: Final = 1024 * 1024
PIPE_KEPT: Final = 4 * 1024 * 1024
"""Bytes of a pipe that can be gone back: more than a block and a read have."""
_POLL_MS: Final = 200


class Source:
    """An open file or pipe. A context manager."""

    def __init__(self, path: Path, cancelled: Callable[[], bool]) -> None:
        """Open ``path``; raises UsageProblem, Refused."""
        self._path = path
        self._at = 0
        """Bytes given so far."""
        self._passed: deque[bytes] = deque()
        """What a pipe gave last."""
        self._again: deque[bytes] = deque()
        """What is given once more."""
        self._cancelled = cancelled
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageProblem(f"There is no {path}.") from None
        except OSError as error:
            raise Refused(f"{path} can't be read: {error.strerror}.") from None
        facts = os.fstat(self._fd)
        self.seekable = stat.S_ISREG(facts.st_mode)
        self.size = facts.st_size if self.seekable else 0
        """Bytes of the file; 0 if that isn't known."""
        if not (self.seekable or stat.S_ISFIFO(facts.st_mode)):
            os.close(self._fd)
            raise UsageProblem(f"{path} is neither a file nor a pipe.", "Name the CAR file itself.")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        os.close(self._fd)

    def read(self) -> bytes:
        """The next bytes, empty at the end; raises Interrupted, and P2plearnError when the disk fails."""
        if self._cancelled():
            raise Interrupted("Interrupted.")
        data = self._again.popleft() if self._again else self._read()
        self._at += len(data)
        if data and not self.seekable:
            self._passed.append(data)
            while sum(map(len, self._passed)) - len(self._passed[0]) >= PIPE_KEPT:
                self._passed.popleft()
        return data

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLIN)
                poll.poll(_POLL_MS)
            except OSError as error:
                raise P2plearnError(
                    f"{self._path} can't be read further: {error.strerror}.",
                    "Is the stick still there? What was read is kept: the same command goes on.",
                ) from None
            if self._cancelled():
                raise Interrupted("Interrupted.")

    def go_back(self, offset: int) -> int:
        """Give what stands at ``offset`` next, which was given before; of a pipe only its last bytes are left. Returns
        where reading goes on.
        """
        if self.seekable:
            self._at = os.lseek(self._fd, offset, os.SEEK_SET)
            return offset
        while self._passed and self._at > offset:
            data = self._passed.pop()
            self._at -= len(data)
            self._again.appendleft(data)
        if self._at < offset:
            data = self._again.popleft()
            kept = offset - self._at
            self._passed.append(data[:kept])
            self._again.appendleft(data[kept:])
            self._at = offset
        return self._at

    def pass_over(self, count: int) -> None:
        """Leave out the next bytes of a file."""
        self._at = os.lseek(self._fd, count, os.SEEK_CUR)

    def rewind(self) -> None:
        """Begin a file again."""
        self._at = os.lseek(self._fd, 0, os.SEEK_SET)
