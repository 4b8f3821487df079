"""What this node keeps for others, on record: units of custody, the room they were given, who else holds them.

Invariants:
- The room given never exceeds the limit: it is taken in one transaction, before the first byte is fetched, and given
  back only when the course leaves the disk.
- A unit is *held* (state 1) only after its bytes are committed; only then is it acknowledged to anybody.
- A reservation that nobody came back to (a crash in the middle) is dropped when the store opens.
- Of a unit that was damaged here (state 3) what is left stays, and its room stays taken: it may be all there is.

The receipts are opaque here. Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from p2plearn.course.manifest import SignedManifest
from p2plearn.errors import NoSpace
from p2plearn.store.catalogue import Catalogue
from p2plearn.store.problems import size_text
from p2plearn.store.publish import add_course

_ALIGNMENT = 4096

COMING, HELD, RELEASED, DAMAGED = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class CustodyRow:
    """A unit as kept: its bytes, the room given to it, and its receipts as they travel."""

    course: bytes
    segment: int
    size: int
    given: int
    receipts: tuple[bytes, ...]


def room_for(signed: SignedManifest, size: int) -> int:
    """Bytes that a unit of ``size`` takes on the disk at most: files aligned, its share of the index, the manifest."""
    manifest = signed.manifest
    aligned = min(manifest.files, size // _ALIGNMENT + 1) * _ALIGNMENT
    return size + aligned + manifest.index_bytes + len(signed.raw)


class CustodyRecords:
    """The records of one store. Blocking and thread-safe like all of it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        with catalogue.writing() as db:
            abandoned = db.execute("SELECT DISTINCT course FROM custody WHERE state = 0").fetchall()
            db.execute("DELETE FROM custody WHERE state = 0")
        self.unneeded = [row[0] for row in abandoned if self.is_unneeded(row[0])]
        """Courses that nobody asked this node to keep any more when it started; to be removed."""

    def given(self) -> int:
        """Bytes of the room given that are taken or reserved."""
        with self._catalogue.reading() as db:
            return int(db.execute("SELECT coalesce(sum(given), 0) FROM custody").fetchone()[0])

    def is_given_room(self, course: bytes) -> bool:
        """Whether a unit of a course that is here takes of the room given."""
        with self._catalogue.reading() as db:
            row = db.execute(
                "SELECT 1 FROM custody WHERE course = ? AND state = ? AND given > 0", (course, HELD)
            ).fetchone()
        return row is not None

    def stated(self, node: bytes) -> dict[tuple[bytes, int], bytes]:
        """The last receipt of a node about each unit, whether it is held now or was."""
        with self._catalogue.reading() as db:
            rows = db.execute("SELECT course, segment, receipt FROM receipts WHERE node = ?", (node,)).fetchall()
        return {(course, segment): receipt for course, segment, receipt in rows}

    def held(self) -> list[CustodyRow]:
        """Every unit that is here and acknowledged."""
        return self._rows(HELD)

    def damaged(self) -> list[CustodyRow]:
        """Every unit of which something is missing since it was acknowledged."""
        return self._rows(DAMAGED)

    def _rows(self, state: int) -> list[CustodyRow]:
        with self._catalogue.reading() as db:
            units = db.execute(
                "SELECT course, segment, bytes, given FROM custody WHERE state = ?", (state,)
            ).fetchall()  # fmt: skip
            said = db.execute(
                "SELECT course, segment, receipt FROM receipts JOIN custody USING (course, segment) WHERE state = ?",
                (state,),
            ).fetchall()
        receipts: dict[tuple[bytes, int], list[bytes]] = {}
        for course, segment, receipt in said:
            receipts.setdefault((course, segment), []).append(receipt)
        return [
            CustodyRow(unit[0], unit[1], unit[2], unit[3], tuple(receipts.get((unit[0], unit[1]), ())))
            for unit in units
        ]

    def receipt(self, course: bytes, segment: int, node: bytes) -> bytes | None:
        """The last receipt of a node about a unit, whether it is held now or was."""
        with self._catalogue.reading() as db:
            row = db.execute(
                "SELECT receipt FROM receipts WHERE course = ? AND segment = ? AND node = ?", (course, segment, node)
            ).fetchone()
        return row[0] if row else None

    def reserve(self, signed: SignedManifest, segment: int, size: int, most: int) -> None:
        """Take room for a unit before its first byte; nothing if this node keeps the course for its person already.

        Raises NoSpace when more than ``most`` bytes would be given.
        """
        course = signed.course
        with self._catalogue.writing() as db:
            row = db.execute("SELECT why FROM courses WHERE course = ?", (course,)).fetchone()
            need = room_for(signed, size) if row is None or row[0] == "custody" else 0
            before = db.execute(
                "SELECT given FROM custody WHERE course = ? AND segment = ?", (course, segment)
            ).fetchone()
            given = db.execute("SELECT coalesce(sum(given), 0) FROM custody").fetchone()[0]
            if before is not None:
                given -= before[0]
            if need and given + need > most:
                raise NoSpace(
                    f"{size_text(need)} more would exceed the {size_text(most)} given to courses of others.",
                    "Give more with the setting storage.give.",
                )
            if row is None:
                add_course(db, signed, why="custody", now=int(time.time()), indexed=False)
            db.execute(
                "INSERT INTO custody VALUES (?, ?, ?, ?, 0) "
                "ON CONFLICT DO UPDATE SET state = 0, bytes = excluded.bytes, given = excluded.given",
                (course, segment, size, need),
            )

    def hold(self, course: bytes, segment: int, size: int, receipts: Iterable[tuple[bytes, bytes]]) -> None:
        """A reserved unit is here, verified and durable; (node, receipt) of who holds it, this node's own included.

        Of its room it keeps what its ``size`` turned out to need.
        """
        with self._catalogue.writing() as db:
            db.execute(
                "UPDATE custody SET state = 1, given = max(given - max(bytes - ?, 0), 0), bytes = ? "
                "WHERE course = ? AND segment = ?",
                (size, size, course, segment),
            )
            _put(db, course, segment, receipts)

    def take_on(self, units: Iterable[tuple[bytes, int, int, tuple[bytes, bytes]]]) -> list[tuple[bytes, int]]:
        """Hold units that are here for this node's person, in one transaction: (course, segment, size, its receipt).

        They take no room that is given to others. Returns (course, segment) of those whose course is gone meanwhile.
        """
        gone = []
        with self._catalogue.writing() as db:
            for course, segment, size, receipt in units:
                held = db.execute(
                    "INSERT INTO custody SELECT course, ?, ?, 0, 1 FROM courses WHERE course = ? AND why != 'custody' "
                    "ON CONFLICT DO UPDATE SET state = 1, bytes = excluded.bytes, given = 0",
                    (segment, size, course),
                )
                if held.rowcount:
                    _put(db, course, segment, [receipt])
                else:
                    gone.append((course, segment))
        return gone

    def note(
        self,
        course: bytes,
        segment: int,
        receipts: Iterable[tuple[bytes, bytes]],
        nodes: Collection[bytes] | None = None,
    ) -> None:
        """Newer receipts about a unit that is here; with ``nodes`` those of all others about it are forgotten."""
        with self._catalogue.writing() as db:
            if not db.execute("SELECT 1 FROM custody WHERE course = ? AND segment = ?", (course, segment)).fetchone():
                return
            _put(db, course, segment, receipts)
            if nodes is not None:
                said = db.execute("SELECT node FROM receipts WHERE course = ? AND segment = ?", (course, segment))
                gone = [(course, segment, node) for (node,) in said.fetchall() if node not in nodes]
                db.executemany("DELETE FROM receipts WHERE course = ? AND segment = ? AND node = ?", gone)

    def abandon(self, course: bytes, segment: int) -> bool:
        """A reserved unit didn't come; True if the course is now kept for nobody and can be removed."""
        with self._catalogue.writing() as db:
            db.execute("DELETE FROM custody WHERE course = ? AND segment = ? AND state = 0", (course, segment))
        return self.is_unneeded(course)

    def release(self, course: bytes, segment: int) -> bool:
        """A unit is kept elsewhere as often as it should; True if the whole course may now leave this disk.

        The room stays taken until it does.
        """
        with self._catalogue.writing() as db:
            db.execute("UPDATE custody SET state = 2 WHERE course = ? AND segment = ?", (course, segment))
        return self.is_unneeded(course)

    def damage(self, course: bytes, segment: int) -> None:
        """Something of a unit that was here is not any more."""
        with self._catalogue.writing() as db:
            db.execute("UPDATE custody SET state = 3 WHERE course = ? AND segment = ?", (course, segment))

    def is_damaged(self, course: bytes, segment: int) -> bool:
        """Whether a unit is on record as damaged."""
        with self._catalogue.reading() as db:
            row = db.execute(
                "SELECT 1 FROM custody WHERE course = ? AND segment = ? AND state = ?", (course, segment, DAMAGED)
            ).fetchone()
        return row is not None

    def is_unneeded(self, course: bytes) -> bool:
        """Whether a course is here for custody alone, and for nobody's any more."""
        with self._catalogue.reading() as db:
            row = db.execute(
                "SELECT 1 FROM courses WHERE course = ? AND why = 'custody' "
                "AND NOT EXISTS (SELECT 1 FROM custody WHERE custody.course = courses.course AND state != 2)",
                (course,),
            ).fetchone()
        return row is not None

    def claim(self, course: bytes, why: str) -> None:
        """The person of this node wants the course too: it no longer takes of the room given."""
        with self._catalogue.writing() as db:
            db.execute("UPDATE courses SET why = ? WHERE course = ? AND why = 'custody'", (why, course))
            db.execute("UPDATE custody SET given = 0 WHERE course = ?", (course,))


def _put(db: sqlite3.Connection, course: bytes, segment: int, receipts: Iterable[tuple[bytes, bytes]]) -> None:
    rows = [(course, segment, node, receipt) for node, receipt in receipts]
    db.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?)", rows)
