"""Keeps as many copies as were asked for: of what was just published, and of what lost its keepers.

Either is a loop: make a snapshot, plan, copy a few units, look again. Copies are counted by receipts alone, so a
step that failed, or that another node took meanwhile, is seen in the next snapshot and nothing has to be undone.

Imports ``dht`` siblings and ``errors``.
"""

from __future__ import annotations

import bisect
import heapq
import logging
import math
import random
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import trio

from p2plearn.dht.copying import ROUND, Copying
from p2plearn.dht.custody import Node, Unit, ranked
from p2plearn.dht.handoff import Need
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.leaving import Handover, Leaving
from p2plearn.dht.liveness import Life
from p2plearn.dht.messages import Reason
from p2plearn.dht.proving import Challenges
from p2plearn.net.contained import safely

log = logging.getLogger("p2plearn.custody")

ASKED: Final = 8
"""Nodes asked who else holds a unit that this node seems to be alone with: its custodians are among the nearest."""

ALONE_AT_ONCE: Final = 2
ALONE_AGAIN: Final = 30.0
"""In a round so many of the units that only this node seems to hold, and that lack nothing since no more was asked for,
are asked about, each once in so many heartbeat intervals: who left and came back may be one of two."""

LOOKED: Final = 2000
"""Units looked at in one round, besides those that are known to have too many copies, or too few if no more than that
have. A look takes some 20 us, and a round comes every 5 to 20 s at 10 s heartbeats: a node of 10,000 courses sees each
of them every minute, which is little beside a grace period of hours."""

CONFIRM_SECONDS: Final = 6.0
"""For those who hold what is published again to answer that they are there."""


