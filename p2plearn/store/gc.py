"""Mark and sweep: what no course needs any more gives its room back.

What is live says ``live``. Extents of running downloads are left alone. An extent without a live chunk is unlinked; one
that is mostly dead, or that a killed get has left with a name in the user's folder (``alone``), is compacted: its live
chunks are hashed, copied to a new extent, made durable, and only then does the catalogue point there. A chunk found
damaged on that occasion is dropped. One that the disk fails at stays as it is, is named, and holds up no other.

It goes in steps, each a transaction of bounded length under the gate, and others get their turn in between: what they
begin to rely on is live from the next step on, and an extent's row goes only if no chunk lies in it at that moment.

Crash promise: rows go before files, and while a commit is in doubt no file goes. After every step the catalogue is
whole, and the next sweep goes on from there; a crash may leave a file without a row, which the next open deletes. A
read under way is never harmed: it has the file open; the next one looks its chunk up again.

Imports ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2plearn.database import CommitInDoubt
from p2plearn.store import contents, users_files
from p2plearn.store.alone import is_handed_over
from p2plearn.store.catalogue import ExtentRow, add_extent
from p2plearn.store.durable import sync_directory, sync_file, write_all
from p2plearn.store.extents import create_extent, finish_extent, is_extent, remove_extent
from p2plearn.store.letting_go import EXTENTS_AT_ONCE, let_go
from p2plearn.store.live import Live
from p2plearn.store.parts import StoreParts
from p2plearn.store.problems import disk_problem, size_text

log = logging.getLogger("p2plearn.store")

COMPACT_BELOW = 0.5
"""Compact an extent when less than this part of it is live: below, copying costs less than it frees."""
COMPACT_FROM = 8 * 1024 * 1024
"""Bytes that compacting one extent has to free at least; less isn't worth the fsync."""
CHUNKS_AT_ONCE: Final = 16_384
"""Chunks looked at, or moved, in one transaction."""
PAUSE_SECONDS: Final = 0.001
"""Between two steps: long enough for whoever waits to wake up."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep freed, or would free: extents unlinked and compacted, bytes. ``left``: what it couldn't, and why."""

    unlinked: int
    compacted: int
    freed: int
    left: tuple[str, ...] = ()


def sweep(parts: StoreParts, busy: Callable[[], set[int]], *, dry_run: bool) -> Sweep:
    """Free what is dead. ``busy`` names the extents of running downloads. Raises NoSpace, StoreProblem.

    Those are the catalogue's; an extent that the disk fails at is ``left`` for another time, and the others are not.
    """
    with parts.sweeping:
        with parts.gate:
            skip = _being_filled(parts, busy)
            extents = parts.catalogue.extents()
            with parts.catalogue.reading() as db:
                theirs = list(users_files.after(db, 0))
        # No chunk comes into one of these extents from here on, but for those that ``skip`` names.
        sizes = _live_bytes(parts, dry_run=dry_run)
        with parts.gate:
            skip |= _being_filled(parts, busy)
            extents = [extent for extent in extents if extent.id not in skip]
            dead = [extent for extent in extents if extent.id not in sizes]
            sparse = [extent for extent in extents if _worth_compacting(extent, sizes.get(extent.id, 0))]
            kept = [one for one in extents if one.id in sizes and not _worth_compacting(one, sizes[one.id])]
            # A get that was killed while it handed files over: the user's next edit must not be the store's.
            shared = [extent for extent in kept if _is_users_too(parts, extent)]
        freed = sum(extent.length - sizes[extent.id] for extent in sparse)
        if dry_run:
            return Sweep(len(dead), len(sparse), freed + sum(extent.length for extent in dead))
        gone: list[ExtentRow] = []
        left: list[str] = []
        for at in range(0, len(dead), EXTENTS_AT_ONCE):
            gone += _drop(parts, dead[at : at + EXTENTS_AT_ONCE], left)
            _breathe()
        # The user's own files that nothing refers to any more: only the rows are ours.
        unused = [number for number in theirs if number not in sizes]
        for at in range(0, len(unused), EXTENTS_AT_ONCE):
            let_go(parts, unused[at : at + EXTENTS_AT_ONCE])
            _breathe()
        compacted, freed = 0, sum(extent.length for extent in gone)
        # Those that need least room first: on a full disk they make some for the others.
        for extent in (*sorted(sparse, key=lambda one: sizes[one.id]), *shared):
            more = extent.length - sizes[extent.id] if extent in sparse else 0
            try:
                done = _compact(parts, extent, left)
            except OSError as error:
                path, why = parts.extents / extent.file_name, disk_problem(error, "compacting it").message
                what = f"{size_text(more)} of {path} can't be freed" if more else f"{path} can't have a file of its own"
                _leave(left, f"{what} now. {why}")
            else:
                compacted += done and extent in sparse
                freed += more if done else 0
        parts.catalogue.fold()
    return Sweep(len(gone), compacted, freed, tuple(left))


def _leave(left: list[str], words: str) -> None:
    log.warning("%s", words)
    left.append(words)


def _being_filled(parts: StoreParts, busy: Callable[[], set[int]]) -> set[int]:
    with parts.catalogue.reading() as db:
        return {row[0] for row in db.execute("SELECT extent FROM downloads")} | busy()


