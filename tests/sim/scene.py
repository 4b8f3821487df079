"""What a simulation is about: the network, how its nodes live, and what is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

HOUR = 3600.0
DAY = 86400.0
MIB = 1024 * 1024

EXCHANGE_BYTES = 2 * (42 + 12 + 22) + 3 * 52
"""One exchange of heartbeats on the wire: two beats of 37 bytes and 5 of length and kind, in yamux and TLS 1.3 frames,
in three TCP segments over IPv4 with timestamps."""


@dataclass(frozen=True)
class Scene:
    """Rates are a node's, per second; times in seconds, sizes in bytes, shares 0..1."""

    seed: int = 1
    nodes: int = 40
    courses: int = 40
    copies: int = 3
    size: int = 64 * MIB
    give: int = 5 * 1024 * MIB
    grace: float = 12 * HOUR
    interval: float = 10.0
    upload: float = 1.0 * MIB
    """What a node sends to others at most, bytes a second."""
    crash_rate: float = 0.0
    leave_rate: float = 0.0
    arrivals: float | None = None
    """Nodes a second, of the whole network; None: as many as go."""
    laptops: float = 0.0
    """Share of nodes that come and go, for ``session`` and ``absence`` in the mean (exponential)."""
    session: float = 8 * HOUR
    absence: float = 16 * HOUR
    lids: float = 0.5
    """Share of absences that are closed lids; the others are stops, after which a node has to start."""
    flappers: float = 0.0
    """Share of nodes that are on and off for a minute or two each, all the time."""
    publishes: float = 0.0
    """New courses a second, of the whole network."""
    lookups: float = 0.0
    """Lookups a second that are watched, of the whole network."""
    beats: bool = False
    """Play every heartbeat through real detectors, instead of only those that are missed."""
    lost_beats: float = 0.0
    """Share of exchanges that are lost on the way, when every one is played."""
    remembers: bool = True
    """Whether a node that starts knows how long others have been away, as far as it was on itself."""


@dataclass
class Figures:
    """What a run counts."""

    deaths: int = 0
    leaves: int = 0
    leaves_incomplete: int = 0
    arrivals: int = 0
    absences: int = 0
    published: int = 0
    false_downs: int = 0
    """Times that a node was held for down by one that could have reached it."""
    written_off: int = 0
    """Copies no longer counted whose node came back with them."""
    copies_made: Counter[str] = field(default_factory=Counter)
    """By reason: repair, leave."""
    copies_failed: int = 0
    released: int = 0
    bytes_moved: Counter[str] = field(default_factory=Counter)
    bytes_wasted: int = 0
    exchanges: float = 0.0
    node_seconds: float = 0.0
    """Time that nodes were on, together."""
    copy_samples: Counter[int] = field(default_factory=Counter)
    """Copies on disks, sampled each hour: how many courses had how many."""
    hops: Counter[int] = field(default_factory=Counter)
    lookup_seconds: list[float] = field(default_factory=list)
    lookup_asked: int = 0
    lookup_silent: int = 0
    lookup_found: int = 0
    """Lookups whose nearest three are the three nearest there are."""

    def per_node_day(self, amount: float) -> float:
        """An amount as a mean for one node in a day of being on."""
        return amount / self.node_seconds * DAY if self.node_seconds else 0.0

    @property
    def mean_hops(self) -> float:
        """Of the lookups made."""
        total = sum(self.hops.values())
        return sum(hop * number for hop, number in self.hops.items()) / total if total else 0.0
