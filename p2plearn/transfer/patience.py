"""For how long a peer that owes chunks is waited for, and when others are asked for the same. ⊙

In: what each peer was asked, how fast it answered, when bytes and whole chunks came from it and from all of them
together; the time. Out: at what pace it brings, whether nothing is to be hoped for from it, whether somebody else is to
be asked for what it owes, whether it should make way.

What must hold: while a chunk is on its way at any pace that a line may have, hardly anything is asked twice; of those
that promise everything and bring nothing however many hold up nobody for long. Who never brought anything is judged
soonest, and by its own line: by what its first answer took. Bytes that come from anybody make everybody wait longer,
for then it is the line that is slow.

Imports ``order``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from p2plearn.transfer.order import Held

SILENCE_SECONDS: Final = 8.0
"""A peer that owes chunks and sends nothing for so long has its requests given to others."""

DROP_SECONDS: Final = 30.0
"""A peer that owes chunks and sends nothing for so long is given up."""

LATE_SECONDS: Final = 15.0
"""A peer that completes no chunk for so long, all of whose chunks a second peer was asked for meanwhile, gives its
place to a third: two that drip a byte at a time hold up nobody for longer."""

UNPROVEN_SECONDS: Final = 2.0
MOST_ASKED: Final = 4
"""A slot that was asked of peers which never brought anything, and owe it for so long, is asked of one more, of so many
in all: two that promise and do nothing hold up nobody for longer."""

LEAST_PATIENCE: Final = 0.1
ANSWERS_LONG: Final = 4.0
"""Much less than ``UNPROVEN_SECONDS`` where nothing comes at all: as many times what the peer took to answer its first
question (its line, and how busy it is), and this at least. Among forty peers that promised everything and gave nothing
one get in twenty took 2.3 to 2.7 s without it, and 0.3 s among honest ones, for each was waited for in turn."""

TURN: Final = 8.0
"""Such patiences after it was asked, with nothing from anybody, a peer makes way for one that wasn't asked yet, if all
that it owes is asked of others, too: four that stall keep nothing from the fifth."""

CRAWL: Final = 2048.0
"""Bytes a second, from everybody together: who brings less brings nothing. A modem brings twice as many. On a slower
line nobody's silence says much, but there the first answer took long, too."""

AHEAD_SECONDS: Final = 1.0
"""For which bytes count that came faster: who sends most of a chunk at once and then stops has stopped."""

MOST_IN_ALL: Final = 8
"""Beyond these it is asked of one at a time that did bring something: otherwise four that drip keep it from honest
peers beside them for as long as it takes to be sure of them (``LATE_SECONDS``), since they are never silent."""

STUCK_SECONDS: Final = 120.0
"""A peer that owes chunks and completes none for so long is given up, however busily it sends: the largest chunk in
this time is 9 KB a second."""

JITTER_SECONDS: Final = 0.02
"""By so much more than twice our own time a peer must keep us waiting before another is asked for the same. (With 0.1
a peer ten times slower, whose pace had been taken for higher, cost 256 MiB up to a fifth more time, and more was asked
twice: the slow one had brought the first of what it owed by then.)"""

GAUGE_SECONDS: Final = 0.2
"""Over which a peer's pace is taken, at least."""

UNKNOWN_SECONDS: Final = 0.5
"""What a chunk is taken to need from a peer whose pace isn't known."""


def patience_with(answered: float) -> float:
    """Seconds for which nothing may come from a peer that took ``answered`` seconds to say what it has."""
    return min(max(ANSWERS_LONG * answered, LEAST_PATIENCE), UNPROVEN_SECONDS)


