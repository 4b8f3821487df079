"""Who keeps what this node has but isn't counted on for: what its person fetched, and the rest of a large course.

What was fetched is a copy like any other. As long as enough others keep the course, this one is its person's own and
may go at any time; when fewer do than were asked for, this node takes part in keeping it: it is counted, named and
repaired like everything here. Of a large course that is here in part, the segments that nobody keeps any more are
named.

Imports ``dht`` siblings.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import trio

from p2plearn.config import COPIES
from p2plearn.dht.custody import Node, Unit, ranked, units_of
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.receipts import Receipt, copies_asked
from p2plearn.dht.standing import Whereabouts
from p2plearn.net.contained import safely

log = logging.getLogger("p2plearn.custody")

ASKED: Final = 8
"""Nodes asked about a unit, the nearest first: with three copies of which one is here, the next eight hold the others
unless most have no room."""

AT_ONCE: Final = 4

LEAST_LOOK: Final = 10.0
"""Seconds between two looks at what should be asked about, however much changes."""

LEAST_SECONDS: Final = 30.0
"""Between two inquiries about one unit, however short the grace period is."""

AGAIN: Final = 30.0
"""Heartbeat intervals after which the same is done for a unit of which too few were found, or are left: the network
may just have come up. At least ``LEAST_SECONDS``."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was found: nodes that said, asked just then, that they hold a unit; copies asked for; and when.

    ``silent``: those who had said so before and didn't answer any more, and since when.
    """

    holders: frozenset[Node]
    wanted: int
    at: float
    silent: Mapping[Node, float] = field(default_factory=dict)


class Inquiries:
    """``run`` asks; ``heard`` has the answers about units that this node doesn't keep for others itself."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.heard: dict[Unit, Heard] = {}
        self.nobody_since: dict[Unit, float] = {}
        """Units that nobody was found to hold, and since when."""
        self._due: dict[Unit, float] = {}
        self._in_part: set[bytes] = set()
        """Courses of which this node keeps some segments for others and not all."""
        self._units = -1
        """Units that were kept here when it was last looked what should be asked about."""
        keeper.also_watched = self.watched
        self._wake = trio.Event()

    def fetched(self, course: bytes, size: int) -> None:
        """A course, or some of it, was fetched: see soon whether enough others keep it. ``size`` in bytes."""
        for unit in units_of(course, size):
            self._due[unit] = trio.current_time()
        self._wake.set()

    def forgotten(self, course: bytes) -> None:
        """A course isn't here any more."""
        for unit in [unit for unit in {*self._due, *self.heard} if unit.course == course]:
            self._due.pop(unit, None)
            self.heard.pop(unit, None)

    def watched(self) -> set[Node]:
        """Who holds the rest of what is kept here in part: they are watched as those are with whom a unit is shared."""
        found: set[Node] = set()
        for unit, told in self.heard.items():
            if unit.course in self._in_part:
                found |= told.holders | told.silent.keys()
        return found - {self._keeper.ledger.me}

    def _soon(self) -> float:
        return max(AGAIN * self._keeper.limits.interval, LEAST_SECONDS)

    def _hurry(self) -> None:
        """Of what is kept in part and has fewer copies left than were found, ask again soon."""
        for unit, told in self.heard.items():
            if unit.course in self._in_part and unit in self._due:
                left = sum(self._keeper.whereabouts(node) is Whereabouts.THERE for node in told.holders)
                if left < told.wanted:
                    self._due[unit] = min(self._due[unit], told.at + self._soon())

    async def run(self) -> None:
        """Ask about one unit after the other, for ever; no more often than one each heartbeat interval."""
        interval = self._keeper.limits.interval
        looked = -math.inf
        while True:
            now = trio.current_time()
            # When more or less is kept than before, segments of a course may have come that have neighbours.
            changed = len(self._keeper.ledger) != self._units
            if now - looked >= (LEAST_LOOK if changed else max(self._keeper.limits.grace / 4, LEAST_SECONDS)):
                looked = now
                await safely(log, "custody: a look at what to ask about", self._look)
            self._hurry()
            unit = min(self._due, key=lambda unit: (self._due[unit], unit), default=None)
            if unit is None or self._due[unit] > now:
                with trio.move_on_after(max(interval, LEAST_SECONDS / 4)):
                    await self._wake.wait()
                self._wake = trio.Event()
                continue
            if unit in self._keeper.ledger:
                del self._due[unit]
                self.heard.pop(unit, None)
                continue
            if await safely(log, "custody: asking who keeps a unit", self.ask, unit) is None:
                self._due[unit] = trio.current_time() + self._soon()  # the others' turn comes first
            await trio.sleep(interval)

    async def _look(self) -> None:
        """See what is here that should be asked about: at the start, and when something changed unnoticed."""
        now = trio.current_time()
        store, ledger = self._keeper.store, self._keeper.ledger
        here: set[Unit] = set()
        self._units = len(ledger)
        self._in_part = set()
        for row in await trio.to_thread.run_sync(store.courses):
            units = units_of(row.course, row.bytes)
            rest = [unit for unit in units if unit not in ledger]
            if len(units) > 1 and 0 < len(rest) < len(units):
                self._in_part.add(row.course)
            if row.why == "fetched" or (row.why == "custody" and len(units) > 1):
                here.update(rest)
        for unit in here:
            self._due.setdefault(unit, now)
        self.nobody_since = {unit: since for unit, since in self.nobody_since.items() if unit in self.heard}
        for unit in [unit for unit in self._due if unit not in here]:
            del self._due[unit]
            self.heard.pop(unit, None)

    async def ask(self, unit: Unit) -> Heard:
        """Ask who keeps a unit now; takes part in keeping what is here as a whole and too few others keep."""
        keeper = self._keeper
        near = [node for node in await keeper.calls.nearest(unit.name) if node != keeper.ledger.me]
        receipts: dict[Node, Receipt] = {}
        before = self.heard.get(unit)
        known = {*before.holders, *before.silent} if before is not None else set()
        holders: set[Node] = set()
        answered: set[Node] = set()
        asked: set[Node] = set()
        limit = trio.CapacityLimiter(AT_ONCE)

        async def one(node: Node) -> None:
            async with limit:
                told = await keeper.asking.who_keeps(unit, node)
            if told is not None:
                answered.add(node)
                keeper.vigil.seen(node)
            for receipt in told or ():
                if receipt.node == node and receipt.holds:
                    holders.add(node)
                if receipt.node not in receipts or receipts[receipt.node].time < receipt.time:
                    receipts[receipt.node] = receipt

        while True:
            # Whoever holds it names the others, who may be farther away.
            named = [node for node, receipt in receipts.items() if receipt.holds]
            next_ones = [
                n for n in [*near[:ASKED], *ranked(unit, {*named, *known})] if n not in asked | {keeper.ledger.me}
            ]
            if not next_ones:
                break
            asked.update(next_ones)
            async with trio.open_nursery() as nursery:
                for node in dict.fromkeys(next_ones):
                    nursery.start_soon(one, node)
        row = await trio.to_thread.run_sync(keeper.store.course, unit.course)
        wanted = copies_asked(receipts, row.author if row is not None else b"", self._asked_for(unit))
        now = trio.current_time()
        since = before.silent if before is not None else {}
        silent = {node: since.get(node, now) for node in known - answered}
        silent = {node: at for node, at in silent.items() if now - at < keeper.limits.grace}
        heard = self.heard[unit] = Heard(frozenset(holders), wanted, now, silent)
        if holders:
            self.nobody_since.pop(unit, None)
        else:
            self.nobody_since.setdefault(unit, now)
        wait = max(keeper.limits.grace, LEAST_SECONDS)
        self._due[unit] = now + (wait if len(holders) >= wanted else min(wait, self._soon()))
        its_own = row is not None and row.why != "custody"
        joins = len(holders) < wanted and its_own and not keeper.kept.leaving and near
        if joins and await keeper.kept.has_whole(unit):
            log.info("takes part in keeping %s: %d of %d do", unit.course.hex()[:12], len(holders), wanted)
            await keeper.kept.adopt(unit.course, wanted)
            await keeper.kept.learn(receipts.values())
            keeper.tell_all(unit)
            self._due.pop(unit, None)
            self.heard.pop(unit, None)
        return heard

    def _asked_for(self, unit: Unit) -> int:
        """Copies asked for of a unit as far as is known without anybody's answer."""
        before, ledger = self.heard.get(unit), self._keeper.ledger
        beside = (ledger.entry(each) for each in ledger if each.course == unit.course)
        return before.wanted if before is not None else max((each.copies for each in beside if each), default=COPIES)
