"""⊙ Who may knock, and how often we do: the caps on connections that come, and the pace of those we make. Sans-IO: the
clock is handed in.

What others tell us must not make us a nuisance to anybody, and whoever calls us must leave room for the next one. This
machine itself is spared where the limits say so: who is here can do worse. Imports ``net.limits``, ``net.rates`` and
the reach of addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from multiaddr import Multiaddr

from p2plearn.net.addresses import HOSTS, Reach, is_relayed, reach, reach_of_ip
from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.rates import Rates


class Threshold:
    """See the head of this file; ``ip`` is the other end's IP address, empty when it can't be told."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._arrivals = Rates(limits.arrivals_burst, limits.arrivals_per_second)
        self._dials = Rates(limits.dials_burst, limits.dials_per_second)
        self._dials_to = Rates(limits.dials_per_ip_burst, limits.dials_per_ip_per_second)
        self._knocking: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()

    def may_knock(self, ip: str, now: float) -> bool:
        """Whether a connection from ``ip`` may begin its handshake."""
        limits = self._limits
        spared = limits.spare_loopback and reach_of_ip(ip) is Reach.LOOPBACK
        if not spared and (self._inside[ip] >= limits.per_ip or not self._arrivals.take(ip, now)):
            return False
        return self._knocking.total() < limits.pending and self._knocking[ip] < limits.pending_per_ip

    @contextmanager
    def knocking(self, ip: str) -> Iterator[None]:
        """While a handshake is under way."""
        with _counted(self._knocking, ip):
            yield

    @contextmanager
    def inside(self, ip: str) -> Iterator[None]:
        """While a connection that came from ``ip`` lasts."""
        with _counted(self._inside, ip):
            yield

    def wait_to_dial(self, address: Multiaddr, now: float) -> float:
        """Seconds until a dial to ``address`` is due; it counts from now on."""
        return max((rates.book(name, now) for rates, name in self._counted_by(address)), default=0.0)

    def not_dialled(self, address: Multiaddr, now: float) -> None:
        """Whoever waited for a dial to ``address`` has given up: else those who name addresses that nobody is at would
        put off every dial by as long as all of theirs take.
        """
        for rates, name in self._counted_by(address):
            rates.give_back(name, now)

    def _counted_by(self, address: Multiaddr) -> list[tuple[Rates, str]]:
        if self._limits.spare_loopback and reach(address) is Reach.LOOPBACK:
            return []
        if is_relayed(address):  # a word over a connection that is there
            return [(self._dials, "")]
        host = next((str(address.value_for_protocol(p.name)) for p in address.protocols() if p.name in HOSTS), "")
        return [(self._dials, ""), (self._dials_to, host)]


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
