"""The record: every envelope that this node keeps, in SQLite, and what is derived from them for quick answers.

Invariants:
- Nothing is in ``envelopes`` whose signature wasn't checked here. Putting something in twice is as once.
- What is kept of a feed follows from what was ever offered, not from its order: of a slot the highest rank, no post
  that its author withdrew, of each author the newest MAX_PER_AUTHOR. So nodes that reconcile end with equal sets.
  Only a feed over its budget departs from that: there the least trusted and oldest go first, by this node's trust.
- A withdrawn text is gone from the file, not only from the index (``secure_delete``), before anybody can see that it
  is withdrawn; a replaced or evicted one with the next ``sweep``.
- ``ratings``, ``entries`` and ``search`` change in the transaction that changes ``envelopes``.
- One connection, one lock; a call that returns is on the disk (WAL, ``synchronous=FULL``). Calls block: use threads.

Imports ``errors``, ``course`` and siblings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from p2plearn.database import Database
from p2plearn.errors import PeerFault, Refused
from p2plearn.gossip import reconcile, tables
from p2plearn.gossip.admission import Admission, Taken
from p2plearn.gossip.envelope import (
    CATALOGUE,
    FUTURE_SECONDS,
    Body,
    Content,
    Entry,
    Envelope,
    Withdraw,
    envelope_id,
    next_seq,
    open_envelope,
    reopen,
    seal,
)
from p2plearn.gossip.unwanted import Unwanted
from p2plearn.store.mirror import Mirror, Table

MAX_PER_AUTHOR: Final = 2_000
"""Envelopes kept of an author in one feed. A busy tutor writes that many in a year; a flood ends there."""
CATALOGUE_BUDGET: Final = 200_000
COURSE_BUDGET: Final = 100_000
"""Envelopes kept of a feed: some 100 MB of disk each when full. The catalogue is everybody's."""
EVICT_SHARE: Final = 50
"""One in this many goes at once when a budget is full: rare work instead of work at every message."""
KEYS_CACHED: Final = 64
"""Feeds whose keys are held in memory (80 bytes an envelope)."""


def _everyone(_: Content) -> bool:
    return True


def _nobody(_: Content) -> bool:
    return False


