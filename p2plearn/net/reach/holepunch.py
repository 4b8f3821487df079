"""From a relayed connection to a direct one: DCUtR, with TCP's simultaneous open.

Two nodes that are connected through a relay tell each other under which address the relay sees them, and call each
other there at the same moment, from the very port that the relay sees: each router then takes the other's call for
the answer to its own. Works where routers give a port one outside address whoever is called (most at home do); where
they don't, the relayed connection stays. Specification: https://github.com/libp2p/specs/blob/master/relay/DCUtR.md

The one who was called through the relay begins; on the new connection it takes the part of the one who is called.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio
from libp2p.abc import INetConn, INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.errors import PeerFault
from p2plearn.net.addresses import Reach, believable, is_relayed, is_websocket, reach
from p2plearn.net.reach.streams import receive, send, until
from p2plearn.net.reach.wire import DCUTR, Punch, PunchKind, decode_punch, encode_punch, packed
from p2plearn.net.swarm import CourseSwarm
from p2plearn.net.tcp import TcpStream

log = logging.getLogger("p2plearn.net")

ROUNDS: Final = 3
"""Tries: packets get lost, and clocks of two tries differ; the specification says three."""

OPEN_SECONDS: Final = 4.0
"""For one try: a lost first packet is sent again after one second, and once more after three."""

ANSWER_SECONDS: Final = 8.0
"""For the other end's part in the talk before a try."""

AGAIN_SECONDS: Final = 0.2
"""After a router refused, until the next call within a try."""

MAX_ADDRESSES: Final = 4
"""Of the other end, called at once."""

RETIRE_SECONDS: Final = 5.0
"""For which the relayed connection stays once there is a direct one: what runs on it may end."""

GIVEN_UP_SECONDS: Final = 600.0
"""For which nobody waits for a direct connection that could not be had."""

