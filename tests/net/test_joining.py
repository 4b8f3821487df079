"""Being in company, and staying there: real hosts on loopback."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from hosts import LOOPBACK, eventually, make_host, running_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.net import candidates
from p2plearn.net import joining as joining_module
from p2plearn.net.joining import Joining, is_alive
from p2plearn.net.peers import AddressBook


def info(host: BasicHost) -> PeerInfo:
    return PeerInfo(host.get_id(), host.get_transport_addrs())


async def test_a_named_node_is_called_and_called_again_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "AGAIN", 0.05)
    monkeypatch.setattr(candidates, "FIRST_WAIT", 0.1)
    keys = create_new_key_pair()
    hub = make_host(keys=keys)
    async with running_host() as (host, _), trio.open_nursery() as nursery:
        async with hub.run([LOOPBACK]):
            where = hub.get_transport_addrs()[0]
            joining = Joining(host, named=[PeerInfo(hub.get_id(), [where])])
            await nursery.start(joining.run)
            await eventually(lambda: host.get_network().get_connections(hub.get_id()))
        await eventually(lambda: joining.last_failures)
        assert "refused" in next(iter(joining.last_failures.values()))
        again = make_host(keys=keys)
        async with again.run([where]):
            await eventually(lambda: host.get_network().get_connections(hub.get_id()))
            await eventually(lambda: joining.last_failures == {})
        nursery.cancel_scope.cancel()


async def test_peers_that_answered_are_in_the_book_and_found_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    async with running_host() as (hub, _):
        async with running_host() as (host, _guard), trio.open_nursery() as nursery:
            await nursery.start(Joining(host, named=[info(hub)], book=AddressBook.load(path, 0.0)).run)
            await eventually(lambda: host.get_network().get_connections(hub.get_id()))
            nursery.cancel_scope.cancel()
        async with running_host() as (host, _guard), trio.open_nursery() as nursery:
            book = AddressBook.load(path, 1e12)  # long ago: dropped
            assert len(book) == 0
            book = AddressBook.load(path, 1.0)
            assert [p.peer_id for p in book.best(9)] == [hub.get_id()]
            await nursery.start(Joining(host, book=book).run)
            await eventually(lambda: host.get_network().get_connections(hub.get_id()))
            nursery.cancel_scope.cancel()


async def test_who_is_killed_soon_after_the_first_contact_has_it_in_the_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "SAVE_SOON", 0.1)
    path = tmp_path / "peers.json"
    async with running_host() as (hub, _), running_host() as (host, _guard), trio.open_nursery() as nursery:
        await nursery.start(Joining(host, named=[info(hub)], book=AddressBook.load(path, 0.0)).run)
        await eventually(lambda: len(AddressBook.load(path, 1.0)) == 1)  # still running, within the minute
        nursery.cancel_scope.cancel()


async def test_a_changed_network_has_everyone_called_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining_module, "NETWORK_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(candidates, "FIRST_WAIT", 60.0)
    there = ["10.0.0.1"]
    hub = make_host()
    async with hub.run([LOOPBACK]), running_host() as (host, _), trio.open_nursery() as nursery:
        where = hub.get_transport_addrs()[0]
        unreachable = Multiaddr("/ip4/127.0.0.1/tcp/1")
        joining = Joining(host, named=[PeerInfo(hub.get_id(), [unreachable])], interfaces=lambda: list(there))
        await nursery.start(joining.run)
        await eventually(lambda: joining.last_failures)
        host.get_peerstore().add_addrs(hub.get_id(), [where], 60)
        await trio.sleep(0.1)
        assert not host.get_network().get_connections(hub.get_id())
        there.append("10.0.0.2")
        await eventually(lambda: host.get_network().get_connections(hub.get_id()))
        assert joining.network_changes == 1
        nursery.cancel_scope.cancel()


async def test_offline_the_book_keeps_its_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(candidates, "LONGEST_WAIT", 0.005)
    book = AddressBook(tmp_path / "peers.json")
    book.worked(make_host().get_id(), Multiaddr("/ip4/127.0.0.1/tcp/1"), time.time())
    async with running_host() as (host, _), trio.open_nursery() as nursery:
        joining = Joining(host, book=book)
        await nursery.start(joining.run)
        await eventually(lambda: joining.last_failures)
        await trio.sleep(0.3)  # dozens of calls
        assert len(book) == 1
        nursery.cancel_scope.cancel()


async def test_a_sign_of_life_is_asked_for_and_given() -> None:
    async with running_host() as (a, _):
        async with running_host() as (b, _guard):
            await a.connect(info(b))
            assert await is_alive(a, b.get_id(), 2.0)
        await eventually(lambda: not a.get_network().get_connections(b.get_id()))
        assert not await is_alive(a, b.get_id(), 0.3)


async def test_with_nobody_to_call_nothing_happens() -> None:
    async with running_host() as (host, _), trio.open_nursery() as nursery:
        joining = Joining(host)
        await nursery.start(joining.run)
        await trio.sleep(0.05)
        assert joining.last_failures == {}
        nursery.cancel_scope.cancel()
