"""Whom to call next, to be part of the network. Sans-IO: clock and chance are handed in.

Candidates come from bootstrap files, the LAN, the book of good peers and the DHT. While fewer than ``target`` peers
are connected, those due are called, best source first. A failed call waits twice as long as the one before, up to
five minutes; but while nobody at all is connected no wait is longer than ``LONELY`` seconds: then the network is what
is missing, and it should be noticed soon when it is back.

Imports nothing of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass

FIRST_WAIT = 2.0
LONGEST_WAIT = 300.0
LONELY = 20.0
"""Seconds: the longest wait while nobody is connected."""

AGAIN = 1.0
"""Seconds until a peer that was connected, and is not any more, is called again."""

MAX_CANDIDATES = 512
"""Remembered at a time; the worst source's are dropped first."""

GIVE_UP = 12
"""Failures in a row after which a candidate is dropped, unless a person named it or the LAN did."""


class Source(enum.IntEnum):
    """Where a candidate comes from; lower goes first."""

    NAMED = 0  # a bootstrap file, a flag
    LAN = 1
    BOOK = 2
    NETWORK = 3


@dataclass(slots=True)
class _Candidate:
    source: Source
    due: float
    failures: int = 0
    busy: bool = False


class Candidates:
    """Peers (any text that names one); ``chance`` gives numbers in [0, 1)."""

    def __init__(self, chance: Callable[[], float], *, target: int) -> None:
        self._chance = chance
        self._target = target
        self._all: dict[str, _Candidate] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, peer: str) -> bool:
        return peer in self._all

    def add(self, peer: str, source: Source, now: float) -> None:
        """``peer`` may be called; heard of again from a better source, or anew on the LAN, it is due at once."""
        known = self._all.get(peer)
        if known is None:
            self._make_room()
            self._all[peer] = _Candidate(source, now)
        elif source < known.source or (source is Source.LAN and known.failures):
            known.source = min(source, known.source)
            known.due = min(known.due, now)

    def call(self, now: float, connected: Collection[str], most: int) -> list[str]:
        """Up to ``most`` peers to call now; each is busy until ``reached`` or ``failed``."""
        busy = sum(c.busy for c in self._all.values())
        lan = [p for p, c in self._all.items() if c.source is Source.LAN and p not in connected]
        # Those on the LAN are wanted even when there are enough others: they are the fastest, and may be all.
        room = max(self._target - len(connected), min(len(lan), self._target)) - busy
        ready = [
            (c.source, c.failures, c.due, p)
            for p, c in self._all.items()
            if not c.busy and p not in connected and self._due(c, bool(connected)) <= now
        ]
        if len(connected) >= self._target:
            ready = [row for row in ready if row[0] is Source.LAN]
        ready.sort()
        chosen = [p for *_, p in ready[: max(0, min(room, most - busy))]]
        for peer in chosen:
            self._all[peer].busy = True
        return chosen

    def reached(self, peer: str, now: float) -> None:
        """``peer`` is connected, whoever called."""
        candidate = self._all.get(peer)
        if candidate is not None:
            candidate.busy = False
            candidate.failures = 0
            candidate.due = now + AGAIN

    def failed(self, peer: str, now: float, *, alone: bool) -> None:
        """The call did not succeed. While ``alone``, that says nothing against ``peer``: nobody is given up."""
        candidate = self._all.get(peer)
        if candidate is None:
            return
        candidate.busy = False
        candidate.failures = min(candidate.failures + 1, GIVE_UP)
        if candidate.failures == GIVE_UP and candidate.source > Source.LAN and not alone:
            del self._all[peer]
            return
        wait = min(FIRST_WAIT * 2.0 ** (candidate.failures - 1), LONGEST_WAIT)
        candidate.due = now + wait * (0.8 + 0.4 * self._chance())

    def gone(self, peer: str, now: float) -> None:
        """``peer`` hung up: it is called again soon, but not on the spot (it may be stopping)."""
        candidate = self._all.get(peer)
        if candidate is not None and not candidate.busy:
            candidate.due = now + AGAIN * (1.0 + self._chance())

    def network_changed(self, now: float) -> None:
        """Another network, or awake again: what failed before may succeed."""
        for candidate in self._all.values():
            candidate.failures = 0
            candidate.due = now

    def next_call(self, connected: Collection[str]) -> float:
        """When ``call`` may have something next, if nothing else happens; infinity for never."""
        if len(connected) >= self._target:
            waiting = [c for p, c in self._all.items() if c.source is Source.LAN and p not in connected and not c.busy]
        else:
            waiting = [c for p, c in self._all.items() if p not in connected and not c.busy]
        return min((self._due(c, bool(connected)) for c in waiting), default=float("inf"))

    def _due(self, candidate: _Candidate, in_company: bool) -> float:
        if in_company or candidate.failures == 0:
            return candidate.due
        wait = min(FIRST_WAIT * 2.0 ** (candidate.failures - 1), LONGEST_WAIT)
        return candidate.due - max(0.0, wait - LONELY)

    def _make_room(self) -> None:
        if len(self._all) >= MAX_CANDIDATES:
            worst = max(self._all, key=lambda p: (self._all[p].source, self._all[p].failures))
            del self._all[worst]