class Repair:
    """See the head of this file. ``run`` repairs; ``place`` and ``leave`` are asked for by a person."""

    def __init__(self, keeper: Keeper, chance: Callable[[], float] = random.random) -> None:
        self._keeper = keeper
        self._chance = chance
        self._copying = Copying(keeper)
        self._duty = self._copying.duty
        self._challenges = Challenges(keeper, chance)
        self._looked_to: Unit | None = None
        self._tried: dict[Unit, float] = {}
        """When units that are short of copies were last asked about or planned for."""
        self._asked_alone: dict[Unit, float] = {}
        """When it was last asked who else holds units that lack nothing, of which this node's is the only copy."""

    def copies(self, unit: Unit) -> int:
        """Verified copies of a unit that are there now, this node's included."""
        entry = self._keeper.ledger.entry(unit)
        return len(self._keeper.there(entry)) if entry is not None else 0

    async def place(self, units: Iterable[Unit], tell: Callable[[int], None]) -> int:
        """Copy ``units`` until each has as many copies as asked for, or nobody is left to take one.

        ``tell`` gets the copies of the least kept unit each time one is verified; returns them at the end. Only copies
        count that are there and can be shown: a person will rely on them. Cancelled it has lost nothing: ``run`` goes
        on with it.
        """
        units = list(units)
        await self._see_who_is_there(units)
        away = {
            node
            for unit in units
            if (entry := self._keeper.ledger.entry(unit)) is not None
            for node in entry.holders - self._keeper.there(entry)
        }

        def needed(unit: Unit) -> Need | None:
            return self._copying.need(unit, away)

        def fewest() -> int:
            return min((self.copies(unit) for unit in units), default=0)

        tell(fewest())
        while not self._keeper.asking.paused:
            self._forget()
            made = await self._copying.plan(need for unit in units if (need := needed(unit)) is not None)
            progress = await self._copying.carry_out(made.transfers, needed, lambda: tell(fewest()))
            if not progress and not (made.transfers or self._duty.waits_for_busy(units, trio.current_time())):
                return fewest()
            if not progress:
                await trio.sleep(0.5)
        log.info("no copies are made: this node is paused")
        return fewest()

    async def _see_who_is_there(self, units: Iterable[Unit]) -> None:
        """Have everybody who says that they hold one of ``units`` answer, and show a range of it."""
        keeper = self._keeper
        pairs = {
            (unit, node)
            for unit in units
            if (entry := keeper.ledger.entry(unit)) is not None
            for node in entry.holders - {keeper.ledger.me}
        }
        await keeper.vigil.confirm({node for _, node in pairs}, CONFIRM_SECONDS)
        limit = trio.CapacityLimiter(ASKED)

        async def show(unit: Unit, node: Node) -> None:
            async with limit:
                if await keeper.asking.challenge(unit, node) is False:
                    keeper.asking.disprove(unit, node)

        async with trio.open_nursery() as nursery:
            for unit, node in pairs:
                if keeper.vigil.is_heard(node):
                    nursery.start_soon(show, unit, node)

    async def run(self) -> None:
        """Bring what this node keeps back to as many copies as asked for, for ever; let go of what is too much."""
        keeper = self._keeper
        pause = keeper.limits.interval
        while True:
            changed = keeper.kept.changed
            with trio.move_on_after(pause):
                await changed.wait()
                await trio.sleep(min(0.5, keeper.limits.interval))  # several things change together
            if keeper.kept.leaving or not keeper.calls.nodes():
                continue  # with nobody to ask there is nothing to be done, however much lacks copies
            await safely(log, "a round of repair", self._round)
            await trio.sleep(keeper.limits.interval * (0.5 + 0.5 * self._chance()))

    async def _round(self) -> None:
        now = trio.current_time()
        self._forget()
        looked = self._next_to_look_at()
        known = self._duty.short()
        short: list[Need] = []
        for unit in looked | known if len(known) <= LOOKED else looked:
            need = self._copying.need(unit)
            if need is not None:
                alive = {node for node in need.holders if self._lives(node)}
                if self._duty.repairs(need, alive, now):
                    short.append(need)
        # Of those with equally few copies the one that was longest not tried: nobody may have room for the first ones.
        short.sort(key=lambda need: (-need.missing, self._tried.get(need.unit, 0.0), need.unit))
        mine: list[Need] = []
        for need in short[:ROUND]:
            self._tried[need.unit] = now
            if not await self._finds_others(need.unit):  # else it is looked at again with what was learned
                mine.append(need)
        if mine and not self._keeper.asking.paused:
            made = await self._copying.plan(mine)
            if made.transfers:
                log.info("repairs %d of %d units", len({each.unit for each in made.transfers}), len(short))
            await self._copying.carry_out(made.transfers, self._copying.need)
        await self._ask_who_is_alone(looked, now)
        await self._release_surplus(looked)
        await self._challenges.look()

    def _forget(self) -> None:
        kept = set(self._keeper.ledger)
        self._duty.keep_to(kept, trio.current_time())
        self._tried = {unit: at for unit, at in self._tried.items() if unit in kept}
        self._asked_alone = {unit: at for unit, at in self._asked_alone.items() if unit in kept}

    def _next_to_look_at(self) -> set[Unit]:
        """Up to ``LOOKED`` units, those after the last ones; all in turn, and all at once where there are no more."""
        units = list(self._keeper.ledger)
        if len(units) <= LOOKED:
            return set(units)
        units.sort()
        begin = bisect.bisect_right(units, self._looked_to) if self._looked_to is not None else 0
        chosen = [*units[begin : begin + LOOKED], *units[: max(0, begin + LOOKED - len(units))]]
        self._looked_to = chosen[-1]
        return set(chosen)

    async def _ask_who_is_alone(self, looked: Collection[Unit], now: float) -> None:
        """Look for other holders of units that lack no copies with just this node's."""
        keeper, asked = self._keeper, self._asked_alone
        again = now - ALONE_AGAIN * keeper.limits.interval
        sole = [
            (asked.get(unit, -math.inf), unit)
            for unit in looked
            if (entry := keeper.ledger.entry(unit)) is not None and entry.copies <= 1 and self._is_alone(unit)
        ]
        for last, unit in heapq.nsmallest(ALONE_AT_ONCE, sole):
            if last <= again:
                asked[unit] = now
                await self._finds_others(unit)

    async def _finds_others(self, unit: Unit) -> bool:
        """Of a unit of which no other holder was ever heard, ask those nearest to it; whether there was somebody.

        Who offered it may have gone before it could say who the others are, and before it could tell them.
        """
        keeper = self._keeper
        if not self._is_alone(unit):
            return False
        for node in (await keeper.calls.nearest(unit.name))[:ASKED]:
            await keeper.kept.learn(await keeper.asking.who_keeps(unit, node) or ())
            if not self._is_alone(unit):
                return True
        return False

    def _is_alone(self, unit: Unit) -> bool:
        """Whether a unit is kept here, and no other holder of it is known."""
        entry, me = self._keeper.ledger.entry(unit), self._keeper.ledger.me
        return entry is not None and entry.holders == {me}

    def _lives(self, node: Node) -> bool:
        me = self._keeper.ledger.me
        return node == me or self._keeper.vigil.detector.life(node) in {Life.ALIVE, Life.SUSPECT}

    async def _release_surplus(self, looked: Collection[Unit]) -> None:
        keeper, now, me = self._keeper, trio.current_time(), self._keeper.ledger.me
        for unit in sorted({*looked} | self._duty.surplus()):
            entry = keeper.ledger.entry(unit)
            if entry is None:
                continue
            there = [node for node in entry.holders if node == me or keeper.vigil.is_there(node)]
            # The wait goes on while another lets go relying on this copy: there may be one too many after it, too.
            if not self._duty.releases(unit, there, entry.copies, now) or keeper.kept.promises.holds(unit, now):
                continue
            row = await trio.to_thread.run_sync(keeper.store.course, unit.course)
            if row is None or row.why == "published":
                continue  # what was fetched stays on the disk; it is only counted on no more
            failed = await keeper.let_go(unit, [node for node in ranked(unit, there) if node != me], lambda _: None)
            if unit not in keeper.ledger:
                log.info("released %s.%d: enough others keep it", unit.course.hex()[:12], unit.segment)
            if Reason.BUSY not in failed.values():  # who was busy has let another go, and will soon be free
                self._duty.not_released(unit)

    async def leave(self, handover: Handover) -> None:
        """Hand everything over that this node keeps: see ``Leaving.run``."""
        await Leaving(self._keeper, self._copying, handover).run()

    def figures(self) -> dict[str, Any]:
        """Numbers for ``status``."""
        ledger, giving = self._keeper.ledger, self._duty.giving
        return {"units": len(ledger), "others": len(ledger.circle()), "repairing": sum(map(len, giving.values()))}
