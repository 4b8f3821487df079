"""Writing below one directory and nowhere else.

Every name is opened relative to the descriptor of the directory it is in, exclusively and without following links,
one name at a time: whatever somebody else puts, moves or links in the tree meanwhile, no byte is written outside of
directories that were opened this way. The descriptors of the current path's directories are kept, so that a course's
files, which come in order, cost one open each.

Imports ``durable`` and the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from p2plearn.store.durable import sync_file

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

FILE_MODE = 0o644
FOLDER_MODE = 0o755
"""Less what the user's umask takes away. Nothing of a course is ever executable."""


class Tree:
    """The directories below ``root`` (a descriptor, which stays the caller's)."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._names: list[str] = []
        self._fds: list[int] = []

    def folder(self, names: list[str]) -> int:
        """The descriptor of a directory, made where it is missing; good until the next call.

        Raises NotADirectoryError (or OSError ELOOP) with the offending path where something else is in the way.
        """
        common = 0
        while common < min(len(names), len(self._names)) and names[common] == self._names[common]:
            common += 1
        while len(self._names) > common:
            self._names.pop()
            os.close(self._fds.pop())
        for name in names[common:]:
            above = self._fds[-1] if self._fds else self._root
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, FOLDER_MODE, dir_fd=above)
            self._fds.append(os.open(name, DIRECTORY, dir_fd=above))
            self._names.append(name)
        return self._fds[-1] if self._fds else self._root

    def existing(self, names: list[str]) -> int:
        """The descriptor of a directory that is there; raises OSError when it isn't, or is something else.

        The one that was asked for last isn't opened again.
        """
        if names and names == self._names:
            return self._fds[-1]
        above = self._root
        self.close()
        for name in names:
            above = os.open(name, DIRECTORY, dir_fd=above)
            self._names.append(name)
            self._fds.append(above)
        return above

    def parent(self, path: str) -> tuple[int, str]:
        """The directory of a file in the tree, made where it is missing, and the file's name in it."""
        *folders, name = path.split("/")
        if folders == self._names:
            return (self._fds[-1] if self._fds else self._root), name
        return self.folder(folders), name

    def create(self, path: str) -> int:
        """A new file, open for writing. Raises FileExistsError."""
        above, name = self.parent(path)
        return os.open(name, CREATE, FILE_MODE, dir_fd=above)

    def close(self) -> None:
        """Close what is open."""
        self._names.clear()
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def umask() -> int:
    """The process's umask, without changing it where the system tells."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def remove_tree(name: str, above: int) -> None:
    """Delete a directory with all in it, following no link; what is gone already is fine. Raises OSError."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        return
    except OSError:
        os.unlink(name, dir_fd=above)
        return
    try:
        with os.scandir(fd) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_folder in listed:
            if is_folder:
                remove_tree(child, fd)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=above)


def list_tree(root: int, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(path, whether it is a real directory) of everything below ``root``, following no link."""
    with os.scandir(root) as entries:
        listed = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in listed:
        yield prefix + name, is_folder
        if is_folder:
            fd = os.open(name, DIRECTORY, dir_fd=root)
            try:
                yield from list_tree(fd, f"{prefix}{name}/")
            finally:
                os.close(fd)


def sync_tree(root: int) -> None:
    """Put every file and directory below ``root``, and itself, on the disk, following no link. Raises OSError."""
    with os.scandir(root) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        fd = os.open(name, DIRECTORY if is_folder else READ, dir_fd=root)
        try:
            if is_folder:
                sync_tree(fd)
            else:
                sync_file(fd)
        finally:
            os.close(fd)
    os.fsync(root)


PART = ".p2plearn-part-"


def part_name(name: str) -> str:
    """A fresh name beside ``name`` for something that will be renamed to it."""
    # 255 bytes is the longest a name may be; a token of 8 hex digits is enough, since creation is exclusive.
    return f".{_shortened(name)}{PART}{secrets.token_hex(4)}"


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:200])


_PART_NAME = re.compile(r"\..+" + re.escape(PART) + r"[0-9a-f]{8}", re.DOTALL)


def remove_part_files(directory: int) -> None:
    """Delete files that were to be renamed into a directory and never were. Raises OSError.

    For whoever holds the lock of the checkout that the directory is in, so that nobody writes to them.
    """
    with os.scandir(directory) as entries:
        stale = [one.name for one in entries if _PART_NAME.fullmatch(one.name) and one.is_file(follow_symlinks=False)]
    for name in stale:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def make_part(name: str, above: int) -> tuple[str, int]:
    """A fresh directory, 0700, beside ``name``; returns its name and descriptor, locked while we live."""
    part = part_name(name)
    os.mkdir(part, 0o700, dir_fd=above)
    fd = os.open(part, DIRECTORY, dir_fd=above)
    facts = os.fstat(fd)
    # Somebody may have put another directory there in between: only an own, closed one will do.
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(1, "replaced while it was made", part)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return part, fd


def parts_beside(name: str, above: int) -> list[str]:
    """What in a directory has a name that ``part_name`` gives to parts of ``name``. Raises OSError."""
    prefix = f".{_shortened(name)}{PART}"
    with os.scandir(above) as entries:
        return [entry.name for entry in entries if entry.name.startswith(prefix) and _PART_NAME.fullmatch(entry.name)]


def remove_stale_parts(name: str, above: int) -> None:
    """Delete what killed checkouts to ``name`` left; those that are still running hold a lock."""
    for part in parts_beside(name, above):
        try:
            fd = os.open(part, DIRECTORY, dir_fd=above)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(part, above)
        except OSError:
            continue
        finally:
            os.close(fd)
