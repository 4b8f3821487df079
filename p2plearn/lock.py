"""One node a home: a lock that names its holder and that no crash leaves behind.

``flock`` on ``node.lock``: the kernel lets go of it when the process ends, however it ends. The file itself stays
and holds the process id, for words and for ``node stop``; it is never removed, because a second process could then
lock a file that has no name any more.

Imports ``errors`` and ``named_file``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import time
from pathlib import Path
from types import TracebackType

from p2plearn.errors import AlreadyRunning, P2plearnError
from p2plearn.named_file import is_named

_GLANCE_SECONDS = 0.3  # ``holder`` takes the lock for an instant to look; a start waits that out


class NodeLock:
    """The lock of one home, held by this process from ``acquire`` (or ``with``) to ``release``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor >= 0

    def acquire(self) -> None:
        """Take the lock; raises AlreadyRunning naming the process that has it."""
        if self.held:
            return
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as problem:
            raise P2plearnError(f"The lock {self.path} can't be opened: {problem.strerror}.") from None
        try:
            deadline = time.monotonic() + _GLANCE_SECONDS
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise _already_running(self.path.parent, _read_pid(descriptor))
                time.sleep(0.02)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; harmless when not held."""
        if self.held:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # a disk that is gone
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def in_place(self) -> bool:
        """Whether what is held is the file of that name still: only then does it keep others out. Raises OSError."""
        return is_named(self.path, self._descriptor)

    def __enter__(self) -> NodeLock:
        """Acquire."""
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()


def _already_running(home: Path, pid: int) -> AlreadyRunning:
    who = f"process {pid}" if pid else "another process"
    return AlreadyRunning(
        f"A node is running for {home} already: {who} holds it.",
        f"Use it as it is; or stop it: p2plearn --home {shlex.quote(str(home))} node stop; "
        "or give this one another home with --home DIR.",
    )


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock; 0 when it is held but not named yet; None when it is free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else _read_pid(descriptor)
    finally:
        os.close(descriptor)


def refuse_if_held(path: Path) -> None:
    """Raise AlreadyRunning, naming the process, when the lock is held."""
    pid = holder(path)
    if pid is not None:
        raise _already_running(path.parent, pid)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
