"""Which providers kept this node waiting, or sent something wrong, remembered from one get to the next. ⊙

A provider that promises and doesn't deliver costs every get the time until somebody else is asked instead, and an
identity that never breaks a rule is never banned. So whoever failed is doubted for a while: others are asked first,
and it takes part only when they don't have everything between them. Doubt halves every ``HALF_LIFE``, for a laptop that
was asleep is no liar, and ends when the peer delivers.

In: outcomes of conversations, by peer; the time, on any clock that never jumps. Out: how much a peer is doubted. The
table is bounded: the peer that is doubted least makes room.

Imports nothing of ours.
"""

from __future__ import annotations

from typing import Final

HALF_LIFE: Final = 900.0
"""Seconds. Longer: a peer that was paused is passed over for a lesson; shorter: every get pays for the same peer."""

DOUBTED: Final = 0.5
"""A peer with so much against it is asked last: for a quarter of an hour after one failure, three after four."""

MOST: Final = 4.0
"""However often it failed: a peer that comes to its senses is among the first again within the hour."""

CAPACITY: Final = 1024
"""Peers remembered."""

KEPT_WAITING_SECONDS: Final = 1.0
"""For which a peer may owe an answer or a chunk, and bring nothing, when a get no longer needs it: a bad line's round
trip, several times."""

STALLED: Final = 1.0
"""What stands against a peer that was given up ..."""

LATE: Final = 0.6
"""... one that had kept a get waiting when others brought what it owed, which may be chance (doubted for 4 min), or
couldn't be reached: a handshake that comes to nothing costs more than a chunk does ..."""

OVERTAKEN: Final = 0.3
"""... one that owed everything when others, asked later, had brought it, which happens (twice is doubted) ..."""

WRONG: Final = 2.0
"""... and one that broke a rule, which it will do again."""


class Reliance:
    """See the head of this file."""

    def __init__(self) -> None:
        self._against: dict[str, tuple[float, float]] = {}  # points, and when

    def __len__(self) -> int:
        return len(self._against)

    def failed(self, peer: str, points: float, now: float) -> None:
        """``peer`` failed; ``points`` are ``STALLED``, ``LATE`` or ``WRONG``."""
        if peer not in self._against and len(self._against) >= CAPACITY:
            del self._against[min(self._against, key=lambda each: self.doubt(each, now))]
        self._against[peer] = (min(self.doubt(peer, now) + points, MOST), now)

    def ended(
        self,
        peer: str,
        now: float,
        *,
        wrong: bool,
        gave: bool,
        waited: float,
        patience: float,
        overtaken: bool = False,
        unreachable: bool = False,
    ) -> None:
        """A conversation is over: whether ``peer`` broke a rule, whether it gave something, for how many seconds it
        owed something at the end and brought nothing, after how many a get loses patience, whether others were asked
        in its place before that, and whether there was none, as it couldn't be reached.
        """
        if wrong:
            self.failed(peer, WRONG, now)
        elif waited > KEPT_WAITING_SECONDS:
            self.failed(peer, STALLED if waited > patience else LATE, now)
        elif unreachable:
            self.failed(peer, LATE, now)
        elif overtaken and not gave:
            self.failed(peer, OVERTAKEN, now)
        elif gave:
            self._against.pop(peer, None)

    def doubt(self, peer: str, now: float) -> float:
        """What stands against ``peer``, 0.0 for one that never failed."""
        points, at = self._against.get(peer, (0.0, now))
        return points * float(0.5 ** ((now - at) / HALF_LIFE))

    def doubted(self, peer: str, now: float) -> bool:
        """Whether others are to be asked first."""
        return self.doubt(peer, now) >= DOUBTED
