"""One Kademlia lookup as a state machine. Sans-IO: names in, names out, the clock is handed in.

Kademlia (Maymounkov, Mazières 2002): keep asking the nearest peers that were not asked yet for peers nearer still,
until the ``width`` nearest have all answered. Distance is libp2p's: XOR of the SHA-256 of both names.

Two things differ from the paper, for small networks on bad lines: a query that takes much longer than the others no
longer holds a place among the parallel ones, and the lookup ends when only such slow ones are left: one laptop that
was just closed must not cost everyone ten seconds. How long is long follows the slowest answer so far, so that on a
satellite line nobody counts as slow; and while nobody has answered at all, everybody is waited for.

Imports nothing of ours.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 20
"""k of the paper: how many peers hold a record; libp2p's."""

PARALLEL = 8
"""Queries under way at a time (alpha; libp2p has 10, the paper 3)."""

MAX_CANDIDATES = 256
"""Peers remembered in one lookup: a hostile answer names thousands."""

MAX_QUERIES = 96
"""Peers asked in one lookup: a network of a million nodes takes some 60."""


def place(name: bytes) -> int:
    """Where ``name`` (a peer id, a key) lies in the space of distances."""
    return int.from_bytes(hashlib.sha256(name).digest())


@dataclass(slots=True)
class _Candidate:
    name: bytes
    state: str = "new"  # new, asked, answered, failed
    asked_at: float = 0.0


class Lookup:
    """The lookup of ``target``, starting from ``seeds``; nobody is slow before ``patience`` seconds.

    Ask everyone whom ``next`` returns, then say ``answered`` or ``failed``, until ``finished``.
    """

    def __init__(
        self,
        target: bytes,
        seeds: Iterable[bytes],
        *,
        patience: float = 1.0,
        width: int = WIDTH,
        parallel: int = PARALLEL,
    ) -> None:
        self._place = place(target)
        self._least_patience = patience
        self._slowest: float | None = None
        self._width = width
        self._parallel = parallel
        self._queries = 0
        self._order: list[tuple[int, bytes]] = []
        self._candidates: dict[bytes, _Candidate] = {}
        for name in seeds:
            self._add(name)

    def next(self, now: float) -> list[bytes]:
        """Peers to ask now, nearest first; they count as asked from here on. Empty while enough are under way."""
        asked: list[bytes] = []
        prompt = sum(c.state == "asked" and not self._is_slow(c, now) for c in self._candidates.values())
        for candidate in self._nearest():
            if prompt + len(asked) >= self._parallel or self._queries >= MAX_QUERIES:
                break
            if candidate.state == "new":
                candidate.state, candidate.asked_at = "asked", now
                self._queries += 1
                asked.append(candidate.name)
        return asked

    def held_up(self, name: bytes) -> None:
        """The question to ``name`` waits here for others: that is no slowness of ``name``'s. ``begun`` ends it."""
        if name in self._candidates:
            self._candidates[name].asked_at = float("inf")

    def begun(self, name: bytes, now: float) -> None:
        """``name`` is really asked from ``now`` on."""
        if name in self._candidates:
            self._candidates[name].asked_at = now

    def answered(self, name: bytes, nearer: Iterable[bytes], now: float) -> None:
        """``name`` answered at ``now`` and knows ``nearer``."""
        candidate = self._candidates.get(name)
        if candidate is not None:
            candidate.state = "answered"
            self._slowest = max(self._slowest or 0.0, now - candidate.asked_at)
        for other in nearer:
            self._add(other)

    def failed(self, name: bytes) -> None:
        """``name`` could not be asked, or did not answer."""
        if name in self._candidates:
            self._candidates[name].state = "failed"

    def finished(self, now: float) -> bool:
        """Whether the nearest have answered, but for those that are slow."""
        if self._queries >= MAX_QUERIES:
            return not any(c.state == "asked" and not self._is_slow(c, now) for c in self._candidates.values())
        return all(c.state == "answered" or self._is_slow(c, now) for c in self._nearest())

    def slow(self, now: float) -> list[bytes]:
        """Peers that were asked, have not answered, and are slow."""
        return [c.name for c in self._candidates.values() if self._is_slow(c, now)]

    def wake_at(self, now: float) -> float:
        """When something changes by time alone: the next query under way that becomes a slow one (else infinity)."""
        if self._slowest is None:
            return float("inf")
        times = [c.asked_at + self._patience for c in self._candidates.values() if c.state == "asked"]
        return min((t for t in times if t > now), default=float("inf"))

    def nearest(self) -> list[bytes]:
        """Up to ``width`` peers that answered, nearest first."""
        names = (name for _, name in self._order if self._candidates[name].state == "answered")
        return [name for name, _ in zip(names, range(self._width), strict=False)]

    def _add(self, name: bytes) -> None:
        if name in self._candidates:
            return
        entry = (place(name) ^ self._place, name)
        if len(self._order) >= MAX_CANDIDATES:
            farthest = self._order[-1]
            if entry >= farthest or self._candidates[farthest[1]].state != "new":
                return
            self._order.pop()
            del self._candidates[farthest[1]]
        bisect.insort(self._order, entry)
        self._candidates[name] = _Candidate(name)

    @property
    def _patience(self) -> float:
        return max(self._least_patience, 3.0 * (self._slowest or 0.0))

    def _is_slow(self, candidate: _Candidate, now: float) -> bool:
        if candidate.state != "asked" or self._slowest is None:
            return False
        return now >= candidate.asked_at + self._patience

    def _nearest(self) -> list[_Candidate]:
        """The ``width`` nearest that have not failed."""
        found: list[_Candidate] = []
        for _, name in self._order:
            candidate = self._candidates[name]
            if candidate.state != "failed":
                found.append(candidate)
                if len(found) == self._width:
                    break
        return found
