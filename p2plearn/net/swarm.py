"""libp2p's swarm, with what a laptop on a home network needs, by subclass.

What the stock one (0.8.1) does, and this one does not (each has a test in ``tests/contract``):

- it dials one address a peer, chosen by chance when a signed record brought them, so a laptop with two interfaces is
  unreachable half of the time. Here all are tried, a quarter second apart, and the first that answers wins;
- it waits those 250 ms even when the first dial succeeded, and tries a closed port four times;
- after a failed dial it refuses the peer for a minute ("negative cache");
- it keeps the task and the place of an inbound connection until the *swarm* ends: 20 KB each, and after
  ``max_connections - min_connections`` of them the node accepts nobody any more;
- an exception in a connection's background task ends the whole swarm;
- its auto-connector dials whatever the peerstore holds, and its stream semaphore makes a node's own streams wait
  behind those that peers keep open.

Dialling is in ``race.py``, who may come in and how often we knock in ``threshold.py``, the host over it in
``course_host.py``.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.abc import IMuxedConn, INetConn, ITransport
from libp2p.connection_types import ConnectionType
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.pnet.protector import new_protected_conn
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from p2plearn.net.addresses import bare, dial_order, is_relayed
from p2plearn.net.contained import ContainedTasks, log_once, quietly
from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.peerstore import CoursePeerStore
from p2plearn.net.race import DialFailed, race
from p2plearn.net.threshold import Threshold

log = logging.getLogger("p2plearn.net")

DIAL_DEADLINE = 10.0
"""Seconds after which a dial by libp2p itself (which hands in no deadline) gives up."""

CLOSE_SECONDS = 2.0
"""For saying goodbye when the node stops; past it sockets are just closed."""


class CourseSwarm(Swarm):
    """See the head of this file. ``report`` is told of what a background task raised (default: one log line)."""

    def __init__(
        self,
        peer_id: ID,
        peerstore: CoursePeerStore,
        upgrader: TransportUpgrader,
        transport: ITransport,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(
            peer_id,
            peerstore,
            upgrader,
            transports=[transport],
            connection_config=ConnectionConfig(
                max_connections=limits.total,
                min_connections=min(limits.for_own_calls, limits.total - 1),  # kept from inbound ones
                low_watermark=min(limits.for_own_calls, limits.total - 1),
                high_watermark=limits.total,
                max_connections_per_peer=limits.per_peer,
                inbound_upgrade_timeout=limits.upgrade_timeout,
                outbound_upgrade_timeout=limits.upgrade_timeout,
                inbound_stream_protocol_negotiation_timeout=limits.negotiate_timeout,
                outbound_stream_protocol_negotiation_timeout=limits.negotiate_timeout,
            ),
        )
        self.limits = limits
        self.report: Callable[[str, Exception], None] = log_once
        self.refuses: Callable[[ID], bool] = lambda _peer: False
        """Says whether connections with a peer are refused (``guard`` sets it); asked after the handshake."""
        self.own_addresses: Callable[[], list[Multiaddr]] = self._listening
        """Where this machine is called; never dialled. ``CourseHost`` knows what wildcards mean."""
        self.blame: Callable[[ID, Exception], None] = lambda _peer, _why: None
        """Is told of a peer whose connection broke the muxer's protocol, and how (``guard`` sets it)."""
        self._threshold = Threshold(limits)
        self._secured: weakref.WeakSet[Any] = weakref.WeakSet()
        self._contained: ContainedTasks | None = None

    @property
    def manager(self) -> Any:
        """The task runner of this service, with its tasks contained."""
        if self._contained is None or self._contained.manager is not self._manager:
            self._contained = ContainedTasks(self._manager, self._report)
        return self._contained

    async def run(self) -> None:
        """As the stock swarm, without its auto-connector, and with every socket closed at the end.

        A low mark of 0 would not keep the auto-connector quiet: it aims at the middle of both marks. The sockets the
        stock one means to close too, but it is cancelled by then, so its first ``await`` is its last.

        Raises RuntimeError when it ends by itself. libp2p's manager takes what looks like a peer's hanging up, wherever
        it comes from, for a good end, and whoever runs the host would go on with a dead one and never know.
        """
        self.auto_connector.start = _nothing
        fault: Exception | None = None
        try:
            await super().run()
        except Exception as error:
            fault = error
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                async with trio.open_nursery() as nursery:
                    for listener in list(self.listeners.values()):
                        nursery.start_soon(quietly, listener.close)
                    for secured in list(self._secured):
                        nursery.start_soon(quietly, secured.close)
        if self.get_manager().is_cancelled:
            if fault is not None:
                raise fault
        else:
            log.error("the swarm ended by itself", exc_info=fault)
            # Not raised from the fault, nor in its words: the manager looks for those.
            raise RuntimeError("the swarm ended by itself")

    async def close(self) -> None:
        """Say goodbye on all connections at once (each takes some 0.2 s), then stop."""
        if not self._closing:
            with trio.move_on_after(CLOSE_SECONDS):
                async with trio.open_nursery() as nursery:
                    for connection in self.get_connections():
                        nursery.start_soon(quietly, connection.close)
        await super().close()

    def _report(self, what: str, error: Exception) -> None:
        self.report(what, error)

    def _schedule_auto_connect(self) -> None:
        """Never: who is dialled is decided in ``joining``."""

    def _schedule_prune(self) -> None:
        """Never: the total is enforced when a connection is added, and no honest one is cut for a newer."""

    def set_resource_manager(self, resource_manager: Any, enable_stream_semaphore: bool = True) -> None:
        """Never used: ``ConnectionLimits`` and the guard's stream limits bound what it would."""

    def get_connections(self, peer_id: ID | None = None) -> list[INetConn]:
        """The live connections, of one peer or of all: one that is saying goodbye (0.2 s) takes no place any more."""
        return [c for c in super().get_connections(peer_id) if not c.is_closed]

    def remove_conn(self, swarm_conn: Any) -> None:
        """As the stock swarm; and what a peer spoke is forgotten with its last connection.

        libp2p asks only those whose protocols it does not know, so a peer that comes back would never be asked again.
        """
        super().remove_conn(swarm_conn)
        peer = swarm_conn.muxed_conn.peer_id
        if peer not in self.connections:
            self.peerstore.clear_protocol_data(peer)

    # Dialling.

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """The live connections to ``peer_id``, else a new one; raises DialFailed after ``DIAL_DEADLINE`` seconds."""
        return await self.dial(peer_id, trio.current_time() + DIAL_DEADLINE)

    async def dial(self, peer_id: ID, deadline: float) -> list[INetConn]:
        """The live connections to ``peer_id``, else a new one to the first of its addresses that answers.

        ``deadline`` is in trio's clock. Raises DialFailed. Two callers at a time dial once.
        """
        while True:
            live = self.get_connections(peer_id)
            if live:
                return live
            under_way = self._ongoing_dials.get(peer_id)
            if under_way is None:
                break
            with trio.move_on_at(deadline) as scope:
                await under_way.wait()
            if scope.cancelled_caught:
                raise DialFailed(peer_id, [])
        if peer_id == self.self_id or self.refuses(peer_id):
            raise DialFailed(peer_id, [])
        done = self._ongoing_dials[peer_id] = trio.Event()
        try:
            return [await self._race(peer_id, dial_order(self._addresses_of(peer_id)), deadline)]
        finally:
            self._ongoing_dials.pop(peer_id, None)
            done.set()

    async def dial_at(self, peer_id: ID, addresses: Sequence[Multiaddr], deadline: float) -> INetConn:
        """A new connection to ``peer_id`` at one of ``addresses``, whatever others there are; raises DialFailed."""
        if peer_id == self.self_id or self.refuses(peer_id):
            raise DialFailed(peer_id, [])
        return await self._race(peer_id, list(addresses), deadline)

    def direct(self, peer_id: ID) -> list[INetConn]:
        """The live connections to ``peer_id`` that no relay is between."""
        return [c for c in self.get_connections(peer_id) if c.get_connection_type() is not ConnectionType.RELAYED]

    async def accept(self, raw: RawConnection, came_by: Multiaddr) -> None:
        """Take in a connection that another way than a listener brought; stays until it ends. Never raises for it."""
        await self._do_handle_inbound_connection(raw, came_by, None)

    def _listening(self) -> list[Multiaddr]:
        return [a for listener in self.listeners.values() for a in listener.get_addrs()]

    async def take_outbound(self, raw: RawConnection, peer_id: ID) -> INetConn:
        """Make a connection to ``peer_id`` of ``raw``, which came about otherwise than by a transport's dialling.

        Raises SwarmException, with ``raw`` closed.
        """
        wire = raw if self.psk is None else new_protected_conn(raw, self.psk)
        return await self.upgrade_outbound_raw_conn(wire, peer_id)

    def _addresses_of(self, peer_id: ID) -> list[Multiaddr]:
        # Every home has a 192.168.1.2: at that address, another peer's is this very machine.
        own = {a.to_bytes() for a in self.own_addresses()}
        return [a for a in self.peerstore.addresses(peer_id) if bare(a).to_bytes() not in own]

    async def _race(self, peer_id: ID, addresses: list[Multiaddr], deadline: float) -> INetConn:
        async def dial(address: Multiaddr) -> INetConn:
            wait = self._threshold.wait_to_dial(address, trio.current_time())
            try:
                await trio.sleep(wait)
            except trio.Cancelled:
                self._threshold.not_dialled(address, trio.current_time())
                raise
            async with self._global_dial_limiter:
                # libp2p adds the peer's id itself, but not to an address that has a relay's in it.
                target = Multiaddr(f"{address}/p2p/{peer_id}") if is_relayed(address) else address
                return await self._dial_addr_single_attempt(target, peer_id)

        return await race(peer_id, addresses, dial, deadline)

    # Accepting.

    async def _do_handle_inbound_connection(self, read_write_closer: Any, maddr: Multiaddr, failure_event: Any) -> None:
        """Handshake with whoever connected, then stay until *that* connection ends, so that its place is free again."""
        remote = read_write_closer.get_remote_address()
        ip = remote[0] if remote else ""
        if not self._threshold.may_knock(ip, trio.current_time()):
            await quietly(read_write_closer.close)
            return
        ready = isinstance(read_write_closer, RawConnection)
        raw = read_write_closer if ready else RawConnection(read_write_closer, False)
        with self._threshold.knocking(ip):
            try:
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
            except Exception as error:
                log.debug("inbound connection from %s failed: %s", ip, error)
                muxed = None
        if muxed is not None:
            with self._threshold.inside(ip):
                for connection in self.get_connections(muxed.peer_id):
                    if connection.muxed_conn is muxed:
                        await connection.event_closed.wait()
        await quietly(raw.close)

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> Any:
        """As the stock swarm, but a peer that is refused is hung up on, and one with too many loses its oldest.

        (The stock one spares all of the last 20 seconds, so a single peer can take every place there is. The newest
        is the one to keep: whoever comes back after a change of network leaves stale ones behind.)
        """
        if self.refuses(muxed_conn.peer_id):
            await quietly(muxed_conn.close)
            raise SwarmException(f"{muxed_conn.peer_id} is banned for now")
        secured = getattr(muxed_conn, "secured_conn", None)
        if secured is not None:
            self._secured.add(secured)
        old = self.get_connections(muxed_conn.peer_id)
        for stale in old[: max(0, len(old) + 1 - self.limits.per_peer)]:
            if self.background_nursery is not None:
                self.background_nursery.start_soon(quietly, stale.close)
        if hasattr(muxed_conn, "on_fault"):
            muxed_conn.on_fault = lambda why: self.blame(muxed_conn.peer_id, why)
        return await super().add_conn(muxed_conn, direction)


async def _nothing(*_args: Any) -> None:
    return None