@dataclass(slots=True)
class Partner(Held):
    """One peer that takes part: what it has, what it owes, how it does. Bytes, and seconds on the scheduler's clock."""

    came_partial: bool = False
    asked: dict[int, None] = field(default_factory=dict)
    asked_bytes: int = 0
    taken_back: Counter[int] = field(default_factory=Counter)  # copies that may still come, by slot
    starved: bool = False
    strikes: int = 0
    rate: float = 0.0
    heard_at: float = 0.0  # the last byte
    moved_at: float = 0.0  # the last whole chunk, or the first request after a time without any
    gauge_from: float = 0.0
    gauge_bytes: int = 0
    patience: float = UNPROVEN_SECONDS  # for its first chunk, while nothing comes from anybody
    overtaken: bool = False  # others were asked for what it owes, as nothing came from it
    silent: bool = False  # owed something for too long; asked again only once it delivers

    @property
    def proven(self) -> bool:
        """It brought something, right or not."""
        return bool(self.rate or self.gauge_bytes)

    def gauge(self, size: int, now: float) -> None:
        """A whole chunk came from it."""
        self.gauge_bytes += size
        passed = now - self.gauge_from
        if passed >= GAUGE_SECONDS:
            newest = self.gauge_bytes / passed
            self.rate = newest if self.rate == 0 else 0.6 * self.rate + 0.4 * newest
            self.gauge_from, self.gauge_bytes = now, 0

    def needs(self, size: int) -> float:
        """Seconds that ``size`` bytes take from it, as far as is known."""
        pace = self.rate or self.gauge_bytes / max(self.moved_at - self.gauge_from, JITTER_SECONDS)
        return size / pace if pace else UNKNOWN_SECONDS

    def is_hopeless(self, now: float, dry: float) -> bool:
        """Whether others should be asked for what it owes, as it never brought anything to speak of.

        ``dry``: seconds for which nothing came from anybody.
        """
        if self.rate:
            return False
        waited = now - self.moved_at
        return waited > UNPROVEN_SECONDS or (not self.proven and min(waited, dry) > self.patience)

    def makes_way(self, now: float, dry: float, silence: float) -> bool:
        """Whether it had its time, if others owe all that it owes; ``silence``: seconds after which one is late."""
        waited = now - self.moved_at
        if waited > max(LATE_SECONDS, 2 * silence):
            return True
        return waited > TURN * self.patience and dry > self.patience and self.is_hopeless(now, dry)


class Flow:
    """Whether anything comes, from all of them together: chunks, or before them the index."""

    def __init__(self) -> None:
        self._since = self._until = float("-inf")

    def whole(self, now: float) -> None:
        """A whole one came, or the first was asked for."""
        self._since = self._until = now

    def came(self, count: int, now: float) -> None:
        """So many bytes of one came."""
        self._until = min(self._until + count / CRAWL, now + AHEAD_SECONDS)

    def dry_for(self, now: float) -> float:
        """Seconds for which nothing came, or next to nothing; 0 while something does."""
        return now - self._since if now > self._until else 0.0


def keeps_waiting(asked: Partner, owing: Sequence[Partner], size: int, now: float, dry: float) -> float:
    """By how many seconds ``owing`` are late with a chunk of ``size`` bytes, all in all, that ``asked`` is to be asked
    for, too; 0 when it isn't.
    """
    hopeless = [other.is_hopeless(now, dry) for other in owing]
    if len(owing) > 1 and not _may_ask_another(asked, owing, hopeless):
        return 0.0
    waited = now - max(other.moved_at for other in owing)
    theirs = min(max(waited, other.asked_bytes / other.rate if other.rate else waited) for other in owing)
    return theirs if theirs > 2 * asked.needs(size) + JITTER_SECONDS or all(hopeless) else 0.0


def _may_ask_another(asked: Partner, owing: Sequence[Partner], hopeless: Sequence[bool]) -> bool:
    """Whether a third may be asked for the same: nothing else is to be hoped for."""
    if any(other.rate for other in owing):
        return False
    if asked.proven:
        return any(hopeless) and len(owing) < MOST_IN_ALL
    return all(hopeless) and len(owing) < MOST_ASKED
