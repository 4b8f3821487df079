"""Reaching a peer, and the words when it can't be reached."""

from __future__ import annotations

import errno

import pytest
import trio
from hosts import eventually, running_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2plearn.net.dial import ConnectFailed, connect, why


def new_id() -> ID:
    return ID.from_pubkey(create_new_key_pair().public_key)


@pytest.mark.parametrize("stock_parts", [False, True])
async def test_each_way_to_fail_has_its_words(stock_parts: bool) -> None:
    async with (
        running_host(stock_parts=stock_parts) as (host, _),
        running_host(stock_parts=stock_parts) as (other, _g),
    ):
        silent = trio.socket.socket()
        await silent.bind(("127.0.0.1", 0))
        silent.listen(1)  # takes the connection, says nothing
        taken = Multiaddr(f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}")
        cases = [
            (PeerInfo(new_id(), []), "no-address"),
            (PeerInfo(new_id(), [Multiaddr("/ip4/1.2.3.4/udp/4001/quic-v1")]), "no-address"),
            (PeerInfo(new_id(), [Multiaddr("/ip4/127.0.0.1/tcp/1")]), "refused"),
            (PeerInfo(new_id(), [taken]), "timed-out"),
            (PeerInfo(new_id(), other.get_transport_addrs()), "wrong-peer"),
            (PeerInfo(host.get_id(), other.get_transport_addrs()), "self"),
        ]
        for peer, reason in cases:
            with pytest.raises(ConnectFailed) as caught:
                await connect(host, peer, 0.4)
            assert caught.value.reason == reason
            assert caught.value.exit_code == 4
        silent.close()


async def test_without_a_cable_nobody_is_said_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2plearn.net.tcp.cables", list)
    async with running_host() as (host, _):
        with pytest.raises(ConnectFailed, match="no route") as caught:
            await connect(host, PeerInfo(new_id(), [Multiaddr("/ip6/fe80::9/tcp/4017")]), 10.0)
    assert caught.value.reason == "unreachable"


def test_what_never_opened_has_not_answered() -> None:
    failed = OpenConnectionError("no")
    failed.__cause__ = OSError(errno.EPERM, "a firewall of this machine's")
    assert why(failed) == "unopened"
    assert why(OpenConnectionError("no WebSocket: it answers with status 404")) == "handshake"


async def test_a_failure_is_not_remembered() -> None:
    async with running_host() as (host, _), running_host() as (other, _g):
        with pytest.raises(ConnectFailed):
            await connect(host, PeerInfo(other.get_id(), [Multiaddr("/ip4/127.0.0.1/tcp/1")]), 1.0)
        await connect(host, PeerInfo(other.get_id(), other.get_transport_addrs()), 10.0)


async def test_a_closed_port_is_told_at_once_and_a_connect_takes_no_quarter_second() -> None:
    took: list[float] = []
    async with running_host() as (host, _), running_host() as (other, _g):
        for _ in range(5):
            started = trio.current_time()
            with pytest.raises(ConnectFailed):
                await connect(host, PeerInfo(new_id(), [Multiaddr("/ip4/127.0.0.1/tcp/1")]), 5.0)
            await connect(host, PeerInfo(other.get_id(), other.get_transport_addrs()), 10.0)
            took.append(trio.current_time() - started)
            await host.get_network().close_peer(other.get_id())
    assert min(took) < 0.2  # the best of five: the machine may be busy


async def test_two_callers_at_a_time_dial_once() -> None:
    async with running_host() as (host, _), running_host() as (other, _g):
        peer = PeerInfo(other.get_id(), other.get_transport_addrs())
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connect, host, peer, 2.0)
        assert len(host.get_network().get_connections(other.get_id())) == 1


async def test_cancelled_in_the_middle_it_leaves_nothing_behind() -> None:
    async with running_host() as (host, _), running_host() as (other, _g):
        peer = PeerInfo(other.get_id(), other.get_transport_addrs())
        for cut in (0.0, 0.001, 0.002, 0.004, 0.008):
            with trio.move_on_after(cut):
                await connect(host, peer, 2.0)
            await host.get_network().close_peer(other.get_id())
        await connect(host, peer, 2.0)
        await eventually(lambda: len(host.get_network().get_connections(other.get_id())) == 1)