def _breathe() -> None:
    """Let others have the gate and the catalogue: who lets go of a lock and takes it at once again keeps it."""
    time.sleep(PAUSE_SECONDS)


def _live_bytes(parts: StoreParts, *, dry_run: bool) -> dict[int, int]:
    """Live bytes by extent; drops the rows of dead chunks unless ``dry_run``. Goes through all chunks, by digest."""
    live = Live(parts)
    sizes: Counter[int] = Counter()
    after = b""
    while True:
        with parts.gate, parts.catalogue.writing() as db:
            new = live.uncounted(db)
            if not new:
                rows = db.execute(
                    "SELECT digest, extent, length FROM chunks WHERE digest > ? ORDER BY digest LIMIT ?",
                    (after, CHUNKS_AT_ONCE),
                ).fetchall()
                dead = live.dead([row[0] for row in rows])
                if not dry_run:
                    db.executemany("DELETE FROM chunks WHERE digest = ?", [(digest,) for digest in sorted(dead)])
                live.looked(db)
        if new:
            live.count(new)
        else:
            for digest, extent, length in rows:
                if digest not in dead:
                    sizes[extent] += length
            if len(rows) < CHUNKS_AT_ONCE:
                return sizes
            after = rows[-1][0]
        _breathe()


def _drop(parts: StoreParts, extents: list[ExtentRow], left: list[str]) -> list[ExtentRow]:
    """Take those of ``extents`` that no chunk lies in out of the catalogue, and delete their files; which these were.

    A file that can't be deleted is noted in ``left``.
    """
    numbers = let_go(parts, [extent.id for extent in extents])
    gone = []
    for extent in extents:
        if extent.id not in numbers:
            continue
        try:
            remove_extent(parts.extents, extent.file_name)
        except OSError as error:
            path, why = parts.extents / extent.file_name, os.strerror(error.errno or 0).lower()
            _leave(
                left, f"{path}, which no course needs, can't be deleted now ({why}). It goes when the node starts next."
            )
        else:
            gone.append(extent)
    if gone:
        with contextlib.suppress(OSError):  # names that come back after a power cut are swept at the next open
            sync_directory(parts.extents)
    return gone


def _worth_compacting(extent: ExtentRow, live: int) -> bool:
    return 0 < live < COMPACT_BELOW * extent.length and extent.length - live >= COMPACT_FROM


def _is_users_too(parts: StoreParts, extent: ExtentRow) -> bool:
    try:
        return is_handed_over(extent, os.stat(parts.extents / extent.file_name, follow_symlinks=False))
    except OSError:
        return False


def _compact(parts: StoreParts, old: ExtentRow, left: list[str]) -> bool:
    """Whether it was. Raises OSError, and then what it has is all where it was: a sector that can't be read today may
    be readable another time, and ``verify`` says what is in it.
    """
    if not is_extent(parts.extents / old.file_name):
        return False  # gone, or another thing in its place: ``check.drop_gone`` is for that
    with parts.catalogue.reading() as db:
        rows = db.execute(
            "SELECT digest, offset, length FROM chunks WHERE extent = ? ORDER BY offset", (old.id,)
        ).fetchall()
    source = os.open(parts.extents / old.file_name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    name, committed = "", False
    try:
        name, target = create_extent(parts.extents)
        try:
            moved, length = _copy_chunks(source, target, rows)
            sync_file(target)
            name = finish_extent(parts.extents, name)
            sync_directory(parts.extents)
        finally:
            os.close(target)
        with parts.catalogue.writing() as db:
            extent = add_extent(db, name, length)
        committed = True
        for at in range(0, len(moved), CHUNKS_AT_ONCE):
            places = [(extent, offset, digest, old.id) for digest, offset in moved[at : at + CHUNKS_AT_ONCE]]
            with parts.gate, parts.catalogue.writing() as db:
                db.executemany("UPDATE chunks SET extent = ?, offset = ? WHERE digest = ? AND extent = ?", places)
            _breathe()
        right = {digest for digest, _ in moved}
        lost = [(digest, old.id, offset) for digest, offset, _ in rows if digest not in right]
        if lost:
            parts.quarantine(lost)
        return bool(_drop(parts, [old], left))
    except BaseException as error:
        if name and not committed and not isinstance(error, CommitInDoubt):
            with contextlib.suppress(OSError):
                remove_extent(parts.extents, name)
        raise
    finally:
        os.close(source)


def _copy_chunks(source: int, target: int, rows: list[tuple[bytes, int, int]]) -> tuple[list[tuple[bytes, int]], int]:
    """Copy what still has its hash, back to back; returns (digest, new offset) and the new length."""
    moved: list[tuple[bytes, int]] = []
    listed: list[contents.Entry] = []
    cursor = 0
    for digest, offset, length in rows:
        chunk = os.pread(source, length, offset)
        if hashlib.sha256(chunk).digest() != digest:
            continue
        write_all(target, [chunk], cursor)
        moved.append((digest, cursor))
        listed.append((digest, cursor, length))
        cursor += length
    return moved, contents.write(target, listed, cursor)
