"""Being called, and calling, by way of a relay: circuit relay v2's two ends.

``Circuits`` is a transport of the swarm for addresses with ``p2p-circuit``: it dials through the relay that the
address names. It serves STOP, by which a relay brings a call, and holds the places (reservations) that this node has
at relays. A call is taken only from a relay where this node asked for a place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio
from libp2p.abc import IListener, INetStream, ITransport
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import THandler, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2plearn.errors import PeerFault
from p2plearn.net.addresses import CIRCUIT, Reach, bare, full, is_relayed, reach, relay_of
from p2plearn.net.reach.streams import receive, relayed, send, until
from p2plearn.net.reach.wire import (
    HOP,
    Hop,
    HopKind,
    Status,
    Stop,
    StopKind,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from p2plearn.net.swarm import CourseSwarm

log = logging.getLogger("p2plearn.net")

DIAL_SECONDS: Final = 8.0
"""To be connected to the relay, and through it."""

ANSWER_SECONDS: Final = 10.0
"""For a relay to answer a wish for a place."""


class RelayRefused(Exception):
    """A relay gives no place, or no call; the message says why."""


class Circuits(ITransport):
    """See the head of this file. ``came`` is told of each peer that called us through a relay, once connected."""

    def __init__(self, host: BasicHost) -> None:
        swarm = host.get_network()
        if not isinstance(swarm, CourseSwarm):
            raise TypeError("this host was not built by course_host")
        self._host = host
        self._swarm: CourseSwarm = swarm
        self._asked: set[ID] = set()
        self.places: dict[ID, tuple[float, Multiaddr]] = {}
        """By relay: until when (trio's clock) it keeps a place for us, and where the relay is."""
        self.came: Callable[[ID], None] = lambda _peer: None
        swarm.transport_manager.add_transport(self)

    # -- a transport of the swarm --------------------------------------------------------------------------------------

    def listen_order(self) -> int:
        """Before TCP, which takes everything with ``tcp`` in it for its own."""
        return -1

    def protocols(self) -> list[str]:
        """What marks an address of this transport."""
        return [CIRCUIT]

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Whether ``maddr`` is by way of a relay."""
        return is_relayed(maddr)

    def can_listen(self, maddr: Multiaddr) -> bool:
        """Never: being called through a relay takes a place there, not a listener."""
        return False

    def create_listener(self, handler_function: THandler) -> IListener:
        """Not to be called."""
        raise OpenConnectionError("a relayed address can't be listened on")

    async def dial(self, maddr: Multiaddr) -> RawConnection:
        """A connection to the peer at the end of ``maddr``, through the relay in it; raises OpenConnectionError."""
        if reach(maddr) is Reach.NONE:
            raise OpenConnectionError(f"{maddr} is no relayed address that can be dialled")
        relay, target = relay_of(maddr), ID.from_string(maddr.get_peer_id() or "")
        if relay.peer_id in (self._host.get_id(), target):
            raise OpenConnectionError(f"{maddr} leads back here, or names its own end as relay")
        stream: INetStream | None = None
        done = False
        try:
            with trio.fail_after(DIAL_SECONDS):
                if not self._swarm.direct(relay.peer_id):
                    deadline = trio.current_time() + DIAL_SECONDS
                    await self._swarm.dial_at(relay.peer_id, relay.addrs, deadline)
                stream = await self._host.new_stream(relay.peer_id, [TProtocol(HOP)])
                await send(stream, encode_hop(Hop(HopKind.CONNECT, target.to_bytes())))
                answer = decode_hop(await receive(stream))
            if answer.kind is not HopKind.STATUS or answer.status != Status.OK:
                raise OpenConnectionError(f"the relay refused the call: {status_words(answer.status)}")
            done = True
        except OpenConnectionError:
            raise
        except Exception as error:  # libp2p raises a different family at each layer
            raise OpenConnectionError(f"no call through {relay.peer_id}: {error or type(error).__name__}") from error
        finally:
            if stream is not None and not done:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await stream.reset()
        return relayed(stream, bare(maddr), initiator=True)

    # -- being called --------------------------------------------------------------------------------------------------

    async def serve(self, stream: INetStream) -> None:
        """One STOP stream: a relay brings a call; stays until the call is over. Raises PeerFault."""
        relay = stream.muxed_conn.peer_id
        with trio.fail_after(ANSWER_SECONDS):
            ask = decode_stop(await receive(stream))
        if ask.kind is not StopKind.CONNECT or not 2 <= len(ask.peer) <= 64:
            raise PeerFault("a relay brought something else than a call")
        if relay not in self._asked:
            await send(stream, encode_stop(Stop(StopKind.STATUS, status=Status.PERMISSION_DENIED)))
            await stream.close()
            return
        await send(stream, encode_stop(Stop(StopKind.STATUS, status=Status.OK)))
        caller = ID(ask.peer)
        # The relay was dialled by us: where it is we know, where the caller is we don't.
        _, where = self.places.get(relay, (0.0, Multiaddr(f"/p2p/{relay}")))
        raw = relayed(stream, Multiaddr(f"{where}/{CIRCUIT}"), initiator=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_when_there, caller)
            await self._swarm.accept(raw, Multiaddr(f"/p2p/{relay}"))
            nursery.cancel_scope.cancel()

    async def _tell_when_there(self, caller: ID) -> None:
        await until(lambda: self._swarm.get_connections(caller), 0.05)
        self.came(caller)

    # -- places at relays ----------------------------------------------------------------------------------------------

    async def reserve(self, relay: ID) -> None:
        """Get, or renew, a place at ``relay``, which is connected directly; raises RelayRefused."""
        stream: INetStream | None = None
        self._asked.add(relay)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                stream = await self._host.new_stream(relay, [TProtocol(HOP)])
                await send(stream, encode_hop(Hop(HopKind.RESERVE)))
                answer = decode_hop(await receive(stream))
                await stream.close()
        except Exception as error:
            raise RelayRefused(str(error) or type(error).__name__) from error
        finally:
            if stream is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await stream.reset()
        if answer.kind is not HopKind.STATUS or answer.status != Status.OK:
            self.gone(relay)
            raise RelayRefused(status_words(answer.status))
        where = self._where(relay)
        if where is None:
            raise RelayRefused("it is connected through another relay, or called us")
        # What it says of its clock is not believed: ours, and the hour of the specification, do.
        self.places[relay] = (trio.current_time() + 3600.0, where)

    def gone(self, relay: ID) -> None:
        """The place at ``relay`` is lost, or no longer wanted."""
        self.places.pop(relay, None)
        self._asked.discard(relay)

    def slept(self, seconds: float) -> None:
        """Our clock stood still for so long, and that of the relays, who grant places for an hour, went on."""
        self.places = {relay: (until - seconds, where) for relay, (until, where) in self.places.items()}

    def addresses(self) -> list[Multiaddr]:
        """Where this node can be called through its relays."""
        return [Multiaddr(f"{where}/{CIRCUIT}") for _, where in self.places.values()]

    def _where(self, relay: ID) -> Multiaddr | None:
        """The address at which we dialled ``relay``, with its ``/p2p/``."""
        for connection in self._swarm.direct(relay):
            if connection.direction.name == "OUTBOUND":
                for address in connection.get_transport_addresses():
                    if reach(address) > Reach.NONE and not is_relayed(address):
                        return Multiaddr(full(address, relay))
        return None

    def is_relayed(self, peer: ID) -> bool:
        """Whether ``peer`` is connected through a relay only."""
        kinds = [c.get_connection_type() for c in self._swarm.get_connections(peer)]
        return bool(kinds) and all(kind is ConnectionType.RELAYED for kind in kinds)


def status_words(status: int) -> str:
    """What a relay answers, in words."""
    try:
        return Status(status).name.lower().replace("_", " ")
    except ValueError:
        return f"status {status}"
