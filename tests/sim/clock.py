"""Virtual time: what happens next, and a digest of all that has happened. One seed, one history."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """``now`` in seconds since the beginning. Of events of one moment the one that was planned first happens first."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0
        self._trace = hashlib.sha256()

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        """Have ``what`` happen at a time, or now if that has passed."""
        self._planned += 1
        heapq.heappush(self._queue, (max(when, self.now), self._planned, what, arguments))

    def after(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        """Have ``what`` happen in so many seconds."""
        self.at(self.now + seconds, what, *arguments)

    def run(self, until: float) -> None:
        """Let everything happen up to a time."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what, arguments = heapq.heappop(self._queue)
            self.events += 1
            what(*arguments)
        self.now = until

    def note(self, *words: object) -> None:
        """Something happened that makes a history this one and no other."""
        self._trace.update(f"{self.now:.6f} {' '.join(map(str, words))}\n".encode())

    @property
    def digest(self) -> str:
        """Of the history so far."""
        return self._trace.hexdigest()
