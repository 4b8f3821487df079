"""Opening a store: who may, in which state it was left, and making it sound before anybody asks it for anything.

In: a home. Out: the parts of its store, locked to this process, with nothing half done in it. A catalogue that is gone,
damaged or not as it was left is set aside and built anew (``rebuild``), before anything is deleted for having no row in
it.

How it was left: ``unclean`` is there while a store is open. A clean end takes it away and seals the catalogue.

Imports ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from functools import partial
from pathlib import Path

from p2plearn.course.manifest import open_manifest
from p2plearn.database import HALF, DatabaseDamaged
from p2plearn.errors import PeerFault, StoreProblem
from p2plearn.store.catalogue import VERSION, Catalogue
from p2plearn.store.check import drop_gone
from p2plearn.store.durable import TEMPORARY, sync_directory, write_atomic
from p2plearn.store.extents import sweep_orphans
from p2plearn.store.orphans import take_back
from p2plearn.store.parts import FORMAT, StoreParts
from p2plearn.store.problems import disk_problem
from p2plearn.store.rebuild import CATALOGUE, NOTES, give_contents, rebuild, set_aside
from p2plearn.store.sealing import is_as_sealed, write_seal
from p2plearn.store.space import StoreLimits

log = logging.getLogger("p2plearn.store")

_FORMAT = f"p2plearn store {VERSION}\n"
_UNCLEAN = "unclean"
"""A file that is there while the store is open: found at open, the last one ended without closing."""
_SEAL = "seal"
"""SHA-256 of the catalogue as it was closed, in hex."""

RESERVE = "reserve"
"""A file that is given up when a full disk keeps a course from being removed."""
RESERVE_BYTES = 4 * 1024 * 1024


def open_parts(home: Path, limits: StoreLimits, author: bytes) -> tuple[int, StoreParts]:
    """(descriptor that holds the lock, parts). Raises StoreProblem."""
    directory = home / "store"
    lock = -1
    try:
        for path in (directory, directory / "extents", directory / "courses"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock_format(directory)
        unclean = (directory / _UNCLEAN).exists()
        (directory / _UNCLEAN).touch(mode=0o600)
        sync_directory(directory)
        catalogue, notices = _open_catalogue(home, unclean, author)
        try:
            parts = StoreParts(home, catalogue, limits, lock)
            parts.notices += notices
            parts.as_left = not unclean and not notices and (directory / _SEAL).exists()  # which was right
            _clean_up(parts)
            _keep_reserve(directory / RESERVE)
        except BaseException:
            catalogue.close()
            raise
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        raise disk_problem(error, f"opening the store in {home}") from error
    except BaseException:
        if lock >= 0:
            os.close(lock)
        raise
    return lock, parts


def _open_catalogue(home: Path, unclean: bool, author: bytes) -> tuple[Catalogue, list[str]]:
    """The catalogue, built anew when it has to be; what to tell the person."""
    directory = home / "store"
    path = directory / CATALOGUE
    # Something was kept here: then an empty catalogue is a lost one.
    kept = any(any((directory / name).iterdir()) for name in ("extents", "courses"))

    def opened() -> Catalogue:
        contents = partial(give_contents, extents=directory / "extents")
        catalogue = Catalogue(
            path, suspicious=unclean, expected=kept, notes=directory / NOTES, give_contents=contents
        )  # fmt: skip
        try:
            if unclean:
                _check_courses(catalogue)
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    try:
        if kept and not path.exists():
            raise DatabaseDamaged("The catalogue is gone.")
        if not unclean and not is_as_sealed(directory / CATALOGUE, directory / _SEAL):
            raise DatabaseDamaged("The catalogue is not as it was left: its bytes have changed on the disk.")
        return opened(), []
    except DatabaseDamaged as damage:
        why = damage.message
    log.warning("%s It is built anew from what else is here; this reads every chunk and may take a while.", why)
    aside = set_aside(directory)
    found = rebuild(home, author)
    words = f"{why} It was built anew: {found}."
    if aside is not None:
        words += f" The damaged one was set aside as {aside}; delete it when all is well."
    log.warning("%s", words)
    return opened(), [words]


def _is_sealed(directory: Path) -> bool:
    return (
        not (directory / _UNCLEAN).exists()
        and (directory / _SEAL).exists()
        and is_as_sealed(directory / CATALOGUE, directory / _SEAL)
    )


def _catalogue_version(directory: Path) -> int:
    """The ``user_version`` in the head of the catalogue's file (https://sqlite.org/fileformat.html); 0 for none."""
    try:
        with (directory / CATALOGUE).open("rb") as file:
            head = file.read(64)
    except OSError:
        return 0
    return int.from_bytes(head[60:64], "big") if head.startswith(b"SQLite format 3\0") else 0


