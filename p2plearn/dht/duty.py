"""What a node owes the units it keeps: when to repair one, when a copy is too much, on whom it may rely. Sans-IO.

``Duty`` remembers what a decision needs from one look to the next (since when a unit is short of copies or has too
many, who declined, what is under way); who is alive comes from the caller, and so does the clock. ``Promises`` and
``LettingGo`` are the two sides of one rule: a copy goes only after as many others as asked for have just said that they
keep theirs, and who said so neither goes itself meanwhile nor says it to another.

Imports ``dht.custody``, ``dht.handoff``, ``dht.ledger``, ``dht.messages``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from p2plearn.dht.custody import Node, Unit, leads_repair, releases
from p2plearn.dht.handoff import Need, may_drop
from p2plearn.dht.ledger import Entry
from p2plearn.dht.messages import Reason

REFUSED_SECONDS: Final = 60.0
"""For which a node that declined a unit isn't asked again (while it is busy: ``BUSY_SECONDS``)."""

BUSY_SECONDS: Final = 2.0

FAILED_SECONDS: Final = 10.0
"""The same after a try that broke off: it may have restarted."""

SETTLE: Final = 2.0
"""Heartbeat intervals for which a unit must be short of copies before anything is done about it."""

PATIENCE: Final = 10.0
"""Heartbeat intervals after which the next nearest holder repairs what the one before it has not."""

HANDOVER_PATIENCE: Final = 60.0
"""Seconds after which the next nearest of several leavers places a unit that the one before it has not."""

SURPLUS_GRACES: Final = 4.0
"""A surplus copy goes only after so many grace periods: whoever sleeps at night must not cost a copy a day."""

PROMISE_SECONDS: Final = 20.0
"""For which who granted a release neither lets go itself nor grants another."""


def counted(entry: Entry, me: Node, gone_for: Callable[[Node], float], grace: float) -> frozenset[Node]:
    """Who holds a unit as far as copies are counted: not those away for as long as the grace period."""
    return frozenset(node for node in entry.holders if node == me or gone_for(node) < grace)


class Duty:
    """``me``'s memory between looks at what it keeps. ``interval`` of heartbeats and ``grace`` in seconds."""

    def __init__(self, me: Node, interval: float, grace: float) -> None:
        self._me = me
        self._interval = interval
        self._grace = grace
        self._refused: dict[Unit, dict[Node, float]] = {}
        self._missing_since: dict[Unit, float] = {}
        self._surplus_since: dict[Unit, float] = {}
        self.giving: dict[Unit, set[Node]] = {}
        """Copies under way from here: their receivers."""

    def keep_to(self, units: Iterable[Unit], now: float) -> None:
        """Forget what is over: units no longer kept here, refusals whose time has passed."""
        for unit, refusals in list(self._refused.items()):
            left = {node: until for node, until in refusals.items() if until > now}
            if left:
                self._refused[unit] = left
            else:
                del self._refused[unit]
        kept = set(units)
        for since in (self._missing_since, self._surplus_since):
            for unit in [unit for unit in since if unit not in kept]:
                del since[unit]

    def begun(self, unit: Unit, to: Node) -> None:
        """A copy is on its way from here."""
        self.giving.setdefault(unit, set()).add(to)

    def ended(self, unit: Unit, to: Node) -> None:
        """It is no longer, however it went."""
        receivers = self.giving.get(unit, set())
        receivers.discard(to)
        if not receivers:
            self.giving.pop(unit, None)

    def declined(self, unit: Unit, to: Node, why: Reason, now: float) -> None:
        """``to`` doesn't take a unit now."""
        rest = {Reason.BUSY: BUSY_SECONDS, Reason.FAILED: FAILED_SECONDS}.get(why, REFUSED_SECONDS)
        self._refused.setdefault(unit, {})[to] = now + rest

    def waits_for_busy(self, units: Iterable[Unit], now: float) -> bool:
        """Whether somebody who was busy will be free for one of ``units`` in a moment."""
        soon = now + BUSY_SECONDS
        return any(until <= soon for unit in units for until in self._refused.get(unit, {}).values())

    def need(self, unit: Unit, entry: Entry, holders: frozenset[Node], now: float) -> Need:
        """A unit as it stands when the copies of ``holders`` count. Who has it in any case is not sent another."""
        return Need(
            unit,
            entry.size,
            entry.copies,
            holders,
            frozenset(self.giving.get(unit, ())),
            frozenset(node for node, until in self._refused.get(unit, {}).items() if until > now)
            | entry.holders
            | entry.disproved,
        )

    @staticmethod
    def still_wanted(need: Need, to: Node) -> bool:
        """Whether a copy planned for ``to`` is still to be made when its turn comes, ``need`` being as of now.

        Others who hold the unit plan as well, and know other nodes as busy: what they placed meanwhile is not placed
        once more.
        """
        return to not in need.holders and len(need.holders | (need.coming - {to})) < need.copies

    def repairs(self, need: Need, alive: Collection[Node], now: float) -> bool:
        """Whether it is for this node to make the copies that are missing, ``alive`` being the holders that are there.

        Call it at each look: it notes since when the unit is short.
        """
        if not need.missing:
            self._missing_since.pop(need.unit, None)
            return False
        missing_for = now - self._missing_since.setdefault(need.unit, now)
        if missing_for < SETTLE * self._interval:
            return False  # who has just come to keep it has yet to hear of the others
        return leads_repair(need.unit, self._me, alive, missing_for, PATIENCE * self._interval)

    def short(self) -> set[Unit]:
        """Units that had too few copies at the last look."""
        return set(self._missing_since)

    def surplus(self) -> set[Unit]:
        """Units that had more than enough copies at the last look."""
        return set(self._surplus_since)

    def hands_over(self, need: Need, leavers: Collection[Node], now: float) -> bool:
        """Whether this node, which leaves, is to place what a unit lacks; ``leavers`` are its holders that leave, too.

        Each would find other nodes busy and place the unit elsewhere, and all of these would keep it. Call it at each
        look: it notes since when the unit lacks a place.
        """
        if not need.missing:
            self._missing_since.pop(need.unit, None)
            return False
        missing_for = now - self._missing_since.setdefault(need.unit, now)
        return leads_repair(need.unit, self._me, leavers, missing_for, HANDOVER_PATIENCE)

    def releases(self, unit: Unit, there: Collection[Node], copies: int, now: float) -> bool:
        """Whether to let go of this node's copy: more than ``copies`` are ``there``, and have been for long.

        Call it at each look: it notes since when. ``not_released`` begins the wait anew.
        """
        if len({*there} - {self._me}) < copies:
            self.not_released(unit)
            return False
        too_many_for = now - self._surplus_since.setdefault(unit, now) - SURPLUS_GRACES * self._grace
        return releases(unit, self._me, there, copies, too_many_for=too_many_for, patience=PATIENCE * self._interval)

    def not_released(self, unit: Unit) -> None:
        """A surplus copy was needed after all, or was asked about and is answered for."""
        self._surplus_since.pop(unit, None)


