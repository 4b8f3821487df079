"""How fast it goes and how long it will take, from byte counts and a clock that are handed in. ⊙"""

from __future__ import annotations

from collections import deque
from typing import Final

SPAN_SECONDS: Final = 5.0
"""The rate is that of the last seconds: long enough to be readable, short enough to show a stall."""


class Gauge:
    """A rate and a remaining time. Call ``update`` some times a second with the bytes so far."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def update(self, now: float, done: int) -> None:
        """``done`` bytes at time ``now`` (seconds, never going back)."""
        self._points.append((now, done))
        while len(self._points) > 2 and now - self._points[0][0] > SPAN_SECONDS:
            self._points.popleft()

    @property
    def rate(self) -> float:
        """Bytes a second, 0 before there is anything to tell."""
        if len(self._points) < 2:
            return 0.0
        (since, first), (now, last) = self._points[0], self._points[-1]
        return max(last - first, 0) / (now - since) if now > since else 0.0

    def eta(self, left: int) -> float:
        """Seconds until ``left`` more bytes are there; -1 while that can't be told."""
        return left / self.rate if self.rate > 0 else (0.0 if left == 0 else -1.0)