def seal(directory: Path) -> None:
    """Note that everything was closed, and how the catalogue looks then. A disk that fails leaves it unclean."""
    with contextlib.suppress(OSError):
        write_seal(directory / CATALOGUE, directory / _SEAL)
        (directory / _UNCLEAN).unlink(missing_ok=True)


def _check_courses(catalogue: Catalogue) -> None:
    """Hold what is shown of courses against their manifests. Raises DatabaseDamaged."""
    for row in catalogue.courses():
        kept = catalogue.manifest(row.course)
        try:
            manifest = open_manifest(*kept, row.course).manifest if kept is not None else None
        except PeerFault:
            manifest = None
        if manifest is None or (manifest.title, manifest.author, manifest.bytes, manifest.files, manifest.chunks) != (
            row.title, row.author, row.bytes, row.files, row.chunks
        ):  # fmt: skip
            raise DatabaseDamaged(f"The catalogue is damaged: its row of course {row.course.hex()} is wrong.")


def _lock_format(directory: Path) -> int:
    """Check the FORMAT file (made at the first open) and lock it; returns the descriptor that holds the lock."""
    path = directory / FORMAT
    if not path.exists():
        write_atomic(path, [_FORMAT.encode()])
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        text = os.read(lock, 100).decode("ascii", "replace")
        words = text.split()
        known = words[:2] == ["p2plearn", "store"] and len(words) == 3 and words[2].isdigit()
        version = int(words[2]) if known else 0
        if not known and not _catalogue_version(directory):
            raise StoreProblem(f"{path} is not what p2plearn writes there.", "Is this home a p2plearn home?")
        # A catalogue that was closed soundly in a format of ours proves that it is this file that was harmed.
        if version > VERSION and not (0 < _catalogue_version(directory) <= VERSION and _is_sealed(directory)):
            raise StoreProblem(
                f"This store has format {words[2]}; this p2plearn reads up to {VERSION}.",
                "It was written by a newer p2plearn: install that version, or use another home (--home DIR).",
            )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreProblem(
                f"Another process has the store in {directory} open.", "Stop that node first (p2plearn node stop)."
            ) from None
        if text != _FORMAT:
            # In place, or the lock would be on a file without a name. Ahead of the migration: who reads less refuses.
            os.pwrite(lock, _FORMAT.encode(), 0)
            os.ftruncate(lock, len(_FORMAT))
            os.fsync(lock)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _keep_reserve(path: Path) -> None:
    """Have the reserve on the disk, if there is room for it."""
    with contextlib.suppress(OSError):
        if not path.exists() or path.stat().st_size < RESERVE_BYTES:
            write_atomic(path, [bytes(RESERVE_BYTES)])


def _clean_up(parts: StoreParts) -> None:
    """After a crash: drop what has no row, and rows of what isn't there."""
    for entry in (*os.scandir(parts.directory), *os.scandir(parts.home)):
        if (TEMPORARY in entry.name or entry.name.endswith(HALF)) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
    drop_gone(parts)  # first: what lay in these is lacking, and may be in an extent without a row
    known = {extent.file_name for extent in parts.catalogue.extents()}
    known |= take_back(parts, known)
    sweep_orphans(parts.extents, known)
    parts.course_files.sweep({row.course for row in parts.catalogue.courses()})
