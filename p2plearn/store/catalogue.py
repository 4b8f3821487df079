"""The catalogue: which chunk lies where, which courses are kept, which downloads are under way. SQLite.

Invariants:
- A row in ``chunks`` means: these bytes were hashed by us, written, and fsynced before the row was committed.
- ``plan`` of a download is recorded before its first byte is written and dropped only with, or after, the
  transaction that makes chunk rows of what it planned. Bytes of a plan count for nothing until they are hashed again.
- An extent file without a row here is looked at when the store opens (``orphans``): a publish that never committed is
  deleted.
- Everything runs on one connection under one lock; a transaction that returns is on the disk (WAL,
  ``synchronous=FULL``).

Rows go in and out in bulk; nothing here is called once a chunk while bytes flow. Imports ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from p2plearn.course.digests import in_order
from p2plearn.database import Database
from p2plearn.store import users_files
from p2plearn.store.durable import sync_directory
from p2plearn.store.mirror import Mirror, Table

VERSION = 4
"""The format this program writes; a store with a higher one is refused."""

_SCHEMA_1 = """
CREATE TABLE extents (
    id INTEGER PRIMARY KEY,
    name TEXT UNIQUE,          -- file name under extents/; NULL: one of the user's own files, described below
    bytes INTEGER NOT NULL,    -- length, planned part included; what the quota counts
    path BLOB, size INTEGER, mtime_ns INTEGER, inode INTEGER,
    CHECK ((name IS NULL) = (path IS NOT NULL))
);
CREATE INDEX extents_path ON extents (path) WHERE path IS NOT NULL;
CREATE TABLE chunks (
    digest BLOB PRIMARY KEY,
    extent INTEGER NOT NULL REFERENCES extents (id),
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE courses (
    course BLOB PRIMARY KEY,
    author BLOB NOT NULL, series TEXT NOT NULL, seq INTEGER NOT NULL,
    title TEXT NOT NULL, bytes INTEGER NOT NULL, files INTEGER NOT NULL, chunks INTEGER NOT NULL,
    why TEXT NOT NULL, added INTEGER NOT NULL,
    manifest BLOB NOT NULL, signature BLOB NOT NULL,
    indexed INTEGER NOT NULL,      -- 1: the index is here, in courses/
    have_bytes INTEGER NOT NULL,   -- of ``bytes``; as of the last commit, removal or damage
    whole INTEGER NOT NULL         -- 1: all of it has been here once, so what lacks now is damage
) WITHOUT ROWID;
CREATE TRIGGER courses_whole AFTER UPDATE OF have_bytes ON courses WHEN new.have_bytes = new.bytes AND new.whole = 0
    BEGIN UPDATE courses SET whole = 1 WHERE course = new.course; END;
CREATE TABLE heads (               -- the newest version of each series published here, also when it was removed
    author BLOB NOT NULL, series TEXT NOT NULL,
    manifest BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (author, series)
) WITHOUT ROWID;
CREATE INDEX courses_series ON courses (author, series, seq);
CREATE TABLE downloads (
    extent INTEGER PRIMARY KEY REFERENCES extents (id),
    course BLOB NOT NULL REFERENCES courses (course),
    slots BLOB NOT NULL,           -- u32 little-endian: the planned slots, in the order they lie in the extent
    offsets BLOB NOT NULL          -- u64 little-endian: where each begins
);
CREATE INDEX downloads_course ON downloads (course);
CREATE TABLE checkouts (
    path BLOB PRIMARY KEY,
    course BLOB NOT NULL,
    made INTEGER NOT NULL
) WITHOUT ROWID;
"""

_SCHEMA_2 = """
CREATE TABLE custody (
    course BLOB NOT NULL REFERENCES courses (course) ON DELETE CASCADE,
    segment INTEGER NOT NULL,
    bytes INTEGER NOT NULL,        -- of the segment
    given INTEGER NOT NULL,        -- counted against storage.give; 0: its person wants the course anyway
    state INTEGER NOT NULL,        -- 0: reserved, on its way; 1: here, acknowledged; 2: released, kept for nobody
    PRIMARY KEY (course, segment)
) WITHOUT ROWID;
CREATE TABLE receipts (
    course BLOB NOT NULL, segment INTEGER NOT NULL,
    node BLOB NOT NULL,            -- whose receipt: an Ed25519 public key
    receipt BLOB NOT NULL,
    PRIMARY KEY (course, segment, node),
    FOREIGN KEY (course, segment) REFERENCES custody (course, segment) ON DELETE CASCADE
) WITHOUT ROWID;
"""

_SCHEMA_4 = """
CREATE TABLE users_files (         -- instead of rows in extents that have a path: see there
    first INTEGER PRIMARY KEY,
    folder BLOB NOT NULL,
    files BLOB NOT NULL
);
CREATE INDEX users_files_folder ON users_files (folder);
DROP INDEX extents_path;
CREATE TABLE placed (
    digest BLOB PRIMARY KEY,
    extent INTEGER NOT NULL,       -- the id of one of extents, or the number of one of users_files
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO placed SELECT digest, extent, offset, length FROM chunks ORDER BY digest;
DROP TABLE chunks;
ALTER TABLE placed RENAME TO chunks
"""

MIGRATIONS: tuple[str, ...] = (_SCHEMA_1, _SCHEMA_2, "", _SCHEMA_4)
"""What turns version n into n + 1; never edited once released. ``user_version`` is the number of those applied.

The third gives each extent its list of contents, which is for ``rebuild`` to do; the rest of the fourth is for
``users_files``.
"""

MIRRORED = (
    Table("courses", ("course",), ("course", "why", "added", "whole", "indexed", "manifest", "signature")),
    Table("heads", ("author", "series"), ("author", "series", "manifest", "signature")),
    Table("checkouts", ("path",), ("path", "course", "made")),
    Table("custody", ("course", "segment"), ("course", "segment", "bytes", "given", "state")),
    Table("receipts", ("course", "segment", "node"), ("course", "segment", "node", "receipt")),
    Table("users_files", ("first",), ("first", "folder", "files"), dense=True),
)
"""What neither the extents nor the courses' files say; kept a second time (``mirror``)."""

_BATCH = 512
"""Digests looked up in one statement: long enough to amortise it, short enough for every SQLite's variable limit."""

_LOG = 128 * 1024
"""Bytes of the log that may stay: folding it waits for the disk twice."""

Location = tuple[int, int, int]
"""(extent, offset, length) of a chunk."""


@dataclass(frozen=True, slots=True)
class ExtentRow:
    """An extent: a file of the store's (``name``), or one of the user's (``path`` and how it looked)."""

    id: int
    name: str | None
    length: int
    path: bytes | None = None
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0

    @property
    def file_name(self) -> str:
        """Name under extents/ of one of the store's own; empty for a user's file."""
        return self.name or ""

    @property
    def user_path(self) -> str:
        """Where a user's file is; empty for one of the store's own."""
        return os.fsdecode(self.path or b"")


@dataclass(frozen=True, slots=True)
class CourseRow:
    """What is known of a course without opening it. ``why``: published, fetched, …; ``added`` in seconds since 1970."""

    course: bytes
    author: bytes
    series: str
    seq: int
    title: str
    bytes: int
    files: int
    chunks: int
    why: str
    added: int
    indexed: bool
    have_bytes: int
    whole: bool

    @property
    def complete(self) -> bool:
        """Every byte of it is here."""
        return self.indexed and self.have_bytes == self.bytes


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A download's plan: packed slots and offsets, see the schema."""

    extent: ExtentRow
    slots: bytes
    offsets: bytes


_COURSE_COLUMNS = "course, author, series, seq, title, bytes, files, chunks, why, added, indexed, have_bytes, whole"
_EXTENT_COLUMNS = "extents.id, extents.name, extents.bytes"


class Catalogue:
    """The open catalogue. Thread-safe; ``writing`` is the only way to change it."""

    def __init__(
        self,
        path: Path,
        *,
        suspicious: bool,
        expected: bool = False,
        notes: Path | None = None,
        give_contents: Callable[[sqlite3.Connection], None] = lambda db: None,
    ) -> None:
        """Open or create; ``suspicious`` (after an unclean stop) checks it all; ``expected``: it can't be a new one.

        ``notes`` is where rows are written down a second time; ``give_contents`` does the third migration. Raises
        DatabaseDamaged, StoreProblem.
        """

        def within(version: int, db: sqlite3.Connection) -> None:
            if 0 < version < 3:
                give_contents(db)
            if 0 < version < 4:
                users_files.take_over(db)

        self._database = Database(path, "The catalogue", ("foreign_keys = ON",))
        self._database.prepare(
            MIGRATIONS,
            suspicious=suspicious,
            expected=expected,
            before=self._back_up,
            within=within,
        )
        if notes is not None:
            self._database.watch(lambda db: Mirror(db, notes, MIRRORED).committed)

    @property
    def harmed(self) -> bool:
        """Damage was met since it was opened."""
        return self._database.harmed

    def _back_up(self, version: int) -> None:
        if version:
            backup = self._database.path.with_name(f"{self._database.path.name}.format-{version}")
            self._database.copy_to(backup)
            sync_directory(backup.parent)

    def fold(self) -> None:
        """Fold the log into the catalogue, if it takes more room than that is worth."""
        with contextlib.suppress(OSError):
            if os.stat(f"{self._database.path}-wal").st_size > _LOG:
                self._database.fold()

    def close(self) -> None:
        """Fold the log into the catalogue and close it; further calls raise StoreProblem."""
        self._database.close()

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """See ``Database.reading``."""
        return self._database.reading()

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """See ``Database.writing``."""
        return self._database.writing()

    # Chunks -----------------------------------------------------------------------------------------------------

    def locate(self, digests: Sequence[bytes]) -> dict[bytes, Location]:
        """Where those of ``digests`` that are stored lie."""
        found: dict[bytes, Location] = {}
        for rows in self.locate_each(digests):
            for digest, extent, offset, length in rows:
                found[digest] = (extent, offset, length)
        return found

    def locate_each(self, digests: Sequence[bytes]) -> Iterator[list[tuple[bytes, int, int, int]]]:
        """The same in batches of (digest, extent, offset, length), so that memory stays small for huge courses."""
        for start in range(0, len(digests), _BATCH):
            batch = digests[start : start + _BATCH]
            marks = ",".join("?" * len(batch))
            with self.reading() as db:
                rows = db.execute(
                    f"SELECT digest, extent, offset, length FROM chunks WHERE digest IN ({marks})",  # noqa: S608 - only "?"s
                    tuple(batch),
                ).fetchall()
            yield rows

    def extent(self, extent: int) -> ExtentRow | None:
        """One extent, or one of the user's files."""
        with self.reading() as db:
            row = db.execute(f"SELECT {_EXTENT_COLUMNS} FROM extents WHERE id = ?", (extent,)).fetchone()  # noqa: S608
            file = None if row else users_files.find(db, extent)
        if file is not None:
            return ExtentRow(extent, None, 0, *file.look)
        return ExtentRow(*row) if row else None

    def extents(self) -> list[ExtentRow]:
        """Every extent of the store's own."""
        with self.reading() as db:
            rows = db.execute(f"SELECT {_EXTENT_COLUMNS} FROM extents").fetchall()  # noqa: S608
        return [ExtentRow(*row) for row in rows]

    def digests_in(self, extents: Iterable[int]) -> set[bytes]:
        """Chunks that lie in any of these. Looks at all there are, once for every ``_BATCH`` extents."""
        numbers = list(extents)
        found: set[bytes] = set()
        with self.reading() as db:
            for at in range(0, len(numbers), _BATCH):
                batch = numbers[at : at + _BATCH]
                marks = ",".join("?" * len(batch))
                rows = db.execute(f"SELECT digest FROM chunks WHERE extent IN ({marks})", batch)  # noqa: S608 - marks only
                found.update(row[0] for row in rows)
        return found

    def own_extents(self) -> dict[int, str]:
        """Number and file name of the store's own extents, but for those that a download is still filling."""
        with self.reading() as db:
            rows = db.execute("SELECT id, name FROM extents WHERE id NOT IN (SELECT extent FROM downloads)")
            return dict(rows.fetchall())

    def users_files(self, after: int, most: int) -> list[int]:
        """Up to ``most`` of the user's files that chunks lie in, by number, those ``after`` that one."""
        with self.reading() as db:
            return list(itertools.islice(users_files.after(db, after), most))

    def held_bytes(self) -> int:
        """Bytes of the store's own extents, plans included."""
        with self.reading() as db:
            return int(db.execute("SELECT coalesce(sum(bytes), 0) FROM extents").fetchone()[0])

    # Courses ----------------------------------------------------------------------------------------------------

    def courses(self) -> list[CourseRow]:
        """Every course, newest first."""
        with self.reading() as db:
            rows = db.execute(f"SELECT {_COURSE_COLUMNS} FROM courses ORDER BY added DESC, title").fetchall()  # noqa: S608
        return [_course_row(row) for row in rows]

    def names(self, *, complete: bool = False) -> list[bytes]:
        """The hash of every course, or of those that are ``complete``: for what looks often, and at all of them."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT course FROM courses WHERE ? OR (indexed AND have_bytes = bytes)", (not complete,)
            ).fetchall()
        return [row[0] for row in rows]

    def course(self, course: bytes) -> CourseRow | None:
        """One course's row."""
        with self.reading() as db:
            row = db.execute(f"SELECT {_COURSE_COLUMNS} FROM courses WHERE course = ?", (course,)).fetchone()  # noqa: S608
        return _course_row(row) if row else None

    def head(self, author: bytes, series: str) -> tuple[bytes, bytes] | None:
        """(manifest, signature) of the newest version of a series that was published here, kept or not."""
        with self.reading() as db:
            row = db.execute(
                "SELECT manifest, signature FROM heads WHERE author = ? AND series = ?", (author, series)
            ).fetchone()
        return (row[0], row[1]) if row else None

    def manifest(self, course: bytes) -> tuple[bytes, bytes] | None:
        """(manifest, signature) as they came."""
        with self.reading() as db:
            row = db.execute("SELECT manifest, signature FROM courses WHERE course = ?", (course,)).fetchone()
        return (row[0], row[1]) if row else None

    def plans(self, course: bytes) -> list[PlanRow]:
        """The downloads recorded for a course."""
        with self.reading() as db:
            rows = db.execute(
                f"SELECT {_EXTENT_COLUMNS}, slots, offsets FROM downloads JOIN extents ON extents.id = extent "  # noqa: S608
                "WHERE course = ?",
                (course,),
            ).fetchall()
        return [PlanRow(ExtentRow(*row[:3]), row[3], row[4]) for row in rows]

    def checkout_course(self, path: bytes) -> bytes | None:
        """The course that was last checked out to ``path``."""
        with self.reading() as db:
            row = db.execute("SELECT course FROM checkouts WHERE path = ?", (path,)).fetchone()
        return row[0] if row else None

    def checkouts(self, course: bytes) -> list[bytes]:
        """Where a course was checked out to."""
        with self.reading() as db:
            return [row[0] for row in db.execute("SELECT path FROM checkouts WHERE course = ?", (course,))]


def add_chunks(db: sqlite3.Connection, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
    """Insert (digest, extent, offset, length). The old place wins."""
    # Sorted, so that the B-tree is filled from left to right and its pages are touched once.
    db.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)", sorted(rows))


def add_slots(
    db: sqlite3.Connection, digests: bytes, slots: Iterable[int], place: Callable[[int], tuple[int, int, int]]
) -> None:
    """Insert the chunks of a course's ``slots``; ``place`` gives extent, offset and length of one. The new place wins.

    Sorted like ``add_chunks``, without a list of all rows. ``digests`` are those of all of the course's slots.
    """
    rows = ((digest, *place(slot)) for digest, slot in in_order(digests, slots))
    db.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", rows)


def add_extent(db: sqlite3.Connection, name: str, length: int) -> int:
    """Insert a row for a file of the store's; returns its id."""
    number = users_files.next_number(db)
    db.execute("INSERT INTO extents (id, name, bytes) VALUES (?, ?, ?)", (number, name, length))
    return number


def _course_row(row: tuple[object, ...]) -> CourseRow:
    values = list(row)
    values[10], values[12] = bool(values[10]), bool(values[12])
    return CourseRow(*values)  # type: ignore[arg-type]
