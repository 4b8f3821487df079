"""Courses whose every holder went away: noticed by those whom the holders told that they have them. Sans-IO.

A node near a course in Kademlia's space keeps records of who has it. When all of those nodes have been away for the
grace period, nobody else may be left who knows that there was such a course. Then the network is searched for it, since
others may have taken it over and told nodes that are nearer by now; what isn't found is *lost*, and named here until
one of its holders is back or another has it. Nodes are asked, not courses: who keeps ten thousand is asked once.

Imports only ``dht.custody``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from p2plearn.dht.custody import Node

MOST_LOST: Final = 10_000
"""Courses named as lost; the ones missed longest make room."""

REMEMBERED: Final = 30 * 86400.0
"""Seconds for which a lost course is named: as long as the catalogue knows it."""


@dataclass(slots=True)
class Missing:
    """A course whose holders are all away: who they were, and since when the last one is."""

    holders: frozenset[Node]
    since: float
    searched: float = float("-inf")
    """When the network was last searched for it, in vain."""


@dataclass(slots=True)
class Watch:
    """``period`` is how often a holder is asked, ``grace`` how long it may be away; in seconds."""

    period: float
    grace: float
    _records: dict[bytes, frozenset[Node]] = field(default_factory=dict)
    _away: dict[Node, float] = field(default_factory=dict)
    _asked: dict[Node, float] = field(default_factory=dict)
    _missing: dict[bytes, Missing] = field(default_factory=dict)
    _found: dict[bytes, frozenset[Node]] = field(default_factory=dict)
    """Who was found to have a course when it was searched for."""

    def see(self, records: Mapping[bytes, Collection[Node]], now: float) -> None:
        """The records as they are now: course to those who said that they have it."""
        self._found = {course: nodes for course, nodes in self._found.items() if course in records}
        self._records = {
            course: frozenset(nodes) | self._found.get(course, frozenset())
            for course, nodes in records.items()
            if nodes
        }
        self._judge(now)
        watched = self._watched()
        self._away = {node: since for node, since in self._away.items() if node in watched}
        self._asked = {node: at for node, at in self._asked.items() if node in watched}

    def _watched(self) -> set[Node]:
        sets = [*self._records.values(), *(each.holders for each in self._missing.values())]
        return set().union(*sets)

    def due(self, now: float, most: int) -> list[Node]:
        """Up to ``most`` nodes to ask now whether they are there, the least lately asked first."""
        never = float("-inf")
        late = [n for n in self._watched() if now - self._asked.get(n, never) >= self.period]
        late.sort(key=lambda node: (self._asked.get(node, never), node))
        for node in late[:most]:
            self._asked[node] = now
        return late[:most]

    def answered(self, node: Node, there: bool, now: float) -> None:
        """``node`` is there, or doesn't answer."""
        if there:
            self._away.pop(node, None)
        else:
            self._away.setdefault(node, now)
        self._judge(now)

    def _judge(self, now: float) -> None:
        for course, nodes in self._records.items():
            if all(node in self._away for node in nodes):
                since = max(self._away[node] for node in nodes)
                before = self._missing.get(course)
                if before is None:
                    self._missing[course] = Missing(nodes, since)
                else:
                    before.holders, before.since = nodes | before.holders, since
            else:
                self._missing.pop(course, None)
        for course, missing in list(self._missing.items()):
            back = any(node not in self._away for node in missing.holders)
            forgotten = course not in self._records and now - missing.since < self.grace
            if back or forgotten or now - missing.since > REMEMBERED:
                del self._missing[course]

    def away(self, now: float, *, at_least: float = 0.0) -> dict[bytes, float]:
        """Courses nobody of whose holders is there, and for how many seconds."""
        found = {c: now - m.since for c, m in self._missing.items() if now - m.since >= at_least}
        longest = sorted(found.items(), key=lambda each: -each[1])[:MOST_LOST]
        return dict(longest)

    def to_search(self, now: float) -> bytes | None:
        """A course that the network should be searched for now: its holders have been away for the grace period."""
        due = [
            (missing.searched, course)
            for course, missing in self._missing.items()
            if now - missing.since >= self.grace and now - missing.searched >= self.period
        ]
        return min(due)[1] if due else None

    def searched(self, course: bytes, found: Collection[Node], now: float) -> None:
        """The network was searched for a course: ``found`` have it, and are there."""
        missing = self._missing.get(course)
        if missing is None:
            return
        missing.searched = now
        if found:
            self._found[course] = frozenset(found)
            if course in self._records:
                self._records[course] |= self._found[course]
            del self._missing[course]

    def lost(self, now: float) -> dict[bytes, float]:
        """Courses whose holders have been away for longer than the grace period, and that weren't found elsewhere."""
        away = self.away(now, at_least=self.grace)
        return {course: seconds for course, seconds in away.items() if self._missing[course].searched >= 0.0}

    # Across restarts: what was lost stays named.

    def export(self, now: float) -> dict[bytes, tuple[frozenset[Node], float]]:
        """Lost courses, their holders, and for how long they have been away."""
        return {course: (self._missing[course].holders, seconds) for course, seconds in self.lost(now).items()}

    def restore(self, lost: Iterable[tuple[bytes, Collection[Node], float]], now: float) -> None:
        """Take back what ``export`` gave."""
        for course, holders, seconds in lost:
            self._missing[course] = Missing(frozenset(holders), now - seconds, 0.0)
            for node in holders:
                self._away.setdefault(node, now - seconds)
