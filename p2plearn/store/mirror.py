"""Rows of small tables written down a second time, outside SQLite, for the day the database is lost.

One text file, a line a row: a checksum (16 hex digits), a space, a JSON list [table, key, row], the row null when it
was deleted; of several lines with one key the last holds. Binary values are ``{"x": hex}`` or ``{"b": base64}``. A line
that was harmed is passed over; the rest still counts.

``Mirror`` has triggers note which rows a transaction changed, and appends them once it is committed: an fdatasync more
for a transaction that changes such a table, nothing for the others. The database is what is asked and what is right:
when an append fails, nothing else does, and the whole file is written anew at the next opportunity. Where the folder
was moved away, the one in its place gets nothing: the next opening writes what the database holds then.

Imports ``named_file``, siblings and the standard library.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2plearn.named_file import KnownFolder
from p2plearn.store.durable import write_atomic

log = logging.getLogger("p2plearn.store")

Value = bytes | str | int | float | None
Row = dict[str, Value]

_SLACK = 1024 * 1024
"""Bytes by which the file may outgrow twice its content before it is written anew."""

_PART = 1024 * 1024
"""Bytes of the file made at a time."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table to mirror: up to three key columns, the columns kept, and which rows (SQL over the columns).

    ``forget``: a deleted row must be gone from the mirror, too, not only marked as deleted. ``dense``: its binary
    values are long, and written as base64.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    where: str = "1"
    forget: bool = False
    dense: bool = False


class Mirror:
    """See the head of this file. Used under the lock of its database's owner."""

    def __init__(self, db: sqlite3.Connection, path: Path, tables: Sequence[Table]) -> None:
        """Watch ``db`` from now on, and have the file say what it holds. Raises sqlite3.Error."""
        self._db = db
        self._path = path
        self._folder = KnownFolder(path.parent)
        self._tables = {table.name: table for table in tables}
        self._stale = True
        self._grown = self._size = 0
        db.execute("PRAGMA recursive_triggers = ON")  # else what REPLACE deletes goes unnoticed
        db.execute("CREATE TEMP TABLE changed (name TEXT, a, b, c)")
        for table in tables:
            self._watch(table)
        self._catch_up()

    def _watch(self, table: Table) -> None:
        def note(which: str) -> str:
            keys = [f"{which}.{column}" for column in table.key] + ["0"] * (3 - len(table.key))
            return f"INSERT INTO changed VALUES ('{table.name}', {', '.join(keys)});"  # noqa: S608 - ours

        for event, notes in (
            ("INSERT", note("new")),
            ("DELETE", note("old")),
            (f"UPDATE OF {', '.join(table.columns)}", note("old") + note("new")),
        ):
            name = f"mirror_{table.name}_{event.split()[0].lower()}"
            self._db.execute(f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table.name} BEGIN {notes} END")

    def committed(self) -> None:
        """Write down what the transaction that was just committed has changed. Raises nothing for a failing disk."""
        changed = self._db.execute("SELECT DISTINCT name, a, b, c FROM temp.changed").fetchall()
        if not changed and not self._stale:
            return
        self._db.execute("DELETE FROM temp.changed")
        lines = []
        for name, *keys in changed:
            table = self._tables[name]
            key = dict(zip(table.key, keys, strict=False))
            row = next(self._rows(table, " AND ".join(f"{column} IS ?" for column in key), list(key.values())), None)
            self._stale |= row is None and table.forget
            lines.append(_line(table, key, row))
        if self._stale or self._grown > 2 * self._size + _SLACK:
            self._catch_up()
        elif lines:
            self._append(b"".join(lines))

    def _append(self, raw: bytes) -> None:
        try:
            with self._folder.opened() as folder:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                fd = os.open(self._path.name, flags, 0o600, dir_fd=folder)
                try:
                    if os.write(fd, raw) != len(raw):
                        raise OSError(28, os.strerror(28))
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
        except OSError as error:
            self._stale = True
            log.warning("%s can't be kept up to date for now: %s", self._path, error)
        self._grown += len(raw)

    def _catch_up(self) -> None:
        """Have the file hold exactly what the tables do."""
        try:
            if not self._is_right():
                write_atomic(self._path, self._all(), within=self._folder)
            size = self._path.stat().st_size
        except OSError as error:
            log.warning("%s can't be written for now: %s", self._path, error)
        else:
            self._stale = False
            self._grown = self._size = size

    def _is_right(self) -> bool:
        """Whether the file says exactly what the tables do. Raises OSError."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            return all(file.read(len(lines)) == lines for lines in self._all()) and not file.read(1)
        return False

    def _all(self) -> Iterator[bytes]:
        """What the file should say, a part at a time: of ten thousand courses it is tens of megabytes."""
        lines: list[bytes] = []
        size = 0
        for table in self._tables.values():
            for row in self._rows(table):
                lines.append(_line(table, {column: row[column] for column in table.key}, row))
                size += len(lines[-1])
                if size >= _PART:
                    yield b"".join(lines)
                    lines, size = [], 0
        yield b"".join(lines)

    def _rows(self, table: Table, where: str = "1", values: Sequence[Value] = ()) -> Iterator[Row]:
        columns = ", ".join(table.columns)
        for row in self._db.execute(
            f"SELECT {columns} FROM main.{table.name} WHERE ({table.where}) AND {where}",  # noqa: S608 - names of ours
            values,
        ):
            yield dict(zip(table.columns, row, strict=True))


def _line(table: Table, key: Row, row: Row | None) -> bytes:
    value = None if row is None else _plain(row, dense=table.dense)
    body = json.dumps([table.name, _plain(key), value], separators=(",", ":")).encode()
    return _checksum(body) + b" " + body + b"\n"


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()


def _plain(row: Row, *, dense: bool = False) -> dict[str, Any]:
    def plain(value: bytes) -> dict[str, str]:
        return {"b": base64.b64encode(value).decode()} if dense else {"x": value.hex()}

    return {name: plain(value) if isinstance(value, bytes) else value for name, value in row.items()}


def read(path: Path) -> tuple[dict[str, list[Row]], int]:
    """Rows by table as a mirror's file has them, and how many lines were harmed; nothing if there is no file.

    Raises OSError when it is there and can't be read.
    """
    rows: dict[str, dict[str, Row]] = {}
    harmed = 0
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    for line in raw.split(b"\n"):
        if not line:
            continue
        entry = _entry(line)
        if entry is None:
            harmed += 1
            continue
        name, key, row = entry
        found = rows.setdefault(name, {})
        found.pop(json.dumps(key), None)
        if row is not None:
            found[json.dumps(key)] = {column: _value(value) for column, value in row.items()}
    return {name: list(found.values()) for name, found in rows.items()}, harmed


def _entry(line: bytes) -> tuple[str, dict[str, Any], dict[str, Any] | None] | None:
    checksum, _, body = line.partition(b" ")
    if checksum != _checksum(body):
        return None
    name, key, row = json.loads(body)
    return name, key, row


def _value(value: Any) -> Value:
    if isinstance(value, dict) and "b" in value:
        return base64.b64decode(value["b"])
    return bytes.fromhex(value["x"]) if isinstance(value, dict) else value


def insert(db: sqlite3.Connection, name: str, rows: Iterable[Row]) -> None:
    """Put mirrored rows back; a row that can't be (what it refers to is gone) is passed over."""
    for row in rows:
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        with contextlib.suppress(sqlite3.IntegrityError):
            db.execute(f"INSERT OR IGNORE INTO {name} ({columns}) VALUES ({marks})", tuple(row.values()))  # noqa: S608
