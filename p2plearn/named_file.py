"""Whether a name still leads to the very file that this process knows: another may lie there by now, or none.

A node whose home was moved goes on for some seconds; what it writes down meanwhile must not land in the home that is in
that place by then.

Imports only the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


def is_named(name: str | Path, known: int | os.stat_result, *, folder: int | None = None) -> bool:
    """Whether the file ``known`` (open, by its descriptor; or as it looked) has that name; a link to it is not it.

    ``folder``: a descriptor that the name is relative to. Raises OSError when the disk doesn't say.
    """
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(there, os.fstat(known) if isinstance(known, int) else known)


class KnownFolder:
    """A folder as it was when this was made, for whatever is written into it later."""

    def __init__(self, path: Path) -> None:
        """Looks at the folder. One that isn't there yet, or never looks the same twice, is known by its path alone."""
        self.path = path
        self._known: os.stat_result | None = None
        with contextlib.suppress(OSError):
            looked = os.stat(path)
            if os.path.samestat(looked, os.stat(path)):
                self._known = looked

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of it. Raises OSError, ESTALE when another folder has its path by now."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._known is not None and not os.path.samestat(os.fstat(folder), self._known):
                raise OSError(errno.ESTALE, "Another folder is in its place", str(self.path))
            yield folder
        finally:
            os.close(folder)
