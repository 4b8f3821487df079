"""Places for the exchanges that this node begins: so many at a time, and none is kept by waiting for the other end.

However many answer slowly, they keep nobody else from being called: an exchange that has waited for too long goes on
without its place. One in which something comes keeps it, lest a newcomer fetch the same from everybody at once.

Imports trio alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

LOOK_SECONDS: Final = 1.0
"""Between two looks at who waits."""
WAIT_SECONDS: Final = 10.0
"""Of waiting for the peer, all its turns together, and a second more for each ``BYTES_A_SECOND`` of what was said: an
answer takes a round trip and some ten milliseconds, on a busy node a second."""
BYTES_A_SECOND: Final = 16 * 1024


class Place:
    """One exchange's place, for as long as it has one."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._since: float | None = None
        self.moved = 0
        """Bytes of envelopes that went either way."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While it is the peer's turn."""
        self._since = trio.current_time()
        try:
            yield
        finally:
            self._waited += trio.current_time() - self._since
            self._since = None

    def is_held_up(self, now: float) -> bool:
        """Whether the peer takes longer than it may to keep others waiting."""
        waits = 0.0 if self._since is None else now - self._since
        return self._waited + waits > WAIT_SECONDS + self.moved / BYTES_A_SECOND


class Places:
    """``most`` at a time; ``run`` it."""

    def __init__(self, most: int) -> None:
        self._free = trio.CapacityLimiter(most)
        self._taken: set[Place] = set()

    async def run(self) -> None:
        """Have those who are held up give their places to others, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            for place in [place for place in self._taken if place.is_held_up(now)]:
                self._give_back(place)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Place]:
        """A place, when there is one."""
        place = Place()
        await self._free.acquire_on_behalf_of(place)
        self._taken.add(place)
        try:
            yield place
        finally:
            self._give_back(place)

    def _give_back(self, place: Place) -> None:
        if place in self._taken:
            self._taken.discard(place)
            self._free.release_on_behalf_of(place)
