"""What our code leans on in libp2p, one test a fact, so that an upgrade that changes it fails loudly.

A test that fails here after an upgrade means: read the module it names, decide again, and then change the test. Where
a test pins a *fault* of libp2p that we work around, its failing means that the workaround may go.
"""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import libp2p
import pytest
import trio
from hosts import LOOPBACK, eventually, make_host, running_host, running_node, running_nodes
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, routing_table, value_store
from libp2p.kad_dht.kad_dht import KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.network.connection import swarm_connection
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStore, create_signed_peer_record
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.records.validator import NamespacedValidator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils import read_delim as libp2p_read_delim
from multiaddr import Multiaddr

from p2plearn.dht.kademlia import PROTOCOL, CourseDHT
from p2plearn.net.dial import connect
from p2plearn.net.swarm import CourseSwarm

ROOT = Path(libp2p.__file__).parent


def test_the_version_is_the_one_this_was_written_against() -> None:
    assert version("libp2p") == "0.8.1"


# Kademlia's protocol id.


def test_the_protocol_id_lives_in_the_modules_that_we_replace_it_in_and_no_other() -> None:
    holders = {
        path.name
        for path in (ROOT / "kad_dht").glob("*.py")
        if re.search(r"^\s*(PROTOCOL_ID\s*[,=]|from .*import PROTOCOL_ID)", path.read_text(), re.MULTILINE)
    }
    assert holders == {
        "common.py",
        "kad_dht.py",
        "peer_routing.py",
        "provider_store.py",
        "value_store.py",
        "routing_table.py",  # inside a function, from common, at each call
    }
    assert not hasattr(routing_table, "PROTOCOL_ID")


async def test_nothing_of_the_public_network_s_kademlia_is_offered_or_called() -> None:
    async with running_nodes(2) as (a, b):
        for module in (common, kad_dht, peer_routing, provider_store, value_store):
            assert module.PROTOCOL_ID == PROTOCOL
        called: list[str] = []
        stock = a.host.multiselect_client.select_one_of

        async def listening(protocols: Any, *rest: Any) -> Any:
            called.extend(str(p) for p in protocols)
            return await stock(protocols, *rest)

        a.host.multiselect_client.select_one_of = listening
        await a.meet(b)
        await eventually(lambda: a.dht.peerstore.speaks(b.peer, PROTOCOL))
        await a.dht.refresh_routing_table()
        await a.directory.find(bytes(32))
        assert not [p for p in a.host.get_mux().get_protocols() if "/ipfs/kad" in str(p)]
        assert str(PROTOCOL) in called
        assert not [p for p in called if "/ipfs/kad" in p]
        with pytest.raises(Exception, match="failed to open a stream"):
            await b.host.new_stream(a.peer, [TProtocol("/ipfs/kad/1.0.0")])


# What CourseDHT overrides or sets.


def test_the_names_that_our_dht_overrides_or_sets_are_still_used() -> None:
    source = inspect.getsource(KadDHT)
    for name in (
        "self._provider_rate_window",
        "self._provider_rate_max",
        "self._inbound_limiter",
        "self.provider_store",
        "await self.add_peer(peer_id, skip_server_mode_check=True)",
        "self._add_closer_peers_to_response(",
    ):
        assert name in source, name
    for base, ours in ((KadDHT, CourseDHT), (Swarm, CourseSwarm)):
        for name, member in vars(ours).items():
            if name.startswith("__") or not inspect.isfunction(member) or name not in vars(base):
                continue
            stock = [p.name for p in inspect.signature(vars(base)[name]).parameters.values()]
            mine = [p.name for p in inspect.signature(member).parameters.values() if p.name != "task_status"]
            assert stock == mine, f"{base.__name__}.{name}"


def test_the_store_s_methods_that_the_server_calls_are_the_ones_we_override() -> None:
    server = inspect.getsource(KadDHT)
    called = set(re.findall(r"self\.provider_store\.(\w+)\(", server))
    # Those with an underscore and provide/find_providers are the stock loop's and API's, which we do not run.
    assert called <= {
        "add_provider",
        "get_providers",
        "cleanup_expired",
        "_republish_provider_records",
        "provide",
        "find_providers",
    }
    assert {"add_provider", "get_providers", "cleanup_expired"} <= set(vars(ProviderStore))


