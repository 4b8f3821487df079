"""What keeping copies means to the person of a node: publishing, removing, leaving, cleaning up.

How courses stand is told by ``replication``.

Imports ``config``, ``dht``, ``errors``, ``identity``, ``net``, ``operations``, ``replication``, ``store``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import trio

from p2plearn.config import COPIES
from p2plearn.dht.custody import Node, Unit, units_of
from p2plearn.dht.directory import Directory
from p2plearn.dht.elsewhere import Search, goes_if_elsewhere
from p2plearn.dht.inquiries import Inquiries
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.leaving import Handover
from p2plearn.dht.parting import ASK_SECONDS, WITHDRAW_SECONDS, Parting
from p2plearn.dht.receipts import Receipt
from p2plearn.dht.repair import Repair
from p2plearn.errors import Refused
from p2plearn.identity import SigningKey
from p2plearn.net.contained import safely
from p2plearn.operations import LeaveResult, Progress, Report
from p2plearn.replication import CONFIRM_SECONDS, Replication, name_of
from p2plearn.store.catalogue import CourseRow

logger = logging.getLogger(__name__)

LEAVE_SECONDS: Final = 600.0
"""For which a node that was told to leave tries, unless told otherwise."""

PUBLISH_SECONDS: Final = 60.0
"""For which a publish waits for copies; after that they go on being made behind its back."""

LAST_WORDS_SECONDS: Final = 10.0
"""For which what was said of a stop holds: whoever asked for it was told, and the log has the same."""

LEAST_SECONDS: Final = 1.0
"""Between two looks for what is blocked, however short the heartbeat interval is."""


class CustodyService:
    """The part of ``NodeOperations`` that is about copies."""

    def __init__(
        self,
        keeper: Keeper,
        repair: Repair,
        inquiries: Inquiries,
        replication: Replication,
        directory: Directory,
    ) -> None:
        self.keeper = keeper
        self.repair = repair
        self._inquiries = inquiries
        self.replication = replication
        self._directory = directory
        self._store = keeper.store
        self._parting: Parting | None = None
        self._leave: tuple[trio.CancelScope, trio.Event] | None = None
        """A leave under way: what it hands over in, and its end."""
        self._last_words: tuple[float, dict[str, Any]] | None = None

    # -- publishing --------------------------------------------------------------------------------------------------

    async def asked_before(self, *courses: bytes | None) -> int:
        """Copies asked for of the first of ``courses`` that is, or was, kept here; as many as usual if none is."""
        for course in courses:
            unit = Unit(course, 0) if course is not None else None
            if unit is not None and (copies := await self.keeper.kept.asked_before(unit)):
                return copies
        return COPIES

    async def published(  # noqa: PLR0917 - what is known of a course, each of its own type
        self, course: bytes, copies: int, author: SigningKey, title: str, size: int, report: Report
    ) -> dict[str, Any]:
        """Have copies of a course of ``size`` bytes made that ``author`` just published; ``copies_of`` it then.

        Those who keep it are told how many it shall be: more, or fewer than before. Returns when there are enough,
        when nobody is left to ask, or after ``PUBLISH_SECONDS``.
        """
        begun = trio.current_time()
        await trio.to_thread.run_sync(self._store.custody.claim, course, "published")
        units = await self.keeper.kept.adopt(course, copies)
        await self.keeper.kept.wish(units, copies, author.public, author.sign)
        for unit in units:
            self.keeper.tell_all(unit)

        def tell(now: int) -> None:
            words = f"copies on other nodes ({now} of {copies} verified)"
            report(Progress("copying", waiting_for=words, title=title))

        with trio.move_on_after(PUBLISH_SECONDS):
            await self.repair.place(units, tell)
        await self.replication.confirm([course], CONFIRM_SECONDS, since=begun)
        return self.replication.copies_of(course, size, complete=True)

    # -- removing, and what changes by itself -------------------------------------------------------------------------

    async def give_up(self, row: CourseRow, search: Search) -> bool:
        """A course is to be removed by its person: it counts nowhere any more, if others show, asked now, all of it.

        Else nothing is done, and False returned. Of several who give up what only they have one is refused.
        """
        kept = [unit for unit in self.keeper.ledger if unit.course == row.course]
        units = units_of(row.course, row.bytes) if row.complete else kept

        def known(unit: Unit) -> frozenset[Node]:
            entry, told = self.keeper.ledger.entry(unit), self._inquiries.heard.get(unit)
            return (entry.holders if entry else frozenset()) | (told.holders if told else frozenset())

        return await goes_if_elsewhere(self.keeper, units, known, search, lambda: self.removed(row.course))

    def removed(self, course: bytes) -> None:
        """A course is about to be removed by its person, whoever else has it: it counts nowhere any more."""
        self._inquiries.forgotten(course)
        self.keeper.forgotten(course)

    async def fetched(self, course: bytes) -> None:
        """A course, or some of it, was fetched: it is kept here, and counts if fewer keep it than were asked to."""
        row = await trio.to_thread.run_sync(self._store.course, course)
        if row is not None:
            self._inquiries.fetched(course, row.bytes)

    async def checked(self, courses: Iterable[bytes]) -> None:
        """Damage was found in these: copies that are not whole must not be counted on."""
        for course in set(courses):
            await self.keeper.look_for_damage(course)

    async def gc(self, dry_run: bool) -> dict[str, Any]:
        """Free what nobody needs any more; with ``dry_run`` say only what would go."""
        unneeded = self._store.custody.is_unneeded
        courses = [
            {"course": row.course.hex(), "title": row.title, "bytes": row.have_bytes}
            for row in await trio.to_thread.run_sync(self._store.courses)
            if row.why == "custody" and await trio.to_thread.run_sync(unneeded, row.course)
        ]
        freed = sum(int(str(course["bytes"])) for course in courses) if dry_run else 0
        if not dry_run:
            for course in courses:
                await trio.to_thread.run_sync(self._store.forget, bytes.fromhex(str(course["course"])))
        sweep = await trio.to_thread.run_sync(self._store.gc, dry_run)
        return {"dry_run": dry_run, "courses": courses, "freed": freed + sweep.freed, "left": list(sweep.left)}

    async def give_up_refused(
        self, refusal: Callable[[bytes, bytes], str], blocks_anything: Callable[[], bool] = lambda: True
    ) -> None:
        """Keep for others nothing that is blocked here, for ever: nobody gets it from here, so it mustn't count.

        ``refusal(course, author)`` says why a course is blocked, or nothing, which it says of all unless
        ``blocks_anything``. What the person of this node wants here
        (published, fetched) stays on the disk.
        """
        while True:
            if blocks_anything():
                await safely(logger, "giving up what is blocked", self._give_up_refused, refusal)
            await trio.sleep(max(self.keeper.limits.interval, LEAST_SECONDS))

    async def _give_up_refused(self, refusal: Callable[[bytes, bytes], str]) -> None:
        for row in await trio.to_thread.run_sync(self._store.courses):
            why = refusal(row.course, row.author) if row.why == "custody" else ""
            if not why:
                continue
            logger.info("no longer keeping %s for others: %s", row.course.hex()[:12], why)
            self.removed(row.course)
            await self.keeper.kept.remove(row.course)

    # -- leaving -----------------------------------------------------------------------------------------------------

    async def leave(self, deadline: float, report: Report) -> LeaveResult:
        """Hand over all that this node keeps, within ``deadline`` seconds; it serves on until it is stopped.

        When the caller hangs up, the node stays and keeps what it has. Raises Refused when one is under way already.
        """
        if self._leave is not None:
            raise Refused(
                "This node is leaving already.",
                "Wait for that (p2plearn node status says how far it is), or stop it as it stands: p2plearn node stop",
            )
        handing_over, ended = self._leave = trio.CancelScope(), trio.Event()
        try:
            return await self._hand_over(Parting(trio.current_time(), deadline), handing_over, report)
        finally:
            self._leave = None
            ended.set()

    async def end_leave(self) -> None:
        """Have a leave that is under way end now, as it stands, and tell its caller so; harmless if there is none."""
        if self._leave is not None:
            handing_over, ended = self._leave
            handing_over.cancel()
            with trio.move_on_after(2 * ASK_SECONDS):
                await ended.wait()

    async def _hand_over(self, parting: Parting, handing_over: trio.CancelScope, report: Report) -> LeaveResult:
        self._parting = parting
        rows = await trio.to_thread.run_sync(self._store.courses)
        for row in rows:
            if row.complete and row.why != "custody":
                # What was fetched has custodians of its own, as a rule: offered to the nearest nodes it is found there.
                await self.keeper.kept.adopt(row.course, 0)
        titles = {row.course: row.title for row in rows}
        handover, circle = Handover(), self.keeper.kept.circle()
        left = False
        try:
            handing_over.deadline = trio.current_time() + parting.hands_over_for(trio.current_time())
            with handing_over:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell, handover, report)
                    await self.repair.leave(handover)
                    nursery.cancel_scope.cancel()
            left = True
        finally:
            self.keeper.kept.leaving = left
        # Who keeps courses with this node is asked, and so hears that it leaves.
        circle |= self.keeper.kept.circle()
        await self.keeper.vigil.confirm(circle, parting.asks_for(trio.current_time()), everybody=False)
        unplaced: dict[Unit, dict[str, int]] = {}
        for unit in self.keeper.ledger:
            entry = self.keeper.ledger.entry(unit)
            if entry is not None:
                others, there = self.keeper.counted(entry) - {self.keeper.ledger.me}, self.keeper.there(entry)
                unplaced[unit] = {
                    "copies": len(others & there), "copies_away": len(others - there), "copies_wanted": entry.copies
                }  # fmt: skip
        return LeaveResult(
            units=handover.total,
            bytes=handover.bytes,
            seconds=trio.current_time() - parting.begun,
            placed=tuple(self._placed(unit, receipts, titles) for unit, receipts in handover.placed.items()),
            unplaced=tuple({**_named(unit, titles), **stands} for unit, stands in unplaced.items()),
        )

    def _placed(self, unit: Unit, receipts: tuple[Receipt, ...], titles: dict[bytes, str]) -> dict[str, Any]:
        return {
            **_named(unit, titles),
            "receipts": [{"peer_id": name_of(each.node), "receipt": each.encode().hex()} for each in receipts],
        }

    async def before_stop(self, *, leave: bool) -> None:
        """Before the node goes: hand over first if that is wanted, and say what has fewer copies without it."""
        await self.end_leave()
        if leave and not self.keeper.kept.leaving and self._leave is None:
            result = await self.leave(LEAVE_SECONDS, lambda progress: None)
            self._last_words = None
            logger.info("handed over %d of %d units", len(result.placed), result.units)
        await self.say_last_words()
        if self.keeper.kept.leaving:
            await self._take_leave()

    async def say_last_words(self, *, ask: bool = True) -> None:
        """Have the log name what has fewer copies without this node; unless others may be asked, as it is known now."""
        words = await self.last_words(ask=ask)
        for course in words["fewer_copies"]:
            logger.warning(
                "%s (%s) has %d of %d copies without this node",
                course["title"], course["course"][:12], course["copies"], course["copies_wanted"],
            )  # fmt: skip
        for peer in words["unconfirmed"]:
            logger.warning("%s may have copies of these, and did not answer now", peer)

    async def last_words(self, *, ask: bool = True) -> dict[str, Any]:
        """What a stop does to copies (see ``Replication.short_without_me``): found out once for whoever asks."""
        now = trio.current_time()
        if self._last_words is None or now - self._last_words[0] > LAST_WORDS_SECONDS:
            seconds = ASK_SECONDS if ask and not self.keeper.kept.leaving else 0.0  # a leave asks by itself
            self._last_words = now, await self.replication.short_without_me(seconds)
        return self._last_words[1]

    async def _take_leave(self) -> None:
        """Have nobody sent here any more for what was handed over, nor count on this node for what wasn't.

        The others know from its heartbeats that it leaves; whoever joins them later knows it by its receipts.
        """
        stays = {unit.course for unit in self.keeper.ledger}
        for row in await trio.to_thread.run_sync(self._store.courses):
            if row.course not in stays:
                self._directory.withdraw(row.course)
        now = trio.current_time()
        with trio.move_on_after(WITHDRAW_SECONDS if self._parting is None else self._parting.withdraws_for(now)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._directory.withdrawn)
                nursery.start_soon(self.keeper.say_goodbye)

    async def _tell(self, handover: Handover, report: Report) -> None:
        moved = 0
        while True:
            # What broke off comes anew: the figure waits for it, and never goes back.
            moved = max(moved, handover.bytes + self.keeper.asking.on_the_way())
            waiting = f"others to take what is left ({len(handover.placed)} of {handover.total} handed over)"
            report(Progress("handing over", moved, handover.total_bytes, waiting_for=waiting))
            await trio.sleep(0.2)


def _named(unit: Unit, titles: dict[bytes, str]) -> dict[str, Any]:
    return {"course": unit.course.hex(), "segment": unit.segment, "title": titles.get(unit.course, "")}
