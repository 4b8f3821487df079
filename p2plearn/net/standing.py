"""What other nodes did wrong, and who is not spoken to for a while. Sans-IO: the clock is handed in.

Every fault adds points to its peer; points halve every ``half_life`` seconds, and a peer that reaches
``BAN_POINTS`` is banned for as long as its last fault deserves. Two poisoned chunks within the hour are enough; a
protocol error may be a bug or another version, so it takes many of them in a short time. The table is bounded: a peer
with the fewest points makes room (identities cost nothing, so an attacker can always have a fresh one; what the table
buys is that an honest node stops wasting its time on the same one).

Imports nothing of ours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

BAN_POINTS = 100.0
"""A peer with this many points is banned."""


class Fault(enum.Enum):
    """What a peer did: name, points, seconds of a ban that this fault completes."""

    POISON = ("poison", 60.0, 3600.0)  # bytes that are not what their hash says: twice is no accident
    PROTOCOL = ("protocol", 12.0, 600.0)  # a frame that breaks the format: may be another version
    CRASH = ("crash", 8.0, 600.0)  # its input made a part of ours raise: our bug, but it is the one who found it
    FLOOD = ("flood", 4.0, 300.0)  # more streams at once than any honest node opens
    SLOW = ("slow", 2.0, 300.0)  # kept us waiting to the deadline: may be a bad line
    CLOCK = ("clock", 1.0, 300.0)  # passed on what is signed for the future: a clock may be wrong

    def __init__(self, word: str, points: float, ban: float) -> None:
        self.word = word
        self.points = points
        self.ban = ban


@dataclass(slots=True)
class _Record:
    points: float = 0.0
    at: float = 0.0
    banned_until: float = 0.0
    bans: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    last: str = ""


class Standing:
    """Faults and bans by peer (any text that names one; in practice the peer id)."""

    def __init__(self, *, half_life: float = 3600.0, capacity: int = 2048) -> None:
        self._half_life = half_life
        self._capacity = capacity
        self._records: dict[str, _Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def fault(self, peer: str, kind: Fault, now: float, detail: str = "") -> bool:
        """Count one fault; returns whether ``peer`` is banned from here on. ``now`` is any clock that never jumps."""
        record = self._records.get(peer)
        if record is None:
            self._make_room(now)
            record = self._records[peer] = _Record(at=now)
        record.points = self._points(record, now) + kind.points
        record.at = now
        record.counts[kind.word] = record.counts.get(kind.word, 0) + 1
        record.last = detail[:200]
        if record.points >= BAN_POINTS and record.banned_until <= now:
            # Whoever comes back and does it again waits longer each time, up to a day.
            record.banned_until = now + min(kind.ban * 2**record.bans, 86400.0)
            record.bans += 1
            record.points = BAN_POINTS / 2
        return record.banned_until > now

    def banned(self, peer: str, now: float) -> bool:
        """Whether ``peer`` is banned at ``now``."""
        record = self._records.get(peer)
        return record is not None and record.banned_until > now

    def points(self, peer: str, now: float) -> float:
        """What stands against ``peer`` at ``now``, 0.0 for a peer never heard of."""
        record = self._records.get(peer)
        return 0.0 if record is None else self._points(record, now)

    def forgive(self, peer: str) -> None:
        """Forget everything about ``peer``."""
        self._records.pop(peer, None)

    def summary(self, now: float) -> list[dict[str, Any]]:
        """Every peer with something against it, worst first, ready for JSON."""
        rows: list[dict[str, Any]] = []
        for peer, record in self._records.items():
            points, left = self._points(record, now), max(0.0, record.banned_until - now)
            if points < 1.0 and left == 0.0:
                continue
            rows.append(
                {
                    "peer": peer,
                    "points": round(points, 1),
                    "banned_for": round(left),
                    "faults": dict(record.counts),
                    "last": record.last,
                }
            )
        rows.sort(key=lambda row: (-row["banned_for"], -row["points"], row["peer"]))
        return rows

    def _points(self, record: _Record, now: float) -> float:
        return record.points * 0.5 ** (max(0.0, now - record.at) / self._half_life)

    def _make_room(self, now: float) -> None:
        if len(self._records) < self._capacity:
            return
        # Never a banned one while there is another: else a flood of fresh identities would lift bans.
        victim = min(self._records, key=lambda peer: self._worth(self._records[peer], now))
        del self._records[victim]

    def _worth(self, record: _Record, now: float) -> tuple[bool, float]:
        return (record.banned_until > now, self._points(record, now))
