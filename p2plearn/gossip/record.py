"""Opening the record of what people said, and making it anew when it is lost or damaged.

In: the record's path and whose node this is. Out: an open ``Feed``. What this person said and chose (whom they trust,
mute, block, follow) is mirrored in ``people.notes`` and can't be had from anybody else; what others said is salvaged
from the damaged file as far as SQLite still reads it, each envelope held against its signature, and the rest comes with
the next exchanges. The damaged file is set aside under a name of its own.

Imports ``store`` and siblings.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from p2plearn.database import DatabaseDamaged
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.tables import Hiding, log_hiding
from p2plearn.store import mirror
from p2plearn.store.durable import sync_directory
from p2plearn.store.mirror import Table
from p2plearn.store.problems import disk_problem
from p2plearn.store.sealing import is_as_sealed, write_seal

log = logging.getLogger("p2plearn.gossip")

CHOICES: Final = (
    Table("following", ("course",), ("course", "since"), forget=True),
    Table("trusted", ("subject",), ("subject", "private", "since"), forget=True),
    Table("shunned", ("subject",), ("subject", "target", "how", "reason", "since"), forget=True),
    Table("subscriptions", ("author",), ("author", "since"), forget=True),
)
"""What this person chose; nobody else has it."""


@contextlib.contextmanager
def open_record(path: Path, own: bytes) -> Iterator[tuple[Feed, str]]:
    """The record, and what to tell the person of its opening (empty: nothing). ``own`` is this person's author key.

    Raises StoreProblem.
    """
    notes, seal = path.with_name("people.notes"), path.with_name("people.seal")
    try:
        feed, words = _open(path, notes, seal, own)
    except OSError as error:
        raise disk_problem(error, f"opening {path}") from error
    try:
        yield feed, words
    finally:
        feed.close()
        if not feed.harmed:
            with contextlib.suppress(OSError):  # without a seal it is checked at the next opening
                write_seal(path, seal)


def _open(path: Path, notes: Path, seal: Path, own: bytes) -> tuple[Feed, str]:
    mirrored = (Table("envelopes", ("id",), ("id", "raw"), where=f"author = x'{own.hex()}'", forget=True), *CHOICES)
    sealed = seal.exists()
    expected = notes.exists() and notes.stat().st_size > 0
    try:
        if not is_as_sealed(path, seal):
            raise DatabaseDamaged(f"The record of what people said, {path}, is not as it was left.")
        # From here on the seal says nothing; that it is gone says that the record wasn't closed.
        seal.unlink(missing_ok=True)
        sync_directory(path.parent)
        return Feed(path, suspicious=path.exists() and not sealed, expected=expected, notes=(notes, mirrored)), ""
    except DatabaseDamaged as damage:
        why = damage.message
    aside = _set_aside(path)
    seal.unlink(missing_ok=True)
    mine, harmed = mirror.read(notes)
    salvaged, chosen = _salvage(aside) if aside is not None else ([], {})
    feed = Feed(path)
    try:
        raws = [*(raw for row in mine.pop("envelopes", []) if isinstance(raw := row["raw"], bytes)), *salvaged]
        count = feed.restore(raws, int(time.time()))
        with feed.writing() as db:
            for table in CHOICES:
                # The notes are younger than the record; what they lack, the damaged file may still say.
                mirror.insert(db, table.name, mine.get(table.name, []) if expected else [])
                mirror.insert(db, table.name, chosen.get(table.name, []) if harmed or not expected else [])
            _log_anew(db, own)
    finally:
        feed.close()
    words = f"{why} It was begun anew with the {count} messages that could be saved; others come from peers."
    if harmed or (not expected and len(chosen) < len(CHOICES)):
        words += (
            f" {notes} is gone or damaged, too: whom this person blocks, mutes, trusts and follows may be lost in part."
            " `p2plearn block --list` and `p2plearn mute --list` show what is left."
        )
    if aside is not None:
        words += f" The damaged one was set aside as {aside}; delete it when all is well."
    log.warning("%s", words)
    return Feed(path, notes=(notes, mirrored)), words


def _log_anew(db: sqlite3.Connection, own: bytes) -> None:
    """Begin the log of what was hidden with what is in force by this person's own word; the rest of it is lost."""
    in_force = db.execute(  # ordered there, for what was salvaged may be of any type
        "SELECT since, how, target, subject, ?1, reason FROM shunned WHERE typeof(subject) = 'blob' UNION ALL "
        "SELECT since, 'subscribe', 'author', author, ?1, '' FROM subscriptions WHERE typeof(author) = 'blob' "
        "ORDER BY 1",
        (own,),
    ).fetchall()
    for line in in_force:
        log_hiding(db, Hiding(*line))


def _set_aside(path: Path) -> Path | None:
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    aside, number = path.with_name(f"{path.name}.damaged-{stamp}"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    moved = None
    for end in ("-wal", "-shm", ""):
        source = path.with_name(path.name + end)
        if source.exists():
            os.rename(source, aside.with_name(aside.name + end))
            moved = aside
    sync_directory(path.parent)
    return moved if moved is not None and aside.exists() else None


def _salvage(path: Path) -> tuple[list[bytes], dict[str, list[mirror.Row]]]:
    """Envelopes that can still be read, from either end up to where SQLite stumbles; unchecked. And the choices."""
    found: dict[bytes, None] = {}
    chosen: dict[str, list[mirror.Row]] = {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db:
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.Error):
                for (raw,) in db.execute(f"SELECT raw FROM envelopes NOT INDEXED ORDER BY number {order}"):  # noqa: S608
                    if isinstance(raw, bytes):
                        found[raw] = None
        for table in CHOICES:
            with contextlib.suppress(sqlite3.Error):
                chosen[table.name] = _rows(db, table.name, table.columns)
    return list(found), chosen


def _rows(db: sqlite3.Connection, name: str, columns: Sequence[str]) -> list[mirror.Row]:
    rows = db.execute(f"SELECT {', '.join(columns)} FROM {name}").fetchall()  # noqa: S608 - names of ours
    return [dict(zip(columns, row, strict=True)) for row in rows]