class Feed:
    """The open record. Thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        catalogue_budget: int = CATALOGUE_BUDGET,
        course_budget: int = COURSE_BUDGET,
        suspicious: bool = False,
        expected: bool = False,
        notes: tuple[Path, Sequence[Table]] | None = None,
    ) -> None:
        """Open or create; ``suspicious`` (after an unclean stop) checks it all, ``expected``: it can't be a new one.

        ``notes``: which rows to mirror, and where. Raises DatabaseDamaged, StoreProblem.
        """
        self._budgets = (catalogue_budget, course_budget)
        self._keys: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._unwanted = Unwanted()
        self._trust: Callable[[], Collection[bytes]] = frozenset
        self._database = Database(path, "The record of what people said", ("secure_delete = ON",))
        self._database.prepare(tables.MIGRATIONS, suspicious=suspicious, expected=expected)
        if notes is not None:
            self._database.watch(lambda db: Mirror(db, *notes).committed)
        self.lock = self._database.lock

    def close(self) -> None:
        """Close it."""
        self._database.close()

    @property
    def harmed(self) -> bool:
        """Damage was met since it was opened."""
        return self._database.harmed

    def spare(self, trusted: Callable[[], Collection[bytes]]) -> None:
        """Whose envelopes go last when a budget is full; ``trusted`` is asked each time."""
        self._trust = trusted

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """See ``Database.reading``."""
        return self._database.reading()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """See ``Database.writing``; keys in memory are read anew when it comes to nothing."""
        with self.lock:
            try:
                with self._database.writing() as db:
                    yield db
            except BaseException:
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
            found.we_lack = [name for name in found.we_lack if name not in self._unwanted]
            return found

    def lacking(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those of ``ids`` that are neither here, nor were let go on purpose, nor have to wait for their time."""
        with self.reading() as db:
            return [name for name in ids if name not in self._unwanted and not _here(db, name)]

    def ripen(self, now: float) -> None:
        """From here on, what was not wanted before ``now`` is."""
        with self.lock:
            self._unwanted.ripen(now)

    def _wait(self, name: bytes, until: float) -> None:
        with self.lock:
            self._unwanted.wait(name, until)

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
        with self.lock:  # held until a withdrawn text is gone from the file, too
            with self.writing() as db:
                last = db.execute("SELECT max(seq) FROM envelopes WHERE author = ?", (author,)).fetchone()[0] or 0
                content = Content(author, body, course, next_seq(last, int(now * 1000)), int(now))
                envelope = seal(dataclasses.replace(content, time=_free_time(db, content)), sign)
                if not self._put(db, envelope, int(now)):
                    raise Refused(
                        "This can't be kept: something newer stands in its place.", "Is this machine's clock right?"
                    )
            if isinstance(body, Withdraw):
                self._database.fold()
        return envelope

    def take(
        self,
        raws: Sequence[bytes],
        follows: Collection[bytes],
        now: float,
        refuse: Callable[[Content], bool] = _nobody,
        admit: Callable[[Content], bool] = _everyone,
    ) -> Taken:
        """Check envelopes that came from elsewhere, cheap checks first, and keep those of feeds in ``follows``.

        ``refuse`` says what this node doesn't keep, such as what blocked authors say. ``admit`` is asked last, once
        the signature was found good, and counts what it admits: whether its author may say that much now.
        """
        taken = Taken()
        admission = Admission(follows, now, refuse, admit, self._wait)
        opened = [one for one in self._open(raws, taken) if admission.wants(one, taken)]
        if not opened:
            return taken
        with self.lock:  # held until a withdrawn text is gone from the file, too
            with self.writing() as db:
                for envelope in opened:
                    if self._put(db, envelope, int(now)):
                        taken.new.append(envelope)
                    else:
                        taken.dropped["stale"] += 1
                for feed in {envelope.content.feed for envelope in taken.new}:
                    self._hold_to_budget(db, feed)
            if any(isinstance(envelope.content.body, Withdraw) for envelope in taken.new):
                self._database.fold()
        return taken

    def restore(self, raws: Iterable[bytes], now: int) -> int:
        """Put back what was in a record that is lost, whatever its feed; each is checked first. How many were kept."""
        kept = 0
        with self.writing() as db:
            for raw in raws:
                with contextlib.suppress(PeerFault):
                    kept += self._put(db, open_envelope(raw), now)
        return kept

    def _open(self, raws: Sequence[bytes], taken: Taken) -> Iterator[Envelope]:
        """Those of ``raws`` that are news and envelopes."""
        by_id = {envelope_id(raw): raw for raw in raws}
        with self.reading() as db:
            here = {name for name in by_id if _here(db, name)}
        taken.dropped["known"] += len(raws) - len(by_id) + len(here)
        for name, raw in by_id.items():
            if name in here:
                continue
            if name in self._unwanted:
                taken.dropped["waiting"] += 1
                continue
            try:
                yield open_envelope(raw)
            except PeerFault as fault:
                taken.dropped["bad"] += 1
                taken.faults.append(str(fault))

    def _put(self, db: sqlite3.Connection, envelope: Envelope, now: int) -> bool:
        """Inside a transaction: keep it unless something that stands speaks against it."""
        content = envelope.content
        if (content.expires is not None and content.expires <= now) or _here(db, envelope.id):
            return False
        tables.look_for_two_faces(db, envelope, now)
        if tables.withdrawn(db, content, envelope.id):
            return False
        if not self._win_slot(db, envelope) or not self._within_author(db, envelope):
            return False
        gone = tables.insert(db, envelope)
        if content.feed in self._keys:
            insort(self._keys[content.feed], envelope.key)
        for one in gone:
            self._delete(db, one)
        return True

    def _win_slot(self, db: sqlite3.Connection, envelope: Envelope) -> bool:
        slot = envelope.content.slot
        row = None if slot is None else tables.find(db, "slot = ?", slot)
        if row is None:
            return True
        if row.rank >= envelope.rank:
            return False
        self._delete(db, row)
        return True

    def _within_author(self, db: sqlite3.Connection, envelope: Envelope) -> bool:
        """Of each author the newest MAX_PER_AUTHOR of a feed are kept, by everyone."""
        content = envelope.content
        which = (content.author, content.feed)
        count = db.execute("SELECT count(*) FROM envelopes WHERE author = ? AND feed = ?", which).fetchone()[0]
        if count < MAX_PER_AUTHOR:
            return True
        oldest = tables.find(db, "author = ? AND feed = ? ORDER BY time, id LIMIT 1", *which)
        if oldest is None or oldest.key > envelope.key:
            return False
        self._delete(db, oldest)
        return True

    def _delete(self, db: sqlite3.Connection, envelope: Envelope) -> None:
        """Inside a transaction: an envelope and what was derived from it."""
        tables.delete(db, envelope)
        keys = self._keys.get(envelope.content.feed)
        if keys is not None:
            at = bisect_left(keys, envelope.key)
            if at < len(keys) and keys[at] == envelope.key:
                del keys[at]

    # -- letting go -----------------------------------------------------------------------------------------------

    def _hold_to_budget(self, db: sqlite3.Connection, feed: bytes) -> None:
        """Inside a transaction: when a feed has too many, the least trusted and of those the oldest go."""
        budget = self._budgets[0] if feed == CATALOGUE else self._budgets[1]
        over = len(self.keys(feed)) - budget
        if over <= 0:
            return
        going = over + budget // EVICT_SHARE
        spared = self._trust()
        rows = db.execute("SELECT id, author FROM envelopes WHERE feed = ? ORDER BY time, id", (feed,)).fetchall()
        rows.sort(key=lambda row: row[1] in spared)  # stable: among each the oldest first
        for name, _ in rows[:going]:
            victim = tables.find(db, "id = ?", name)
            if victim is not None:
                self._delete(db, victim)
            self._unwanted.forget(name)

    def sweep(self, now: float) -> int:
        """Forget what has expired; how many. What was replaced or let go meanwhile is gone from the file then, too."""
        with self.lock:
            count = self._drop("expires <= ?", int(now))
            self._database.fold()
        return count

    def purge(self, where: str, *values: object) -> int:
        """Delete envelopes by a condition on the table's columns, for blocks; how many."""
        with self.lock:
            count = self._drop(where, *values)
            self._database.fold()
        return count

    def _drop(self, where: str, *values: object) -> int:
        with self.writing() as db:
            rows = db.execute(f"SELECT raw FROM envelopes WHERE {where}", values).fetchall()  # noqa: S608 - ours
            for row in rows:
                self._delete(db, reopen(row[0]))
        return len(rows)


def _here(db: sqlite3.Connection, name: bytes) -> bool:
    return db.execute("SELECT 1 FROM envelopes WHERE id = ?", (name,)).fetchone() is not None


def _free_time(db: sqlite3.Connection, content: Content) -> int:
    """The time to put under a content: later than what stands where times rank, so that of two of one second the
    last said wins everywhere and not the one with the higher id. Never further ahead than others' clocks allow.
    """
    if not isinstance(content.body, Entry):
        return content.time
    standing = tables.find(db, "slot = ?", content.slot)
    if standing is None or standing.content.time >= content.time + FUTURE_SECONDS // 2:
        return content.time
    return max(content.time, standing.content.time + 1)
