"""How courses stand: copies that are there, away, asked for; what has too few, and what is lost. In words and figures.

What a person is told rests on nodes that are there now; what repair waits for is another matter (``Keeper.counted``).

Imports ``dht``, ``net.addresses``, ``store``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import trio

from p2plearn.dht.custody import Node, Unit, peer_id_of, segments
from p2plearn.dht.inquiries import Inquiries
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.ledger import Entry
from p2plearn.dht.liveness import Life
from p2plearn.dht.lookout import Lookout
from p2plearn.dht.repair import Repair
from p2plearn.net.addresses import peer_name
from p2plearn.store.catalogue import CourseRow

CONFIRM_SECONDS: Final = 5.0
"""For others to say that they are there, before a person is told how many copies there are."""

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
                {"peer_id": name_of(node), "life": self._life(node, node in stands.there)}
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
        keeper, vigil = self._keeper, self._keeper.vigil
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
        if node == self._keeper.ledger.me:
            return "this node"
        life = self._keeper.vigil.detector.life(node)
        return life.value if there or life is not Life.ALIVE else "not heard"

    def goodbyes(self) -> set[str]:
        """Peer ids of nodes that left by telling so."""
        return {name_of(node) for node in self._keeper.vigil.goodbyes}

    async def confirm(self, courses: Iterable[bytes], since: float | None = None) -> None:
        """Ask everybody who is said to hold one of these whether they are there, but for whom was heard ``since``.

        For what a person is told: that they may switch this machine off, or where copies are.
        """
        asked, ledger = set(courses), self._keeper.ledger
        nodes: set[Node] = set()
        for unit in ledger:
            if unit.course in asked and (entry := ledger.entry(unit)) is not None:
                nodes.update(entry.holders)
        for unit, told in self._inquiries.heard.items():
            nodes |= told.holders if unit.course in asked else frozenset()
        lately = trio.current_time() - self._keeper.limits.interval if since is None else since
        await self._keeper.vigil.confirm(nodes - {ledger.me}, CONFIRM_SECONDS, lately)

    async def figures(self) -> dict[str, Any]:
        """What ``status`` says of copies: room given, and by name every course with fewer copies than asked for."""
        rows = await trio.to_thread.run_sync(self._store.courses)
        given = await trio.to_thread.run_sync(self._store.custody.given)
        now = trio.current_time()
        return {
            "custody": {
                "give": self._keeper.limits.give,
                "given": given,
                **self._repair.figures(),
                "leaving": self._keeper.kept.leaving,
                "under_replicated": self._short(rows, without_me=False),
                "lost": await self._lost(rows),
                "out_of_reach": await self._named(
                    {c: s for c, s in self._lookout.watch.away(now).items() if s < self._keeper.limits.grace}
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
        before = trio.current_time() - self._keeper.limits.grace
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
        kept, detector, now = self._keeper.kept, self._keeper.vigil.detector, trio.current_time()
        harmed = [kept.others.get(unit, frozenset()) for unit in kept.damaged if unit.course == course]
        return bool(harmed) and all(
            any(
                detector.gone_for(node, now) < self._keeper.limits.grace and not detector.gone_for_good(node, now)
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


def name_of(node: Node) -> str:
    """A node as a person knows it: its peer id."""
    return peer_name(peer_id_of(node))
