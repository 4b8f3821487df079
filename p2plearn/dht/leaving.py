"""Handing over all that this node keeps, for going for good.

One loop: let go of what enough others hold, copy what fewer do, look again. Nothing counts but nodes that are there
now and stay: nothing may depend on somebody who only might come back.

Imports ``dht`` siblings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import trio

from p2plearn.dht.copying import AT_ONCE, Copying
from p2plearn.dht.custody import Node, Unit, ranked
from p2plearn.dht.handoff import Need
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.messages import Reason
from p2plearn.dht.receipts import Receipt

BUSY_PATIENCE: Final = 90.0
NOBODY_PATIENCE: Final = 3.0
"""Seconds without a step after which a leaver gives up: while others are busy, and when there is nobody to ask."""


@dataclass(slots=True)
class Handover:
    """How a leave stands: ``placed`` units with a receipt each, ``unplaced`` with (copies elsewhere, copies asked)."""

    total: int = 0
    total_bytes: int = 0
    bytes: int = 0
    placed: dict[Unit, tuple[Receipt, ...]] = field(default_factory=dict)
    unplaced: dict[Unit, tuple[int, int]] = field(default_factory=dict)


class Leaving:
    """One leave; ``handover`` says how it goes and how it ended."""

    def __init__(self, keeper: Keeper, copying: Copying, handover: Handover) -> None:
        self._keeper = keeper
        self._copying = copying
        self._handover = handover
        self._doubtful: dict[Unit, set[Node]] = {}
        """Those who might hold a unit, but couldn't be relied on when it was to be let go of."""

    async def run(self) -> None:
        """Hand over until every unit was let go of, or nobody is left to take what remains.

        Cancelled or not, what was not let go of stays on the disk, and this node goes on serving it until it stops.
        """
        keeper, copying, handover = self._keeper, self._copying, self._handover
        keeper.kept.leaving = True
        handover.total = len(keeper.ledger)
        handover.total_bytes = sum(e.size for unit in keeper.ledger if (e := keeper.ledger.entry(unit)) is not None)
        moved_at = trio.current_time()
        while True:
            copying.duty.keep_to(set(keeper.ledger), trio.current_time())
            moved = await self._let_go_of_what_is_kept()
            needs = [need for unit in keeper.ledger if (need := self._need(unit)) is not None]
            handover.unplaced = {need.unit: (len(need.holders), need.copies) for need in needs}
            if not needs:
                return
            now = trio.current_time()
            mine = [need for need in needs if copying.duty.hands_over(need, self._leavers(need.unit), now)]
            made = await copying.plan(mine)
            moved = await copying.carry_out(made.transfers, self._need) or moved
            now = trio.current_time()
            if moved:
                moved_at = now
                continue
            busy = copying.duty.waits_for_busy(keeper.ledger, now) or len(mine) < len(needs)
            if now - moved_at > (BUSY_PATIENCE if busy else NOBODY_PATIENCE):
                return
            self._doubtful.clear()  # a beat that was lost, a node that came back: worth another try
            await trio.sleep(0.5)

    def _need(self, unit: Unit) -> Need | None:
        keeper, me = self._keeper, self._keeper.ledger.me
        entry = keeper.ledger.entry(unit)
        if entry is None:
            return None
        # Those away don't count, however briefly.
        away = {node for node in entry.holders if node != me and not keeper.vigil.is_there(node)}
        return self._copying.need(unit, {me} | away | self._doubtful.get(unit, set()))

    def _leavers(self, unit: Unit) -> list[Node]:
        """Other holders of a unit that are there and leave, too."""
        keeper, entry = self._keeper, self._keeper.ledger.entry(unit)
        return [] if entry is None else [node for node in entry.holders if keeper.vigil.is_leaving(node)]

    async def _let_go_of_what_is_kept(self) -> bool:
        """Let go of each unit that enough others hold; whether there was one."""
        keeper, handover = self._keeper, self._handover
        limit = trio.CapacityLimiter(AT_ONCE)
        moved = False

        async def one(need: Need) -> None:
            nonlocal moved
            entry = keeper.ledger.entry(need.unit)

            def gone(receipts: tuple[Receipt, ...]) -> None:
                nonlocal moved
                moved = True
                handover.placed[need.unit] = receipts
                handover.bytes += entry.size if entry is not None else 0
                handover.unplaced.pop(need.unit, None)

            async with limit:
                failed = await keeper.let_go(need.unit, ranked(need.unit, need.holders), gone)
            if need.unit not in handover.placed:
                # Who is busy letting another go will be free in a moment; anybody else's copy can't be relied on.
                doubts = {node for node, why in failed.items() if why is not Reason.BUSY}
                self._doubtful.setdefault(need.unit, set()).update(doubts)

        async with trio.open_nursery() as nursery:
            for unit in keeper.ledger:
                need = self._need(unit)
                if need is not None and not need.missing and not need.coming:
                    nursery.start_soon(one, need)
        return moved
