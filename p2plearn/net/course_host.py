"""libp2p's host over our swarm: what it tells others of where it can be called.

``course_host`` puts it together; services are added and guarded (``guard.py``) by whoever calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from libp2p import generate_peer_id_from
from libp2p.abc import ITransport
from libp2p.crypto.keys import KeyPair
from libp2p.host.basic_host import BasicHost
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from p2plearn.net import bounded
from p2plearn.net.addresses import bare
from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.peerstore import CoursePeerStore
from p2plearn.net.swarm import CourseSwarm

OWN_ADDRESSES_SECONDS: Final = 2.0
"""For which the answer to "what are our addresses" is remembered."""


class CourseHost(BasicHost):
    """A host that may be reached by more ways than those it listens on.

    (The stock one takes the first ``/p2p/`` of an address for its own, which in a relayed one is the relay's.)
    """

    announced: Callable[[], list[Multiaddr]] = staticmethod(list)
    """Addresses others can dial beyond the listening ones, with no ``/p2p/`` of ours at the end; they come first."""

    def own_addresses(self) -> list[Multiaddr]:
        """The addresses listened on, as others on this network dial them, without ``/p2p/``."""
        listening = self.get_transport_addrs()
        return listening if self._addrs_factory is None else self._addrs_factory(listening)

    def get_addrs(self) -> list[Multiaddr]:
        """Where this host can be dialled, each address with ``/p2p/`` and its id, the most useful first."""
        own = Multiaddr(f"/p2p/{self.get_id()}")
        found = [*self.announced(), *self.own_addresses()]
        return [bare(address).encapsulate(own) for address in dict.fromkeys(found)]


def course_host(
    keys: KeyPair,
    upgrader: TransportUpgrader,
    transport: ITransport,
    *,
    limits: ConnectionLimits | None = None,
    addrs_factory: Callable[[list[Multiaddr]], list[Multiaddr]] | None = None,
) -> CourseHost:
    """A libp2p host over a ``CourseSwarm``, with exactly the security and muxers of ``upgrader``: nothing else is
    offered or accepted. ``addrs_factory`` makes of the addresses listened on those that others are told.

    Run it with ``async with host.run(addresses)``.
    """
    bounded.bound_negotiation()
    peer_id = generate_peer_id_from(keys)
    peerstore = CoursePeerStore()
    peerstore.add_key_pair(peer_id, keys)
    swarm = CourseSwarm(peer_id, peerstore, upgrader, transport, limits or ConnectionLimits())
    factory = None if addrs_factory is None else _for_a_moment(addrs_factory)
    # What a single peer says it sees of us would change our signed record at will; what we listen on does not.
    host = CourseHost(network=swarm, addrs_factory=factory, disable_identify_address_discovery=True)
    swarm.own_addresses = host.own_addresses
    return host


def _for_a_moment(factory: Callable[[list[Multiaddr]], list[Multiaddr]]) -> Callable[..., list[Multiaddr]]:
    """``factory``, remembering its answer: libp2p asks for our addresses at each message, and the system is slow."""
    asked: tuple[list[Multiaddr], float] | None = None
    answer: list[Multiaddr] = []

    def remembered(listening: list[Multiaddr]) -> list[Multiaddr]:
        nonlocal asked, answer
        now = time.monotonic()
        if asked is None or asked[0] != listening or now - asked[1] > OWN_ADDRESSES_SECONDS:
            asked, answer = (list(listening), now), factory(listening)
        return list(answer)

    return remembered
