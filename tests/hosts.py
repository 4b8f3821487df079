"""Real hosts on loopback for the tests of the net and dht rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from p2plearn.dht.directory import Directory
from p2plearn.dht.kademlia import CourseDHT
from p2plearn.net.course_host import course_host
from p2plearn.net.dial import connect
from p2plearn.net.guard import StreamGuard, guard_streams
from p2plearn.net.host import build_host
from p2plearn.net.limits import ConnectionLimits, StreamLimits
from p2plearn.net.muting import mute_libp2p
from p2plearn.net.standing import Standing

LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")


def make_host(limits: ConnectionLimits | None = None, keys: KeyPair | None = None) -> BasicHost:
    """A host as a node has it: TLS or Noise, yamux, TCP."""
    mute_libp2p()
    return build_host(keys or create_new_key_pair(), limits)


def make_stock_parts_host(limits: ConnectionLimits | None = None) -> BasicHost:
    """A host on our swarm with libp2p's own Noise, yamux and TCP: what others may bring."""
    mute_libp2p()
    keys = create_new_key_pair()
    noise = NoiseTransport(keys, noise_privkey=new_x25519_key_pair().private_key)
    return course_host(keys, TransportUpgrader({NOISE: noise}, {YAMUX: Yamux}), TCP(), limits=limits)


@dataclass
class Node:
    host: BasicHost
    guard: StreamGuard
    dht: CourseDHT
    directory: Directory

    @property
    def peer(self) -> ID:
        return self.host.get_id()

    @property
    def info(self) -> PeerInfo:
        return PeerInfo(self.peer, self.host.get_transport_addrs())

    async def meet(self, other: Node) -> None:
        await connect(self.host, other.info, 5.0)


@asynccontextmanager
async def running_host(
    limits: ConnectionLimits | None = None, stream_limits: StreamLimits | None = None, *, stock_parts: bool = False
) -> AsyncIterator[tuple[BasicHost, StreamGuard]]:
    host = make_stock_parts_host(limits) if stock_parts else make_host(limits)
    guard = guard_streams(host, Standing(), stream_limits)
    async with host.run([LOOPBACK]):
        yield host, guard


@asynccontextmanager
async def running_node() -> AsyncIterator[Node]:
    host = make_host()
    dht = CourseDHT(host)
    guard = guard_streams(host, Standing())
    directory = Directory(host, dht, chance=lambda: 0.5)
    async with host.run([LOOPBACK]), trio.open_nursery() as nursery:
        await nursery.start(dht.run)
        await nursery.start(directory.run)
        yield Node(host, guard, dht, directory)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running_nodes(count: int) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_node()) for _ in range(count)]


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until ``condition`` holds; fails after ``seconds``."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)
