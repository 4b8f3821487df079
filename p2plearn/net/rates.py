"""⊙ How fast is too fast, and how slow too slow: token buckets by name, and a floor under what a peer sends.

Sans-IO: the clock is handed in. Imports ``net.limits``.
"""

from __future__ import annotations

from p2plearn.net.limits import BYTES_A_FRAME, FLOOR_BYTES, FLOOR_SECONDS, FRAMES_BURST, FRAMES_PER_SECOND


class Rates:
    """Token buckets by name: ``burst`` at once, ``per_second`` from then on. Names that are quiet are forgotten."""

    def __init__(self, burst: float, per_second: float, *, capacity: int = 4096) -> None:
        self._burst = burst
        self._per_second = per_second
        self._capacity = capacity
        self._spent: dict[str, tuple[float, float]] = {}  # tokens missing, and when

    def __len__(self) -> int:
        return len(self._spent)

    def take(self, name: str, now: float, tokens: float = 1.0) -> bool:
        """Take ``tokens`` if they are there; whether they were."""
        spent = self._missing(name, now) + tokens
        if spent > self._burst:
            return False
        self._note(name, spent, now)
        return True

    def book(self, name: str, now: float, tokens: float = 1.0) -> float:
        """Take ``tokens`` in any case; how many seconds to wait until they are due."""
        spent = self._missing(name, now) + tokens
        self._note(name, spent, now)
        return max(0.0, (spent - self._burst) / self._per_second)

    def give_back(self, name: str, now: float, tokens: float = 1.0) -> None:
        """What was booked isn't used: who comes next needn't wait for it."""
        if name in self._spent:
            self._note(name, max(0.0, self._missing(name, now) - tokens), now)

    def _missing(self, name: str, now: float) -> float:
        spent, at = self._spent.get(name, (0.0, now))
        return max(0.0, spent - (now - at) * self._per_second)

    def _note(self, name: str, spent: float, now: float) -> None:
        if name not in self._spent and len(self._spent) >= self._capacity:
            self._spent = {each: row for each, row in self._spent.items() if self._missing(each, now) > 0}
            while len(self._spent) >= self._capacity:  # whoever was here first has had its share
                del self._spent[next(iter(self._spent))]
        self._spent[name] = (spent, now)


class FrameAllowance:
    """How many frames a peer may still send: those that carry nothing cost as much as others, and are rationed."""

    def __init__(self, now: float) -> None:
        self._left = float(FRAMES_BURST)
        self._at = now
        self.frames = 0
        """Frames that came since the last settling."""
        self.bytes = 0
        """Bytes, both ways, that brought the peer frames since then."""

    def settle(self, now: float) -> bool:
        """Hold what came against what was earned; whether the peer is within its allowance."""
        gained = self.bytes / BYTES_A_FRAME + (now - self._at) * FRAMES_PER_SECOND
        self._left = min(self._left + gained - self.frames, float(FRAMES_BURST))
        self._at, self.frames, self.bytes = now, 0, 0
        return self._left >= 0


class Floor:
    """Whether a message that has begun comes fast enough: ``FLOOR_BYTES`` in any ``FLOOR_SECONDS``, or all of it."""

    def __init__(self, now: float) -> None:
        self._got = 0
        self.deadline = now + FLOOR_SECONDS
        """By when something has to have happened: later it is too slow."""

    def came(self, count: int, now: float) -> None:
        """``count`` bytes came."""
        self._got += count
        if self._got >= FLOOR_BYTES:
            self._got, self.deadline = 0, now + FLOOR_SECONDS
