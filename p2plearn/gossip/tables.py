"""The record's tables: what a kept envelope is in them, and what is derived from it for quick answers.

Functions on a connection, each inside a transaction of ``feed.Feed``, which decides what is kept.

Imports ``course`` and siblings.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from p2plearn.course.manifest import decode_manifest
from p2plearn.gossip import words
from p2plearn.gossip.envelope import (
    Accept,
    Body,
    Content,
    Edit,
    Entry,
    Envelope,
    Label,
    Moderate,
    Post,
    Rating,
    Trust,
    Withdraw,
    reopen,
)

MAX_EVIDENCE: Final = 10_000
MAX_HIDINGS: Final = 5_000
"""Lines kept of the log of what was hidden."""

_SCHEMA: Final = """
CREATE TABLE envelopes (
    number INTEGER PRIMARY KEY,    -- in the order in which they came here
    id BLOB NOT NULL UNIQUE,
    feed BLOB NOT NULL, time INTEGER NOT NULL,
    author BLOB NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, course BLOB NOT NULL,
    slot BLOB UNIQUE,              -- at most one envelope a slot; NULL for posts
    target BLOB,                   -- the post, question or author that it is about
    expires INTEGER,
    raw BLOB NOT NULL
);
CREATE INDEX envelopes_feed ON envelopes (feed, time, id);
CREATE INDEX envelopes_author ON envelopes (author, seq);
CREATE INDEX envelopes_author_feed ON envelopes (author, feed, time, id);
CREATE INDEX envelopes_course ON envelopes (course, kind, time);
CREATE INDEX envelopes_target ON envelopes (target, kind) WHERE target IS NOT NULL;
CREATE INDEX envelopes_expires ON envelopes (expires) WHERE expires IS NOT NULL;
CREATE TABLE evidence (
    author BLOB NOT NULL, seq INTEGER NOT NULL, one BLOB NOT NULL, other BLOB NOT NULL, found INTEGER NOT NULL,
    PRIMARY KEY (author, seq)
) WITHOUT ROWID;
CREATE TABLE ratings (
    course BLOB NOT NULL, author BLOB NOT NULL, stars INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (course, author)
) WITHOUT ROWID;
CREATE INDEX ratings_figures ON ratings (course, stars);
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    course BLOB NOT NULL UNIQUE, author BLOB NOT NULL, series TEXT NOT NULL, version INTEGER NOT NULL,
    title TEXT NOT NULL, description TEXT NOT NULL, tags TEXT NOT NULL, language TEXT NOT NULL, license TEXT NOT NULL,
    bytes INTEGER NOT NULL, files INTEGER NOT NULL, created INTEGER NOT NULL, copies INTEGER NOT NULL
);
CREATE INDEX entries_series ON entries (author, series, version);
CREATE INDEX entries_created ON entries (created);
CREATE VIRTUAL TABLE search USING fts5 (title, tags, body, facets, tokenize = 'ascii', prefix = '2 3');
CREATE TABLE following (course BLOB PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE trusted (subject BLOB PRIMARY KEY, private INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE shunned (      -- what this person mutes (not shown to them) or blocks (not kept here at all)
    subject BLOB PRIMARY KEY, target TEXT NOT NULL, how TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE subscriptions (author BLOB PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID
"""

_LOG: Final = """
CREATE TABLE hidings (      -- what was hidden or shown again, as this node learned of it
    number INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,         -- when whoever did it said so
    action TEXT NOT NULL, target TEXT NOT NULL,
    subject BLOB NOT NULL,         -- a post, a course or an author
    author BLOB NOT NULL,          -- who did it
    course BLOB,                   -- that a post belongs to
    reason TEXT NOT NULL
)
"""

MIGRATIONS: Final[tuple[str, ...]] = (_SCHEMA, _LOG)
"""What turns version n into n + 1; never edited once released. ``user_version`` is the number of those applied."""


def find(db: sqlite3.Connection, where: str, *values: object) -> Envelope | None:
    """The first envelope for which ``where`` holds, a condition on the table's columns."""
    row = db.execute(f"SELECT raw FROM envelopes WHERE {where}", values).fetchone()  # noqa: S608 - ours
    return None if row is None else reopen(row[0])


def envelopes(db: sqlite3.Connection, where: str, *values: object) -> list[Envelope]:
    """All of them."""
    rows = db.execute(f"SELECT raw FROM envelopes WHERE {where}", values).fetchall()  # noqa: S608 - ours
    return [reopen(row[0]) for row in rows]


def insert(db: sqlite3.Connection, envelope: Envelope) -> list[Envelope]:
    """Keep an envelope; what is to be deleted because of it."""
    content = envelope.content
    db.execute(
        "INSERT INTO envelopes (id, feed, time, author, seq, kind, course, slot, target, expires, raw) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            envelope.id, content.feed, content.time, content.author, content.seq, content.kind, content.course,
            content.slot, target_of(content.body), content.expires, envelope.raw,
        ),
    )  # fmt: skip
    match content.body:
        case Rating() as rating:
            db.execute(
                "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?)",
                (content.course, content.author, rating.stars, content.seq, envelope.id),
            )
        case Entry() as entry:
            _list(db, content.course, entry)
        case Withdraw() as withdraw:
            return _taken_back(db, content, withdraw)
        case Moderate() as moderate if _may_moderate(db, content):
            line = Hiding(content.time, moderate.action, "post", moderate.post, content.author, moderate.reason)
            log_hiding(db, line, content.course)
        case Label() as label if db.execute(
            "SELECT 1 FROM subscriptions WHERE author = ?", (content.author,)
        ).fetchone():
            line = Hiding(content.time, label.label, label.target, label.subject, content.author, label.reason)
            log_hiding(db, line)
        case _:
            pass
    return []


def _may_moderate(db: sqlite3.Connection, content: Content) -> bool:
    """Whether it is the course's author who speaks, as far as the catalogue knows."""
    row = db.execute("SELECT author FROM entries WHERE course = ?", (content.course,)).fetchone()
    return row is None or row[0] == content.author


@dataclass(frozen=True, slots=True)
class Hiding:
    """A line of the log: ``action`` on the ``target`` (post, course, author) that is ``subject``, by ``author``."""

    time: int
    action: str
    target: str
    subject: bytes
    author: bytes
    reason: str


def log_hiding(db: sqlite3.Connection, line: Hiding, course: bytes | None = None) -> None:
    """Add a line; the oldest go when there are too many."""
    number = db.execute(
        "INSERT INTO hidings (time, action, target, subject, author, course, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (line.time, line.action, line.target, line.subject, line.author, course, line.reason),
    ).lastrowid
    db.execute("DELETE FROM hidings WHERE number <= ?", ((number or 0) - MAX_HIDINGS,))


def _taken_back(db: sqlite3.Connection, content: Content, withdraw: Withdraw) -> list[Envelope]:
    """A withdrawn post and its edit; also as evidence their text isn't kept."""
    found = (find(db, "id = ?", withdraw.post), find(db, "slot = ?", _edit_slot(content, withdraw.post)))
    gone = [one for one in found if one is not None and one.content.author == content.author]
    for one in gone:
        db.execute("DELETE FROM evidence WHERE author = ? AND seq = ?", (content.author, one.content.seq))
    return gone


def delete(db: sqlite3.Connection, envelope: Envelope) -> None:
    """An envelope and what was derived from it."""
    content = envelope.content
    db.execute("DELETE FROM envelopes WHERE id = ?", (envelope.id,))
    if isinstance(content.body, Rating):
        db.execute("DELETE FROM ratings WHERE course = ? AND author = ?", (content.course, content.author))
    elif isinstance(content.body, Entry):
        _unlist(db, content.course)


def look_for_two_faces(db: sqlite3.Connection, envelope: Envelope, now: int) -> None:
    """Two contents under one number are proof against their author: kept, whatever becomes of either."""
    content = envelope.content
    twin = db.execute(
        "SELECT raw FROM envelopes WHERE author = ? AND seq = ?", (content.author, content.seq)
    ).fetchone()
    if twin is None:
        return
    if db.execute("SELECT count(*) FROM evidence").fetchone()[0] < MAX_EVIDENCE:
        db.execute(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
            (content.author, content.seq, twin[0], envelope.raw, now),
        )


def target_of(body: Body) -> bytes | None:
    """The post, question or author that an envelope is about."""
    match body:
        case Post():
            return body.reply
        case Edit() | Withdraw() | Moderate():
            return body.post
        case Accept():
            return body.question
        case Trust() | Label():
            return body.subject
        case _:
            return None


def _edit_slot(content: Content, post: bytes) -> bytes | None:
    return Content(content.author, Edit(post, ""), content.course, content.seq, content.time).slot


def withdrawn(db: sqlite3.Connection, content: Content, name: bytes) -> bool:
    """Whether its own author took back the post that this is, or edits."""
    post = name if isinstance(content.body, Post) else content.body.post if isinstance(content.body, Edit) else None
    if post is None:
        return False
    slot = Content(content.author, Withdraw(post, None), content.course, content.seq, content.time).slot
    return db.execute("SELECT 1 FROM envelopes WHERE slot = ?", (slot,)).fetchone() is not None


def _list(db: sqlite3.Connection, course: bytes, entry: Entry) -> None:
    manifest = decode_manifest(entry.manifest)
    number = db.execute(
        "INSERT INTO entries (course, author, series, version, title, description, tags, language, license, bytes, "
        "files, created, copies) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            course, manifest.author, manifest.series.name, manifest.series.seq, manifest.title, manifest.description,
            "\n".join(manifest.tags), manifest.language, manifest.license, manifest.bytes, manifest.files,
            manifest.created, entry.copies,
        ),
    ).lastrowid  # fmt: skip
    subtags = manifest.language.split("-") if manifest.language else []
    facets = [words.facet("t", tag) for tag in manifest.tags]
    facets += [words.facet("l", "-".join(subtags[: n + 1])) for n in range(len(subtags))]
    facets.append("a" + manifest.author.hex())
    db.execute(
        "INSERT INTO search (rowid, title, tags, body, facets) VALUES (?, ?, ?, ?, ?)",
        (
            number, words.index_tokens(manifest.title), words.index_tokens(" ".join(manifest.tags)),
            words.index_tokens(manifest.description[:4096]), " ".join(facets),
        ),
    )  # fmt: skip


def _unlist(db: sqlite3.Connection, course: bytes) -> None:
    row = db.execute("SELECT number FROM entries WHERE course = ?", (course,)).fetchone()
    if row is not None:
        db.execute("DELETE FROM search WHERE rowid = ?", row)
        db.execute("DELETE FROM entries WHERE number = ?", row)
