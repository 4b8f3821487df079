"""The record: every envelope that this node keeps, in SQLite, and what is derived from them for quick answers.

Invariants:
- Nothing is in ``envelopes`` whose signature wasn't checked here. Putting something in twice is as once.
- What is kept of a feed follows from what was ever offered, not from its order: of a slot the highest rank, no post
  that its author withdrew, of each author the newest MAX_PER_AUTHOR. So nodes that reconcile end with equal sets.
  Only a feed over its budget departs from that: there the least trusted and oldest go first, by this node's trust.
- A withdrawn, replaced or evicted text is gone from the file, not only from the index (``secure_delete``).
- ``ratings``, ``entries`` and ``search`` change in the transaction that changes ``envelopes``.
- One connection, one lock; a call that returns is on the disk (WAL, ``synchronous=FULL``). Calls block: use threads.

Imports ``errors``, ``course`` and siblings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2plearn.course.manifest import decode_manifest
from p2plearn.errors import NoSpace, P2plearnError, PeerFault, Refused, StoreProblem
from p2plearn.gossip import reconcile, words
from p2plearn.gossip.envelope import (
    CATALOGUE,
    FUTURE_SECONDS,
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
    envelope_id,
    next_seq,
    open_envelope,
    reopen,
    seal,
)

MAX_PER_AUTHOR: Final = 2_000
"""Envelopes kept of an author in one feed. A busy tutor writes that many in a year; a flood ends there."""
CATALOGUE_BUDGET: Final = 200_000
COURSE_BUDGET: Final = 100_000
"""Envelopes kept of a feed: some 100 MB of disk each when full. The catalogue is everybody's."""
EVICT_SHARE: Final = 50
"""One in this many goes at once when a budget is full: rare work instead of work at every message."""
MAX_EVIDENCE: Final = 10_000
MAX_FORGOTTEN: Final = 200_000
"""Ids of evicted envelopes remembered, so that they aren't taken in again at each exchange."""
KEYS_CACHED: Final = 64
"""Feeds whose keys are held in memory (80 bytes an envelope)."""

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

MIGRATIONS: Final[tuple[str, ...]] = (_SCHEMA,)
"""What turns version n into n + 1; never edited once released. ``user_version`` is the number of those applied."""


@dataclass(slots=True)
class Taken:
    """What became of envelopes that came from elsewhere: ``new`` ones, and counts of the rest.

    ``faults``: reasons, one for each that no honest node would have sent.
    """

    new: list[Envelope] = field(default_factory=list)
    known: int = 0
    stale: int = 0
    early: int = 0
    unwanted: int = 0
    faults: list[str] = field(default_factory=list)


