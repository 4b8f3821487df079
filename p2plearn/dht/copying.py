"""Copies made: over the nodes nearest to each unit that say they have room, a few units at a time.

Publishing, repair and leaving make copies alike; they differ in whose copies count, which they say by the needs that
they hand in. What was declined, and what is under way, is remembered in ``duty`` for all of them together.

Imports ``dht`` siblings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

import trio

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.duty import Duty
from p2plearn.dht.handoff import Need, Plan, Transfer, plan
from p2plearn.dht.heartbeat import FRESH
from p2plearn.dht.keeper import Keeper

log = logging.getLogger("p2plearn.custody")

AT_ONCE: Final = 3
"""Units that one node copies to others at a time: repair must leave room for people's gets."""

ROUND: Final = 24
"""Units looked after in one round, those with the fewest copies first."""


class Copying:
    """The copies that ``keeper``'s node makes on others."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.duty = Duty(keeper.ledger.me, keeper.limits.interval, keeper.limits.grace)

    def need(self, unit: Unit, without: Collection[Node] = ()) -> Need | None:
        """A unit as it stands, not counting the copies of ``without``."""
        keeper, entry = self._keeper, self._keeper.ledger.entry(unit)
        if entry is None:
            return None
        holders = keeper.counted(entry) - frozenset(without)
        return self.duty.need(unit, entry, holders, trio.current_time())

    async def plan(self, needs: Iterable[Need]) -> Plan:
        """A plan for the most urgent of ``needs``, over the nodes nearest to each that say they have room."""
        wanting = sorted((need for need in needs if need.missing), key=lambda need: (-need.missing, need.unit))[:ROUND]
        near: set[Node] = set()
        limit = trio.CapacityLimiter(4)

        async def look(need: Need) -> None:
            async with limit:
                near.update(await self._keeper.calls.nearest(need.unit.name))

        async with trio.open_nursery() as nursery:
            for need in wanting:
                nursery.start_soon(look, need)
        return plan(wanting, await self._free(near - {self._keeper.ledger.me}))

    async def _free(self, nodes: Iterable[Node]) -> dict[Node, int]:
        """Those of ``nodes`` that are there and stay, with the bytes they still give."""
        vigil, now = self._keeper.vigil, trio.current_time()
        free: dict[Node, int] = {}
        limit = trio.CapacityLimiter(16)

        async def ask(node: Node) -> None:
            told = vigil.told.get(node)
            fresh = told is not None and now - told.at < FRESH * vigil.interval
            async with limit:
                beat = told.beat if fresh and told is not None else await vigil.ask(node)
            if beat is not None and not beat.leaving:
                free[node] = beat.free

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(ask, node)
        return free

    async def carry_out(
        self,
        transfers: Iterable[Transfer],
        need: Callable[[Unit], Need | None],
        done: Callable[[], None] = lambda: None,
    ) -> bool:
        """Make copies, a few at a time, of what is still lacking by ``need`` when its turn comes; whether any was made.

        ``done`` is called after each.
        """
        limit = trio.CapacityLimiter(AT_ONCE)
        made = False

        async def one(transfer: Transfer) -> None:
            nonlocal made
            try:
                async with limit:
                    now = need(transfer.unit)
                    if now is None or not self.duty.still_wanted(now, transfer.to):
                        return
                    declined = await self._keeper.give(transfer.unit, transfer.to)
            finally:
                self.duty.ended(transfer.unit, transfer.to)
            if declined is None:
                made = True
                done()
                return
            self.duty.declined(transfer.unit, transfer.to, declined.reason, trio.current_time())
            if not self._keeper.asking.paused:
                to, course = transfer.to.hex()[:8], transfer.unit.course.hex()[:12]
                log.info("%s doesn't take %s: %s", to, course, declined.words)

        async with trio.open_nursery() as nursery:
            for transfer in transfers:
                self.duty.begun(transfer.unit, transfer.to)
                nursery.start_soon(one, transfer)
        return made
