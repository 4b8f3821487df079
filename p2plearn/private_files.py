"""Files that hold secrets: made complete and 0600 or not at all, refused when others could read them.

Invariant: whatever is killed when, a path holds nothing or all of what was written.

Imports ``errors`` and ``named_file``.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import stat
from pathlib import Path

from p2plearn.errors import P2plearnError, Refused
from p2plearn.named_file import KnownFolder


def make_private_folder(folder: Path) -> None:
    """Have ``folder``, for its owner alone; raises Refused, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_if_open(folder, folder.stat(), 0o700)


def read_private(path: Path, most: int) -> bytes | None:
    """The file's bytes, up to ``most`` and one more; None when there is none.

    Raises Refused when others could read it, with the command that mends it; P2plearnError, OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise P2plearnError(f"The key {path} is not a regular file.")
        _refuse_if_open(path, facts, 0o600)
        return file.read(most + 1)


def create_private(path: Path, content: bytes, *, replace: bool = False, within: KnownFolder | None = None) -> None:
    """Write ``content`` to ``path``; durable when it returns. Raises OSError.

    Unless ``replace``, a file that is there already stays as it is, also one that another process made meanwhile.
    ``within``: its folder; nothing is written where another is in that place by now.
    """
    with (within or KnownFolder(path.parent)).opened() as folder:
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                # Unlike a rename, a link never replaces what another process made in the meantime. (That one may have
                # taken ours for what a crash left; then its own is there.)
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    os.link(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)


def remove_left_overs(path: Path) -> None:
    """Delete what processes left that were killed while they made ``path``, which is there and is never replaced."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}")
    for name in os.listdir(path.parent):
        if pattern.fullmatch(name):
            with contextlib.suppress(OSError):
                os.unlink(path.parent / name)


def _refuse_if_open(path: Path, facts: os.stat_result, wanted: int) -> None:
    quoted = shlex.quote(str(path))
    if facts.st_uid != os.getuid():
        raise Refused(f"{path} belongs to another user.", f"Make it yours: sudo chown {os.getuid()} {quoted}")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & ~wanted:
        raise Refused(
            f"{path} is open to others (mode {mode:04o}); a key that others can read is not safe to use.",
            f"Close it: chmod {wanted:o} {quoted}",
        )


def have_temporary_folder(otherwise: Path) -> None:
    """Have files that live for a moment go to ``otherwise``, made private, where the system has no folder for such: on
    a read-only root libp2p's TLS could not start. Raises Refused when it can't be made private, OSError.
    """
    import tempfile  # late: only a node needs it

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        make_private_folder(otherwise)
        tempfile.tempdir = str(otherwise)