async def test_add_provider_is_echoed_so_that_a_record_counts_only_when_it_was_taken() -> None:
    async with running_nodes(2) as (a, b):
        await a.meet(b)
        key = b"\x12\x20" + bytes(32)
        assert await a.dht.tell(b.peer, [key]) == [key]
        b.dht._provider_rate_max = 0  # and one that was not taken is answered by a reset
        assert await a.dht.tell(b.peer, [key]) == []


async def test_values_are_refused_with_an_empty_strict_validator() -> None:
    with pytest.raises(Exception, match="alidat"):
        NamespacedValidator({}, strict_validation=True).validate("anything", b"x")
    async with running_nodes(2) as (a, b):
        await a.meet(b)
        for key in (b"plain", b"/pk/x", b"/ipns/x", b"\xff"):
            message = Message(type=Message.MessageType.PUT_VALUE, key=key)
            message.record.key = key
            message.record.value = b"x"
            with pytest.raises(Exception):  # noqa: B017
                await a.dht.queries.ask(b.peer, message, 1.0)
        assert b.dht.value_store.size() == 0


# The peerstore.


def test_an_older_signed_record_is_refused_by_the_stock_store_and_harmless_in_ours() -> None:
    keys = create_new_key_pair()
    peer = ID.from_pubkey(keys.public_key)
    old = create_signed_peer_record(peer, [Multiaddr("/ip4/192.0.2.1/tcp/1")], keys.private_key)
    new = create_signed_peer_record(peer, [Multiaddr("/ip4/192.0.2.2/tcp/1")], keys.private_key)
    assert new.record().seq > old.record().seq
    stock = PeerStore()
    assert stock.consume_peer_record(new, 60)
    assert not stock.consume_peer_record(old, 60)
    ours = make_host().get_peerstore()
    assert ours.consume_peer_record(new, 60)
    assert ours.consume_peer_record(old, 60)
    assert ours.addresses(peer) == [Multiaddr("/ip4/192.0.2.2/tcp/1")]
    stranger = create_new_key_pair()
    forged = create_signed_peer_record(peer, [Multiaddr("/ip4/192.0.2.3/tcp/1")], stranger.private_key)
    assert not ours.consume_peer_record(forged, 60)


async def test_identify_sets_protocols_through_add_protocols_after_connecting_either_way() -> None:
    async with running_host() as (a, _), running_host() as (b, _g):
        heard: list[ID] = []
        for host in (a, b):
            host.get_peerstore().told.append(heard.append)
        await connect(a, PeerInfo(b.get_id(), b.get_transport_addrs()), 2.0)
        await eventually(lambda: {a.get_id(), b.get_id()} <= set(heard))
        assert a.get_peerstore().speaks(b.get_id(), "/ipfs/ping/1.0.0")
        assert a.get_peerstore().speaks(b.get_id(), str(PROTOCOL)) is False


# The swarm.


def test_the_stock_accept_handler_keeps_each_connection_s_place_until_the_swarm_ends() -> None:
    assert "await self.manager.wait_finished()" in inspect.getsource(Swarm._do_handle_inbound_connection)
    assert "self._inbound_limiter.release()" in inspect.getsource(Swarm._handle_inbound_connection)


def test_the_stock_dialler_tries_one_tcp_address_and_remembers_failures() -> None:
    source = inspect.getsource(Swarm.dial_peer)
    assert "if rank not in seen_ranks" in source
    assert "_negative_peer_cache.is_blocked" in source


def test_connections_are_run_by_the_manager_that_we_contain() -> None:
    source = inspect.getsource(Swarm.add_conn)
    assert "self.manager.run_task(muxed_conn.start)" in source
    assert "self.manager.run_task(swarm_conn.start)" in source


def test_the_closed_event_of_a_connection_exists_and_streams_go_through_the_common_handler() -> None:
    source = inspect.getsource(swarm_connection.SwarmConn)
    assert "self.event_closed = trio.Event()" in source
    assert "await self.swarm.common_stream_handler(net_stream)" in source
    assert "common_stream_handler" in inspect.getsource(Swarm.set_stream_handler)
    assert "reset" in vars(NetStream)


