"""When to say again that we provide a course. Sans-IO: clock and chance are handed in.

Nodes forget a provider that does not repeat itself, and those who heard it may leave. So each course is told to the
network at once, again every ``interval`` (each at its own moment, so that a node with a thousand courses does not
shout), and to new peers while fewer than ``enough`` hold the record: what was published offline is told to the first
peer that appears.

What is told in one go are neighbours in the space of distances, since one look there finds the peers for all of them,
and they stay together: they fall due together, and what lies among them and is due soon goes along. So a round of ten
thousand courses is a sweep through that space. (Kubo's "sweeping provider" reprovides that way; 2025.)

Imports nothing of ours.
"""

from __future__ import annotations

import bisect
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

EARLY = 0.1
"""What will be due in this share of the interval goes along with its neighbours: a tenth more to tell at most, and the
looks of its own saved."""

LATE = 300.0
"""A course that was due this many seconds ago counts as late, or a whole interval where that is shorter."""


class Urgency(enum.IntEnum):
    """Who goes first."""

    NEW = 0  # somebody is waiting for it
    TOP_UP = 1
    REPEAT = 2


@dataclass(slots=True)
class _Entry:
    place: bytes
    due: float  # when it is told, or tried again
    owed: float  # since when, or from when on, it should be told: what puts it off, a failure too, doesn't change that
    urgency: Urgency
    wait: float = INTERVAL
    holders: dict[bytes, float] = field(default_factory=dict)
    tries: int = 0
    told_at: float | None = None
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """For status: courses told to somebody, courses that wait to be told, courses late, and the last reason why;
    how many seconds the most overdue one is overdue; how often a course was told and taken since the start.
    """

    announced: int
    waiting: int
    late: int
    last_error: str
    lateness: float
    tellings: int


class Schedule:
    """Courses (any bytes) and when each is to be told.

    ``chance`` gives numbers in [0, 1); ``place`` says where a course lies: what begins alike is near.
    """

    def __init__(
        self,
        chance: Callable[[], float],
        *,
        interval: float = INTERVAL,
        enough: int = ENOUGH,
        place: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._chance = chance
        self._interval = interval
        self._enough = enough
        self._place = place
        self._entries: dict[bytes, _Entry] = {}
        self._order: list[tuple[bytes, bytes]] = []
        """(place, course) of each, in order of place."""
        self._swept_to = (b"", b"")
        self._last_error = ""
        self._tellings = 0

    def __contains__(self, course: bytes) -> bool:
        return course in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, course: bytes, now: float, *, urgent: bool = True) -> None:
        """Tell ``course`` from now on; ``urgent`` puts it before those that only repeat. Known ones stay."""
        if course not in self._entries:
            place = self._place(course)
            self._entries[course] = _Entry(place, now, now, Urgency.NEW if urgent else Urgency.REPEAT)
            bisect.insort(self._order, (place, course))

    def remove(self, course: bytes) -> None:
        """Tell ``course`` no more."""
        entry = self._entries.pop(course, None)
        if entry is not None:
            del self._order[bisect.bisect_left(self._order, (entry.place, course))]

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
            entry.owed = min(entry.owed, now + SETTLE)
            entry.urgency = Urgency.TOP_UP

    def slept(self, seconds: float) -> None:
        """The clock stood still for so long while that of others, who count our records' age, went on."""
        for entry in self._entries.values():
            entry.due -= seconds
            entry.owed -= seconds
            entry.holders = {peer: told - seconds for peer, told in entry.holders.items()}
            if entry.told_at is not None:
                entry.told_at -= seconds

    def take(self, now: float, most: int) -> list[bytes]:
        """Up to ``most`` courses to tell now, neighbours of the most urgent kind first; each is busy until ``told``."""
        kinds = sorted({e.urgency for e in self._entries.values() if e.due <= now and not e.busy})
        wait = self._interval * (1.0 + JITTER * (2.0 * self._chance() - 1.0)) if kinds else 0.0
        taken: list[bytes] = []
        for kind in kinds:
            until = now + EARLY * self._interval if kind is Urgency.REPEAT else now
            taken += self._next(kind, now, until, most - len(taken))
            for course in taken:
                self._entries[course].busy = True
        for course in taken:
            self._entries[course].wait = wait
        return taken

    def _next(self, kind: Urgency, now: float, until: float, most: int) -> list[bytes]:
        """Up to ``most`` of a kind that are due by ``until``, from one that is due ``now`` on through the space."""
        begin = bisect.bisect_right(self._order, self._swept_to)
        chosen: list[bytes] = []
        for place, course in (*self._order[begin:], *self._order[:begin]):
            entry = self._entries[course]
            soon = until if chosen and entry.told_at is not None else now
            if entry.urgency is kind and not entry.busy and entry.due <= soon:
                if len(chosen) == most:
                    break
                chosen.append(course)
                self._swept_to = (place, course)
        return chosen

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
            self._tellings += 1
            entry.told_at = now
            entry.tries = 0
            entry.due = entry.owed = now + entry.wait
            entry.urgency = Urgency.REPEAT
        else:
            self._last_error = error
            entry.told_at = None
            entry.owed = min(entry.owed, now)
            entry.due = now + min(RETRY * 2.0**entry.tries, RETRY_MOST) * entry.wait / self._interval
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
        late = sum(e.owed < now - min(LATE, self._interval) for e in entries)
        waiting = len(entries) - announced
        lateness = max((now - e.owed for e in entries), default=0.0)
        error = self._last_error if waiting or late else ""
        return Figures(announced, waiting, late, error, max(lateness, 0.0), self._tellings)
