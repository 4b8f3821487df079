"""Caps a peer and an address: what is beyond is refused at once, and who goes on is banned."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
from hosts import eventually, running_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.net.addresses import Reach
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.guard import StreamGuard
from p2plearn.net.limits import ConnectionLimits, StreamLimits
from p2plearn.net.peerstore import CoursePeerStore, heard_over
from p2plearn.net.race import DialFailed

SITS = TProtocol("/test/sits")
STRICT = ConnectionLimits(spare_loopback=False)


def info_of(host: BasicHost) -> PeerInfo:
    return PeerInfo(host.get_id(), host.get_transport_addrs())


async def sits(stream: INetStream) -> None:
    await stream.read(1)


async def test_more_requests_than_any_node_has_are_refused_then_banned() -> None:
    limits = StreamLimits(requests_burst=20, requests_per_second=0.001, flood_slack=4)
    async with running_host(stream_limits=limits) as (host, guard), running_host() as (bad, _):
        await connect(bad, info_of(host), 10.0)
        network = bad.get_network()
        with suppress(Exception):
            for _ in range(80):  # one after the other: never many at once
                stream = await network.new_stream(host.get_id())
                await stream.reset()
        await eventually(lambda: guard.banned(bad.get_id()), 60)
        await eventually(lambda: not host.get_network().get_connections(bad.get_id()), 60)


async def test_an_address_gets_its_share_of_streams_and_no_more() -> None:
    limits = StreamLimits(per_peer=8, per_ip=10)
    seen = 0

    async def count(stream: INetStream) -> None:
        nonlocal seen
        seen += 1
        await stream.read(1)

    async with running_host(STRICT, limits) as (host, _), running_host() as (one, _g), running_host() as (two, _h):
        host.set_stream_handler(SITS, count)

        async def ask(bad: BasicHost) -> None:
            with suppress(Exception):
                stream = await bad.new_stream(host.get_id(), [SITS])
                await stream.read(1)

        async with trio.open_nursery() as nursery:
            for bad in (one, two):
                await connect(bad, info_of(host), 10.0)
                for _ in range(16):
                    nursery.start_soon(ask, bad)
            await eventually(lambda: seen >= 6, 60)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
        assert seen <= 10


async def test_an_address_that_calls_again_and_again_is_turned_away_for_a_while() -> None:
    limits = ConnectionLimits(spare_loopback=False, arrivals_burst=5, arrivals_per_second=0.001)
    async with running_host(limits) as (host, _):
        port = int(host.get_transport_addrs()[0].value_for_protocol("tcp"))
        answered = 0
        for _ in range(8):
            async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
                with suppress(trio.BrokenResourceError), trio.fail_after(20):
                    answered += bool(await raw.receive_some(1))
        assert answered == 5


async def test_nobody_s_list_of_addresses_makes_us_knock_at_one_door() -> None:
    limits = ConnectionLimits(spare_loopback=False, dials_per_ip_burst=4, dials_per_ip_per_second=0.001)
    async with running_host(limits) as (host, _):
        knocks = 0

        async def door(stream: trio.SocketStream) -> None:
            nonlocal knocks
            knocks += 1
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, door, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            for _ in range(7):
                stranger = ID.from_pubkey(create_new_key_pair().public_key)
                with pytest.raises(ConnectFailed):
                    await connect(host, PeerInfo(stranger, [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]), 0.5)
            nursery.cancel_scope.cancel()
        assert knocks == 4


OWN_DOORS = [Multiaddr(f"/ip4/{ip}/tcp/22") for ip in ("127.0.0.1", "169.254.1.1")] + [Multiaddr("/ip6/::1/tcp/22")]
ELSEWHERE = [Multiaddr("/ip4/192.168.1.7/tcp/4017"), Multiaddr("/ip4/1.1.1.1/tcp/4017")]


@pytest.mark.parametrize("over", [Reach.GLOBAL, Reach.PRIVATE])
def test_from_afar_nobody_names_our_own_doors_not_even_signed(over: Reach) -> None:
    keys = create_new_key_pair()
    peer = ID.from_pubkey(keys.public_key)
    record = seal_record(PeerRecord(peer, [*OWN_DOORS, *ELSEWHERE], 7), keys.private_key)
    token = heard_over.set(over)
    try:
        told, signed = CoursePeerStore(), CoursePeerStore()
        told.add_addrs(peer, [*OWN_DOORS, *ELSEWHERE], 60)
        assert signed.consume_peer_record(record, 60)
    finally:
        heard_over.reset(token)
    assert set(told.addresses(peer)) == set(ELSEWHERE)
    assert set(signed.addresses(peer)) == set(ELSEWHERE)
    here = CoursePeerStore()
    here.add_addrs(peer, [*OWN_DOORS, *ELSEWHERE], 60)  # the user's own words, or this machine's
    assert set(here.addresses(peer)) == {*OWN_DOORS, *ELSEWHERE}


async def test_what_a_handler_hears_is_held_against_how_far_its_peer_is() -> None:
    heard: list[Reach | None] = []

    async def note(stream: INetStream) -> None:
        heard.append(heard_over.get())
        await stream.close()

    async with running_host() as (host, guard), running_host() as (other, _):
        assert isinstance(guard, StreamGuard)
        host.set_stream_handler(TProtocol("/test/note"), note)
        await connect(other, info_of(host), 10.0)
        await other.new_stream(host.get_id(), [TProtocol("/test/note")])
        await eventually(lambda: heard, 60)
        assert heard == [Reach.LOOPBACK]
        assert heard_over.get() is None


async def test_a_dial_given_up_before_its_turn_makes_nobody_wait() -> None:
    limits = ConnectionLimits(spare_loopback=False, dials_burst=1, dials_per_second=0.01)
    async with running_host(limits) as (host, _):
        swarm = host.get_network()
        door = Multiaddr("/ip4/127.0.0.1/tcp/1")
        for _ in range(6):
            ghost = ID.from_pubkey(create_new_key_pair().public_key)
            swarm.peerstore.add_addrs(ghost, [door], 3600)
            with pytest.raises(DialFailed):
                await swarm.dial(ghost, trio.current_time() + 0.2)
        assert swarm._threshold.wait_to_dial(door, trio.current_time()) <= 100.0
