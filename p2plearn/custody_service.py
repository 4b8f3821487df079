"""What keeping copies means to the person of a node: copies in words and figures, publishing, leaving, cleaning up.

Imports ``dht``, ``net.addresses``, ``store``, ``operations``.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import trio

from p2plearn.dht.custody import Node, Unit, peer_id_of
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.receipts import Receipt
from p2plearn.dht.repair import Handover, Repair
from p2plearn.net.addresses import peer_name
from p2plearn.operations import LeaveResult, Progress, Report
from p2plearn.store.catalogue import CourseRow

logger = logging.getLogger(__name__)

LEAVE_SECONDS: Final = 600.0
"""For which a node that was told to leave tries, unless told otherwise."""

PUBLISH_SECONDS: Final = 60.0
"""For which a publish waits for copies; after that they go on being made behind its back."""


class CustodyService:
    """The part of ``NodeOperations`` that is about copies."""

    def __init__(self, keeper: Keeper, repair: Repair) -> None:
        self.keeper = keeper
        self.repair = repair
        self._store = keeper.store

    # -- publishing --------------------------------------------------------------------------------------------------

    async def published(self, course: bytes, copies: int, title: str, report: Report) -> int:
        """Have copies of a course made that was just published; how many are verified, this node's included.

        Returns when there are enough, when nobody is left to ask, or after ``PUBLISH_SECONDS``.
        """
        await trio.to_thread.run_sync(self._store.custody.claim, course, "published")
        units = await self.keeper.adopt(course, copies)
        latest = 1

        def tell(now: int) -> None:
            nonlocal latest
            latest = now
            words = f"copies on other nodes ({now} of {copies} verified)"
            report(Progress("copying", now, copies, waiting_for=words, title=title))

        with trio.move_on_after(PUBLISH_SECONDS):
            latest = await self.repair.place(units, tell)
        return min((self.repair.copies(unit) for unit in units), default=latest)

    async def removed(self, course: bytes) -> None:
        """A course is about to be removed by its person: it counts nowhere any more."""
        self.keeper.forgotten(course)

    # -- looking -----------------------------------------------------------------------------------------------------

    def copies_of(self, course: bytes) -> dict[str, Any]:
        """Copies of a course as this node knows them; ``copies`` 0 if it doesn't take part in keeping it."""
        units = [unit for unit in self.keeper.ledger if unit.course == course]
        if not units:
            return {"copies": 0, "copies_wanted": 0, "where": []}
        fewest = min(units, key=lambda unit: (self.repair.copies(unit), unit.segment))
        entry = self.keeper.ledger.entry(fewest)
        assert entry is not None  # noqa: S101 - from the ledger
        return {
            "copies": self.repair.copies(fewest),
            "copies_wanted": entry.copies,
            "where": [
                {"peer_id": _name(node), "life": self._life(node), "since": entry.receipts[node].time // 1000}
                for node in sorted(entry.holders)
            ],
        }

    def _life(self, node: Node) -> str:
        return "this node" if node == self.keeper.ledger.me else self.keeper.vigil.detector.life(node).value

    async def figures(self) -> dict[str, Any]:
        """What ``status`` says of copies: room given, and by name every course with fewer copies than asked for."""
        rows = await trio.to_thread.run_sync(self._store.courses)
        given = await trio.to_thread.run_sync(self._store.custody.given)
        return {
            "custody": {
                "give": self.keeper.limits.give,
                "given": given,
                **self.repair.figures(),
                "leaving": self.keeper.leaving,
                "under_replicated": self._short(rows, without_me=False),
                "lost": [
                    {"course": row.course.hex(), "title": row.title, "missing_bytes": row.bytes - row.have_bytes}
                    for row in rows
                    if not row.complete and row.why == "published"
                ],
            }
        }

    def _short(self, rows: list[CourseRow], *, without_me: bool) -> list[dict[str, Any]]:
        short = []
        for row in rows:
            facts = self.copies_of(row.course)
            copies = facts["copies"] - without_me
            if facts["copies_wanted"] and copies < facts["copies_wanted"]:
                entry = {"course": row.course.hex(), "title": row.title, "copies": copies}
                short.append(entry | {"copies_wanted": facts["copies_wanted"]})
        return short

    async def short_without_me(self) -> list[dict[str, Any]]:
        """Courses that have fewer copies than asked for once this node is stopped."""
        return self._short(await trio.to_thread.run_sync(self._store.courses), without_me=True)

    async def gc(self, dry_run: bool) -> dict[str, Any]:
        """Free what nobody needs any more; with ``dry_run`` say only what would go."""
        unneeded = self._store.custody.is_unneeded
        courses = [
            {"course": row.course.hex(), "title": row.title, "bytes": row.have_bytes}
            for row in await trio.to_thread.run_sync(self._store.courses)
            if row.why == "custody" and await trio.to_thread.run_sync(unneeded, row.course)
        ]
        freed = 0
        if dry_run:
            freed = sum(int(str(course["bytes"])) for course in courses)
        else:
            for course in courses:
                freed += await trio.to_thread.run_sync(self._store.remove, bytes.fromhex(str(course["course"])))
        sweep = await trio.to_thread.run_sync(self._store.gc, dry_run)
        return {"dry_run": dry_run, "courses": courses, "freed": freed + sweep.freed}

    # -- leaving -----------------------------------------------------------------------------------------------------

    async def leave(self, deadline: float, report: Report) -> LeaveResult:
        """Hand over all that this node keeps, within ``deadline`` seconds; it serves on until it is stopped.

        When the caller hangs up, the node stays and keeps what it has.
        """
        begun = trio.current_time()
        rows = await trio.to_thread.run_sync(self._store.courses)
        for row in rows:
            if row.complete and row.why != "custody":
                # What was fetched has custodians of its own, as a rule: offered to the nearest nodes it is found there.
                await self.keeper.adopt(row.course, 0)
        titles = {row.course: row.title for row in rows}
        handover = Handover()
        left = False
        try:
            with trio.move_on_after(deadline):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell, handover, report)
                    await self.repair.leave(handover)
                    nursery.cancel_scope.cancel()
            left = True
        finally:
            self.keeper.leaving = left
        for unit in self.keeper.ledger:
            entry = self.keeper.ledger.entry(unit)
            if entry is not None:
                elsewhere = len(self.keeper.counted(entry)) - 1
                handover.unplaced.setdefault(unit, (elsewhere, entry.copies))
        return LeaveResult(
            units=handover.total,
            bytes=handover.bytes,
            seconds=trio.current_time() - begun,
            placed=tuple(self._placed(unit, receipts, titles) for unit, receipts in handover.placed.items()),
            unplaced=tuple(
                {**_named(unit, titles), "copies": have, "copies_wanted": wanted}
                for unit, (have, wanted) in handover.unplaced.items()
            ),
        )

    def _placed(self, unit: Unit, receipts: tuple[Receipt, ...], titles: dict[bytes, str]) -> dict[str, Any]:
        return {
            **_named(unit, titles),
            "receipts": [{"peer_id": _name(each.node), "receipt": each.encode().hex()} for each in receipts],
        }

    async def before_stop(self, *, leave: bool) -> None:
        """Before the node goes: hand over first if that is wanted, and say what has fewer copies without it."""
        if leave and not self.keeper.leaving:
            result = await self.leave(LEAVE_SECONDS, lambda progress: None)
            logger.info("handed over %d of %d units", len(result.placed), result.units)
        for course in await self.short_without_me():
            logger.warning(
                "%s (%s) has %d of %d copies without this node",
                course["title"], course["course"][:12], course["copies"], course["copies_wanted"],
            )  # fmt: skip

    async def _tell(self, handover: Handover, report: Report) -> None:
        while True:
            done = len(handover.placed)
            waiting = f"others to take what is left ({done} of {handover.total} handed over)"
            report(
                Progress(
                    "handing over", handover.bytes, handover.total_bytes, done, handover.total, waiting_for=waiting
                )
            )
            await trio.sleep(0.2)


def _name(node: Node) -> str:
    return peer_name(peer_id_of(node))


def _named(unit: Unit, titles: dict[bytes, str]) -> dict[str, Any]:
    return {"course": unit.course.hex(), "segment": unit.segment, "title": titles.get(unit.course, "")}