async def test_an_exception_in_a_connection_s_task_ends_a_stock_swarm_and_not_ours() -> None:
    async with running_host() as (host, guard):
        seen: list[str] = []
        host.get_network().report = lambda what, _error: seen.append(what)

        async def bad() -> None:
            raise ZeroDivisionError

        host.get_network().manager.run_task(bad)
        await eventually(lambda: seen)
        assert host.get_network().manager.is_running
        assert guard.faults == 0


async def test_a_swarm_that_ends_by_itself_is_no_quiet_end() -> None:
    """libp2p's manager takes it for a good end if it looks as when a peer hangs up: the host stood there, deaf."""

    async def broken() -> None:
        raise ConnectionClosedError("connection is closed", transport="tcp")

    async def stand() -> None:
        async with running_host() as (host, _):
            host.get_network().background_nursery.start_soon(broken)
            with trio.fail_after(60.0):
                await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await stand()
    assert caught.group_contains(RuntimeError, match="ended by itself")


# Negotiation.


def test_lines_are_read_by_a_name_in_one_module() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if re.search(r"\bread_delim\b", path.read_text()) and "utils" not in path.parts
    }
    assert users == {"protocol_muxer/multiselect_communicator.py"}
    assert "await read_delim(self.read_writer)" in inspect.getsource(multiselect_communicator)


def test_handlers_are_a_dict_that_everybody_adds_to_through_add_handler() -> None:
    assert "self.multiselect.add_handler(protocol_id, stream_handler)" in inspect.getsource(
        BasicHost.set_stream_handler
    )
    assert "self.handlers[protocol] = handler" in inspect.getsource(Multiselect.add_handler)


async def test_identify_ping_and_push_are_all_that_a_host_offers_by_itself() -> None:
    async with running_host() as (host, _):
        assert set(host.get_mux().get_protocols()) == {"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"}


# Being idle.


async def test_the_auto_connector_calls_nobody() -> None:
    async with running_node() as a, running_host() as (b, _):
        a.host.get_peerstore().add_addrs(b.get_id(), b.get_transport_addrs(), 60)
        await a.host.get_network().auto_connector.maybe_connect()
        await trio.sleep(0.1)
        assert a.host.get_connected_peers() == []


# What a stock host dies of, beside exceptions out of a handler; ours survives it in ``tests/net/test_guard.py``.


async def test_a_line_that_is_no_text_ends_a_stock_host() -> None:
    stock_line = multiselect_communicator.read_delim
    multiselect_communicator.read_delim = libp2p_read_delim
    ended = False
    try:
        async with running_host(stock_parts=True) as (bad, _):
            multiselect_communicator.read_delim = libp2p_read_delim
            keys = create_new_key_pair()
            noise = NoiseTransport(keys, noise_privkey=new_x25519_key_pair().private_key)
            host = libp2p.new_host(key_pair=keys, sec_opt={NOISE: noise})
            try:
                async with host.run([LOOPBACK]):
                    await connect(bad, PeerInfo(host.get_id(), host.get_transport_addrs()), 2.0)
                    stream = await bad.get_network().new_stream(host.get_id())
                    await stream.write(b"\x13/multistream/1.0.0\n\x03\xc3\x28\n")
                    with trio.move_on_after(2.0):
                        await host.get_network().manager.wait_finished()
                        ended = True
            except BaseExceptionGroup:
                ended = True
    finally:
        multiselect_communicator.read_delim = stock_line
    assert ended


async def test_identify_is_a_system_task_whose_exceptions_we_contain() -> None:
    assert "trio.lowlevel.spawn_system_task(_tracked_identify)" in inspect.getsource(BasicHost._schedule_identify)
    async with running_host() as (a, _), running_host() as (b, _g):

        async def broken(*_args: Any, **_options: Any) -> None:
            raise ZeroDivisionError

        a._identify_peer = broken
        await connect(a, PeerInfo(b.get_id(), b.get_transport_addrs()), 2.0)
        await trio.sleep(0.05)
        assert a.get_network().get_connections(b.get_id())
