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
from dataclasses import dataclass
from typing import Final

import trio

from p2plearn.dht.custody import COPIES, Node, Unit, ranked, segments
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.receipts import Receipt, copies_asked

log = logging.getLogger("p2plearn.custody")

ASKED: Final = 8
"""Nodes asked about a unit, the nearest first: with three copies of which one is here, the next eight hold the others
unless most have no room."""

AT_ONCE: Final = 4

LEAST_SECONDS: Final = 30.0
"""Between two inquiries about one unit, however short the grace period is."""

AGAIN_SECONDS: Final = 300.0
"""The same for a unit of which too few were found: the network may just have come up."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was found: nodes that said, asked just then, that they hold a unit; copies asked for; and when."""

    holders: frozenset[Node]
    wanted: int
    at: float


class Inquiries:
    """``run`` asks; ``heard`` has the answers about units that this node doesn't keep for others itself."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.heard: dict[Unit, Heard] = {}
        self.nobody_since: dict[Unit, float] = {}
        """Units that nobody was found to hold, and since when."""
        self._due: dict[Unit, float] = {}
        self._wake = trio.Event()

    def fetched(self, course: bytes, size: int) -> None:
        """A course is here as a whole now: see soon whether enough others keep it. ``size`` in bytes."""
        for segment in range(segments(size)):
            self._due[Unit(course, segment)] = trio.current_time()
        self._wake.set()

    def forgotten(self, course: bytes) -> None:
        """A course isn't here any more."""
        for unit in [unit for unit in {*self._due, *self.heard} if unit.course == course]:
            self._due.pop(unit, None)
            self.heard.pop(unit, None)

    async def run(self) -> None:
        """Ask about one unit after the other, for ever; no more often than one each heartbeat interval."""
        interval = self._keeper.limits.interval
        looked = -math.inf
        while True:
            now = trio.current_time()
            if now - looked >= max(self._keeper.limits.grace / 4, LEAST_SECONDS):
                looked = now
                await self._look()
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
            await self.ask(unit)
            await trio.sleep(interval)

    async def _look(self) -> None:
        """See what is here that should be asked about: at the start, and when something changed unnoticed."""
        now = trio.current_time()
        store, ledger = self._keeper.store, self._keeper.ledger
        here: set[Unit] = set()
        for row in await trio.to_thread.run_sync(store.courses):
            whole = row.why == "fetched" and row.complete
            units = [Unit(row.course, segment) for segment in range(segments(row.bytes))]
            if whole or (row.why == "custody" and len(units) > 1):
                here.update(unit for unit in units if unit not in ledger)
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
        holders: set[Node] = set()
        asked: set[Node] = set()
        limit = trio.CapacityLimiter(AT_ONCE)

        async def one(node: Node) -> None:
            async with limit:
                told = await keeper.asking.who_keeps(unit, node)
            for receipt in told or ():
                if receipt.node == node and receipt.holds:
                    holders.add(node)
                if receipt.node not in receipts or receipts[receipt.node].time < receipt.time:
                    receipts[receipt.node] = receipt

        while True:
            # Whoever holds it names the others, who may be farther away.
            named = [node for node, receipt in receipts.items() if receipt.holds]
            next_ones = [n for n in [*near[:ASKED], *ranked(unit, named)] if n not in asked | {keeper.ledger.me}]
            if not next_ones:
                break
            asked.update(next_ones)
            async with trio.open_nursery() as nursery:
                for node in dict.fromkeys(next_ones):
                    nursery.start_soon(one, node)
        row = await trio.to_thread.run_sync(keeper.store.course, unit.course)
        wanted = copies_asked(receipts, row.author if row is not None else b"", COPIES)
        now = trio.current_time()
        heard = self.heard[unit] = Heard(frozenset(holders), wanted, now)
        if holders:
            self.nobody_since.pop(unit, None)
        else:
            self.nobody_since.setdefault(unit, now)
        wait = max(keeper.limits.grace, LEAST_SECONDS)
        self._due[unit] = now + (wait if len(holders) >= wanted else min(wait, AGAIN_SECONDS))
        if len(holders) < wanted and row is not None and row.complete and not keeper.kept.leaving and near:
            log.info("takes part in keeping %s: %d of %d do", unit.course.hex()[:12], len(holders), wanted)
            await keeper.kept.adopt(unit.course, wanted)
            await keeper.kept.learn(receipts.values())
            keeper.tell_all(unit)
            self._due.pop(unit, None)
            self.heard.pop(unit, None)
        return heard
