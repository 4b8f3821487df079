"""Courses of the catalogue out of the record: those that an FTS5 expression finds, as rows and as JSON.

Functions on a connection.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.errors import PeerFault
from p2plearn.gossip.envelope import Entry
from p2plearn.gossip.tables import find

SEARCH_WINDOW: Final = 2_000
"""Newest courses with the words that are looked at: a word that is everywhere finds no end otherwise."""

_ENTRY: Final = (
    "course", "author", "series", "version", "title", "description", "tags", "language", "license", "bytes", "files",
    "created", "copies",
)  # fmt: skip


def hits(db: sqlite3.Connection, expression: str, order: str, most: int) -> list[dict[str, Any]]:
    if expression:
        ranked = "bm25(search, 8.0, 6.0, 1.0, 0.0)" if order in ("relevance", "rating", "copies") else "0.0"
        found = db.execute(
            f"SELECT rowid, {ranked} FROM search WHERE search MATCH ? ORDER BY rowid DESC LIMIT ?",  # noqa: S608
            (expression, SEARCH_WINDOW),
        ).fetchall()
        found.sort(key=lambda hit: hit[1])
    else:
        found = db.execute("SELECT number, 0.0 FROM entries ORDER BY created DESC LIMIT ?", (most,)).fetchall()
    rows: list[dict[str, Any]] = []
    for number, rank in found if order in ("new", "title", "copies") else found[:most]:
        row = db.execute(
            f"SELECT {', '.join(_ENTRY)} FROM entries WHERE number = ?",  # noqa: S608 - ours
            (number,),
        ).fetchone()
        if row is not None:
            rows.append(dict(zip(_ENTRY, row, strict=True)) | {"rank": rank})
    if order in ("new", "title", "copies"):
        key: dict[str, Callable[[dict[str, Any]], Any]] = {
            "new": lambda row: -row["created"],
            "title": lambda row: str(row["title"]).casefold(),
            "copies": lambda row: -row["copies"],
        }
        rows.sort(key=key[order])
    return rows


def newest_versions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    newest: dict[tuple[bytes, str], int] = {}
    for row in rows:
        series = (row["author"], row["series"])
        newest[series] = max(newest.get(series, 0), row["version"])
    return [row for row in rows if row["version"] == newest[row["author"], row["series"]]]


def versions(db: sqlite3.Connection, row: dict[str, Any]) -> list[bytes]:
    found = db.execute(
        "SELECT course FROM entries WHERE author = ? AND series = ? ORDER BY version DESC LIMIT 64",
        (row["author"], row["series"]),
    )
    return [one[0] for one in found]


def newest_of(db: sqlite3.Connection, author: bytes, series: str) -> SignedManifest | None:
    """The manifest of the highest version of a series that the catalogue knows; its entry brought it along."""
    # Of two with one number, as ``store.series.rank`` has it.
    row = db.execute(
        "SELECT course FROM entries WHERE author = ? AND series = ? "
        "ORDER BY version DESC, created DESC, course DESC LIMIT 1",
        (author, series),
    ).fetchone()
    entry = None if row is None else find(db, "course = ? AND kind = 'entry'", row[0])
    if entry is None or not isinstance(entry.content.body, Entry):
        return None
    try:
        return open_manifest(entry.content.body.manifest, entry.content.body.signature, row[0])
    except PeerFault:
        return None  # it was checked when it came: the record is damaged, and says so elsewhere


def said_at(db: sqlite3.Connection, course: bytes) -> int:
    """When the entry of a course was said, and with it how many copies there were: seconds since 1970."""
    found = db.execute("SELECT MAX(time) FROM envelopes WHERE course = ? AND kind = 'entry'", (course,)).fetchone()[0]
    return int(found or 0)


def course_json(row: dict[str, Any], author: dict[str, Any]) -> dict[str, Any]:
    return {
        "course": row["course"].hex(),
        "title": row["title"],
        "author": author["author"],
        "author_name": author["name"],
        "fingerprint": author["fingerprint"],
        "impostor": author["impostor"],
        "copies": row["copies"],
        "ratings": row["ratings"],
        "description": row["description"],
        "tags": row["tags"].split("\n") if row["tags"] else [],
        "language": row["language"],
        "license": row["license"],
        "bytes": row["bytes"],
        "files": row["files"],
        "created": row["created"],
        "version": row["version"],
    }
