"""Whether a name still leads to the very file that this process knows: another may lie there by now, or none.

Imports only the standard library.
"""

from __future__ import annotations

import os
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
