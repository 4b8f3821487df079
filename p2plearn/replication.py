"""How courses stand, told to a person: what is known of copies is gathered here, and counted by ``dht.standing``.

What a person is told rests on nodes that are there now; what repair waits for is another matter (``Keeper.counted``).

Imports ``dht``, ``net.addresses``, ``store``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import trio

from p2plearn.dht.custody import Node, Unit, peer_id_of, units_of
from p2plearn.dht.inquiries import Heard, Inquiries
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.liveness import Life
from p2plearn.dht.lookout import Lookout
from p2plearn.dht.repair import Repair
from p2plearn.dht.standing import Known, Standing, Whereabouts, standing
from p2plearn.net.addresses import peer_name
from p2plearn.store.catalogue import CourseRow

CONFIRM_SECONDS: Final = 5.0
"""For others to say that they are there, before a person is told that the laptop may be closed."""

LOOK_SECONDS: Final = 2.0
"""The same for a person who looks how a course stands: who answers later is shown as not heard."""

MOST_NAMED: Final = 1000
"""Courses of one kind that ``status`` names."""


class Replication:
    """The part of ``NodeOperations`` that says how many copies there are, and where."""

    def __init__(
        self, keeper: Keeper, repair: Repair, inquiries: Inquiries, lookout: Lookout, title_of: Callable[[bytes], str]
    ) -> None:
        self._keeper = keeper
        self._repair = repair
        self._inquiries = inquiries
        self._lookout = lookout
        self._title_of = title_of
        self._store = keeper.store

    def copies_of(self, course: bytes, size: int, *, complete: bool) -> dict[str, Any]:
        """Copies of a course of ``size`` bytes as this node knows them, and where; ``complete``: all of it is here.

        The figures are those of ``facts``. Of a course of several segments it is said how each stands, and who holds
        which. Who is ``gone`` counts no more.
        """
        stands = self._stands(course, size, complete=complete)
        since: dict[Node, int] = {}
        for unit in units_of(course, size):
            entry = self._keeper.ledger.entry(unit)
            for node, receipt in entry.receipts.items() if entry is not None else ():
                since[node] = max(receipt.time // 1000, since.get(node, 0))
        where = []
        for node, (whereabouts, parts) in stands.where.items():
            row: dict[str, Any] = {"peer_id": name_of(node), "life": self._life(node, whereabouts)}
            row |= {"segments": list(parts)} if stands.count > 1 else {}
            where.append(row | ({"since": since[node]} if node in since else {}))
        each = [
            {"segment": number, "copies": len(one.there), "copies_away": len(one.away), "copies_wanted": one.wanted}
            for number, one in stands.segments.items()
        ]
        return _facts(stands) | {"where": where} | ({"segments": each} if stands.count > 1 else {})

    def copies(self, course: bytes, size: int = 0) -> int:
        """Copies, those on nodes that are away for now included; without ``size`` those of the first segment."""
        stands = self._stands(course, size, complete=False)
        return stands.copies + stands.away

    def facts(self, row: CourseRow) -> dict[str, int]:
        """``copies`` that are there now, ``copies_away`` that are away for now, ``copies_wanted`` (0: nobody said).

        Of a course of several segments those of the one that is worst off. What was fetched here counts only where
        others have fewer than asked for.
        """
        return _facts(self._stands(row.course, row.bytes, complete=row.complete))

    def _stands(self, course: bytes, size: int, *, complete: bool) -> Standing:
        every = units_of(course, size)
        known = {unit.segment: told for unit in every if (told := self._known(unit, complete=complete)) is not None}
        return standing(known, len(every))

    def _known(self, unit: Unit, *, complete: bool) -> Known | None:
        """What is known of a unit: by its receipts if it is kept here, else by what others said when they were asked.

        What is damaged here is no copy; what was fetched may be one.
        """
        keeper, kept = self._keeper, self._keeper.kept
        entry, told = keeper.ledger.entry(unit), self._inquiries.heard.get(unit)
        if entry is not None:
            return Known({node: keeper.whereabouts(node) for node in entry.holders}, entry.copies)
        if unit in kept.damaged:
            others = {node: keeper.whereabouts(node) for node in kept.others.get(unit, ())}
            return Known(others, kept.damaged[unit])
        if told is not None:
            nobody_for = trio.current_time() - self._inquiries.nobody_since.get(unit, math.inf)
            mine = keeper.ledger.me if complete else None
            by_hearsay = {node: self._whereabouts(node, told) for node in {*told.holders, *told.silent}}
            return Known(by_hearsay, told.wanted, mine, searched=nobody_for >= keeper.limits.grace)
        return Known({}, 0, keeper.ledger.me) if complete else None

    def _whereabouts(self, node: Node, told: Heard) -> Whereabouts:
        """Of somebody who said that he holds a unit, which this node may not keep itself."""
        if node in self._keeper.vigil.detector:
            return self._keeper.whereabouts(node)
        return Whereabouts.AWAY if node in told.silent or self._keeper.vigil.is_silent(node) else Whereabouts.THERE

    def _life(self, node: Node, whereabouts: Whereabouts) -> str:
        if node == self._keeper.ledger.me:
            return "this node"
        if whereabouts is Whereabouts.GONE:
            return "gone"
        life = self._keeper.vigil.detector.life(node)
        return life.value if whereabouts is Whereabouts.THERE or life is not Life.ALIVE else "not heard"

    def goodbyes(self) -> set[str]:
        """Peer ids of nodes that left by telling so."""
        return {name_of(node) for node in self._keeper.vigil.goodbyes}

    async def confirm(
        self, courses: Iterable[bytes], seconds: float = LOOK_SECONDS, since: float | None = None
    ) -> set[Node]:
        """Ask those who are said to hold one of these whether they are there, but for whom was heard ``since``.

        For what a person is told: that they may switch this machine off, or where copies are. Nobody is waited for
        who is known to be away, nor anybody longer than ``seconds``; returns who might be there and didn't answer.
        """
        asked, ledger = set(courses), self._keeper.ledger
        nodes: set[Node] = set()
        for unit in ledger:
            if unit.course in asked and (entry := ledger.entry(unit)) is not None:
                nodes.update(entry.holders)
        for unit, told in self._inquiries.heard.items():
            nodes |= told.holders if unit.course in asked else frozenset()
        lately = trio.current_time() - self._keeper.limits.interval if since is None else since
        return await self._keeper.vigil.confirm(nodes - {ledger.me}, seconds, lately, everybody=False)

    async def figures(self) -> dict[str, Any]:
        """What ``status`` says of copies: room given, and by name every course with fewer copies than asked for."""
        rows = await trio.to_thread.run_sync(self._store.courses)
        given = await trio.to_thread.run_sync(self._store.custody.given)
        now = trio.current_time()
        lost = self._lost(rows)
        gone = {each["course"] for each in lost}  # of which no more copies can be made
        return {
            "custody": {
                "give": self._keeper.limits.give,
                "given": given,
                **self._repair.figures(),
                "leaving": self._keeper.kept.leaving,
                "under_replicated": [
                    each for each in self._short(rows, without_me=False) if each["course"] not in gone
                ],
                "lost": lost + await self._named(self._lookout.watch.lost(now)),
                "out_of_reach": await self._named(
                    {c: s for c, s in self._lookout.watch.away(now).items() if s < self._keeper.limits.grace}
                ),
            }
        }

    def _lost(self, rows: list[CourseRow]) -> list[dict[str, Any]]:
        """Courses of which something is neither here nor with anybody who may come back, as far as can be told."""
        lost = []
        for row in rows:
            if row.complete:
                continue
            stands = self._stands(row.course, row.bytes, complete=False)
            # Of what was published here and isn't all here, nobody else was ever heard to have it.
            if stands.lost or (row.why == "published" and not stands.segments):
                facts = {"course": row.course.hex(), "title": row.title, "missing_bytes": row.bytes - row.have_bytes}
                lost.append(facts | ({"missing_segments": list(stands.lost)} if stands.count > 1 else {}))
        return lost

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
            stands = self._stands(row.course, row.bytes, complete=row.complete)
            if without_me:
                stands = stands.without(self._keeper.ledger.me)
            if stands.short:
                short.append({"course": row.course.hex(), "title": row.title, **_facts(stands)})
        return short

    async def short_without_me(self, seconds: float) -> dict[str, Any]:
        """What a stop does: ``fewer_copies``, the courses that have fewer than asked for once this node is stopped.

        ``unconfirmed``: peer ids of nodes that have copies of these, may be there, and didn't answer in ``seconds``.
        """
        rows = await trio.to_thread.run_sync(self._store.courses, abandon_on_cancel=True)  # type: ignore[call-arg]
        silent = await self.confirm((row.course for row in rows), seconds)
        fewer = self._short(rows, without_me=True)
        named = {course["course"] for course in fewer}
        short = [row for row in rows if row.course.hex() in named]
        holders = {node for row in short for node in self._stands(row.course, row.bytes, complete=row.complete).where}
        return {"fewer_copies": fewer, "unconfirmed": sorted(map(name_of, silent & holders))}


def _facts(stands: Standing) -> dict[str, Any]:
    return {"copies": stands.copies, "copies_away": stands.away, "copies_wanted": stands.wanted}


def name_of(node: Node) -> str:
    """A node as a person knows it: its peer id."""
    return peer_name(peer_id_of(node))
