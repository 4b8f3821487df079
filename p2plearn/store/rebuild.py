"""The catalogue built anew from what else is on the disk, when it is lost, damaged or not as it was left.

In: ``courses/`` (manifests and indexes), ``extents/`` (chunks, and the list at each one's end), ``notes`` (the mirror
of what neither says). Out: a catalogue in which every chunk was hashed and found right. Nothing acknowledged is lost;
what is: where unfinished downloads were going to put what hadn't come (it is planned again), and the rows of chunks
that no longer are what they were (named by ``verify``, as ever).

The damaged catalogue is set aside under a name of its own and never deleted here. Killed in the middle, the next
opening begins again: until the new one is whole there is none under the catalogue's name.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.errors import PeerFault
from p2plearn.store import contents, mirror, users_files
from p2plearn.store.catalogue import Catalogue, add_chunks, add_extent
from p2plearn.store.course_files import SUFFIX as COURSE_SUFFIX
from p2plearn.store.course_files import CourseFileDamaged, CourseFiles
from p2plearn.store.durable import TEMPORARY, sync_directory, sync_filesystem
from p2plearn.store.extents import SUFFIX, is_extent
from p2plearn.store.orphans import note_lengths, right_chunks
from p2plearn.store.placement import Placement
from p2plearn.store.publish import add_course

log = logging.getLogger("p2plearn.store")

CATALOGUE = "catalogue.sqlite"
NOTES = "notes"
_LOGS = ("-wal", "-shm")
_SECONDS = 10.0
"""Between two lines of the log that say how far it is."""

Known = dict[bytes, tuple[SignedManifest, Index]]


def set_aside(directory: Path) -> Path | None:
    """Move the catalogue and its logs out of the way; where to. Raises OSError."""
    path = directory / CATALOGUE
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    aside, number = path.with_name(f"{CATALOGUE}.damaged-{stamp}"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{CATALOGUE}.damaged-{stamp}-{number}")
    moved = None
    # Its logs first: a catalogue that is found with the logs of another would be damaged again.
    for end in (*_LOGS, ""):
        source = path.with_name(CATALOGUE + end)
        if source.exists():
            os.rename(source, aside.with_name(aside.name + end))
            moved = aside
    sync_directory(directory)
    return moved


def rebuild(home: Path, author: bytes) -> str:
    """Make a catalogue where there is none; what was found, in words. Raises OSError, StoreProblem.

    What ``author`` (a public key) signed was published here, where no note says how it came.
    """
    directory = home / "store"
    new = directory / (CATALOGUE + TEMPORARY)
    for end in (*_LOGS, ""):
        new.with_name(new.name + end).unlink(missing_ok=True)
    notes, harmed = mirror.read(directory / NOTES)
    if harmed:
        log.warning("%d lines of %s are damaged and passed over", harmed, directory / NOTES)
    courses = _read_courses(CourseFiles(directory / "courses"))
    catalogue = Catalogue(new, suspicious=False)
    try:
        own = _note_courses(catalogue, courses, notes.get("courses", []), author)
        found = _note_extents(catalogue, directory / "extents", courses)
        _note_user_files(catalogue, _user_files(notes), courses)
        with catalogue.writing() as db:
            for name in ("heads", "checkouts", "custody", "receipts"):
                mirror.insert(db, name, notes.get(name, []))
            mirror.insert(db, "heads", _newest(own))  # the notes' count, where there are any
        complete = _count(catalogue, courses)
    finally:
        catalogue.close()
    os.rename(new, directory / CATALOGUE)
    sync_directory(directory)
    words = f"{len(courses)} courses, {complete} of them complete, with {found} chunks"
    if own:
        words += (
            f". Of {len(own)} that you published it is no longer known here how many copies you asked for: it is as "
            "many as usual, or what nodes that keep them say; `p2plearn publish PATH --copies N` says it anew"
        )
    return words


def _read_courses(files: CourseFiles) -> Known:
    """Every course whose file is sound."""
    courses: Known = {}
    for path in sorted(files.directory.glob("*" + COURSE_SUFFIX)):
        try:
            name = bytes.fromhex(path.name.removesuffix(COURSE_SUFFIX))
            courses[name] = files.read(name)
        except (ValueError, CourseFileDamaged) as error:
            log.warning("%s can't be used: %s", path, error)
    return courses


def _note_courses(catalogue: Catalogue, courses: Known, notes: list[mirror.Row], author: bytes) -> list[SignedManifest]:
    """The courses that are here, and those of which only the notes are left: they stay named, not silently gone.

    Returns those of ``author`` of which there is no note.
    """
    noted = {_bytes(note, "course"): note for note in notes}
    own: list[SignedManifest] = []
    with catalogue.writing() as db:
        for course, (signed, _) in courses.items():
            note = noted.pop(course, {})
            if not note and signed.manifest.author == author:
                own.append(signed)  # and all of it was here: what lacks now is damage
                note = {"why": "published", "added": signed.manifest.created, "whole": 1}
            add_course(db, signed, why=str(note.get("why", "fetched")), now=_int(note, "added"), indexed=True)
            db.execute("UPDATE courses SET whole = ? WHERE course = ?", (_int(note, "whole"), course))
        for course, note in noted.items():
            try:
                signed = open_manifest(_bytes(note, "manifest"), _bytes(note, "signature"), _bytes(note, "course"))
            except PeerFault as error:
                log.warning("the note of a course can't be used: %s", error)
                continue
            add_course(db, signed, why=str(note.get("why", "fetched")), now=_int(note, "added"), indexed=False)
            db.execute("UPDATE courses SET whole = ? WHERE course = ?", (_int(note, "whole"), course))
    return own


def _newest(own: list[SignedManifest]) -> list[mirror.Row]:
    """Rows of ``heads``: of each series the newest version that is here."""
    heads: dict[tuple[bytes, str], SignedManifest] = {}
    for signed in own:
        series = signed.manifest.author, signed.manifest.series.name
        if series not in heads or heads[series].manifest.series.seq < signed.manifest.series.seq:
            heads[series] = signed
    return [
        {"author": author, "series": name, "manifest": signed.raw, "signature": signed.signature}
        for (author, name), signed in heads.items()
    ]


def _int(note: mirror.Row, name: str) -> int:
    value = note.get(name, 0)
    return value if isinstance(value, int) else 0


def _bytes(note: mirror.Row, name: str) -> bytes:
    value = note.get(name, b"")
    return value if isinstance(value, bytes) else b""


def _note_extents(catalogue: Catalogue, directory: Path, courses: Known) -> int:
    """Chunks by the lists at the extents' ends, each hashed; how many are right."""
    names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(SUFFIX))
    total, found, told, synced = len(names), 0, time.monotonic(), False
    lengths = _lengths(courses)
    for number, name in enumerate(names):
        if not is_extent(directory / name):
            log.warning("%s is no file that can be read, and is passed over", directory / name)
            continue
        fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if not synced:
                synced = True
                sync_filesystem(fd)  # a row means that its bytes are on the disk
            right = right_chunks(fd, lengths)
            facts = os.fstat(fd)
        finally:
            os.close(fd)
        if right:
            with catalogue.writing() as db:
                # Holes, where a download had nothing yet, take no room.
                extent = add_extent(db, name, min(facts.st_size, facts.st_blocks * 512))
                add_chunks(db, ((digest, extent, at, length) for digest, at, length in right))
        found += len(right)
        if time.monotonic() - told > _SECONDS:
            told = time.monotonic()
            log.warning("building the catalogue anew: %d of %d extents read", number + 1, total)
    return found


