"""⊙ When this node begins an exchange with a neighbour: once with each that connects, and again where one failed.

In: who is connected, what exchanges came to, and the time, on any clock that never jumps. Out: with whom to begin now.

What must hold: nobody connected is left out for good, however often an exchange with it fails; of two that meet, one
begins; a peer that fails again and again is tried ever more rarely; who went away is forgotten, and met anew.

Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

COURTESY_SECONDS: Final = 5.0
"""Of two peers that meet, the one with the lower id begins; the other waits this long before it does."""
AGAIN_SECONDS: Final = 600.0
"""Longest wait before an exchange is tried again with a peer with which it fails: it may not speak this protocol."""
BUSY_SECONDS: Final = 10.0
"""So much longer than otherwise while this node gives or fetches a course: a class that begins to fetch together would
first of all compare what it knows, each with each. By then most gets are over."""
CATCH_UP_SECONDS: Final = 1.0
"""After this we fetch ourselves what a peer had more than it may bring."""


class Meetings(Generic[T]):
    """See the head of this file. ``is_ours``: whether it is for us to begin with a peer, not for the peer."""

    def __init__(self, is_ours: Callable[[T], bool]) -> None:
        self._is_ours = is_ours
        self._met: set[T] = set()
        self._due: dict[T, float] = {}
        self._failures: dict[T, int] = {}

    def due(self, here: Collection[T], now: float, *, busy: bool = False) -> list[T]:
        """With whom of those that are connected to begin; they count as met from here on. ``busy``: not yet, if it can
        wait.
        """
        by = now - BUSY_SECONDS if busy else now
        for peer in set(here) - self._met - set(self._due):
            self._due[peer] = now + (0.0 if self._is_ours(peer) else COURTESY_SECONDS)
        for peer in [peer for peer in (*self._met, *self._failures) if peer not in here]:
            self._met.discard(peer)  # when it comes back it is met anew
            self._failures.pop(peer, None)
        begin: list[T] = []
        for peer, due in list(self._due.items()):
            if peer not in here or peer in self._met:
                del self._due[peer]
            elif due <= by:
                del self._due[peer]
                self._met.add(peer)
                begin.append(peer)
        return begin

    def met(self, peer: T) -> None:
        """It began: no need to begin as well."""
        self._met.add(peer)

    def worked(self, peer: T) -> None:
        """An exchange that we began came to its end."""
        self._failures.pop(peer, None)

    def failed(self, peer: T, now: float) -> None:
        """An exchange failed, and with it maybe news were lost: all of it soon again, rarely when it goes on so."""
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        self._met.discard(peer)
        self._due[peer] = now + min(2.0**failures, AGAIN_SECONDS)

    def catch_up(self, peer: T, now: float) -> None:
        """A peer has more than it may bring: maybe a good deal is new. We fetch it, at our own pace."""
        self._met.discard(peer)
        self._due[peer] = now + CATCH_UP_SECONDS
