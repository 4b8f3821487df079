"""For how long a peer has owed what it was asked for first, an answer or a part of the index, and brought none of it. ⊙

In: when it was asked, how many bytes came from it until when. Out: the seconds for which it brought next to nothing.

What must hold: who is asked something owes it from then on; a slow line's peer that sends all the time is never late,
however long a whole part takes; whoever sends a byte now and then is.

Imports nothing of ours.
"""

from __future__ import annotations

import math
from typing import Final

PROGRESS_BYTES: Final = 8 * 1024
"""So many bytes more are something, or in the end ``PROGRESS_RATE``. (Counted by whole parts, two that shared 4 to 30
KB a second made room for others after 5 s, those for the next: an index of 14 to 150 KB was asked for 50 times.)"""

PROGRESS_RATE: Final = 512.0
"""Bytes a second."""


class Owing:
    """What one peer owes of our first words. ``heard`` are always the bytes that came in this conversation."""

    def __init__(self) -> None:
        self.asked_at = math.inf
        """Seconds on the caller's clock; infinity while it owes nothing."""
        self._since = math.inf
        self._heard = 0

    def asked(self, now: float, heard: int) -> None:
        """It owes something from now on."""
        self.asked_at = self._since = now
        self._heard = heard

    def answered(self) -> None:
        """It owes nothing any more."""
        self.asked_at = self._since = math.inf

    def over(self, now: float, heard: int) -> None:
        """The conversation has ended."""
        if heard - self._heard >= PROGRESS_RATE * (now - self._since):
            self.answered()

    def waited(self, now: float, heard: int | None) -> float:
        """Seconds for which it brought next to nothing, 0 when it owes nothing; ``heard`` is None after the end."""
        if heard is not None and heard - self._heard >= PROGRESS_BYTES and now > self._since:
            self._since, self._heard = now, heard
        return max(now - self._since, 0.0)