def _lengths(courses: Known) -> dict[int, set[bytes]]:
    """Digests of all chunks of all courses by their length."""
    known: dict[int, set[bytes]] = {}
    for _, index in courses.values():
        note_lengths(known, index)
    return known


def _user_files(notes: dict[str, list[mirror.Row]]) -> list[users_files.Look]:
    """The user's files that are noted; by an older format, one by one."""
    looks = [
        (_bytes(note, "path"), _int(note, "size"), _int(note, "mtime_ns"), _int(note, "inode"))
        for note in notes.get("extents", [])
    ]
    for note in notes.get("users_files", []):
        row = _int(note, "first"), _bytes(note, "folder"), _bytes(note, "files")
        looks += [file.look for file in users_files.unpacked(*row).values()]
    return looks


def _note_user_files(catalogue: Catalogue, looks: Sequence[users_files.Look], courses: Known) -> None:
    """Chunks that lie in the user's own files (publish without copying).

    A file that is there counts by its bytes. One that isn't (a drive that isn't plugged in) is taken for the file of a
    course that its path ends like; when it is back it is held against its hashes before anybody gets a byte of it.
    """
    by_size: dict[int, list[tuple[Index, FileEntry]]] = {}
    for _, index in courses.values():
        for entry in index.files:
            if entry.count:
                by_size.setdefault(entry.size, []).append((index, entry))
    for at in range(0, len(looks), users_files.MOST):
        with catalogue.writing() as db:
            first = users_files.next_number(db)
            files = [
                users_files.UsersFile(first + n, *look) for n, look in enumerate(looks[at : at + users_files.MOST])
            ]
            users_files.insert(db, files)
            for file in files:
                for index, entry in by_size.get(file.size, []):
                    rows = _in_user_file(file.path, index, entry)
                    add_chunks(db, ((digest, file.number, at, length) for digest, at, length in rows))


