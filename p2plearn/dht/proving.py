"""Challenges: having other holders show, now and then, a random range of what they said they keep.

Who can't show it no longer counts, is asked at once for everything else that it says it shares with this node, and
counts again once it has shown the unit. One that acknowledges and drops is so found within one round of challenges.

Imports ``dht`` siblings.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final

import trio

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.keeper import Keeper

CHALLENGES: Final = 60.0
"""Heartbeat intervals between two times at which this node challenges others, in the mean."""

ROUND: Final = 8640.0
"""Heartbeat intervals in which everybody is to have shown everything, a day: where that is more than one unit at a
time, more are asked for. Twenty thousand (ten thousand courses of three copies) are 139 at a time, some ten reads a
second while it lasts."""

AT_ONCE: Final = 20
"""Units asked for in one go of a node that failed."""


class Challenges:
    """Call ``look`` often; it asks somebody when it is time. ``chance`` gives numbers in [0, 1)."""

    def __init__(self, keeper: Keeper, chance: Callable[[], float]) -> None:
        self._keeper = keeper
        self._chance = chance
        self._last = -math.inf
        self._asked: dict[tuple[Unit, Node], float] = {}
        """When each showed each, or a number below zero: not since the start. Nobody's turn depends on its name, else a
        machine that is started anew each day would ask for the same few day after day."""

    async def look(self) -> None:
        """Have the nodes that were least lately asked show a random range of a unit each, if it is time."""
        now = trio.current_time()
        if now - self._last < CHALLENGES * self._keeper.limits.interval * (0.5 + self._chance()):
            return
        self._last = now
        pairs = self._pairs()
        self._asked = {pair: self._asked.get(pair, -1.0 - self._chance()) for pair in sorted(pairs)}
        suspects: set[Node] = set()
        for pair in heapq.nsmallest(math.ceil(len(pairs) * CHALLENGES / ROUND), pairs, key=self._turn):
            if pair[1] not in suspects and await self._ask(*pair) is False:
                suspects.add(pair[1])
        for node in sorted(suspects):
            for pair in sorted((pair for pair in pairs if pair[1] == node), key=self._turn)[:AT_ONCE]:
                await self._ask(*pair)

    def _turn(self, pair: tuple[Unit, Node]) -> tuple[float, bool, float]:
        """The smallest is next. One that failed has to show it before it counts: those first among equals."""
        asked = self._asked[pair]
        return max(asked, -1.0), not self._failed(*pair), asked

    def _pairs(self) -> set[tuple[Unit, Node]]:
        """(unit, node) for all who say that they hold what this node holds, and who are there."""
        ledger, vigil = self._keeper.ledger, self._keeper.vigil
        return {
            (unit, node)
            for unit in ledger
            if (entry := ledger.entry(unit)) is not None
            for node in entry.holders | entry.disproved
            if node != ledger.me and (node in entry.disproved or vigil.is_there(node))
        }

    def _failed(self, unit: Unit, node: Node) -> bool:
        entry = self._keeper.ledger.entry(unit)
        return entry is not None and node in entry.disproved

    async def _ask(self, unit: Unit, node: Node) -> bool | None:
        self._asked[unit, node] = trio.current_time()
        shown = await self._keeper.asking.challenge(unit, node)
        entry = self._keeper.ledger.entry(unit)
        if shown is False:
            self._keeper.asking.disprove(unit, node)
        elif shown and entry is not None and node in entry.disproved:
            entry.disproved.discard(node)
            self._keeper.kept.news()
        return shown
