"""Mark and sweep: what no course needs any more gives its room back.

Live is every digest in the index of a course in the catalogue, and every digest that a running publish relies on.
Extents of running downloads are left alone. An extent without a live chunk is unlinked; one that is mostly dead, or
that a killed get has left with a name in the user's folder (``alone``), is compacted: its live chunks are hashed,
copied to a new extent, made durable, and only then does the catalogue point there. A chunk found damaged on that
occasion is dropped.

Crash promise: rows go before files, and while a commit is in doubt no file goes. A crash between leaves a file without
a row, which the next open deletes. A read under way is never harmed: it has the file open; the next one looks its
chunk up again.

Imports ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from p2plearn.database import CommitInDoubt
from p2plearn.store import contents
from p2plearn.store.alone import is_handed_over
from p2plearn.store.catalogue import ExtentRow, add_extent
from p2plearn.store.course_files import CourseFileDamaged
from p2plearn.store.durable import sync_directory, sync_file, write_all
from p2plearn.store.extents import create_extent, remove_extent
from p2plearn.store.parts import StoreParts
from p2plearn.store.problems import disk_problem

log = logging.getLogger("p2plearn.store")

COMPACT_BELOW = 0.5
"""Compact an extent when less than this part of it is live: below, copying costs less than it frees."""
COMPACT_FROM = 8 * 1024 * 1024
"""Bytes that compacting one extent has to free at least; less isn't worth the fsync."""
_STEP = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep freed, or would free: extents unlinked and compacted, bytes."""

    unlinked: int
    compacted: int
    freed: int


def sweep(parts: StoreParts, busy: Callable[[], set[int]], *, dry_run: bool) -> Sweep:
    """Free what is dead. ``busy`` names the extents of running downloads. Raises NoSpace, StoreProblem."""
    with parts.gate:
        _mark(parts)
        sizes = _live_bytes(parts, dry_run)
        with parts.catalogue.reading() as db:
            planned = {row[0] for row in db.execute("SELECT extent FROM downloads")}
        skip = planned | busy()
        extents = [extent for extent in parts.catalogue.extents() if extent.id not in skip]
        dead = [extent for extent in extents if extent.id not in sizes]
        sparse = [extent for extent in extents if _worth_compacting(extent, sizes.get(extent.id, 0))]
        # A get that was killed while it handed files over: the user's next edit must not be the store's.
        shared = [one for one in extents if one.id in sizes and one not in sparse and _is_users_too(parts, one)]
        freed = sum(extent.length for extent in dead) + sum(extent.length - sizes[extent.id] for extent in sparse)
        if not dry_run:
            with parts.catalogue.writing() as db:
                db.executemany("DELETE FROM extents WHERE id = ?", [(extent.id,) for extent in dead])
                # The user's own files that nothing refers to any more: only the rows are ours.
                unused = "SELECT id FROM extents WHERE name IS NULL AND id NOT IN (SELECT extent FROM chunks)"
                left = {row[0] for row in db.execute(unused)}
                db.executemany("DELETE FROM extents WHERE id = ?", [(extent,) for extent in left])
            _unlink(parts, dead)
            _let_go(parts, left)
    if not dry_run:
        for extent in (*sparse, *shared):
            _compact(parts, extent)
    return Sweep(len(dead), len(sparse), freed)


def _mark(parts: StoreParts) -> None:
    """Fill the temporary table ``live``.

    While the index of a course can't be read nobody knows which chunks are its own: then every chunk is live, until
    the index was fetched again (``verify --repair``) or the course removed.
    """
    with parts.catalogue.writing() as db:
        db.execute("CREATE TEMP TABLE IF NOT EXISTS live (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        db.execute("DELETE FROM temp.live")
        for (course,) in db.execute("SELECT course FROM courses WHERE indexed").fetchall():
            try:
                digests = parts.course_files.digests(course)
            except CourseFileDamaged:
                db.execute("UPDATE courses SET indexed = 0, have_bytes = 0 WHERE course = ?", (course,))
                continue
            rows = ((digests[at : at + 32],) for at in range(0, len(digests), 32))
            db.executemany("INSERT OR IGNORE INTO temp.live VALUES (?)", rows)
        # ("seen": only the manifest was ever here.)
        harmed = db.execute("SELECT count(*) FROM courses WHERE NOT indexed AND why != 'seen'").fetchone()[0]
        if harmed:
            log.warning("%d courses have lost their index: nothing is freed until that is mended", harmed)
            db.execute("INSERT OR IGNORE INTO temp.live SELECT digest FROM chunks")
        for pinned in parts.pins.values():
            db.executemany("INSERT OR IGNORE INTO temp.live VALUES (?)", [(digest,) for digest in pinned])


def _live_bytes(parts: StoreParts, dry_run: bool) -> dict[int, int]:
    """Live bytes by extent; drops the rows of dead chunks unless ``dry_run``."""
    with parts.catalogue.writing() as db:
        if not dry_run:
            db.execute("DELETE FROM chunks WHERE digest NOT IN (SELECT digest FROM temp.live)")
        sizes = dict(
            db.execute(
                "SELECT extent, sum(length) FROM chunks WHERE digest IN (SELECT digest FROM temp.live) GROUP BY extent"
            ).fetchall()
        )
        db.execute("DELETE FROM temp.live")
    return sizes


def _worth_compacting(extent: ExtentRow, live: int) -> bool:
    return 0 < live < COMPACT_BELOW * extent.length and extent.length - live >= COMPACT_FROM


def _is_users_too(parts: StoreParts, extent: ExtentRow) -> bool:
    try:
        return is_handed_over(extent, os.stat(parts.extents / extent.file_name, follow_symlinks=False))
    except OSError:
        return False


def _let_go(parts: StoreParts, left: set[int]) -> None:
    """Read nothing through the numbers of rows that are gone: another file may be given them."""
    for extent in left:
        parts.files.forget(extent)
    usable = parts.usable()
    for placement in parts.open_placements() if left else ():
        slots = [slot for slot, extent in enumerate(placement.extents) if extent in left]
        if slots:
            placement.locate_again(parts.catalogue, usable, slots)


def _unlink(parts: StoreParts, extents: list[ExtentRow]) -> None:
    for extent in extents:
        parts.files.forget(extent.id)
        try:
            remove_extent(parts.extents, extent.file_name)
        except OSError as error:
            raise disk_problem(error, "deleting what no course needs any more") from error
    if extents:
        with contextlib.suppress(OSError):  # names that come back after a power cut are swept at the next open
            sync_directory(parts.extents)


def _compact(parts: StoreParts, old: ExtentRow) -> None:
    with parts.catalogue.reading() as db:
        rows = db.execute(
            "SELECT digest, offset, length FROM chunks WHERE extent = ? ORDER BY offset", (old.id,)
        ).fetchall()
    try:
        source = os.open(parts.extents / old.file_name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise disk_problem(error, "compacting the store") from error
    name, committed = "", False
    try:
        name, target = create_extent(parts.extents)
        try:
            moved, length = _copy_chunks(source, target, rows)
            sync_file(target)
            sync_directory(parts.extents)
        finally:
            os.close(target)
        with parts.gate:
            with parts.catalogue.writing() as db:
                extent = add_extent(db, name, length)
                db.executemany(
                    "UPDATE chunks SET extent = ?, offset = ? WHERE digest = ? AND extent = ?",
                    [(extent, offset, digest, old.id) for digest, offset in moved],
                )
                lost = [row[0] for row in db.execute("SELECT digest FROM chunks WHERE extent = ?", (old.id,))]
                db.execute("DELETE FROM chunks WHERE extent = ?", (old.id,))
                db.execute("DELETE FROM extents WHERE id = ?", (old.id,))
            committed = True
            if lost:
                parts.quarantine((digest, old.id, 0) for digest in lost)
            _unlink(parts, [old])
    except BaseException as error:
        if name and not committed and not isinstance(error, CommitInDoubt):
            with contextlib.suppress(OSError):
                remove_extent(parts.extents, name)
        if isinstance(error, OSError):
            raise disk_problem(error, "compacting the store") from error
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
