"""What a node remembers of peers is bounded, and no number of names makes it forget what it stands on."""

from __future__ import annotations

import os

from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import env_to_send_in_RPC
from multiaddr import Multiaddr

from p2plearn.net.dial import connect
from p2plearn.net.peerstore import MAX_PEERS, ROOM_MADE, CoursePeerStore
from tests.hosts import eventually, running_host

PING = "/ipfs/ping/1.0.0"


def made_up() -> ID:
    return ID(b"\x00\x24\x08\x01\x12\x20" + os.urandom(32))


def hear_of_many(store: CoursePeerStore, count: int = 2 * MAX_PEERS) -> list[ID]:
    """As answers of the DHT name them."""
    names = [made_up() for _ in range(count)]
    for number, name in enumerate(names):
        store.add_addrs(name, [Multiaddr(f"/ip4/198.51.100.7/tcp/{1 + number}")], 3600)
    return names


async def test_a_node_that_heard_of_thousands_still_says_who_it_is() -> None:
    """Its own keys were the first thing forgotten: it could sign nothing, and held that against whoever asked."""
    async with running_host() as (a, guard), running_host() as (b, _):
        hear_of_many(a.get_peerstore())
        await connect(b, PeerInfo(a.get_id(), a.get_transport_addrs()), 5.0)
        await eventually(lambda: b.get_peerstore().speaks(a.get_id(), PING), 60)
        assert env_to_send_in_RPC(a)
        assert a.get_private_key().get_public_key() == a.get_public_key()
        assert guard.faults == 0


def test_names_that_others_made_up_do_not_push_out_who_is_connected() -> None:
    store = CoursePeerStore()
    known = made_up()
    store.add_protocols(known, [PING])  # as identify tells of who is connected
    store.add_addrs(known, [Multiaddr("/ip4/198.51.100.8/tcp/1")], 3600)
    names = hear_of_many(store)
    assert MAX_PEERS - ROOM_MADE <= len(store.peer_data_map) <= MAX_PEERS
    assert store.speaks(known, PING)
    assert store.addresses(known)
    assert store.addresses(names[-1])
    assert not store.addresses(names[0])
