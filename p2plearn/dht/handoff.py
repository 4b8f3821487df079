"""What to copy where so that every unit has as many copies as asked for. Sans-IO: a snapshot in, a plan out.

Used for publishing, for leaving and for repair alike: they differ only in whose copies count. A plan is made anew from
a new snapshot after each thing that happened (a copy verified, an offer declined), so it never relies on what was
hoped for. After the planners of Tahoe-LAFS (plain snapshots in, actions out).

What must hold: receivers are distinct and don't have the unit; no receiver is sent more than it gives; what has the
fewest copies goes first; the same snapshot gives the same plan; nothing is moved that needn't be; and nothing here
says that a copy may go: that is ``may_drop``, which counts only verified copies.

Imports only ``dht.custody``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from p2plearn.dht.custody import Node, Unit, ranked


@dataclass(frozen=True, slots=True)
class Need:
    """A unit as it stands: its ``size`` in bytes, ``copies`` asked for, and who has a verified copy that counts.

    For a leaver its own copy doesn't count. ``coming`` are nodes that are being sent a copy now, ``refused`` those
    that said no.
    """

    unit: Unit
    size: int
    copies: int
    holders: frozenset[Node]
    coming: frozenset[Node] = frozenset()
    refused: frozenset[Node] = frozenset()

    @property
    def missing(self) -> int:
        """Copies to make, besides those under way."""
        return max(self.copies - len(self.holders | self.coming), 0)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One copy to make."""

    unit: Unit
    to: Node


@dataclass(frozen=True, slots=True)
class Plan:
    """Copies to make, the most urgent first; and for each unit that can't be completed how many have no place."""

    transfers: tuple[Transfer, ...]
    unplaceable: Mapping[Unit, int]


def plan(needs: Iterable[Need], free: Mapping[Node, int]) -> Plan:
    """Where to put what is missing; ``free`` are the nodes that may be asked, and the bytes that each still gives.

    One copy of everything is placed before a second one of anything.
    """
    left = dict(free)
    wanting = {need.unit: need for need in needs if need.missing}
    placed: dict[Unit, list[Node]] = {unit: [] for unit in wanting}
    choices = {
        unit: [node for node in ranked(unit, left) if node not in need.holders | need.coming | need.refused]
        for unit, need in wanting.items()
    }
    transfers: list[Transfer] = []
    unplaceable: dict[Unit, int] = {}
    order = [
        (len(need.holders | need.coming) + more, unit) for unit, need in wanting.items() for more in range(need.missing)
    ]
    for _, unit in sorted(order):
        size = wanting[unit].size
        to = next((node for node in choices[unit] if left[node] >= size and node not in placed[unit]), None)
        if to is None:
            unplaceable[unit] = unplaceable.get(unit, 0) + 1
            continue
        left[to] -= size
        placed[unit].append(to)
        transfers.append(Transfer(unit, to))
    return Plan(tuple(transfers), unplaceable)


def may_drop(copies: int, verified_elsewhere: Iterable[Node], me: Node) -> bool:
    """Whether ``me`` may drop its copy: as many distinct others as asked for have acknowledged theirs."""
    return len(set(verified_elsewhere) - {me}) >= copies