class Promises:
    """Whom this node told that it keeps a unit, so that they may let go of theirs."""

    def __init__(self) -> None:
        self._made: dict[Unit, tuple[Node, float]] = {}

    def grant(self, unit: Unit, to: Node, now: float) -> bool:
        """Promise ``to`` to keep a unit; False while another relies on it."""
        before, until = self._made.get(unit, (to, now))
        if until > now and before != to:
            return False
        self._made[unit] = (to, now + PROMISE_SECONDS)
        return True

    def holds(self, unit: Unit, now: float) -> bool:
        """Whether somebody relies on this node's copy just now."""
        promise = self._made.get(unit)
        return promise is not None and promise[1] > now

    def gone(self, unit: Unit, node: Node) -> None:
        """``node`` has let go: this copy is free to be counted by the next."""
        if unit in self._made and self._made[unit][0] == node:
            del self._made[unit]


@dataclass(eq=False, slots=True)
class Removal:
    """One try of a person to remove ``units``; ``yielded``: another, who relies on the copy here, came first."""

    units: frozenset[Unit]
    yields: Callable[[], None]
    yielded: bool = False


class Removals:
    """What the person of node ``me`` is removing: it may be relied on by nobody, or else it stays.

    Of two that ask each other at the same moment, so that each would go relying on the other, or neither could, the one
    with the larger key yields.
    """

    def __init__(self, me: Node) -> None:
        self._me = me
        self._begun: set[Removal] = set()

    @contextmanager
    def of(self, units: Iterable[Unit], yields: Callable[[], None]) -> Iterator[Removal]:
        """While others are asked for theirs. It must not be carried out once it has ``yielded``; ``yields`` is called
        then.
        """
        removal = Removal(frozenset(units), yields)
        self._begun.add(removal)
        try:
            yield removal
        finally:
            self._begun.discard(removal)

    def vouches(self, unit: Unit, to: Node) -> bool:
        """Whether ``to`` may rely on the copy here; then it isn't removed meanwhile."""
        going = [removal for removal in self._begun if unit in removal.units]
        if going and self._me < to:
            return False
        for removal in going:
            removal.yielded = True
            removal.yields()
        return True


class LettingGo:
    """One try to let go of a unit: ask ``next()`` to promise, say what it ``answered``, until there is no next.

    ``holders`` come with the nearest to the unit first, so that all who want to let go ask in one order.
    """

    def __init__(self, copies: int, holders: Sequence[Node]) -> None:
        self._copies = copies
        self._left = list(holders)
        self.granted: list[Node] = []
        self.failed: dict[Node, Reason] = {}

    def next(self) -> Node | None:
        """Whom to ask next; None when it is decided."""
        return self._left[0] if self._left and len(self.granted) < self._copies else None

    def answered(self, node: Node, refusal: Reason | None) -> None:
        """``node`` promised to keep its copy, or why not."""
        self._left.remove(node)
        if refusal is None:
            self.granted.append(node)
            return
        self.failed[node] = refusal
        if refusal is Reason.BUSY:
            self._left.clear()  # another is letting go: the first to be here gets to the end

    def may_drop(self, me: Node) -> bool:
        """Whether ``me`` may now let go."""
        return may_drop(self._copies, self.granted, me)
