"""What peers say of other peers: which addresses are believed, and kept.

Hearsay: a peer's addresses count where they are believable for who says so, or under that peer's own signature.
Imports only libp2p and ``net``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.kad_dht.utils import maybe_consume_signed_record
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.dht.lookup import WIDTH
from p2plearn.net.addresses import Reach, believable, reach, reach_of_ip
from p2plearn.net.peerstore import CoursePeerStore

log = logging.getLogger("p2plearn.dht")


class Hearsay:
    """Takes in what answers say; ``refuses`` says of which peers nothing is believed."""

    def __init__(self, host: BasicHost, peerstore: CoursePeerStore, refuses: Callable[[ID], bool]) -> None:
        self._host = host
        self._peerstore = peerstore
        self._refuses = refuses
        self._last_record: dict[bytes, bytes] = {}

    def told_over(self, peer: ID) -> Reach:
        """How far the connection to ``peer`` reaches: what it may tell us of others depends on it."""
        for connection in self._host.get_network().get_connections(peer):
            for address in connection.get_transport_addresses():
                return reach(address)
            remote: Any = getattr(connection.muxed_conn, "get_remote_address", lambda: None)()
            if remote:
                return reach_of_ip(remote[0])
        return Reach.GLOBAL

    def learn(self, told: Iterable[Message.Peer], told_over: Reach) -> list[ID]:
        """The peers in an answer that can be asked in turn; their addresses go to the peerstore."""
        learnt: list[ID] = []
        for info in self.parse(told, told_over):
            known = self._peerstore.addresses(info.peer_id)
            if any(address not in known for address in info.addrs):
                self._peerstore.add_addrs(info.peer_id, info.addrs, 3600)
            if known or self._peerstore.addresses(info.peer_id):
                learnt.append(info.peer_id)
        return learnt

    def parse(self, told: Iterable[Message.Peer], told_over: Reach) -> list[PeerInfo]:
        """Peers of an answer, at most ``2 * WIDTH``, with the addresses told that are believable where we stand."""
        parsed: list[PeerInfo] = []
        for item in list(told)[: 2 * WIDTH]:
            if not 2 <= len(item.id) <= 64:
                continue
            peer = ID(item.id)
            if peer == self._host.get_id() or self._refuses(peer):
                continue
            addresses = believable(_multiaddrs(item.addrs), told_over)
            if item.signedRecord and self._takes_record(item):
                addresses = list(dict.fromkeys([*self._peerstore.addresses(peer), *addresses]))
            parsed.append(PeerInfo(peer, addresses))
        return parsed

    def _takes_record(self, item: Message.Peer) -> bool:
        """Have the peerstore take the signed record of ``item``; the same one again is not verified again."""
        if self._last_record.get(item.id) == item.signedRecord and self._peerstore.addresses(ID(item.id)):
            return True
        if not maybe_consume_signed_record(item, self._host):
            return False
        if len(self._last_record) > 2048:
            self._last_record.clear()
        self._last_record[item.id] = item.signedRecord
        return True


def _multiaddrs(raw: Iterable[bytes]) -> list[Multiaddr]:
    parsed: list[Multiaddr] = []
    for item in list(raw)[:64]:
        try:
            parsed.append(Multiaddr(item))
        except Exception:  # multiaddr raises whatever the codec of a part raises
            log.debug("an address that is none: %r", item[:64])
    return parsed
