"""⊙ How much may come in a time: a token bucket each (a forwarder, an author), the clock handed in.

Three buckets are kept of them. What a peer *brings* in exchanges that it began: a flood ends here, and whoever goes on
is at fault. What we *fetch* from a peer in exchanges that we began: a newcomer takes in a large record at once, at its
own pace. What an *author* says, counted once its signature was found good: nobody can empty another's bucket.

Nothing is lost by a bucket that is empty: the record of the peer that has it goes on offering it. The tables are
bounded; who had the most time to recover makes room.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

BROUGHT: Final = 1_000
"""Envelopes that a peer may bring at once, useful or not; what is more we fetch ourselves, at our own pace."""
FETCHED: Final = 20_000
"""New envelopes that we take from a peer at once: a busy course of years. What is larger comes from several peers."""
PER_SECOND: Final = 100.0
"""The same a second after that: twenty times what a thousand people say on a busy day."""
SLACK: Final = 2_000.0
"""How far below nothing an honest peer gets, with a turn of each of its exchanges sent before it was told."""
SAID: Final = 2_000
"""Envelopes of one author at once: as many as are kept of them in a feed."""
SAID_PER_SECOND: Final = 20.0
"""The same a second after that: no person says that much, a program that publishes many courses might."""
MAX_PEERS: Final = 1_024
MAX_AUTHORS: Final = 16_384
"""Buckets kept: 200 bytes each."""


class Allowance:
    """Tokens by name: a peer's, an author's."""

    def __init__(self, *, burst: float, rate: float, capacity: int) -> None:
        self._burst = burst
        self._rate = rate
        self._capacity = capacity
        self._spent: dict[Hashable, tuple[float, float]] = {}

    def spend(self, name: Hashable, number: float, now: float) -> bool:
        """Take ``number`` tokens (below nothing, if need be); whether any are left for more."""
        left = max(0.0, self._debt(name, now)) + number
        if name not in self._spent and len(self._spent) >= self._capacity:
            self._make_room(now)
        self._spent[name] = (left, now)
        return left < self._burst

    def admit(self, name: Hashable, now: float) -> bool:
        """Take one token if there is one; whether there was."""
        if self._debt(name, now) + 1 > self._burst:
            return False
        self.spend(name, 1, now)
        return True

    def overdrawn(self, name: Hashable, now: float) -> float:
        """Tokens taken beyond those there were; 0 when there are some left."""
        return max(0.0, self._debt(name, now) - self._burst)

    def _debt(self, name: Hashable, now: float) -> float:
        spent, at = self._spent.get(name, (0.0, now))
        return spent - max(0.0, now - at) * self._rate

    def _make_room(self, now: float) -> None:
        """Drop a sixteenth of the table, those with the least against them: rare work instead of work each time."""
        names = sorted(self._spent, key=lambda one: self._debt(one, now))
        for name in names[: max(1, self._capacity // 16)]:
            del self._spent[name]
