"""⊙ What a relay lends to others, and to whom. Sans-IO: the clock is handed in.

A node that others can call holds *reservations*: places for nodes behind routers, which are called through it. Each
call is a *circuit*, with an end in time and in bytes. Everything is bounded, and so is the rate of all circuits
together: lending must not be felt on the line it goes over. Imports ``wire`` for the words of refusals.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from p2plearn.net.reach.wire import Status

RESERVATION_SECONDS: Final = 3600
"""A reservation's life, unless it is renewed; the specification recommends an hour."""


@dataclass(frozen=True, slots=True)
class LendingLimits:
    """Higher: more nodes behind routers are reached; lower: less of this node's line goes to others."""

    reservations: int = 128  # a place costs an open connection, which is there anyway, and a line in a table
    per_ip: int = 16  # places of one address: a school behind one router
    circuits: int = 32  # calls at once
    per_peer: int = 8  # calls at once from or to one peer
    seconds: int = 600  # a call's life: a relay is for finding each other, a direct way is looked for meanwhile
    data: int = 4 * 1024 * 1024  # bytes of a call, each way: posts and ratings, a small course, no video
    rate: int = 256 * 1024  # bytes a second, all calls together: a quarter of a slow uplink


@dataclass(slots=True)
class Circuit:
    """A call from ``caller`` to ``called``: who pumps its bytes asks here."""

    caller: str
    called: str
    until: float
    data: int
    moved: dict[str, int] = field(default_factory=dict)  # by direction: the name of the sender

    def may_move(self, sender: str, amount: int) -> bool:
        """Count ``amount`` bytes from ``sender``; False when that is more than is lent."""
        total = self.moved.get(sender, 0) + amount
        self.moved[sender] = total
        return total <= self.data


class Lending:
    """Reservations and circuits of one relay; peers are any texts that name them."""

    def __init__(self, limits: LendingLimits) -> None:
        self.limits = limits
        self.circuits: list[Circuit] = []
        self.moved = 0
        """Bytes lent since the start."""
        self._places: dict[str, tuple[float, str]] = {}
        self._free_at = 0.0

    @property
    def reservations(self) -> int:
        """Places taken, expired ones that nobody asked about included."""
        return len(self._places)

    @property
    def takers(self) -> list[str]:
        """Who has a place."""
        return list(self._places)

    def reserve(self, peer: str, ip: str, now: float) -> Status:
        """Give ``peer``, which called from ``ip``, a place, or renew it."""
        self._expire(now)
        if peer not in self._places:
            same = Counter(where for _, where in self._places.values())
            if len(self._places) >= self.limits.reservations or same[ip] >= self.limits.per_ip:
                return Status.RESERVATION_REFUSED
        self._places[peer] = (now + RESERVATION_SECONDS, ip)
        return Status.OK

    def gone(self, peer: str) -> None:
        """``peer`` is not connected any more: its place is free."""
        self._places.pop(peer, None)

    def connect(self, caller: str, called: str, now: float) -> Circuit | Status:
        """Begin a call, or say why not. Whoever begins one ends it with ``over``."""
        self._expire(now)
        if called not in self._places:
            return Status.NO_RESERVATION
        if caller == called:
            return Status.PERMISSION_DENIED
        busy = Counter(name for circuit in self.circuits for name in (circuit.caller, circuit.called))
        most = self.limits.per_peer
        if len(self.circuits) >= self.limits.circuits or busy[caller] >= most or busy[called] >= most:
            return Status.RESOURCE_LIMIT_EXCEEDED
        circuit = Circuit(caller, called, now + self.limits.seconds, self.limits.data)
        self.circuits.append(circuit)
        return circuit

    def over(self, circuit: Circuit) -> None:
        """The call ended."""
        if circuit in self.circuits:
            self.circuits.remove(circuit)

    def pace(self, amount: int, now: float) -> float:
        """Seconds to wait before ``amount`` bytes go on, so that all calls together keep to the rate."""
        self.moved += amount
        start = max(self._free_at, now - 1.0)  # a second's worth may go at once
        self._free_at = start + amount / self.limits.rate
        return max(0.0, self._free_at - now)

    def _expire(self, now: float) -> None:
        for peer in [name for name, (until, _) in self._places.items() if until <= now]:
            del self._places[peer]