class Feed:
    """The open record. Thread-safe."""

    def __init__(
        self, path: Path, *, catalogue_budget: int = CATALOGUE_BUDGET, course_budget: int = COURSE_BUDGET
    ) -> None:
        """Open or create; raises StoreProblem."""
        self._path = path
        self._budgets = (catalogue_budget, course_budget)
        self.lock = threading.RLock()
        self._keys: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._forgotten: OrderedDict[bytes, None] = OrderedDict()
        self._trust: Callable[[], Collection[bytes]] = frozenset
        with _translated(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        db = self._db
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "cache_size = -8192"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreProblem(
                f"{self._path} has format {version}; this p2plearn reads up to {len(MIGRATIONS)}.",
                "It was written by a newer p2plearn: install that version, or use another home (--home DIR).",
            )
        if version < len(MIGRATIONS):
            with self.writing():
                for step in MIGRATIONS[version:]:
                    for statement in step.split(";\n"):
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close it."""
        with self.lock:
            self._db.close()

    def spare(self, trusted: Callable[[], Collection[bytes]]) -> None:
        """Whose envelopes go last when a budget is full; ``trusted`` is asked each time."""
        self._trust = trusted

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for reading, alone."""
        with self.lock, _translated(self._path):
            yield self._db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on the disk when the block ends, undone when it raises."""
        with self.lock, _translated(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                self._keys.clear()
                raise

    # -- what others need of the set ------------------------------------------------------------------------------

    def keys(self, feed: bytes) -> list[bytes]:
        """Sorted keys of a feed: the live list, for use under ``lock`` only, not to be changed."""
        with self.lock:
            known = self._keys.get(feed)
            if known is None:
                with self.reading() as db:
                    rows = db.execute("SELECT time, id FROM envelopes WHERE feed = ? ORDER BY time, id", (feed,))
                    known = [time.to_bytes(8, "big") + name for time, name in rows]
                self._keys[feed] = known
                while len(self._keys) > KEYS_CACHED:
                    self._keys.popitem(last=False)
            self._keys.move_to_end(feed)
            return known

    def opening(self, feed: bytes) -> list[reconcile.Range]:
        """See ``reconcile.opening``."""
        with self.lock:
            return reconcile.opening(self.keys(feed))

    def answer(self, feed: bytes, ranges: Sequence[reconcile.Range]) -> reconcile.Answer:
        """See ``reconcile.answer``; ids that this node let go on purpose are not asked for again."""
        with self.lock:
            found = reconcile.answer(self.keys(feed), ranges)
            found.we_lack = [name for name in found.we_lack if name not in self._forgotten]
            return found

    def lacking(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those of ``ids`` that are neither here nor were let go on purpose."""
        with self.reading() as db:
            return [
                name
                for name in ids
                if name not in self._forgotten
                and db.execute("SELECT 1 FROM envelopes WHERE id = ?", (name,)).fetchone() is None
            ]

    def raws(self, ids: Sequence[bytes], feeds: Collection[bytes], most: int) -> list[bytes]:
        """The bytes of those of ``ids`` that are in ``feeds``, in that order, the first and then up to ``most`` bytes.

        Stops there: the caller knows by the number that come before what is left.
        """
        out: list[bytes] = []
        size = 0
        with self.reading() as db:
            for name in ids:
                row = db.execute("SELECT raw, feed FROM envelopes WHERE id = ?", (name,)).fetchone()
                if row is None or row[1] not in feeds:
                    out.append(b"")
                    continue
                size += len(row[0])
                if out and size > most:
                    break
                out.append(row[0])
        return out

    def digest(self, feed: bytes) -> tuple[int, bytes]:
        """How many envelopes a feed has and the fingerprint of all of them: equal on nodes that hold the same."""
        with self.lock:
            keys = self.keys(feed)
            return len(keys), reconcile.fingerprint(keys)

    # -- putting in -----------------------------------------------------------------------------------------------

    def write(self, author: bytes, sign: Callable[[bytes], bytes], body: Body, course: bytes, now: float) -> Envelope:
        """Say something in the name of ``author``: numbered, signed, kept, on the disk. Raises UsageProblem."""
        with self.writing() as db:
            last = db.execute("SELECT max(seq) FROM envelopes WHERE author = ?", (author,)).fetchone()[0] or 0
            content = Content(author, body, course, next_seq(last, int(now * 1000)), int(now))
            envelope = seal(dataclasses.replace(content, time=self._free_time(content)), sign)
            if not self._put(envelope, int(now)):
                raise Refused(
                    "This can't be kept: something newer stands in its place.", "Is this machine's clock right?"
                )
        if isinstance(body, Withdraw):
            self._scrub()
        return envelope

    def _free_time(self, content: Content) -> int:
        """The time to put under a content: later than what stands where times rank, so that of two of one second the
        last said wins everywhere and not the one with the higher id. Never further ahead than others' clocks allow.
        """
        if not isinstance(content.body, Entry):
            return content.time
        standing = self._find("slot = ?", content.slot)
        if standing is None or standing.content.time >= content.time + FUTURE_SECONDS // 2:
            return content.time
        return max(content.time, standing.content.time + 1)

    def take(
        self,
        raws: Sequence[bytes],
        follows: Collection[bytes],
        now: float,
        refuse: Callable[[Content], bool] = lambda _: False,
    ) -> Taken:
        """Check envelopes that came from elsewhere, cheap checks first, and keep those of feeds in ``follows``.

        ``refuse`` says what this node doesn't keep, such as what blocked authors say.
        """
        taken = Taken()
        fresh = set(self.lacking({envelope_id(raw): None for raw in raws}))
        opened: list[Envelope] = []
        for raw in raws:
            name = envelope_id(raw)
            if name not in fresh:
                taken.known += 1
                continue
            fresh.discard(name)
            try:
                envelope = open_envelope(raw)
            except PeerFault as fault:
                taken.faults.append(str(fault))
                continue
            if envelope.content.time > now + FUTURE_SECONDS:
                taken.early += 1
            elif envelope.content.feed not in follows or refuse(envelope.content):
                taken.unwanted += 1
            else:
                opened.append(envelope)
        if opened:
            with self.writing():
                for envelope in opened:
                    if self._put(envelope, int(now)):
                        taken.new.append(envelope)
                    else:
                        taken.stale += 1
                for feed in {envelope.content.feed for envelope in taken.new}:
                    self._hold_to_budget(feed)
            if any(isinstance(envelope.content.body, Withdraw) for envelope in taken.new):
                self._scrub()
        return taken

    def _put(self, envelope: Envelope, now: int) -> bool:
        """Inside a transaction: keep it unless something that stands speaks against it."""
        content, db = envelope.content, self._db
        if content.expires is not None and content.expires <= now:
            return False
        if db.execute("SELECT 1 FROM envelopes WHERE id = ?", (envelope.id,)).fetchone() is not None:
            return False
        self._look_for_two_faces(envelope, now)
        if _withdrawn(db, content, envelope.id) or not self._win_slot(envelope) or not self._within_author(envelope):
            return False
        db.execute(
            "INSERT INTO envelopes (id, feed, time, author, seq, kind, course, slot, target, expires, raw) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                envelope.id, content.feed, content.time, content.author, content.seq, content.kind, content.course,
                content.slot, target_of(content.body), content.expires, envelope.raw,
            ),
        )  # fmt: skip
        if content.feed in self._keys:
            insort(self._keys[content.feed], envelope.key)
        self._derive(envelope)
        return True

    def _look_for_two_faces(self, envelope: Envelope, now: int) -> None:
        """Two contents under one number are proof against their author: kept, whatever becomes of either."""
        content = envelope.content
        twin = self._db.execute(
            "SELECT raw FROM envelopes WHERE author = ? AND seq = ?", (content.author, content.seq)
        ).fetchone()
        if twin is None:
            return
        count = self._db.execute("SELECT count(*) FROM evidence").fetchone()[0]
        if count < MAX_EVIDENCE:
            self._db.execute(
                "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
                (content.author, content.seq, twin[0], envelope.raw, now),
            )

    def _win_slot(self, envelope: Envelope) -> bool:
        slot = envelope.content.slot
        row = None if slot is None else self._find("slot = ?", slot)
        if row is None:
            return True
        if row.rank >= envelope.rank:
            return False
        self._delete(row)
        return True

    def _within_author(self, envelope: Envelope) -> bool:
        """Of each author the newest MAX_PER_AUTHOR of a feed are kept, by everyone."""
        content = envelope.content
        which = (content.author, content.feed)
        count = self._db.execute("SELECT count(*) FROM envelopes WHERE author = ? AND feed = ?", which).fetchone()[0]
        if count < MAX_PER_AUTHOR:
            return True
        oldest = self._find("author = ? AND feed = ? ORDER BY time, id LIMIT 1", *which)
        if oldest is None or oldest.key > envelope.key:
            return False
        self._delete(oldest)
        return True

    def _find(self, where: str, *values: object) -> Envelope | None:
        row = self._db.execute(f"SELECT raw FROM envelopes WHERE {where}", values).fetchone()  # noqa: S608 - ours
        return None if row is None else reopen(row[0])

    def _derive(self, envelope: Envelope) -> None:
        content, db = envelope.content, self._db
        match content.body:
            case Rating() as rating:
                db.execute(
                    "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?)",
                    (content.course, content.author, rating.stars, content.seq, envelope.id),
                )
            case Entry() as entry:
                _list(db, content.course, entry)
            case Withdraw() as withdraw:
                for where, value in (("id = ?", withdraw.post), ("slot = ?", _edit_slot(content, withdraw.post))):
                    gone = self._find(where, value)
                    if gone is not None and gone.content.author == content.author:
                        self._delete(gone)
                        db.execute(
                            "DELETE FROM evidence WHERE author = ? AND seq = ?", (content.author, gone.content.seq)
                        )
            case _:
                return

    def _delete(self, envelope: Envelope) -> None:
        """Inside a transaction: an envelope and what was derived from it."""
        content, db = envelope.content, self._db
        db.execute("DELETE FROM envelopes WHERE id = ?", (envelope.id,))
        keys = self._keys.get(content.feed)
        if keys is not None:
            at = bisect_left(keys, envelope.key)
            if at < len(keys) and keys[at] == envelope.key:
                del keys[at]
        if isinstance(content.body, Rating):
            db.execute("DELETE FROM ratings WHERE course = ? AND author = ?", (content.course, content.author))
        elif isinstance(content.body, Entry):
            _unlist(db, content.course)

    # -- letting go -----------------------------------------------------------------------------------------------

    def _hold_to_budget(self, feed: bytes) -> None:
        """Inside a transaction: when a feed has too many, the least trusted and of those the oldest go."""
        budget = self._budgets[0] if feed == CATALOGUE else self._budgets[1]
        over = len(self.keys(feed)) - budget
        if over <= 0:
            return
        going = over + budget // EVICT_SHARE
        spared = self._trust()
        rows = self._db.execute("SELECT id, author FROM envelopes WHERE feed = ? ORDER BY time, id", (feed,)).fetchall()
        rows.sort(key=lambda row: row[1] in spared)  # stable: among each the oldest first
        for name, _ in rows[:going]:
            victim = self._find("id = ?", name)
            if victim is not None:
                self._delete(victim)
            self._forgotten[name] = None
        while len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def sweep(self, now: float) -> int:
        """Forget what has expired; how many."""
        with self.writing() as db:
            rows = db.execute("SELECT raw FROM envelopes WHERE expires <= ?", (int(now),)).fetchall()
            for row in rows:
                self._delete(reopen(row[0]))
        return len(rows)

    def purge(self, where: str, *values: object) -> int:
        """Delete envelopes by a condition on the table's columns, for blocks; how many."""
        with self.writing() as db:
            rows = db.execute(f"SELECT raw FROM envelopes WHERE {where}", values).fetchall()  # noqa: S608 - ours
            for row in rows:
                self._delete(reopen(row[0]))
        self._scrub()
        return len(rows)

    def _scrub(self) -> None:
        """Fold the log into the file, so that a text that is gone isn't left in the log."""
        with self.lock, contextlib.suppress(sqlite3.Error):  # a reader in the way: the next one does it
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


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


def _withdrawn(db: sqlite3.Connection, content: Content, name: bytes) -> bool:
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


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except P2plearnError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise NoSpace("The disk is full: what people said can't be kept.", "Free some space.") from error
        raise StoreProblem(f"{path} failed: {error}.", "Check the disk it is on.") from error
