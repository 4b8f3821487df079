"""What goes wrong with a disk, in words a person can act on.

Imports only ``errors`` and the standard library.
"""

from __future__ import annotations

import errno
import os

from p2plearn.errors import IntegrityProblem, NoSpace, P2plearnError, StoreProblem

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors that mean: no room. (EFBIG: the process may not write files this large.)"""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


class StoreDamage(IntegrityProblem):
    """A stored chunk no longer is what its hash says. It was taken out of the catalogue and will not be served."""

    code = "damaged"

    def __init__(self, course: bytes, slot: int, path: str, what: str) -> None:
        super().__init__(
            f"Part of {path!r} of course {course.hex()[:12]} is damaged in this store: {what}.",
            f"Fetch it again: p2plearn get {course.hex()}",
        )
        self.course = course
        self.slot = slot
        self.path = path
        self.what = what


class ChunkMissing(LookupError):
    """This store doesn't have that chunk (yet, or any more)."""


def size_text(count: int) -> str:
    """A number of bytes for people: ``1.5 GiB``."""
    amount = float(count)
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            return ("1 byte" if count == 1 else f"{count} bytes") if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def disk_problem(error: OSError, doing: str) -> P2plearnError:
    """The error a person should see for one of the system's while ``doing`` something ("writing a course to …")."""
    if error.errno == errno.EFBIG:
        return NoSpace(
            f"A file would grow beyond the size this process may write, while {doing}.",
            "Raise the limit (ulimit -f) or use a file system that takes larger files.",
        )
    if error.errno in FULL:
        what = "The disk is full" if error.errno == errno.ENOSPC else "Your disk quota is used up"
        return NoSpace(
            f"{what}: no room was left while {doing}. What was complete is kept.",
            "Free some space (p2plearn list, p2plearn remove HASH) and run the same command again.",
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreProblem(f"The disk failed while {doing}: {reason}.", "Check the disk, then run the same command again.")
