"""What keeping copies means to the person of a node: copies in words and figures, publishing, leaving, cleaning up.

Imports ``dht``, ``identity``, ``net.addresses``, ``store``, ``operations``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import trio

from p2plearn.dht.custody import COPIES, Node, Unit, peer_id_of, segments
from p2plearn.dht.directory import Directory
from p2plearn.dht.elsewhere import Search, are_elsewhere
from p2plearn.dht.inquiries import Inquiries
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.ledger import Entry
from p2plearn.dht.liveness import Life
from p2plearn.dht.lookout import Lookout
from p2plearn.dht.receipts import Receipt
from p2plearn.dht.repair import Handover, Repair
from p2plearn.identity import SigningKey
from p2plearn.net.addresses import peer_name
from p2plearn.operations import LeaveResult, Progress, Report
from p2plearn.store.catalogue import CourseRow

logger = logging.getLogger(__name__)

LEAVE_SECONDS: Final = 600.0
"""For which a node that was told to leave tries, unless told otherwise."""

PUBLISH_SECONDS: Final = 60.0
"""For which a publish waits for copies; after that they go on being made behind its back."""


WITHDRAW_SECONDS: Final = 5.0
"""To tell those who name this node for what it handed over; who isn't reached does so for up to a day."""

CONFIRM_SECONDS: Final = 5.0
"""For others to say that they are there, before a person is told how many copies there are."""

LEAST_SECONDS: Final = 1.0
"""Between two looks for what is blocked, however short the heartbeat interval is."""

MOST_NAMED: Final = 1000
"""Courses of one kind that ``status`` names."""


class _Stands(NamedTuple):
    """Who has a course and is ``there`` now; how many copies more are ``away``; how many were asked for; all ``nodes``
    that are said to have it; its entry if it is kept for others.
    """

    there: frozenset[Node]
    away: int
    wanted: int
    nodes: frozenset[Node]
    entry: Entry | None

    @property
    def copies(self) -> int:
        """Copies that are there now."""
        return len(self.there)