MAX_GIVEN_UP: Final = 512
"""Peers remembered as not to be had directly."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """How somebody beyond our router sees a connection of ours: ``outside`` is where it comes from, for them."""

    outside: Multiaddr
    connection: INetConn


class HolePunching:
    """Serves DCUtR on ``host`` once ``serve`` is its handler; ``sightings`` are those of live connections."""

    def __init__(self, host: BasicHost, sightings: Callable[[], list[Sighting]]) -> None:
        swarm = host.get_network()
        if not isinstance(swarm, CourseSwarm):
            raise TypeError("this host was not built by course_host")
        self._host = host
        self._swarm: CourseSwarm = swarm
        self._sightings = sightings
        self._under_way: set[ID] = set()
        self._gave_up: dict[ID, float] = {}
        self.succeeded = 0
        self.failed = 0
        """For status: peers with which it came to a direct connection, and with which it did not."""

    async def upgrade(self, peer: ID) -> bool:
        """Try to get a direct connection to ``peer``, which called us through a relay; whether there is one now."""
        if peer in self._under_way:
            return False
        self._under_way.add(peer)
        try:
            if await self._call_back(peer):
                return True
            for _ in range(ROUNDS):
                if self._swarm.direct(peer) or not self._swarm.get_connections(peer):
                    break
                if await self._round(peer):
                    break
            return self._ended(peer)
        finally:
            self._under_way.discard(peer)

    async def serve(self, stream: INetStream) -> None:
        """The other end's try. Raises PeerFault."""
        peer = stream.muxed_conn.peer_id
        if self._swarm.direct(peer) or peer in self._under_way:  # nothing to be had, or it is being had
            await stream.reset()
            return
        self._under_way.add(peer)
        try:
            await self._answer(peer, stream)
        finally:
            self._under_way.discard(peer)

    async def _answer(self, peer: ID, stream: INetStream) -> None:
        with trio.fail_after(ANSWER_SECONDS):
            told = decode_punch(await receive(stream))
            if told.kind is not PunchKind.CONNECT:
                raise PeerFault("DCUtR: it begins with something else than CONNECT")
            await send(stream, encode_punch(self._our_part()))
            if decode_punch(await receive(stream)).kind is not PunchKind.SYNC:
                raise PeerFault("DCUtR: something else than SYNC")
        await stream.close()
        await self._open(peer, _callable(told.addresses), client=True)
        self._ended(peer)

    async def wait(self, peer: ID, seconds: float) -> bool:
        """Wait for a direct connection to ``peer``, unless there was none to be had lately; whether there is one."""
        if trio.current_time() - self._gave_up.get(peer, float("-inf")) < GIVEN_UP_SECONDS:
            return bool(self._swarm.direct(peer))
        with trio.move_on_after(seconds):
            await until(lambda: self._swarm.direct(peer) or not self._swarm.get_connections(peer), 0.1)
        if not self._swarm.direct(peer):
            self._gave_up[peer] = trio.current_time()
        return bool(self._swarm.direct(peer))

    def network_changed(self) -> None:
        """Another network: what could not be had may be had now."""
        self._gave_up.clear()

    # -- one try -------------------------------------------------------------------------------------------------------

    async def _call_back(self, peer: ID) -> bool:
        """Call ``peer`` where it says it can be reached: it may stand in the open, and only we do not."""
        with trio.move_on_after(2.0):
            await until(lambda: self._swarm.peerstore.addresses(peer), 0.1)  # identify is about to tell
        known = [a for a in self._swarm.peerstore.addresses(peer) if reach(a) is Reach.GLOBAL and not is_relayed(a)]
        if not known or self._swarm.direct(peer):
            return bool(self._swarm.direct(peer))
        try:
            await self._swarm.dial_at(peer, known, trio.current_time() + OPEN_SECONDS)
        except Exception as error:  # libp2p raises a different family at each layer
            log.debug("%s, which called through a relay, can't be called back: %s", peer, error)
            return False
        return self._ended(peer)

    async def _round(self, peer: ID) -> bool:
        stream: INetStream | None = None
        try:
            with trio.fail_after(ANSWER_SECONDS):
                stream = await self._host.new_stream(peer, [TProtocol(DCUTR)])
                asked = trio.current_time()
                await send(stream, encode_punch(self._our_part()))
                told = decode_punch(await receive(stream))
                trip = trio.current_time() - asked
                if told.kind is not PunchKind.CONNECT:
                    raise PeerFault("DCUtR: it answers with something else than CONNECT")
                await send(stream, encode_punch(Punch(PunchKind.SYNC)))
            await trio.sleep(trip / 2)  # when it has heard of it
            await self._open(peer, _callable(told.addresses), client=False)
        except Exception as error:
            log.debug("no direct connection to %s: %s", peer, error)
        finally:
            if stream is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await stream.reset()
        return bool(self._swarm.direct(peer))

    def _our_part(self) -> Punch:
        seen = [sighting.outside.to_bytes() for sighting in self._sightings()]
        return Punch(PunchKind.CONNECT, packed(list(dict.fromkeys(seen))[:MAX_ADDRESSES]))

    async def _open(self, peer: ID, addresses: list[Multiaddr], *, client: bool) -> None:
        """Call ``peer`` at all of ``addresses`` at once until there is a connection, or time is up."""
        with trio.move_on_after(OPEN_SECONDS):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    local = self._local_for(address)
                    if local is not None:
                        nursery.start_soon(self._call, peer, address, local, client)
                await until(lambda: self._swarm.direct(peer), 0.05)
                nursery.cancel_scope.cancel()

    async def _call(self, peer: ID, address: Multiaddr, local: tuple[str, int], client: bool) -> None:
        while True:
            began = trio.current_time()
            try:
                raw = await _connect_from(local, address, initiator=client)
            except OSError as error:
                log.debug("calling %s at %s from port %d: %s", peer, address, local[1], error)
                await trio.sleep_until(began + AGAIN_SECONDS)
                continue
            await self._take(raw, peer, address, client=client)
            return

    async def _take(self, raw: RawConnection, peer: ID, address: Multiaddr, *, client: bool) -> None:
        """Make a connection of what came about, in the part that the specification gives to this end."""
        nursery = self._swarm.background_nursery
        if nursery is None:
            await raw.close()
        elif not client:
            nursery.start_soon(self._swarm.accept, raw, address)
        else:
            try:
                await self._swarm.take_outbound(raw, peer)
            except Exception as error:
                log.debug("the handshake with %s failed: %s", peer, error)
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await raw.close()

    def _local_for(self, address: Multiaddr) -> tuple[str, int] | None:
        """IP address and port of ours from which the other end expects the call."""
        six = str(address).startswith("/ip6/")
        for sighting in self._sightings():
            sock = socket_of(sighting.connection)
            if sock is None or str(sighting.outside).startswith("/ip6/") != six:
                continue
            try:
                # The port is in use by that connection; both must say that they share it.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                name = sock.getsockname()
            except OSError:
                continue
            return str(name[0]), int(name[1])
        return None

    def _ended(self, peer: ID) -> bool:
        """Count how it went, and let the relayed connection go when there is a direct one."""
        if not self._swarm.direct(peer):
            self.failed += 1
            if len(self._gave_up) > MAX_GIVEN_UP:
                self._gave_up.clear()
            self._gave_up[peer] = trio.current_time()
            return False
        self.succeeded += 1
        self._gave_up.pop(peer, None)
        if self._swarm.background_nursery is not None:
            self._swarm.background_nursery.start_soon(self._retire, peer)
        return True

    async def _retire(self, peer: ID) -> None:
        await trio.sleep(RETIRE_SECONDS)
        if not self._swarm.direct(peer):
            return
        for connection in self._swarm.get_connections(peer):
            if connection.get_connection_type() is ConnectionType.RELAYED:
                try:
                    await connection.close()
                except Exception as error:
                    log.debug("closing a relayed connection failed: %s", error)


def _callable(told: tuple[bytes, ...]) -> list[Multiaddr]:
    """The addresses told that may be called: plain TCP, and not this machine's own doors."""
    parsed: list[Multiaddr] = []
    for raw in told:
        try:
            parsed.append(Multiaddr(raw))
        except Exception as error:  # multiaddr raises whatever the codec of a part raises
            log.debug("an address that is none: %s", error)
    plain = [a for a in believable(parsed, Reach.PRIVATE) if not is_relayed(a) and not is_websocket(a)]
    return plain[:MAX_ADDRESSES]


def socket_of(connection: INetConn) -> Any:
    """The TCP socket under a connection, None where it isn't plain TCP."""
    raw = getattr(getattr(connection.muxed_conn, "secured_conn", None), "conn", None)
    stream = getattr(raw, "stream", None)
    return stream.stream.socket if isinstance(stream, TrioTCPStream) else None


async def _connect_from(local: tuple[str, int], remote: Multiaddr, *, initiator: bool) -> RawConnection:
    """A TCP connection from ``local``, a port in use, to ``remote``; raises OSError."""
    six = ":" in local[0]
    host = str(remote.value_for_protocol("ip6" if six else "ip4"))
    sock = trio.socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind(local)
        await sock.connect((host, int(str(remote.value_for_protocol("tcp")))))
    except BaseException:
        sock.close()
        raise
    return RawConnection(TcpStream(trio.SocketStream(sock)), initiator)
