"""A peer can do what it wants to a live host: it stays, and goes on serving the honest."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
from hosts import eventually, running_host
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.dht.kademlia import PROTOCOL as KAD
from p2plearn.dht.kademlia import CourseDHT
from p2plearn.errors import NoSpace, PeerFault
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.guard import StreamGuard
from p2plearn.net.limits import ConnectionLimits, StreamLimits
from p2plearn.net.standing import Fault

PROTOCOLS = ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", str(KAD), "/test/echo"]
ECHO = TProtocol("/test/echo")
NOISE_CHOSEN = b"\x13/multistream/1.0.0\n\x07/noise\n"
TLS_CHOSEN = b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n"


def port_of(host: BasicHost) -> int:
    return int(host.get_transport_addrs()[0].value_for_protocol("tcp"))


def info_of(host: BasicHost) -> PeerInfo:
    return PeerInfo(host.get_id(), host.get_transport_addrs())


async def echo(stream: INetStream) -> None:
    data = await stream.read(64)
    await stream.write(data)
    await stream.close()


@asynccontextmanager
async def victim(stream_limits: StreamLimits | None = None) -> AsyncIterator[tuple[BasicHost, StreamGuard]]:
    async with running_host(ConnectionLimits(upgrade_timeout=1.0), stream_limits) as (host, guard):
        CourseDHT(host)
        host.set_stream_handler(ECHO, echo)
        yield host, guard


async def is_well(host: BasicHost) -> None:
    """A stranger can still connect and be served."""
    async with running_host() as (stranger, _):
        await connect(stranger, info_of(host), 3.0)
        with trio.fail_after(3.0):
            stream = await stranger.new_stream(host.get_id(), [ECHO])
            await stream.write(b"hello")
            assert await stream.read(5) == b"hello"
            await stream.reset()


async def say(host: BasicHost, peer: ID, protocol: str, data: bytes) -> None:
    """Open a stream, say ``data`` and hang up, whatever the other side makes of it."""
    with trio.move_on_after(2.0):
        try:
            stream = await host.new_stream(peer, [TProtocol(protocol)])
            await stream.write(data)
            await stream.close()
        except Exception:
            return


async def test_garbage_on_every_protocol() -> None:
    chance = random.Random(7)
    async with victim() as (host, guard), running_host() as (bad, _):
        await connect(bad, info_of(host), 3.0)
        for protocol in PROTOCOLS:
            async with trio.open_nursery() as nursery:
                for size in (0, 1, 2, 6, 40, 300):
                    nursery.start_soon(say, bad, host.get_id(), protocol, chance.randbytes(size))
                nursery.start_soon(say, bad, host.get_id(), protocol, b"\xff" * 11)
                nursery.start_soon(say, bad, host.get_id(), protocol, b"\xff\xff\xff\xff\x0f" + bytes(100))
                nursery.start_soon(say, bad, host.get_id(), protocol, b"\x06\x08\x63\x12\x02\xc3\x28")
        guard.standing.forgive(str(bad.get_id()))
        await is_well(host)


@pytest.mark.parametrize(
    "lines",
    [
        b"\x02\xc3\n",  # no UTF-8: ends a stock host
        b"\x13/multistream/1.0.0\n\x03\xc3\x28\n",
        b"\x13/multistream/1.0.0\n\x01\n",  # asks for the protocol without a name
        b"\x13/multistream/1.0.0\n\x00",
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f" + bytes(5000),
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x13/multistream/1.0.0\n" + b"\x03ls\n" * 200,
        b"",
    ],
)
async def test_garbage_in_the_negotiation_of_a_stream(lines: bytes) -> None:
    async with victim() as (host, guard), running_host() as (bad, _):
        await connect(bad, info_of(host), 3.0)
        stream = await bad.get_network().new_stream(host.get_id())
        await stream.write(lines)
        await trio.sleep(0.05)
        await stream.reset()
        guard.standing.forgive(str(bad.get_id()))
        await is_well(host)


@pytest.mark.parametrize("size", [0, 1, 20, 5000])
async def test_garbage_instead_of_a_handshake(size: int) -> None:
    async with victim() as (host, _):
        for opening in (b"", b"\x13/multistream/1.0.0\n", NOISE_CHOSEN, TLS_CHOSEN):
            with trio.move_on_after(2.0):
                raw = await trio.open_tcp_stream("127.0.0.1", port_of(host))
                async with raw:
                    try:
                        await raw.send_all(opening + os.urandom(size))
                        if size:
                            await trio.sleep(0.02)
                    except trio.BrokenResourceError:
                        pass
        await is_well(host)


async def test_garbage_after_the_handshake_where_yamux_frames_should_be() -> None:
    chance = random.Random(11)
    async with victim() as (host, _):
        for _ in range(12):
            async with running_host() as (bad, _guard):
                await connect(bad, info_of(host), 3.0)
                connection = bad.get_network().get_connections(host.get_id())[0]
                secured = connection.muxed_conn.secured_conn
                frame = bytes([0, chance.randrange(4), 0, chance.randrange(16)]) + chance.randbytes(8)
                await secured.write(chance.choice([frame, chance.randbytes(12), chance.randbytes(3), frame * 20]))
                await trio.sleep(0.01)
        await is_well(host)


async def test_half_open_connections_are_cut_and_do_not_keep_others_out() -> None:
    limits = ConnectionLimits(upgrade_timeout=0.5, pending=8, pending_per_ip=8)
    async with running_host(limits) as (host, _):
        host.set_stream_handler(ECHO, echo)
        held = [await trio.open_tcp_stream("127.0.0.1", port_of(host)) for _ in range(30)]
        with trio.fail_after(3.0):
            for raw in held:
                while await raw.receive_some(100):
                    pass
        for raw in held:
            await raw.aclose()
        await is_well(host)


async def test_a_handler_that_raises_costs_its_stream_only() -> None:
    async with victim() as (host, guard), running_host() as (bad, _):
        await connect(bad, info_of(host), 3.0)

        def raising(error: BaseException) -> Callable[[INetStream], Awaitable[None]]:
            async def handler(_stream: INetStream) -> None:
                raise error

            return handler

        name = str(bad.get_id())
        for error, points in (
            (ZeroDivisionError(), Fault.CRASH.points),
            (PeerFault("nonsense"), Fault.PROTOCOL.points),
            (ExceptionGroup("both", [OSError(), PeerFault("x")]), Fault.PROTOCOL.points),
            (ConnectionResetError(), 0.0),
        ):
            guard.standing.forgive(name)
            host.set_stream_handler(TProtocol("/test/raises"), raising(error))
            before = guard.faults
            await say(bad, host.get_id(), "/test/raises", b"x")
            if points:
                await eventually(lambda before=before: guard.faults == before + 1)
            else:
                await trio.sleep(0.05)
            assert guard.standing.points(name, trio.current_time()) == pytest.approx(points, abs=0.1)
        await is_well(host)


async def test_a_banned_peer_is_hung_up_on_and_can_not_come_back() -> None:
    async with victim() as (host, guard), running_host() as (bad, _):
        await connect(bad, info_of(host), 3.0)
        guard.blame(bad.get_id(), Fault.POISON, "chunk 1")
        assert host.get_network().get_connections(bad.get_id())
        guard.blame(bad.get_id(), Fault.POISON, "chunk 2")
        await eventually(lambda: not host.get_network().get_connections(bad.get_id()))
        await eventually(lambda: not bad.get_network().get_connections(host.get_id()))
        with pytest.raises(ConnectFailed, match="banned"):
            await connect(host, info_of(bad), 1.0)
        with suppress(ConnectFailed):
            await connect(bad, info_of(host), 1.0)
        await eventually(lambda: not bad.get_network().get_connections(host.get_id()))
        await is_well(host)


async def test_a_peer_gets_its_share_of_streams_and_no_more() -> None:
    open_now = peak = 0

    async def sits(stream: INetStream) -> None:
        nonlocal open_now, peak
        open_now += 1
        peak = max(peak, open_now)
        try:
            await stream.read(1)
        finally:
            open_now -= 1

    async with victim(StreamLimits(per_peer=10)) as (host, _), running_host() as (bad, _):
        host.set_stream_handler(TProtocol("/test/sits"), sits)
        await connect(bad, info_of(host), 3.0)

        async def open_one() -> None:
            try:
                stream = await bad.new_stream(host.get_id(), [TProtocol("/test/sits")])
                await stream.read(1)
            except Exception:
                return

        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(open_one)
        assert 5 <= peak <= 10
        await is_well(host)


async def test_an_inbound_connection_that_ended_leaves_its_place() -> None:
    async with running_host(ConnectionLimits(total=4, for_own_calls=1)) as (host, _):
        host.set_stream_handler(ECHO, echo)
        for _ in range(8):  # twice the total
            async with running_host() as (guest, _guard):
                await connect(guest, info_of(host), 2.0)
            await eventually(lambda: host.get_network()._inbound_limiter.borrowed_tokens == 0)
        await is_well(host)


async def test_resets_and_hangups_at_every_stage() -> None:
    async with victim() as (host, _):
        for cut in range(6):
            async with running_host() as (bad, _guard):
                await connect(bad, info_of(host), 3.0)
                network = bad.get_network()
                if cut == 0:
                    await network.get_connections(host.get_id())[0].muxed_conn.secured_conn.close()
                elif cut == 1:
                    await (await network.new_stream(host.get_id())).reset()
                elif cut == 2:
                    await network.new_stream(host.get_id())
                    await network.close_peer(host.get_id())
                elif cut == 3:
                    for protocol in PROTOCOLS:
                        await (await bad.new_stream(host.get_id(), [TProtocol(protocol)])).reset()
                elif cut == 4:
                    stream = await bad.new_stream(host.get_id(), [ECHO])
                    await stream.write(b"x")
                    await network.get_connections(host.get_id())[0].muxed_conn.secured_conn.close()
                else:
                    for protocol in PROTOCOLS:
                        await (await bad.new_stream(host.get_id(), [TProtocol(protocol)])).close()
        await is_well(host)


async def test_a_dead_address_does_not_hide_the_living_one() -> None:
    async with victim() as (host, _), running_host() as (other, _):
        dead = [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}") for port in (1, 2, 3)]
        await connect(other, PeerInfo(host.get_id(), [*dead, *host.get_transport_addrs()]), 3.0)


async def test_a_peer_can_not_take_all_places_and_its_newest_connection_is_the_one_kept() -> None:
    limits = ConnectionLimits(total=8, for_own_calls=2, per_peer=2)
    async with running_host(limits) as (host, _), running_host() as (bad, _g):
        host.set_stream_handler(ECHO, echo)
        where = host.get_transport_addrs()[0]
        network = bad.get_network()
        network.peerstore.add_addrs(host.get_id(), [where], 60)
        for _ in range(12):
            await network._dial_addr_single_attempt(where, host.get_id())
        await eventually(lambda: len(host.get_network().get_connections(bad.get_id())) <= 2)
        await eventually(lambda: len(network.get_connections(host.get_id())) <= 2)
        stream = await bad.new_stream(host.get_id(), [ECHO])
        await stream.write(b"hello")
        assert await stream.read(5) == b"hello"
        await is_well(host)


async def test_callers_leave_places_for_our_own_calls() -> None:
    async with running_host(ConnectionLimits(total=4, for_own_calls=2)) as (host, _), AsyncExitStack() as stack:
        callers = [(await stack.enter_async_context(running_host()))[0] for _ in range(4)]
        reached = 0
        for caller in callers:
            with suppress(ConnectFailed):
                await connect(caller, info_of(host), 1.0)
                reached += 1
        assert reached == 2
        called, _g = await stack.enter_async_context(running_host())
        await connect(host, info_of(called), 1.0)


async def test_a_host_with_many_connections_stops_quickly_and_says_goodbye() -> None:
    async with running_host() as (other, _):
        async with running_host() as (host, _g), AsyncExitStack() as stack:
            for _ in range(6):
                guest, _guard = await stack.enter_async_context(running_host())
                await connect(host, info_of(guest), 1.0)
            await connect(host, info_of(other), 1.0)
            started = trio.current_time()
            await host.close()
            assert trio.current_time() - started < 1.0
        await eventually(lambda: not other.get_network().get_connections(host.get_id()), 1.0)


async def test_what_fails_at_this_end_is_no_fault_of_who_asks() -> None:
    async def full(_stream: INetStream) -> None:
        raise NoSpace("the disk is full")

    async with victim() as (host, guard), running_host() as (honest, _):
        host.set_stream_handler(TProtocol("/test/full"), full)
        await connect(honest, info_of(host), 3.0)
        for _ in range(20):  # as often as would have banned it
            await say(honest, host.get_id(), "/test/full", b"x")
        assert guard.faults == 0
        await is_well(host)
