"""How the seconds of a leave are shared out, so that its deadline holds for all that it does. Sans-IO; the clock is
handed in.

    begun ---- handing over ----> asking who is there ----> taking leave ----> deadline

Asking comes before its person is told what could not be placed, taking leave when the node stops after that. Neither
may take more than a fifth, so most of a short time goes to handing over.

Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ASK_SECONDS: Final = 1.0
"""For others to say that they are there before this node stops, quickly. Who keeps copies together has a connection,
as a rule, and answers in a round trip; a second is enough for one to the other side of the world, dialled anew."""

WITHDRAW_SECONDS: Final = 5.0
"""To tell those who name this node for what it handed over; who isn't reached does so for up to a day."""

LARGEST_SHARE: Final = 0.2

AFTERWARDS: Final = 10.0
"""Seconds after the deadline from which a stop is no part of that leave any more."""


@dataclass(frozen=True, slots=True)
class Parting:
    """A leave that began at ``begun`` and may take ``seconds``; all times are of one clock that never goes back."""

    begun: float
    seconds: float

    def _left(self, now: float) -> float:
        return max(self.begun + self.seconds - now, 0.0)

    def _share(self, most: float) -> float:
        return min(most, LARGEST_SHARE * self.seconds)

    def hands_over_for(self, now: float) -> float:
        """Seconds from ``now`` in which copies are made."""
        return max(self._left(now) - self._share(ASK_SECONDS) - self._share(WITHDRAW_SECONDS), 0.0)

    def asks_for(self, now: float) -> float:
        """Seconds from ``now`` for others to say that they are there."""
        return min(ASK_SECONDS, max(self._left(now) - self._share(WITHDRAW_SECONDS), 0.0))

    def withdraws_for(self, now: float) -> float:
        """Seconds from ``now``, when the node stops, in which others are told that it is gone."""
        if now > self.begun + self.seconds + AFTERWARDS:
            return WITHDRAW_SECONDS
        return min(WITHDRAW_SECONDS, self._left(now))
