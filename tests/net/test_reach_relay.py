"""A call by way of a relay, between real hosts on loopback; and what a relay and its guests don't put up with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.peerinfo import PeerInfo
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2plearn.net.course_host import CourseHost
from p2plearn.net.dial import connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.reach.autonat import CallBack, dialable
from p2plearn.net.reach.circuit import Circuits, RelayRefused
from p2plearn.net.reach.holepunch import HolePunching
from p2plearn.net.reach.lending import Lending, LendingLimits
from p2plearn.net.reach.relay import Relay
from p2plearn.net.reach.streams import receive, send
from p2plearn.net.reach.wire import (
    AUTONAT,
    DCUTR,
    HOP,
    STOP,
    Autonat,
    AutonatKind,
    Dialled,
    Hop,
    HopKind,
    Status,
    Stop,
    StopKind,
    decode_autonat,
    decode_hop,
    decode_stop,
    encode_autonat,
    encode_hop,
    encode_stop,
)
from p2plearn.net.standing import Standing
from p2plearn.net.swarm import CourseSwarm
from tests.hosts import LOOPBACK, eventually, make_host

ECHO = TProtocol("/test/echo/1")


@dataclass
class Party:
    host: CourseHost
    circuits: Circuits
    relay: Relay

    @property
    def swarm(self) -> CourseSwarm:
        swarm: CourseSwarm = self.host.get_network()
        return swarm

    @property
    def info(self) -> PeerInfo:
        return PeerInfo(self.host.get_id(), self.host.get_transport_addrs())

    def through(self, relay: Party) -> PeerInfo:
        """Where this one is called by way of ``relay``."""
        where = f"{relay.host.get_transport_addrs()[0]}/p2p/{relay.host.get_id()}/p2p-circuit"
        return PeerInfo(self.host.get_id(), [Multiaddr(where)])


@asynccontextmanager
async def party(limits: LendingLimits | None = None, *, relays: bool = True) -> AsyncIterator[Party]:
    host = make_host()
    circuits = Circuits(host)
    relay = Relay(host, Lending(limits or LendingLimits()), lambda: relays, list)
    guard_streams(host, Standing())

    async def echo(stream: INetStream) -> None:
        while data := await stream.read(65536):
            await stream.write(data)

    host.set_stream_handler(ECHO, echo)
    host.set_stream_handler(TProtocol(HOP), relay.serve)
    host.set_stream_handler(TProtocol(STOP), circuits.serve)
    host.set_stream_handler(TProtocol(AUTONAT), CallBack(host).serve)
    host.set_stream_handler(TProtocol(DCUTR), HolePunching(host, list).serve)
    async with host.run([LOOPBACK]):
        yield Party(host, circuits, relay)


async def pour(stream: INetStream, amount: int = 10_000) -> None:
    """Write and read until that fails."""
    while True:
        await stream.write(bytes(amount))
        if not await stream.read(65536):
            raise EOFError


@asynccontextmanager
async def three(limits: LendingLimits | None = None) -> AsyncIterator[tuple[Party, Party, Party]]:
    """A relay, one who has a place there, and one who has not."""
    async with AsyncExitStack() as stack:
        relay, guest, caller = [await stack.enter_async_context(party(limits)) for _ in range(3)]
        for each in (guest, caller):
            await connect(each.host, relay.info, 10.0)
        await guest.circuits.reserve(relay.host.get_id())
        yield relay, guest, caller


async def test_a_call_by_way_of_a_relay_reaches_its_guest_and_nobody_else() -> None:
    async with three() as (relay, guest, caller):
        assert [str(a) for a in guest.circuits.addresses()] == [str(guest.through(relay).addrs[0])]
        await connect(caller.host, guest.through(relay), 20.0)
        assert caller.circuits.is_relayed(guest.host.get_id())
        assert not caller.circuits.is_relayed(relay.host.get_id())
        stream = await caller.host.new_stream(guest.host.get_id(), [ECHO])
        await stream.write(b"hello" * 1000)
        got = b""
        while len(got) < 5000:
            got += await stream.read(65536)
        assert got == b"hello" * 1000
        assert len(relay.relay.lending.circuits) == 1
        with pytest.raises(OpenConnectionError, match="no reservation"):  # who has no place can't be called
            await guest.circuits.dial(Multiaddr(f"{caller.through(relay).addrs[0]}/p2p/{caller.host.get_id()}"))
        await stream.reset()
        await caller.swarm.close_peer(guest.host.get_id())
        await eventually(lambda: not relay.relay.lending.circuits, 30.0)


async def test_a_call_that_moved_its_bytes_is_cut() -> None:
    async with three(LendingLimits(data=200_000)) as (relay, guest, caller):
        await connect(caller.host, guest.through(relay), 20.0)
        stream = await caller.host.new_stream(guest.host.get_id(), [ECHO])
        with trio.fail_after(60), pytest.raises(BaseLibp2pError):
            await pour(stream)
        await eventually(lambda: not caller.swarm.get_connections(guest.host.get_id()), 30.0)
        assert relay.swarm.get_connections(guest.host.get_id())  # its own connections stay


async def test_what_a_relay_passes_on_is_counted_both_ways_and_ends_when_it_must() -> None:
    passed: list[int] = []

    def passes(ends: Sequence[str], size: int) -> bool:
        assert list(ends) == ["127.0.0.1", "127.0.0.1"]
        passed.append(size)
        return sum(passed) < 100_000

    async with three() as (relay, guest, caller):
        relay.relay.passes = passes
        await connect(caller.host, guest.through(relay), 20.0)
        stream = await caller.host.new_stream(guest.host.get_id(), [ECHO])
        with trio.fail_after(60), pytest.raises(BaseLibp2pError):
            await pour(stream)
        await eventually(lambda: not caller.swarm.get_connections(guest.host.get_id()), 30.0)
        await eventually(lambda: not relay.relay.lending.circuits, 30.0)
    assert 100_000 <= sum(passed) < 250_000


async def test_a_call_that_lasted_its_time_is_cut() -> None:
    async with three(LendingLimits(seconds=1)) as (relay, guest, caller):
        await connect(caller.host, guest.through(relay), 20.0)
        await eventually(lambda: not caller.swarm.get_connections(guest.host.get_id()), 30.0)
        assert not relay.relay.lending.circuits


async def test_time_that_was_slept_counts_for_places_at_relays() -> None:
    async with three() as (relay, guest, _):
        where = relay.host.get_id()
        until, address = guest.circuits.places[where]
        guest.circuits.slept(3000.0)
        assert guest.circuits.places == {where: (until - 3000.0, address)}
        await guest.circuits.reserve(where)
        assert guest.circuits.places[where][0] >= until


async def test_nobody_relays_who_does_not_want_to_and_no_relay_brings_calls_unasked() -> None:
    async with party(relays=False) as unwilling, party() as guest:
        await connect(guest.host, unwilling.info, 10.0)
        with pytest.raises(RelayRefused, match="permission denied"):
            await guest.circuits.reserve(unwilling.host.get_id())
        stream = await unwilling.host.new_stream(guest.host.get_id(), [TProtocol(STOP)])
        await send(stream, encode_stop(Stop(StopKind.CONNECT, unwilling.host.get_id().to_bytes())))
        assert decode_stop(await receive(stream)).status == Status.PERMISSION_DENIED


async def test_a_relay_says_why_not_and_calls_no_strangers() -> None:
    async with party() as relay, party() as caller:
        await connect(caller.host, relay.info, 10.0)
        stream = await caller.host.new_stream(relay.host.get_id(), [TProtocol(HOP)])
        await send(stream, encode_hop(Hop(HopKind.CONNECT, caller.host.get_id().to_bytes())))
        assert decode_hop(await receive(stream)).status == Status.NO_RESERVATION


async def throw(junk: bytes, caller: Party, at: Party, protocol: str) -> None:
    """Send ``junk`` and read until that fails."""
    stream = await caller.host.new_stream(at.host.get_id(), [TProtocol(protocol)])
    await stream.write(junk)
    await pour(stream, 0)


@pytest.mark.parametrize("protocol", [HOP, STOP, DCUTR, AUTONAT])
async def test_garbage_costs_its_sender_the_stream_and_nobody_the_node(protocol: str) -> None:
    async with three() as (relay, guest, caller):
        for junk in (b"\x03\xff\xff\xff", b"\xff\xff\xff\xff\x0f", bytes(64), b"\x02\x08\x09"):
            with trio.fail_after(30), pytest.raises((BaseLibp2pError, EOFError)):
                await throw(junk, caller, relay, protocol)
        await connect(caller.host, guest.through(relay), 20.0)  # all are as they were


async def test_who_asks_to_be_called_back_is_called_where_the_question_came_from_and_nowhere_else() -> None:
    texts = ("/ip4/9.9.9.9/tcp/1", "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1")
    told = [b"junk", *(Multiaddr(text).to_bytes() for text in texts)]
    assert [str(a) for a in dialable(told, "8.8.8.8")] == ["/ip4/8.8.8.8/tcp/1"]
    assert dialable([Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes()], "127.0.0.1") == []
    async with party() as asked, party() as asker:
        await connect(asker.host, asked.info, 10.0)
        stream = await asker.host.new_stream(asked.host.get_id(), [TProtocol(AUTONAT)])
        mine = asker.host.get_id().to_bytes()
        addresses = tuple(a.to_bytes() for a in asker.host.get_transport_addrs())
        await send(stream, encode_autonat(Autonat(AutonatKind.DIAL, mine, addresses)))
        assert decode_autonat(await receive(stream)).status == Dialled.DIAL_REFUSED  # loopback is nobody's outside
