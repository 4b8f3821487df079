"""Homes as earlier versions of the store left them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from p2plearn.store import contents, users_files
from p2plearn.store.catalogue import MIGRATIONS, MIRRORED
from p2plearn.store.mirror import Mirror, Table

_AS_THEY_WERE = ("courses", "heads", "checkouts", "custody", "receipts", "extents", "chunks", "downloads")
_MIRRORED_3 = (
    *(table for table in MIRRORED if table.name != "users_files"),
    Table("extents", ("id",), ("id", "path", "size", "mtime_ns", "inode"), where="name IS NULL"),
)


def of_format_3(home: Path) -> None:
    """A row and a line for each of the user's files, and chunks that refer to extents."""
    store = home / "store"
    path, old = store / "catalogue.sqlite", store / "old.sqlite"
    (store / "notes").unlink()
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for step in MIGRATIONS[:3]:
            db.executescript(step)
        db.execute("ATTACH ? AS new", (str(path),))
        for table in _AS_THEY_WERE:
            db.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
        for row in db.execute("SELECT * FROM new.users_files").fetchall():
            for number, *look in users_files.unpacked(*row).values():
                db.execute("INSERT INTO main.extents VALUES (?, NULL, 0, ?, ?, ?, ?)", (number, *look))
        db.execute("DETACH new")
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("PRAGMA user_version = 3")
        Mirror(db, store / "notes", _MIRRORED_3)
    old.replace(path)
    (store / "seal").unlink()
    (store / "FORMAT").write_text("p2plearn store 3\n")


def of_format_2(home: Path) -> None:
    """Nothing of the catalogue is written down a second time."""
    of_format_3(home)
    store = home / "store"
    for extent in (store / "extents").iterdir():
        with extent.open("r+b") as file:
            listed = contents.read(file.fileno())
            assert listed is not None
            file.truncate(extent.stat().st_size - contents.size_for(len(listed)))
    with contextlib.closing(sqlite3.connect(store / "catalogue.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 2")
    (store / "notes").unlink()
    (store / "FORMAT").write_text("p2plearn store 2\n")