def _in_user_file(path: bytes, index: Index, entry: FileEntry) -> Iterator[contents.Entry]:
    alike = path.endswith(b"/" + os.fsencode(entry.path)) or os.path.basename(path) == os.fsencode(entry.path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        fd = -1
    at = 0
    try:
        for slot in range(entry.first, entry.first + entry.count):
            digest, length = index.digest(slot), index.lengths[slot]
            right = alike if fd < 0 else hashlib.sha256(os.pread(fd, length, at)).digest() == digest
            if right:
                yield digest, at, length
            elif not at:
                return  # another file of that size
            at += length
    finally:
        if fd >= 0:
            os.close(fd)


def _count(catalogue: Catalogue, courses: Known) -> int:
    """Note how much of each course is here; how many are complete."""
    complete = 0
    for course, (signed, index) in courses.items():
        placement = Placement(signed, index)
        placement.locate(catalogue, lambda extent: True)
        complete += placement.complete
        with catalogue.writing() as db:
            db.execute("UPDATE courses SET have_bytes = ? WHERE course = ?", (placement.have_bytes, course))
    return complete


def give_contents(db: sqlite3.Connection, extents: Path) -> None:
    """The third migration: a list of contents for every extent that has none, from what the catalogue knows.

    Those of unfinished downloads get theirs when the download goes on. Raises OSError.
    """
    last = -1
    for number, name in db.execute(
        "SELECT id, name FROM extents WHERE name IS NOT NULL AND id NOT IN (SELECT extent FROM downloads)"
    ).fetchall():
        rows = db.execute(
            "SELECT digest, offset, length FROM chunks WHERE extent = ? ORDER BY offset", (number,)
        ).fetchall()
        if not is_extent(extents / name):
            continue  # found and told by the opening that follows
        fd = os.open(extents / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if contents.read(fd) is None:
                end = max([offset + length for _, offset, length in rows], default=0)
                contents.write(fd, rows, end)
                last = max(last, number)
        finally:
            os.close(fd)
    if last >= 0:
        folder = os.open(extents, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_filesystem(folder)
        finally:
            os.close(folder)