class CustodyService:
    """The part of ``NodeOperations`` that is about copies."""

    def __init__(  # noqa: PLR0917 - the parts of custody, each of its own type
        self,
        keeper: Keeper,
        repair: Repair,
        inquiries: Inquiries,
        lookout: Lookout,
        directory: Directory,
        title_of: Callable[[bytes], str],
    ) -> None:
        self.keeper = keeper
        self.repair = repair
        self._inquiries = inquiries
        self._lookout = lookout
        self._directory = directory
        self._title_of = title_of
        self._store = keeper.store

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
        await self.confirm([course], since=begun)
        return self.copies_of(course, size)

    async def is_elsewhere(self, row: CourseRow, search: Search) -> bool:
        """Whether others show, asked now, all that is here of a course and may be relied on."""
        kept = [unit for unit in self.keeper.ledger if unit.course == row.course]
        units = [Unit(row.course, segment) for segment in range(segments(row.bytes))] if row.complete else kept

        def known(unit: Unit) -> frozenset[Node]:
            entry, told = self.keeper.ledger.entry(unit), self._inquiries.heard.get(unit)
            return (entry.holders if entry else frozenset()) | (told.holders if told else frozenset())

        return await are_elsewhere(self.keeper, units, known, search)

    async def removed(self, course: bytes) -> None:
        """A course is about to be removed by its person: it counts nowhere any more."""
        self._inquiries.forgotten(course)
        self.keeper.forgotten(course)

    async def fetched(self, course: bytes) -> None:
        """A course was fetched: it is kept here, and counts if fewer keep it than were asked to."""
        row = await trio.to_thread.run_sync(self._store.course, course)
        if row is not None and row.complete:
            self._inquiries.fetched(course, row.bytes)

    async def checked(self, courses: Iterable[bytes]) -> None:
        """Damage was found in these: copies that are not whole must not be counted on."""
        for course in set(courses):
            await self.keeper.look_for_damage(course)

    # -- looking -----------------------------------------------------------------------------------------------------

    def copies_of(self, course: bytes, size: int) -> dict[str, Any]:
        """Copies of a course of ``size`` bytes as this node knows them; ``copies`` 0 if it knows of none.

        ``copies`` are there now, ``copies_away`` more are on nodes that are away, for less than the grace period. Of
        several segments the one with the fewest. What was fetched here and is kept by enough others is a copy, too.
        """
        stands = self._stands(course, size)
        since = {node: receipt.time // 1000 for node, receipt in stands.entry.receipts.items()} if stands.entry else {}
        return {
            "copies": stands.copies,
            "copies_away": stands.away,
            "copies_wanted": stands.wanted,
            "where": [
                {"peer_id": _name(node), "life": self._life(node, node in stands.there)}
                | ({"since": since[node]} if node in since else {})
                for node in sorted(stands.nodes)
            ],
        }

    def copies(self, course: bytes, size: int = 0) -> int:
        """Copies, those on nodes that are away for now included; without ``size`` those of the first segment."""
        stands = self._stands(course, size)
        return stands.copies + stands.away

    def copies_here_and_away(self, course: bytes, size: int) -> dict[str, int]:
        """``copies`` and ``copies_away`` alone: for many courses at once."""
        stands = self._stands(course, size)
        return {"copies": stands.copies, "copies_away": stands.away}

    def _stands(self, course: bytes, size: int) -> _Stands:
        every = [Unit(course, segment) for segment in range(segments(size))]
        keeper, vigil = self.keeper, self.keeper.vigil
        entries = [entry for unit in every if (entry := keeper.ledger.entry(unit)) is not None]
        heard = [told for unit in every if (told := self._inquiries.heard.get(unit)) is not None]
        if entries:
            # ``min`` takes the first segment of those with equally few.
            there, entry = min(((keeper.there(e), e) for e in entries), key=lambda each: len(each[0]))
            lacking = [told for told in heard if len(told.holders) < min(len(there), told.wanted)]
            if not lacking:
                away = len(keeper.counted(entry) - there)
                return _Stands(there, away, entry.copies, entry.holders, entry)
            heard = lacking  # a segment that others keep, and fewer of them
        harmed = [unit for unit in every if unit in keeper.kept.damaged]
        if harmed and not entries:  # what is left of it here is no copy
            worst = min(harmed, key=lambda unit: len(keeper.kept.others.get(unit, ())))
            others = keeper.kept.others.get(worst, frozenset())
            there = frozenset(filter(vigil.is_heard, others))
            return _Stands(there, len(others - there), keeper.kept.damaged[worst], others, None)
        if not heard:
            return _Stands(frozenset(), 0, 0, frozenset(), None)
        told = min(heard, key=lambda told: len(told.holders))
        mine = not entries  # fetched, so all of it is here
        nodes = told.holders | {keeper.ledger.me} if mine else told.holders
        there = frozenset(node for node in nodes if not vigil.is_silent(node))
        return _Stands(there, len(nodes - there), told.wanted, nodes, None)

    def _life(self, node: Node, there: bool) -> str:
        if node == self.keeper.ledger.me:
            return "this node"
        life = self.keeper.vigil.detector.life(node)
        return life.value if there or life is not Life.ALIVE else "not heard"

    def goodbyes(self) -> set[str]:
        """Peer ids of nodes that left by telling so."""
        return {_name(node) for node in self.keeper.vigil.goodbyes}

    async def confirm(self, courses: Iterable[bytes], since: float | None = None) -> None:
        """Ask everybody who is said to hold one of these whether they are there, but for whom was heard ``since``.

        For what a person is told: that they may switch this machine off, or where copies are.
        """
        asked, ledger = set(courses), self.keeper.ledger
        nodes: set[Node] = set()
        for unit in ledger:
            if unit.course in asked and (entry := ledger.entry(unit)) is not None:
                nodes.update(entry.holders)
        for unit, told in self._inquiries.heard.items():
            nodes |= told.holders if unit.course in asked else frozenset()
        lately = trio.current_time() - self.keeper.limits.interval if since is None else since
        await self.keeper.vigil.confirm(nodes - {ledger.me}, CONFIRM_SECONDS, lately)

    async def figures(self) -> dict[str, Any]:
        """What ``status`` says of copies: room given, and by name every course with fewer copies than asked for."""
        rows = await trio.to_thread.run_sync(self._store.courses)
        given = await trio.to_thread.run_sync(self._store.custody.given)
        now = trio.current_time()
        return {
            "custody": {
                "give": self.keeper.limits.give,
                "given": given,
                **self.repair.figures(),
                "leaving": self.keeper.kept.leaving,
                "under_replicated": self._short(rows, without_me=False),
                "lost": await self._lost(rows),
                "out_of_reach": await self._named(
                    {c: s for c, s in self._lookout.watch.away(now).items() if s < self.keeper.limits.grace}
                ),
            }
        }

    async def _lost(self, rows: list[CourseRow]) -> list[dict[str, Any]]:
        """Courses that are gone, in part or as a whole, as far as this node can tell."""
        lost = [
            {"course": row.course.hex(), "title": row.title, "missing_bytes": row.bytes - row.have_bytes}
            for row in rows
            if not row.complete and row.why == "published" and not self._may_come_back(row.course)
        ]
        before = trio.current_time() - self.keeper.limits.grace
        parts: dict[bytes, list[int]] = {}
        for unit, told in self._inquiries.heard.items():
            if not told.holders and self._inquiries.nobody_since.get(unit, math.inf) <= before:
                parts.setdefault(unit.course, []).append(unit.segment)
        for row in rows:
            segments = sorted(parts.get(row.course, ()))
            if segments and not row.complete:
                lost.append({"course": row.course.hex(), "title": row.title, "missing_segments": segments})
        return lost + await self._named(self._lookout.watch.lost(trio.current_time()))

    def _may_come_back(self, course: bytes) -> bool:
        """Whether somebody holds what is damaged here of a course, and hasn't been away for the grace period."""
        kept, detector, now = self.keeper.kept, self.keeper.vigil.detector, trio.current_time()
        harmed = [kept.others.get(unit, frozenset()) for unit in kept.damaged if unit.course == course]
        return bool(harmed) and all(
            any(
                detector.gone_for(node, now) < self.keeper.limits.grace and not detector.gone_for_good(node, now)
                for node in others
            )
            for others in harmed
        )

    async def _named(self, away: Mapping[bytes, float]) -> list[dict[str, Any]]:
        """Courses nobody of whose holders is there, the longest away first."""
        shown = list(away.items())[:MOST_NAMED]
        titles = await trio.to_thread.run_sync(lambda: [self._title_of(course) for course, _ in shown])
        return [
            {"course": course.hex(), "title": title, "holders_away_seconds": round(seconds)}
            for (course, seconds), title in zip(shown, titles, strict=True)
        ]

    def _short(self, rows: list[CourseRow], *, without_me: bool) -> list[dict[str, Any]]:
        short = []
        for row in rows:
            stands = self._stands(row.course, row.bytes)
            copies = max(stands.copies - without_me, 0)
            if stands.wanted and copies < stands.wanted:
                facts = {"copies": copies, "copies_away": stands.away, "copies_wanted": stands.wanted}
                short.append({"course": row.course.hex(), "title": row.title, **facts})
        return short

    async def short_without_me(self) -> list[dict[str, Any]]:
        """Courses that have fewer copies than asked for once this node is stopped."""
        rows = await trio.to_thread.run_sync(self._store.courses)
        await self.confirm(row.course for row in rows)
        return self._short(rows, without_me=True)

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
        return {"dry_run": dry_run, "courses": courses, "freed": freed + sweep.freed}

    async def give_up_refused(
        self, refusal: Callable[[bytes, bytes], str], blocks_anything: Callable[[], bool] = lambda: True
    ) -> None:
        """Keep for others nothing that is blocked here, for ever: nobody gets it from here, so it mustn't count.

        ``refusal(course, author)`` says why a course is blocked, or nothing, which it says of all unless
        ``blocks_anything``. What the person of this node wants here
        (published, fetched) stays on the disk.
        """
        while True:
            rows = await trio.to_thread.run_sync(self._store.courses) if blocks_anything() else []
            for row in rows:
                why = refusal(row.course, row.author) if row.why == "custody" else ""
                if not why:
                    continue
                logger.info("no longer keeping %s for others: %s", row.course.hex()[:12], why)
                await self.removed(row.course)
                await self.keeper.kept.remove(row.course)
            await trio.sleep(max(self.keeper.limits.interval, LEAST_SECONDS))

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
                await self.keeper.kept.adopt(row.course, 0)
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
            self.keeper.kept.leaving = left
        await self.confirm(unit.course for unit in self.keeper.ledger)
        for unit in self.keeper.ledger:
            entry = self.keeper.ledger.entry(unit)
            if entry is not None:
                handover.unplaced[unit] = (len(self.keeper.there(entry)) - 1, entry.copies)
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
        if leave and not self.keeper.kept.leaving:
            result = await self.leave(LEAVE_SECONDS, lambda progress: None)
            logger.info("handed over %d of %d units", len(result.placed), result.units)
        if self.keeper.kept.leaving:
            await self._take_leave()
        for course in await self.short_without_me():
            logger.warning(
                "%s (%s) has %d of %d copies without this node",
                course["title"], course["course"][:12], course["copies"], course["copies_wanted"],
            )  # fmt: skip

    async def _take_leave(self) -> None:
        """Have nobody sent here any more for what was handed over."""
        stays = {unit.course for unit in self.keeper.ledger}
        for row in await trio.to_thread.run_sync(self._store.courses):
            if row.course not in stays:
                self._directory.withdraw(row.course)
        with trio.move_on_after(WITHDRAW_SECONDS):
            await self._directory.withdrawn()

    async def _tell(self, handover: Handover, report: Report) -> None:
        moved = 0
        while True:
            # What broke off comes anew: the figure waits for it, and never goes back.
            moved = max(moved, handover.bytes + self.keeper.asking.on_the_way())
            waiting = f"others to take what is left ({len(handover.placed)} of {handover.total} handed over)"
            report(Progress("handing over", moved, handover.total_bytes, waiting_for=waiting))
            await trio.sleep(0.2)


def _name(node: Node) -> str:
    return peer_name(peer_id_of(node))


def _named(unit: Unit, titles: dict[bytes, str]) -> dict[str, Any]:
    return {"course": unit.course.hex(), "segment": unit.segment, "title": titles.get(unit.course, "")}
