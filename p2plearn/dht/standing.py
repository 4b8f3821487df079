"""How a course stands: copies that are there, away, gone, and asked for, segment by segment. Sans-IO.

One answer for all who word it: ``list``, ``info``, ``status``, ``publish``, a stop. A course has as many copies as the
segment that is worst off, for it is whole only with all of them; who holds which segment is told apart.

Imports ``dht.custody``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from p2plearn.dht.custody import Node


class Whereabouts(enum.Enum):
    """Of somebody who is said to hold a copy: what may be said of him now."""

    THERE = "there"
    """Heard lately, or this node itself."""
    AWAY = "away"
    """Silent, for less than the grace period."""
    GONE = "gone"
    """Silent for longer, or left for good: his copy counts no more until he is back."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a segment: who is said to hold it, and copies asked for (0: nobody said)."""

    holders: Mapping[Node, Whereabouts]
    wanted: int
    spare: Node | None = None
    """Who has it for its person and isn't counted on: this counts only where too few others are there."""
    searched: bool = True
    """Whether it is known well enough that nobody else will turn up, should all of ``holders`` be gone."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Of one segment: who has a copy and is ``there``, ``away``, or ``gone`` and so not counted; copies asked for."""

    there: frozenset[Node]
    away: frozenset[Node]
    gone: frozenset[Node]
    wanted: int
    searched: bool = True

    @property
    def missing(self) -> int:
        """Copies too few."""
        return max(self.wanted - len(self.there), 0)

    @property
    def lost(self) -> bool:
        """Nobody has it, and nobody who may come back."""
        return self.searched and not self.there and not self.away

    def without(self, node: Node) -> Copies:
        """The same once ``node`` is no longer there."""
        return Copies(self.there - {node}, self.away, self.gone, self.wanted, self.searched)


def copies_of(known: Known) -> Copies:
    """How one segment stands."""
    by: dict[Whereabouts, set[Node]] = {each: set() for each in Whereabouts}
    for node, whereabouts in known.holders.items():
        by[whereabouts].add(node)
    there = by[Whereabouts.THERE]
    if known.spare is not None and len(there) < max(known.wanted, 1):
        there.add(known.spare)
    away, gone = by[Whereabouts.AWAY] - there, by[Whereabouts.GONE] - there
    return Copies(frozenset(there), frozenset(away), frozenset(gone), known.wanted, known.searched)


@dataclass(frozen=True)
class Standing:
    """A course of ``count`` segments; ``segments`` are those of which something is known, by number."""

    count: int
    segments: Mapping[int, Copies] = field(default_factory=dict)

    @cached_property
    def worst(self) -> Copies:
        """The segment that lacks most copies; of several that lack none the one with the fewest."""
        nothing = Copies(frozenset(), frozenset(), frozenset(), 0, searched=False)
        every = [self.segments[number] for number in sorted(self.segments)]
        return min(every, key=lambda each: (-each.missing, len(each.there), len(each.away)), default=nothing)

    @property
    def copies(self) -> int:
        """Copies of the whole course that are there now."""
        return len(self.worst.there)

    @property
    def away(self) -> int:
        """Copies more that are away for now."""
        return len(self.worst.away)

    @property
    def wanted(self) -> int:
        """Copies asked for; 0 when that isn't known."""
        return self.worst.wanted

    @property
    def short(self) -> bool:
        """Whether there are fewer copies than asked for."""
        return self.worst.missing > 0

    @property
    def lost(self) -> tuple[int, ...]:
        """Segments that nobody has any more."""
        return tuple(number for number in sorted(self.segments) if self.segments[number].lost)

    @property
    def where(self) -> dict[Node, tuple[Whereabouts, tuple[int, ...]]]:
        """Everybody who is said to hold some of it: his whereabouts, and of which segments."""
        found: dict[Node, tuple[Whereabouts, tuple[int, ...]]] = {}
        for number in sorted(self.segments):
            each = self.segments[number]
            for whereabouts, nodes in (
                (Whereabouts.THERE, each.there), (Whereabouts.AWAY, each.away), (Whereabouts.GONE, each.gone)
            ):  # fmt: skip
                for node in nodes:
                    found[node] = (whereabouts, (*found.get(node, (whereabouts, ()))[1], number))
        return {node: found[node] for node in sorted(found)}

    def without(self, node: Node) -> Standing:
        """The same once ``node`` is no longer there."""
        return Standing(self.count, {number: each.without(node) for number, each in self.segments.items()})


def standing(known: Mapping[int, Known], count: int) -> Standing:
    """How a course of ``count`` segments stands, of which this is ``known``."""
    return Standing(count, {number: copies_of(each) for number, each in known.items()})
