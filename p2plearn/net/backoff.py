"""When what failed is worth another try: ever more seldom, until it works. Sans-IO: the clock is handed in.

It counts failures. Heartbeats have a rule of their own (``dht.heartbeat``), a share of how long a node has been silent:
that is known after a restart, too, and one that was heard a minute ago isn't asked seldom because of last week.

Imports nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

MOST_REMEMBERED: Final = 1024
"""Keys; the ones that failed first are forgotten first, and tried once too often."""


class Backoff:
    """Waits of ``first`` seconds after the first failure, twice as long after each further one, ``most`` at most."""

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._waits: dict[Hashable, tuple[float, float]] = {}

    def due(self, key: Hashable, now: float) -> bool:
        """Whether to try now."""
        return key not in self._waits or now >= self._waits[key][0]

    def failed(self, key: Hashable, now: float) -> None:
        """It was tried, in vain."""
        _, wait = self._waits.pop(key, (0.0, self._first / 2))
        wait = min(2 * wait, self._most)
        self._waits[key] = (now + wait, wait)
        if len(self._waits) > MOST_REMEMBERED:
            del self._waits[next(iter(self._waits))]

    def worked(self, key: Hashable) -> None:
        """It is as if it had never failed."""
        self._waits.pop(key, None)
