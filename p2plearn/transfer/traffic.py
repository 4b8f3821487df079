"""How much was moved, by day, over the LAN and beyond, for this node and for those it relays for; and whether the node
is paused. Kept across restarts.

One small JSON file, replaced whole. It is counted by days and not by months, so that another ``transfer.cap_day``
counts the days that are past as well. What a crash loses is what was moved since the last save, a minute at most. A
file that can't be read is put aside: a node must start.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from p2plearn.named_file import KnownFolder
from p2plearn.state_file import Unusable, put_aside, read_state
from p2plearn.store.durable import write_atomic

logger = logging.getLogger(__name__)

FORMAT: Final = 1

MAX_DAYS: Final = 62
"""Days kept: a month of counting and the one before."""

MAX_FILE: Final = 100_000
"""Bytes read; ours has 8,000."""


@dataclass(slots=True)
class Moved:
    """Bytes of courses and what goes with them on chunk streams, and what was relayed for others, in and out."""

    lan_sent: int = 0
    lan_received: int = 0
    wan_sent: int = 0
    wan_received: int = 0
    lan_relayed: int = 0
    wan_relayed: int = 0

    @property
    def lan(self) -> int:
        """Both ways, on the LAN."""
        return self.lan_sent + self.lan_received + self.lan_relayed

    @property
    def wan(self) -> int:
        """Both ways, beyond."""
        return self.wan_sent + self.wan_received + self.wan_relayed

    def add(self, other: Moved) -> None:
        """Add what ``other`` has."""
        self.lan_sent += other.lan_sent
        self.lan_received += other.lan_received
        self.wan_sent += other.wan_sent
        self.wan_received += other.wan_received
        self.lan_relayed += other.lan_relayed
        self.wan_relayed += other.wan_relayed


class TrafficBook:
    """See the head of this file. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = KnownFolder(path.parent)
        self.changed = False
        """Whether there is something to save."""
        self.since_start = Moved()
        """What was counted by this object: never less than before, whatever month it is."""
        self._days: dict[datetime.date, Moved] = {}
        self._paused_until = 0.0

    @classmethod
    def load(cls, path: Path) -> TrafficBook:
        """The book at ``path``, empty when there is none or it can't be used. Never raises. Blocks briefly."""
        book = cls(path)
        try:
            read_state(path, MAX_FILE, FORMAT, book._read)
        except Unusable as error:
            logger.warning("%s can't be used (%s) and is put aside: counting begins anew", path, error)
            book = cls(path)
            put_aside(path)
        return book

    def _read(self, document: Any) -> None:
        for text, row in document["days"].items():
            values = {"lan_relayed": 0, "wan_relayed": 0} | row  # versions before these counted nothing of the kind
            values = {name: values[name] for name in asdict(Moved())}
            if not all(type(value) is int and 0 <= value < 2**62 for value in values.values()):
                raise ValueError(f"{text} has numbers that are none")
            self._days[datetime.date.fromisoformat(text)] = Moved(**values)
        until = document["paused_until"]
        self._paused_until = math.inf if until == "resumed" else float(until)
        if math.isnan(self._paused_until) or self._paused_until == -math.inf:  # it would be written as infinity
            raise ValueError("paused until never")

    @property
    def paused_until(self) -> float:
        """Seconds since 1970; infinity: until resumed; in the past: not paused."""
        return self._paused_until

    @paused_until.setter
    def paused_until(self, until: float) -> None:
        self._paused_until = until
        self.changed = True

    def add(self, today: datetime.date, *, lan: bool, sent: int = 0, received: int = 0, relayed: int = 0) -> None:
        """Count bytes of today."""
        day = self._days.get(today)
        if day is None:
            self._make_room(today)
            day = self._days[today] = Moved()
        if lan:
            moved = Moved(lan_sent=sent, lan_received=received, lan_relayed=relayed)
        else:
            moved = Moved(wan_sent=sent, wan_received=received, wan_relayed=relayed)
        day.add(moved)
        self.since_start.add(moved)
        self.changed = True

    def _make_room(self, today: datetime.date) -> None:
        """Forget the day farthest away: a clock that was years off for a while leaves nothing behind for ever."""
        while len(self._days) >= MAX_DAYS:
            del self._days[max(self._days, key=lambda day: abs(day - today))]

    def between(self, first: datetime.date, end: datetime.date) -> Moved:
        """What was moved from ``first`` up to the day before ``end``."""
        total = Moved()
        for day, moved in self._days.items():
            if first <= day < end:
                total.add(moved)
        return total

    def encode(self) -> bytes:
        """The file's bytes as of now; what is counted later makes it ``changed`` again."""
        self.changed = False
        until: float | str = "resumed" if math.isinf(self._paused_until) else self._paused_until
        days = {day.isoformat(): asdict(self._days[day]) for day in sorted(self._days)}
        return json.dumps({"format": FORMAT, "paused_until": until, "days": days}, indent=1).encode()

    def write(self, raw: bytes) -> None:
        """Replace the file by ``raw``, durably. Raises OSError. Blocks on the disk: not for the event loop."""
        try:
            write_atomic(self.path, [raw], within=self._folder)
        except OSError:
            self.changed = True
            raise
