"""The digest of a database as it was closed, beside it, because SQLite has no checksums.

A bit that flips in a text goes unnoticed by SQLite, and would be shown. The seal is written at a clean end; who opens
the database next holds it against the file. A seal counts only after a clean end, which the caller has to know.

Imports siblings and the standard library.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from p2plearn.store.durable import write_atomic


def is_as_sealed(path: Path, seal: Path) -> bool:
    """Whether a file is what it was when it was sealed; also when there is no seal to tell. Raises OSError."""
    try:
        return seal.read_bytes().strip() == _digest(path)
    except FileNotFoundError:
        return not seal.exists()


def write_seal(path: Path, seal: Path) -> None:
    """Seal a file that nobody writes to any more. Raises OSError."""
    write_atomic(seal, [_digest(path)])


def _digest(path: Path) -> bytes:
    """SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()
