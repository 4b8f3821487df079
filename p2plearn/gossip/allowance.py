"""⊙ How much news one peer may bring in a time: a token bucket a peer, the clock handed in.

A newcomer may take in a large record at once; after that a peer that goes on bringing more than an honest network says
waits for its tokens, and whoever else has news isn't kept waiting by it. The table is bounded; who had the most time to
recover makes room.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 20_000
"""New envelopes that a peer may bring at once: a busy course of years. What is larger comes from several peers."""
PER_SECOND: Final = 100.0
"""New envelopes a second after that: twenty times what a thousand people say on a busy day."""
MAX_PEERS: Final = 1_024


class Allowance:
    """Tokens by peer (any text that names one)."""

    def __init__(self, *, burst: float = BURST, rate: float = PER_SECOND, capacity: int = MAX_PEERS) -> None:
        self._burst = burst
        self._rate = rate
        self._capacity = capacity
        self._spent: dict[str, tuple[float, float]] = {}

    def spend(self, peer: str, number: int, now: float) -> bool:
        """Take ``number`` tokens (below nothing, if need be); whether any are left for more."""
        spent, at = self._spent.get(peer, (0.0, now))
        left = max(0.0, spent - (now - at) * self._rate) + number
        if peer not in self._spent and len(self._spent) >= self._capacity:
            del self._spent[min(self._spent, key=lambda one: self._debt(one, now))]
        self._spent[peer] = (left, now)
        return left < self._burst

    def _debt(self, peer: str, now: float) -> float:
        spent, at = self._spent[peer]
        return spent - (now - at) * self._rate
