"""How many peers may take part in a fetch at once, and when it has enough of them. ⊙

In: how fast peers answered, for how long nothing came, whether all is asked for; the time. Out: how many places there
are now, whether one more peer is wanted.

What must hold: those who fill all places and bring nothing keep nobody out for long; yet each conversation costs the
line and the machine what the course needs, so there is never one that isn't needed, nor more than ``MORE`` times the
places in addition.

Imports ``patience``.
"""

from __future__ import annotations

import math
from typing import Final

from p2plearn.transfer.patience import ANSWERS_LONG, LEAST_PATIENCE, patience_with

MORE: Final = 3
"""Times the places there are, for so many more peers while nothing comes from anybody."""

WIDEN_SECONDS: Final = 0.1, 0.5
"""One such place in twice the time that the quickest peer took to answer, but within these; the longer while none has:
on a slow line, or a busy machine, a conversation more makes the others slower. (With 0.05, and once the time, gets
among attackers took up to a second, most of it for handshakes with more of them.)"""

COVERED_SECONDS: Final = 0.25
"""When all is asked for and comes, nobody else is called for so long: a small course is here by then."""

OVERTAKEN_SECONDS: Final = 0.25
"""For which a peer may owe its first answer, and several times as long as the quickest, when a fetch is over."""


class Places:
    """See the head of this file; ``places`` is how many there are while all goes well."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._quickest = WIDEN_SECONDS[1]
        self._covered_at = math.inf

    def answered(self, seconds: float) -> None:
        """A peer said whether it has the course, so long after it was asked."""
        self._quickest = min(self._quickest, seconds)

    @property
    def patience(self) -> float:
        """Seconds after which an answer is late."""
        return patience_with(self._quickest)

    def overtook(self, waited: float) -> bool:
        """Whether others answered much sooner than a peer that has owed its answer for so many seconds."""
        return waited > max(ANSWERS_LONG * self._quickest, OVERTAKEN_SECONDS)

    def now(self, dry: float) -> int:
        """Places while nothing has come from anybody for ``dry`` seconds."""
        pace = min(max(2 * self._quickest, WIDEN_SECONDS[0]), WIDEN_SECONDS[1])
        return self._places + min(int(dry / pace), MORE * self._places)

    def has_enough(self, covered: bool, dry: float, now: float) -> bool:
        """Whether those who take part will do for the moment. ``covered``: nothing is left to be asked for."""
        if not covered:
            self._covered_at = math.inf
            return False
        self._covered_at = min(self._covered_at, now)
        return now - self._covered_at < COVERED_SECONDS and dry < LEAST_PATIENCE
