"""What this node keeps, in memory and on record alike: its units, their receipts, the room given to them.

What must hold: a unit is in the ledger only while its bytes are here, durable and on record; what is stated about it
to others was on record first. So whatever the others count on is there after a crash.

Imports ``dht`` siblings, ``errors``, ``store``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from p2plearn.config import COPIES, MOST_COPIES
from p2plearn.dht.custody import Node, Unit, slots_of, units_of
from p2plearn.dht.duty import Promises, Removals
from p2plearn.dht.ledger import Ledger
from p2plearn.dht.receipts import Receipt, copies_asked, decode_receipt, sign_wish
from p2plearn.errors import P2plearnError
from p2plearn.store.catalogue import CourseRow
from p2plearn.store.holding import Holding
from p2plearn.store.store import Store

log = logging.getLogger("p2plearn.custody")

WRITE_SECONDS: Final = 5.0
"""For receipts that were taken in together to be on record although the node is going down."""

TAKEN_ON_AT_ONCE: Final = 500
"""Courses put on record in one transaction: some 0.1 s, in which nobody else writes to the catalogue."""


class Kept:
    """See the head of this file. ``announce`` and ``withdraw`` tell the network who has a course."""

    def __init__(
        self,
        store: Store,
        node: Node,
        sign: Callable[[bytes], bytes],
        give: int,
        *,
        announce: Callable[[bytes], None],
        withdraw: Callable[[bytes], None],
    ) -> None:
        self.store = store
        self.ledger = Ledger(node, sign)
        self.me = node
        self.give = give
        self.given = 0
        """Bytes of ``give`` that are taken."""
        self.announce = announce
        self.withdraw = withdraw
        self.leaving = False
        self.releasing: set[Unit] = set()
        """Units that this node is about to let go; it promises them to nobody."""
        self.promises = Promises()
        """Who lets go relying on this node."""
        self.removals = Removals(node)
        """What the person of this node is removing."""
        self.changed = trio.Event()
        """Set when something about copies may have changed; whoever waits for it makes a new one."""
        self.damaged: dict[Unit, int] = {}
        """Units that were whole here and aren't any more, and the copies asked for."""
        self.others: dict[Unit, frozenset[Node]] = {}
        """Who else held those when they were found to be damaged."""

    def news(self) -> None:
        """Something about copies may have changed."""
        self.changed.set()
        self.changed = trio.Event()

    async def load(self) -> None:
        """Take back what is on record; once, before peers come."""
        rows = await trio.to_thread.run_sync(self.store.custody.held)
        courses = {row.course: row for row in await trio.to_thread.run_sync(self.store.courses)}
        for row in rows:
            unit = Unit(row.course, row.segment)
            receipts = [decode_receipt(raw, checked=self.store.as_left) for raw in row.receipts]
            mine = next((receipt for receipt in receipts if receipt.node == self.me), None)
            known = courses.get(unit.course)
            whole = known is not None and known.complete
            if not whole and not await trio.to_thread.run_sync(self._is_whole, unit):
                # Its disk lost some of it. What others are told is what is so; then it is fetched again.
                await trio.to_thread.run_sync(self.store.custody.damage, unit.course, unit.segment)
                log.warning("%s.%d is damaged here: it will be fetched again", unit.course.hex()[:12], unit.segment)
                continue
            self.ledger.restore(unit, row.size, receipts, known.author if known is not None else b"")
            if mine is None or not mine.holds:  # it said goodbye, and is back
                await self.state(unit, row.size, mine.copies if mine is not None else 1, holds=True)
        for row in await trio.to_thread.run_sync(self.store.custody.damaged):
            said = [decode_receipt(raw) for raw in row.receipts]
            unit = Unit(row.course, row.segment)
            of = courses.get(unit.course)
            self.damaged[unit] = copies_asked({r.node: r for r in said}, of.author if of is not None else b"", COPIES)
            self.others[unit] = frozenset(each.node for each in said if each.holds) - {self.me}
        for course in self.store.custody.unneeded:
            # The network part may have been started anew: meanwhile it may have been asked to keep it after all.
            if await trio.to_thread.run_sync(self.store.custody.is_unneeded, course):
                await trio.to_thread.run_sync(self.store.give_up, course)
        self.store.custody.unneeded.clear()
        await self.count_room()
        for course_row in await self._take_on(courses.values()):
            await self.adopt(course_row.course, 0)

    async def _take_on(self, courses: Iterable[CourseRow]) -> list[CourseRow]:
        """Take part in keeping what was published here while no node ran; returns what has to be adopted one by one.

        A course of one unit is known by its row alone. Thousands go on record in a few transactions, each of which
        waits for the disk.
        """
        rest: list[CourseRow] = []
        small: list[CourseRow] = []
        for row in courses:
            units = units_of(row.course, row.bytes)
            kept = all(unit in self.ledger for unit in units)
            if row.why == "published" and row.complete and not kept:
                (small if len(units) == 1 else rest).append(row)
        stated = self.store.custody.stated
        said = await trio.to_thread.run_sync(stated, self.me) if small else {}
        authors = {row.author for row in small}
        wishes = {author: await trio.to_thread.run_sync(stated, author) for author in authors}
        for start in range(0, len(small), TAKEN_ON_AT_ONCE):
            records = []
            for row in small[start : start + TAKEN_ON_AT_ONCE]:
                unit = Unit(row.course, 0)
                before = said.get(unit)
                copies = decode_receipt(before).copies if before is not None else COPIES
                receipt = self.ledger.state(unit, row.bytes, copies, True, int(time.time() * 1000), row.author)
                wish = wishes[row.author].get(unit)
                self.ledger.merge([decode_receipt(wish)] if wish is not None else [])
                records.append((unit.course, unit.segment, row.bytes, (self.me, receipt.encode())))
                self.damaged.pop(unit, None)
            for course, segment in await trio.to_thread.run_sync(self.store.custody.take_on, records):
                self.deny(Unit(course, segment))
        if small:
            self.news()
        return rest

    def circle(self) -> set[Node]:
        """Every other node that holds something that this one holds, or would if its disk were whole."""
        return self.ledger.circle().union(*(self.others.get(unit, frozenset()) for unit in self.damaged))

    async def count_room(self) -> None:
        """See again how much of the room given is taken."""
        self.given = await trio.to_thread.run_sync(self.store.custody.given)

    async def adopt(self, course: bytes, copies: int) -> list[Unit]:
        """Take part in keeping all units of a course that are here as a whole; ``copies`` 0: as many as before.

        Returns them.
        """
        holding = await trio.to_thread.run_sync(self.store.holding, course)
        if holding is None:
            return []
        units = []
        for unit in units_of(course, holding.signed.manifest.bytes):
            if not is_whole(holding, unit):
                continue
            units.append(unit)
            entry = self.ledger.entry(unit)
            if entry is not None and (not copies or entry.receipts[self.me].copies == copies):
                continue
            size = slots_of(unit.segment, holding.index.lengths)[2]
            wanted = copies or COPIES
            if entry is None:
                records = self.store.custody
                said = await trio.to_thread.run_sync(records.receipt, course, unit.segment, self.me)
                if said is not None and not copies:
                    wanted = decode_receipt(said).copies
                await trio.to_thread.run_sync(records.reserve, holding.signed, unit.segment, size, self.give)
            await self.state(unit, size, wanted, holds=True)
        self.news()
        return units

    async def state(self, unit: Unit, size: int, copies: int, *, holds: bool) -> Receipt:
        """Say, on record, that this node holds a unit, or no longer does."""
        author, wish = b"", None
        if holds and unit not in self.ledger:
            author, wish = await trio.to_thread.run_sync(self._asked_before, unit)
        receipt = self.ledger.state(unit, size, min(copies, MOST_COPIES), holds, int(time.time() * 1000), author)
        self.ledger.merge([wish] if wish is not None else [])
        if holds:
            await self._write(unit, size)
            self.damaged.pop(unit, None)
        return receipt

    async def asked_before(self, unit: Unit) -> int:
        """Copies asked for of a unit that is kept here, or was and still is on the disk; 0 where nobody asked."""
        entry = self.ledger.entry(unit)
        if entry is not None:
            return entry.copies
        _, wish = await trio.to_thread.run_sync(self._asked_before, unit)
        return wish.copies if wish is not None else 0

    def _asked_before(self, unit: Unit) -> tuple[bytes, Receipt | None]:
        """Blocking: the author of a unit's course, and the wish that is on record from when it was kept here before."""
        row = self.store.course(unit.course)
        if row is None:
            return b"", None
        said = self.store.custody.receipt(unit.course, unit.segment, row.author)
        return row.author, decode_receipt(said) if said is not None else None

    async def wish(self, units: Iterable[Unit], copies: int, author: bytes, sign: Callable[[bytes], bytes]) -> None:
        """Put on record that ``author``, whose key ``sign`` signs with, wants so many copies of units kept here.

        Nothing for those that are another's, or of which that was the newest wish already.
        """
        for unit in units:
            entry = self.ledger.entry(unit)
            if entry is None or entry.author != author or (entry.wish is not None and entry.wish.copies == copies):
                continue
            now = int(time.time() * 1000)
            await self.learn([sign_wish(unit, author, copies, sign, now=now, before=entry.wish)])

    async def _write(self, unit: Unit, size: int) -> None:
        records = [(each.node, each.encode()) for each in self.receipts_of(unit)]
        await trio.to_thread.run_sync(self.store.custody.hold, unit.course, unit.segment, size, records)

    def deny(self, unit: Unit) -> tuple[frozenset[Node], Receipt] | None:
        """A unit is no longer here: who counted on it, and the receipt that says so. None if it wasn't kept."""
        entry = self.ledger.entry(unit)
        if entry is None:
            return None
        others = entry.holders - {self.me}
        return others, self.ledger.state(unit, entry.size, entry.copies, False, int(time.time() * 1000))

    async def take_leave(self) -> list[tuple[frozenset[Node], Receipt]]:
        """This node goes for good, as far as can be told, with what nobody took: it is to be counted on no more.

        What is here stays here and on record, and is stated anew at the next start. Returns who counted on each unit,
        and the receipt that tells them; they pass it on.
        """
        told = []
        for unit in self.ledger:
            denial = self.deny(unit)
            if denial is not None:
                raw = [(self.me, denial[1].encode())]
                await trio.to_thread.run_sync(self.store.custody.note, unit.course, unit.segment, raw)
                told.append(denial)
        return told

    def receipts_of(self, unit: Unit) -> list[Receipt]:
        """All that is known of a unit; nothing unless it is kept here."""
        entry = self.ledger.entry(unit)
        return list(entry.receipts.values()) if entry is not None else []

    async def learn(self, receipts: Iterable[Receipt]) -> None:
        """Take in, and on record, what others say of units that are kept here."""
        by_unit: dict[Unit, list[tuple[bytes, bytes]]] = {}
        for receipt in self.ledger.merge(receipts):
            if not receipt.holds:
                self.promises.gone(receipt.unit, receipt.node)
            by_unit.setdefault(receipt.unit, []).append((receipt.node, receipt.encode()))
        until = trio.current_time() + WRITE_SECONDS
        for unit, records in by_unit.items():
            # Who is no longer remembered of a unit (``ledger.MOST_NODES``) goes from its record, too.
            entry = self.ledger.entry(unit)
            nodes = frozenset(entry.receipts) if entry is not None else None
            # What counts already is written before the node goes down, too: nobody may tell it again.
            with trio.CancelScope(shield=trio.current_time() < until):
                await trio.to_thread.run_sync(self.store.custody.note, unit.course, unit.segment, records, nodes)
        if by_unit:
            self.news()

    # -- damage ------------------------------------------------------------------------------------------------------

    async def has_whole(self, unit: Unit) -> bool:
        """Whether every chunk of a unit is here, whether it is kept for others or not."""
        return await trio.to_thread.run_sync(self._is_whole, unit)

    def _is_whole(self, unit: Unit) -> bool:
        """Blocking: whether every chunk of a unit is here, as the catalogue has it."""
        holding = self.store.holding(unit.course)
        if holding is None:
            return False
        with holding:
            return is_whole(holding, unit)

    async def look_for_damage(self, course: bytes) -> list[tuple[frozenset[Node], Receipt]]:
        """See which units of a course are no longer whole, and keep them no more as if they were.

        Returns who counted on each, and the receipt that tells them.
        """
        told = []
        for unit in [unit for unit in self.ledger if unit.course == course]:
            if await trio.to_thread.run_sync(self._is_whole, unit) or (entry := self.ledger.entry(unit)) is None:
                continue
            await trio.to_thread.run_sync(self.store.custody.damage, unit.course, unit.segment)
            self.damaged[unit] = entry.copies
            self.others[unit] = entry.holders - {self.me}
            denial = self.deny(unit)
            if denial is not None:
                told.append(denial)
            log.warning("%s.%d is damaged here: it will be fetched again", course.hex()[:12], unit.segment)
        self.news()
        return told

    # -- going -------------------------------------------------------------------------------------------------------

    async def remove(self, course: bytes) -> None:
        """Take a course off this disk that is here for nobody any more, unless this node's person wants it by now."""
        self.withdraw(course)
        try:
            if not await trio.to_thread.run_sync(self.store.give_up, course):
                self.announce(course)
                log.info("%s stays: it is wanted here by now", course.hex()[:12])
        except P2plearnError as error:
            log.warning("could not remove %s: %s", course.hex()[:12], error.message)
        await self.count_room()


def is_whole(holding: Holding, unit: Unit) -> bool:
    """Whether every chunk of a unit is here, as the catalogue has it."""
    first, count, _ = slots_of(unit.segment, holding.index.lengths)
    return holding.complete or all(holding.has(slot) for slot in range(first, first + count))
