"""When to say again that we provide a course. Sans-IO: clock and chance are handed in.

Nodes forget a provider that does not repeat itself, and those who heard it may leave. So each course is told to the
network at once, again every ``interval`` (each at its own moment, so that a node with a thousand courses does not
shout), and to new peers while fewer than ``enough`` hold the record: what was published offline is told to the first
peer that appears.

Imports nothing of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

INTERVAL = 12 * 3600.0
"""Seconds after which a course is told again. Receivers keep a record for 25 h."""

JITTER = 0.1
"""Each wait is up to this share shorter or longer."""

ENOUGH = 20
"""Holders of a record that make it safe from a few of them leaving (Kademlia's k)."""

SETTLE = 1.0
"""Seconds to wait for more new peers before the records are topped up."""

RETRY = 30.0
"""Seconds until a try again after nobody took a record; doubles up to ``RETRY_MOST``. A new peer cuts it short."""

RETRY_MOST = 1800.0

LATE = 300.0
"""A course that was due this many seconds ago counts as late."""


class Urgency(enum.IntEnum):
    """Who goes first."""

    NEW = 0  # somebody is waiting for it
    TOP_UP = 1
    REPEAT = 2


@dataclass(slots=True)
class _Entry:
    due: float
    urgency: Urgency
    holders: dict[bytes, float] = field(default_factory=dict)
    tries: int = 0
    told_at: float | None = None
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """For status: courses told to somebody, courses that wait to be told, courses late, and the last reason why;
    how many seconds the most overdue one is overdue.
    """

    announced: int
    waiting: int
    late: int
    last_error: str
    lateness: float


class Schedule:
    """Courses (any bytes) and when each is to be told; ``chance`` gives numbers in [0, 1)."""

    def __init__(self, chance: Callable[[], float], *, interval: float = INTERVAL, enough: int = ENOUGH) -> None:
        self._chance = chance
        self._interval = interval
        self._enough = enough
        self._entries: dict[bytes, _Entry] = {}
        self._last_error = ""

    def __contains__(self, course: bytes) -> bool:
        return course in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, course: bytes, now: float, *, urgent: bool = True) -> None:
        """Tell ``course`` from now on; ``urgent`` puts it before those that only repeat. Known ones stay."""
        if course not in self._entries:
            self._entries[course] = _Entry(now, Urgency.NEW if urgent else Urgency.REPEAT)

    def remove(self, course: bytes) -> None:
        """Tell ``course`` no more."""
        self._entries.pop(course, None)

    def peers_came(self, now: float) -> None:
        """New peers are there: records that too few hold are told to them soon."""
        for entry in self._entries.values():
            if len(entry.holders) < self._enough and entry.due > now + SETTLE:
                entry.due = now + SETTLE
                entry.urgency = Urgency.TOP_UP if entry.told_at is not None else Urgency.NEW
                entry.tries = 0

    def addresses_changed(self, now: float) -> None:
        """Our addresses are others than those that were told: everything is to be told anew."""
        for entry in self._entries.values():
            entry.holders.clear()
            entry.due = min(entry.due, now + SETTLE)
            entry.urgency = Urgency.TOP_UP

    def take(self, now: float, most: int) -> list[bytes]:
        """Up to ``most`` courses to tell now, the most urgent first; each is busy until ``told``."""
        due = [(e.urgency, e.due, course) for course, e in self._entries.items() if e.due <= now and not e.busy]
        due.sort()
        taken = [course for _, _, course in due[:most]]
        for course in taken:
            self._entries[course].busy = True
        return taken

    def wants(self, course: bytes, peer: bytes, now: float) -> bool:
        """Whether ``peer`` should be told of ``course``: not if it confirmed it lately."""
        entry = self._entries.get(course)
        if entry is None:
            return False
        told = entry.holders.get(peer)
        return told is None or now - told >= self._interval / 2

    def told(self, course: bytes, confirmed: Iterable[bytes], holding: Iterable[bytes], now: float, error: str) -> None:
        """``course`` was told: ``confirmed`` took it now, ``holding`` are those near it that had it from before.

        Nobody of either: it is tried again, ``error`` saying why.
        """
        entry = self._entries.get(course)
        if entry is None:
            return
        entry.busy = False
        kept = {p: entry.holders[p] for p in holding if p in entry.holders}
        # Those no longer near it, or gone, no longer count.
        entry.holders = kept | dict.fromkeys(confirmed, now)
        if entry.holders:
            entry.told_at = now
            entry.tries = 0
            entry.due = now + self._interval * (1.0 + JITTER * (2.0 * self._chance() - 1.0))
            entry.urgency = Urgency.REPEAT
        else:
            self._last_error = error
            entry.told_at = None
            entry.due = now + min(RETRY * 2.0**entry.tries, RETRY_MOST) * (0.9 + 0.2 * self._chance())
            entry.tries = min(entry.tries + 1, 10)

    def lost(self, course: bytes, peer: bytes, now: float) -> None:
        """``peer`` confirmed ``course`` but does not have it any more."""
        entry = self._entries.get(course)
        if entry is not None and entry.holders.pop(peer, None) is not None:
            entry.due = min(entry.due, now)
            entry.urgency = Urgency.TOP_UP
            self._last_error = "a peer that confirmed a record did not have it"

    def holders(self, course: bytes) -> list[bytes]:
        """Who confirmed ``course``."""
        entry = self._entries.get(course)
        return [] if entry is None else list(entry.holders)

    def next_due(self) -> float:
        """When ``take`` will have something; infinity for never."""
        return min((e.due for e in self._entries.values() if not e.busy), default=float("inf"))

    def figures(self, now: float) -> Figures:
        """Numbers for status."""
        entries = self._entries.values()
        announced = sum(e.told_at is not None for e in entries)
        late = sum(e.due < now - LATE for e in entries)
        waiting = len(entries) - announced
        lateness = max((now - e.due for e in entries), default=0.0)
        return Figures(announced, waiting, late, self._last_error if waiting or late else "", max(lateness, 0.0))
