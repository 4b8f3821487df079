"""Checked-out files that share their blocks with the store, where the file system can (btrfs, XFS, bcachefs).

Sharing costs no room and next to no time; when either side is written to later, the system parts them. Whole blocks
are shared, so a run's ragged ends are copied. Extents are laid out for it: in them files begin on a block.

Nothing is shared that this process hasn't hashed. Whatever can't be shared is left to the caller to copy.

Imports ``course`` and siblings.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2plearn.course.file_table import FileEntry
from p2plearn.store.durable import write_all
from p2plearn.store.extents import ALIGNMENT, ExtentGone, ExternalChanged
from p2plearn.store.holding import Holding
from p2plearn.store.placement import NOWHERE, bit

LEAST: Final = 64 * 1024
"""Runs shorter than this are copied: a shared block costs the file system more than it saves there."""

_FICLONERANGE: Final = 0x4020940D
"""``_IOW(0x94, 13, struct file_clone_range)`` of linux/fs.h: source descriptor, offset and length, target offset."""
_HASHED_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring slots of a file (``first`` up to ``stop``) in one extent: where there, where in the file, bytes."""

    first: int
    stop: int
    extent: int
    offset: int
    at: int
    length: int


def clone_range(source: int, offset: int, length: int, target: int, at: int) -> None:
    """Let ``length`` bytes of ``target`` at ``at`` be those of ``source`` at ``offset``. Raises OSError."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    import fcntl

    fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, offset, length, at))


def can_share(one: Path, other: Path) -> bool:
    """Whether files in two directories can share blocks: tried with nameless files that leave nothing behind."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag:
        return False
    fds: list[int] = []
    try:
        for directory in (one, other):
            fds.append(os.open(directory, flag | os.O_RDWR | os.O_CLOEXEC, 0o600))  # noqa: PERF401 - closed one by one
        os.write(fds[0], bytes(ALIGNMENT))
        clone_range(fds[0], 0, ALIGNMENT, fds[1], 0)
    except OSError:
        return False
    else:
        return True
    finally:
        for fd in fds:
            os.close(fd)


def share_file(holding: Holding, entry: FileEntry, fd: int) -> Iterator[Run]:
    """Share what can be of one file with the store; yields the runs that are in place, in order.

    ``fd`` is the new file, open for writing. Raises ChunkMissing and StoreDamage for what the store doesn't have.
    """
    for run in runs_of(holding, entry):
        first, last = -(-run.at // ALIGNMENT) * ALIGNMENT, (run.at + run.length) // ALIGNMENT * ALIGNMENT
        if (run.at - run.offset) % ALIGNMENT or last - first < LEAST:
            continue
        _hash(holding, run)
        try:
            pinned = holding.extent_files.pin(run.extent)
        except (ExtentGone, ExternalChanged, OSError):
            continue
        try:
            if pinned.row is not None:
                continue  # a file of the user's, which the two would then have in common
            moved = run.offset - run.at
            clone_range(pinned.fd, first + moved, last - first, fd, first)
            for start, end in ((run.at, first), (last, run.at + run.length)):
                if start < end:
                    write_all(fd, [os.pread(pinned.fd, end - start, start + moved)], start)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return  # not here, whatever the reason: the rest is copied
        finally:
            holding.extent_files.unpin(pinned)
        yield run


def runs_of(holding: Holding, entry: FileEntry) -> Iterator[Run]:
    """How a file's slots lie in the store, in order; what isn't here is left out."""
    placement, lengths = holding.placement, holding.index.lengths
    at, slot, end = 0, entry.first, entry.first + entry.count
    while slot < end:
        with placement.lock:
            extent, offset = placement.extents[slot], placement.offsets[slot]
            stop, length = slot, 0
            while (
                stop < end
                and placement.extents[stop] == extent != NOWHERE
                and placement.offsets[stop] == offset + length
            ):
                length += lengths[stop]
                stop += 1
        if stop == slot:
            at += lengths[slot]
            slot += 1
            continue
        yield Run(slot, stop, extent, offset, at, length)
        at += length
        slot = stop


def _hash(holding: Holding, run: Run) -> None:
    """Read and hash what of a run this process hasn't hashed yet."""
    good = holding.placement.good
    unknown = [slot for slot in range(run.first, run.stop) if not bit(good, slot)]
    for start in range(0, len(unknown), _HASHED_AT_ONCE):
        holding.read_all(unknown[start : start + _HASHED_AT_ONCE])
