"""One SQLite file, one connection, one lock: transactions that are on the disk when they return.

In: a path and the steps that make its tables. Out: ``reading`` and ``writing``. Thread-safe, and a thread may nest
``reading``. Calls block: use threads. SQLite's errors leave as NoSpace or StoreProblem.

WAL with ``synchronous=FULL``: what was committed survives a power cut (https://sqlite.org/wal.html). An error at COMMIT
means not acknowledged, whatever the disk says later.

Imports ``errors``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from p2plearn.errors import NoSpace, P2plearnError, StoreProblem

HALF: Final = ".half"
"""How the name of a copy ends that isn't whole yet."""


class DatabaseDamaged(StoreProblem):
    """What SQLite finds is no sound database, or an empty one where there was more. Whoever can builds it anew."""


class CommitInDoubt(StoreProblem):
    """The disk failed in the middle of a commit: undone for this process, but after a crash it may stand after all.

    Whatever either outcome refers to has to stay on the disk until the next opening.
    """


class Database:
    """The open file. ``what`` names it to a person, as in "The catalogue failed …"."""

    def __init__(self, path: Path, what: str, pragmas: Sequence[str] = ()) -> None:
        """Open or create; raises StoreProblem. ``prepare`` comes next."""
        self.path = path
        self._what = what
        self._after: Callable[[], None] = lambda: None
        self.harmed = False
        """Damage was met since it was opened."""
        self.lock = threading.RLock()
        with self._translated("opening"):
            _for_its_owner_alone(path)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -8192", *pragmas):
                    self._db.execute(f"PRAGMA {pragma}")
            except BaseException:
                self._db.close()
                raise

    def prepare(
        self,
        migrations: Sequence[str],
        *,
        suspicious: bool = False,
        expected: bool = False,
        before: Callable[[int], None] = lambda _: None,
        within: Callable[[int, sqlite3.Connection], None] = lambda *_: None,
    ) -> None:
        """Bring it to the newest format; closes it and raises StoreProblem when that can't be.

        ``migrations``: what turns format n into n + 1, statements parted by ";\\n"; never edited once released, since
        ``user_version`` is the number of those applied. ``suspicious`` (after an unclean stop) checks it all;
        ``expected``: it can't be a new one. ``before`` is told the old format when it is about to change, ``within``
        that and the connection, at the end of the transaction that does. Raises DatabaseDamaged.
        """
        try:
            with self._translated("opening"):
                self._prepare(migrations, suspicious, expected, before, within)
        except BaseException:
            self._db.close()
            raise

    def _prepare(
        self,
        migrations: Sequence[str],
        suspicious: bool,
        expected: bool,
        before: Callable[[int], None],
        within: Callable[[int, sqlite3.Connection], None],
    ) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise StoreProblem(
                f"{self.path} has format {version}; this p2plearn reads up to {len(migrations)}.",
                "It was written by a newer p2plearn: install that version, or use another home (--home DIR).",
            )
        if not version and expected:
            raise DatabaseDamaged(f"{self._what} {self.path} is gone or empty, though there was something in it.")
        if suspicious:
            found = [row[0] for row in self._db.execute("PRAGMA integrity_check(5)")]
            if found != ["ok"]:
                raise DatabaseDamaged(f"{self._what} {self.path} is damaged: {'; '.join(found)[:300]}.")
        if version < len(migrations):
            before(version)
            # executescript would commit by itself, so one statement at a time inside one transaction.
            with self.writing() as db:
                for step in migrations[version:]:
                    for statement in step.split(";\n"):
                        db.execute(statement)
                within(version, db)
                db.execute(f"PRAGMA user_version = {len(migrations)}")

    def copy_to(self, path: Path) -> None:
        """A copy of it as it is, in place of a file that is at ``path``: whole and on the disk, or not there."""
        half = path.with_name(path.name + HALF)
        half.unlink(missing_ok=True)
        with self.lock, self._translated("copying"):
            self._db.execute("VACUUM INTO ?", (str(half),))
        fd = os.open(half, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, 0o600)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(half, path)

    def watch(self, begin: Callable[[sqlite3.Connection], Callable[[], None]]) -> None:
        """Have what ``begin`` returns called after each transaction that was committed; closed if that fails."""
        try:
            with self.reading() as db:
                self._after = begin(db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Fold the log into the file and close it; further calls raise StoreProblem."""
        with self.lock:
            self._db.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for reading, alone. Don't keep it, don't do slow things."""
        with self.lock, self._translated("reading"):
            yield self._db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on the disk when the block ends, undone when it raises."""
        with self.lock, self._translated("writing"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._roll_back()
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                # The log may hold all of the transaction though its fsync failed; who reads it next takes it for done.
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
                    raise CommitInDoubt(
                        f"{self._what} failed while writing {self.path}: {error}.", "Check the disk it is on."
                    ) from error
                raise
            self._after()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def fold(self) -> None:
        """Fold the log into the file, so that what was deleted isn't left in the log."""
        with self.lock, contextlib.suppress(sqlite3.Error):  # a reader in the way: the next one does it
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """SQLite's errors as ours: NoSpace when there is none, StoreProblem for the rest."""
        try:
            yield
        except P2plearnError:
            raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise NoSpace(
                    f"The disk is full: no room was left while {doing} {self.path}.",
                    "Free some space (p2plearn list, p2plearn remove HASH) and run the same command again.",
                ) from error
            # The low byte is the kind of error, the rest its circumstances.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self.harmed = True
                raise DatabaseDamaged(
                    f"{self._what} is damaged, as was found while {doing} {self.path}: {error}.",
                    "Restart the node: it is then built anew from what else is on the disk.",
                ) from error
            raise StoreProblem(
                f"{self._what} failed while {doing} {self.path}: {error}.", "Check the disk it is on."
            ) from error


def _for_its_owner_alone(path: Path) -> None:
    """Have the file at 0600; SQLite gives its log and index the mode of the file.

    A file that is there is not opened for it: closing it would let go of locks that this process may hold (POSIX).
    """
    with contextlib.suppress(OSError):  # SQLite says what is wrong
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            path.chmod(0o600)
