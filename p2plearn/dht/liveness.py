"""Who is there: a failure detector with suspicion and a look at one's own health. Sans-IO; the clock is handed in.

What is said of a peer, and from what:

- *alive*: it was heard as lately as one would expect. How late is too late follows the intervals that it was heard
  at: phi-accrual (Hayashibara, Défago, Yared, Katayama 2004), phi = -log10 P(it is only late).
- *suspect*: phi is over ``SUSPECT_PHI``. Nothing is done about it yet; a sign of life refutes it.
- *down*: suspect, and not heard for ``DOWN_AFTER`` intervals. Even then nothing is done before the grace period.
- *left*: it said goodbye.

An observer that is unwell sees everybody ill, so it watches itself (Lifeguard: Dadgar, Phillips, Currey 2018): when
its own ticks come late (a closed lid, a busy machine) or it reaches nobody at all, that time counts as nobody's
silence, and it takes longer to accuse for a while after.

Times are seconds of a clock that never goes back; only their differences count.

Imports nothing of ours.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SUSPECT_PHI: Final = 8.0
"""One false suspicion in 10^8 beats if intervals were normally distributed; their tails are fatter."""

SUSPECT_LEAST: Final = 2.5
SUSPECT_MOST: Final = 4.5
"""Suspicion begins between so many intervals, whatever phi says: a peer with odd habits is neither condemned at once
nor trusted for ever."""

DOWN_AFTER: Final = 15.0
"""Intervals of silence after which a suspect counts as down."""

DOWN_REFUSED: Final = 5.0
"""The same where its machine itself says that nothing listens there any more."""

MOST_UNWELL: Final = 3
"""How much an unwell observer stretches its patience: up to (1 + this) times."""

LATE_TICK: Final = 2.0
"""A tick that comes this many intervals after the last one was late: this node itself slept."""

_WINDOW: Final = 64
_LEAST_DEVIATION: Final = 0.25


class Life(enum.Enum):
    """What is thought of a peer."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DOWN = "down"
    LEFT = "left"


@dataclass(slots=True)
class _Peer:
    heard: float
    life: Life = Life.ALIVE
    refused: bool = False
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))


class Detector:
    """Peers (any hashable bytes) and when they were heard. ``interval`` is how often each is expected, in seconds."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._ticked = now
        self._peers: dict[bytes, _Peer] = {}
        self.unwell = 0
        """0 when this observer is in good health, up to ``MOST_UNWELL``."""

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._peers

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._peers)

    def watch(self, peer: bytes, now: float, away: float = 0.0) -> None:
        """Expect to hear from ``peer`` from now on. Known ones stay as they are.

        ``away``: seconds for which it had been down when this observer last ran; it is down until it is heard.
        """
        if peer not in self._peers:
            self._peers[peer] = _Peer(now - away, Life.DOWN if away > 0.0 else Life.ALIVE)

    def forget(self, peer: bytes) -> None:
        """Expect nothing of ``peer`` any more."""
        self._peers.pop(peer, None)

    def beat(self, peer: bytes, now: float) -> Life:
        """A sign of life; returns what was thought of it until now."""
        known = self._peers.get(peer)
        if known is None:
            self._peers[peer] = _Peer(now)
            return Life.ALIVE
        before = known.life
        if before is Life.ALIVE and now > known.heard:
            known.gaps.append(now - known.heard)
        known.heard = max(known.heard, now)
        known.life, known.refused = Life.ALIVE, False
        return before

    def refused(self, peer: bytes) -> None:
        """Where ``peer`` was, nobody listens: it has stopped, rather than being slow or asleep."""
        known = self._peers.get(peer)
        if known is not None:
            known.refused = True

    def left(self, peer: bytes, now: float) -> None:
        """``peer`` said goodbye."""
        known = self._peers.setdefault(peer, _Peer(now))
        known.heard, known.life = max(known.heard, now), Life.LEFT

    def tick(self, now: float, *, in_touch: bool) -> list[tuple[bytes, Life]]:
        """Look at everybody; what changed. Call once an interval.

        ``in_touch`` is False while this node reaches nobody at all: then it is the one that is cut off.
        """
        passed = max(now - self._ticked, 0.0)
        self._ticked = max(now, self._ticked)
        late = passed > LATE_TICK * self._interval
        if late or not in_touch:
            self.unwell = min(self.unwell + 1, MOST_UNWELL)
            for peer in self._peers.values():
                peer.heard = min(peer.heard + passed, now)
        else:
            self.unwell = max(self.unwell - 1, 0)
        if late or not in_touch:
            return []
        changes: list[tuple[bytes, Life]] = []
        for name, peer in self._peers.items():
            life = self._judge(peer, now)
            if life is not peer.life:
                peer.life = life
                changes.append((name, life))
        return changes

    def _judge(self, peer: _Peer, now: float) -> Life:
        if peer.life is Life.LEFT:
            return Life.LEFT
        patience = self._interval * (1 + self.unwell)
        silence = now - peer.heard
        if silence >= (DOWN_REFUSED if peer.refused else DOWN_AFTER) * patience:
            return Life.DOWN
        if peer.life is Life.DOWN:
            return Life.DOWN  # only a sign of life brings it back
        doubtful = silence >= SUSPECT_MOST * patience or (
            silence >= SUSPECT_LEAST * patience and self._phi(peer, silence / (1 + self.unwell)) >= SUSPECT_PHI
        )
        return Life.SUSPECT if doubtful else Life.ALIVE

    def _phi(self, peer: _Peer, silence: float) -> float:
        gaps = peer.gaps or (self._interval,)
        mean = max(sum(gaps) / len(gaps), self._interval)
        deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
        deviation = max(deviation, _LEAST_DEVIATION * self._interval)
        late = 0.5 * math.erfc((silence - mean) / (deviation * math.sqrt(2)))
        return -math.log10(late) if late > 0.0 else math.inf

    def phi(self, peer: bytes, now: float) -> float:
        """How surprising its silence is; 0 for one that isn't watched."""
        known = self._peers.get(peer)
        return self._phi(known, now - known.heard) if known is not None else 0.0

    def life(self, peer: bytes) -> Life:
        """What is thought of ``peer``; one that isn't watched counts as alive."""
        known = self._peers.get(peer)
        return known.life if known is not None else Life.ALIVE

    def gone_for(self, peer: bytes, now: float) -> float:
        """Seconds since a peer that is down or left was heard; 0 for any other."""
        known = self._peers.get(peer)
        if known is None or known.life not in {Life.DOWN, Life.LEFT}:
            return 0.0
        return max(now - known.heard, 0.0)

    def gone_for_good(self, peer: bytes, now: float) -> bool:
        """Whether ``peer`` said goodbye and fell silent: one that leaves is heard for as long as it hands over."""
        known = self._peers.get(peer)
        return known is not None and known.life is Life.LEFT and now - known.heard >= DOWN_REFUSED * self._interval
