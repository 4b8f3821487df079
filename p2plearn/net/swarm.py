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

``course_host`` puts it together; services are added and guarded (``guard.py``) by whoever calls it.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p import generate_peer_id_from
from libp2p.abc import IMuxedConn, INetConn, ITransport
from libp2p.connection_types import ConnectionType
from libp2p.crypto.keys import KeyPair
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.pnet.protector import new_protected_conn
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from p2plearn.net import bounded
from p2plearn.net.addresses import HOSTS, Reach, bare, dial_order, is_relayed, reach, reach_of_ip
from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.peerstore import CoursePeerStore
from p2plearn.net.rates import Rates

log = logging.getLogger("p2plearn.net")

DIAL_STAGGER = 0.25
"""Seconds before the next address of a peer is tried beside the ones under way (RFC 8305 recommends 250 ms)."""

RELAY_WAIT = 1.0
"""Seconds that direct addresses get before a relay is tried beside them: what it lends is little, and not its own."""

DIAL_DEADLINE = 10.0
"""Seconds after which a dial by libp2p itself (which hands in no deadline) gives up."""


OWN_ADDRESSES_SECONDS = 2.0
"""For which the answer to "what are our addresses" is remembered."""

CLOSE_SECONDS = 2.0
"""For saying goodbye when the node stops; past it sockets are just closed."""


class DialFailed(SwarmException):
    """No address of a peer could be reached; ``attempts`` holds each address tried and what came of it."""

    def __init__(self, peer: ID, attempts: list[tuple[Multiaddr, BaseException]]) -> None:
        super().__init__(f"no address of {peer} answered ({len(attempts)} tried)")
        self.peer = peer
        self.attempts = attempts


class _ContainedManager:
    """The swarm's task runner, but a task that raises ends itself only. Everything else is passed through."""

    def __init__(self, manager: Any, report: Callable[[str, Exception], None]) -> None:
        self._manager = manager
        self._report = report

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def run_task(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> None:
        owner = getattr(function, "__self__", None)

        async def contained() -> None:
            try:
                await function(*args)
            except Exception as error:
                self._report(getattr(function, "__qualname__", str(function)), error)
                close = getattr(owner, "close", None)
                if close is not None:
                    try:
                        await close()
                    except Exception as second:
                        self._report("close", second)

        self._manager.run_task(contained, **options)


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
        self.report: Callable[[str, Exception], None] = _log_once
        self.refuses: Callable[[ID], bool] = lambda _peer: False
        """Says whether connections with a peer are refused (``guard`` sets it); asked after the handshake."""
        self.own_addresses: Callable[[], list[Multiaddr]] = self._listening
        """Where this machine is called; never dialled. ``CourseHost`` knows what wildcards mean."""
        self.blame: Callable[[ID, Exception], None] = lambda _peer, _why: None
        """Is told of a peer whose connection broke the muxer's protocol, and how (``guard`` sets it)."""
        self._arrivals = Rates(limits.arrivals_burst, limits.arrivals_per_second)
        self._dials = Rates(limits.dials_burst, limits.dials_per_second)
        self._dials_to = Rates(limits.dials_per_ip_burst, limits.dials_per_ip_per_second)
        self._secured: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pending = 0
        self._pending_by_ip: Counter[str] = Counter()
        self._inbound_by_ip: Counter[str] = Counter()
        self._contained: _ContainedManager | None = None

    @property
    def manager(self) -> Any:
        """The task runner of this service, with its tasks contained."""
        if self._contained is None or self._contained._manager is not self._manager:
            self._contained = _ContainedManager(self._manager, self._report)
        return self._contained

    async def run(self) -> None:
        """As the stock swarm, without its auto-connector, and with every socket closed at the end.

        A low mark of 0 would not keep the auto-connector quiet: it aims at the middle of both marks. The sockets the
        stock one means to close too, but it is cancelled by then, so its first ``await`` is its last.
        """
        self.auto_connector.start = _nothing
        try:
            await super().run()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                async with trio.open_nursery() as nursery:
                    for listener in list(self.listeners.values()):
                        nursery.start_soon(_quietly, listener.close)
                    for secured in list(self._secured):
                        nursery.start_soon(_quietly, secured.close)

    async def close(self) -> None:
        """Say goodbye on all connections at once (each takes some 0.2 s), then stop."""
        if not self._closing:
            with trio.move_on_after(CLOSE_SECONDS):
                async with trio.open_nursery() as nursery:
                    for connection in self.get_connections():
                        nursery.start_soon(_quietly, connection.close)
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
        """Dial ``addresses`` in order, ``DIAL_STAGGER`` apart or as soon as one failed; the first connection wins."""
        winners: list[INetConn] = []
        attempts: list[tuple[Multiaddr, BaseException]] = []
        untried = set(addresses)
        under_way: list[trio.Event] = []

        async def attempt(address: Multiaddr, failed: trio.Event) -> None:
            try:
                await trio.sleep(self._wait_to_dial(address))
                async with self._global_dial_limiter:
                    # libp2p adds the peer's id itself, but not to an address that has a relay's in it.
                    target = Multiaddr(f"{address}/p2p/{peer_id}") if is_relayed(address) else address
                    connection = await self._dial_addr_single_attempt(target, peer_id)
            except Exception as error:
                attempts.append((address, error))
                failed.set()
                return
            finally:
                untried.discard(address)
            winners.append(connection)
            nursery.cancel_scope.cancel()

        with trio.move_on_at(deadline):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    if under_way and is_relayed(address) and not is_relayed(addresses[0]):
                        with trio.move_on_after(RELAY_WAIT):
                            for earlier in under_way:
                                await earlier.wait()
                        under_way.clear()
                    failed = trio.Event()
                    under_way.append(failed)
                    nursery.start_soon(attempt, address, failed)
                    with trio.move_on_after(DIAL_STAGGER):
                        await failed.wait()
        for extra in winners[1:]:
            await extra.close()
        if winners:
            return winners[0]
        tried = {str(address) for address, _ in attempts}
        attempts += [(a, TimeoutError("no answer in time")) for a in addresses if str(a) not in tried]
        raise DialFailed(peer_id, attempts)

    def _wait_to_dial(self, address: Multiaddr) -> float:
        """Seconds until a dial to ``address`` is due: what others tell us must not make us a nuisance to anybody."""
        if self.limits.spare_loopback and reach(address) is Reach.LOOPBACK:
            return 0.0
        now = trio.current_time()
        if is_relayed(address):  # a word over a connection that is there
            return self._dials.book("", now)
        host = next((str(address.value_for_protocol(p.name)) for p in address.protocols() if p.name in HOSTS), "")
        return max(self._dials.book("", now), self._dials_to.book(host, now))

    # Accepting.

    async def _do_handle_inbound_connection(self, read_write_closer: Any, maddr: Multiaddr, failure_event: Any) -> None:
        """Handshake with whoever connected, then stay until *that* connection ends, so that its place is free again."""
        remote = read_write_closer.get_remote_address()
        ip = remote[0] if remote else ""
        spared = self.limits.spare_loopback and reach_of_ip(ip) is Reach.LOOPBACK
        many = not spared and (
            self._inbound_by_ip[ip] >= self.limits.per_ip or not self._arrivals.take(ip, trio.current_time())
        )
        if many or self._pending >= self.limits.pending or self._pending_by_ip[ip] >= self.limits.pending_per_ip:
            await read_write_closer.close()
            return
        self._pending += 1
        self._pending_by_ip[ip] += 1
        ready = isinstance(read_write_closer, RawConnection)
        raw = read_write_closer if ready else RawConnection(read_write_closer, False)
        try:
            muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
        except Exception as error:
            log.debug("inbound connection from %s failed: %s", ip, error)
            await _quietly(raw.close)
            return
        finally:
            self._pending -= 1
            _drop(self._pending_by_ip, ip)
        self._inbound_by_ip[ip] += 1
        try:
            for connection in self.get_connections(muxed.peer_id):
                if connection.muxed_conn is muxed:
                    await connection.event_closed.wait()
        finally:
            _drop(self._inbound_by_ip, ip)
        await _quietly(raw.close)

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> Any:
        """As the stock swarm, but a peer that is refused is hung up on, and one with too many loses its oldest.

        (The stock one spares all of the last 20 seconds, so a single peer can take every place there is. The newest
        is the one to keep: whoever comes back after a change of network leaves stale ones behind.)
        """
        if self.refuses(muxed_conn.peer_id):
            await _quietly(muxed_conn.close)
            raise SwarmException(f"{muxed_conn.peer_id} is banned for now")
        secured = getattr(muxed_conn, "secured_conn", None)
        if secured is not None:
            self._secured.add(secured)
        old = self.get_connections(muxed_conn.peer_id)
        for stale in old[: max(0, len(old) + 1 - self.limits.per_peer)]:
            if self.background_nursery is not None:
                self.background_nursery.start_soon(_quietly, stale.close)
        if hasattr(muxed_conn, "on_fault"):
            muxed_conn.on_fault = lambda why: self.blame(muxed_conn.peer_id, why)
        return await super().add_conn(muxed_conn, direction)


class CourseHost(BasicHost):
    """A host that may be reached by more ways than those it listens on.

    (The stock one takes the first ``/p2p/`` of an address for its own, which in a relayed one is the relay's.)
    """

    announced: Callable[[], list[Multiaddr]] = staticmethod(list)
    """Addresses others can dial beyond the listening ones, with no ``/p2p/`` of ours at the end; they come first."""

    def own_addresses(self) -> list[Multiaddr]:
        """The addresses listened on, as others on this network dial them, without ``/p2p/``."""
        listening = self.get_transport_addrs()
        return listening if self._addrs_factory is None else self._addrs_factory(listening)

    def get_addrs(self) -> list[Multiaddr]:
        """Where this host can be dialled, each address with ``/p2p/`` and its id, the most useful first."""
        own = Multiaddr(f"/p2p/{self.get_id()}")
        found = [*self.announced(), *self.own_addresses()]
        return [bare(address).encapsulate(own) for address in dict.fromkeys(found)]


def course_host(
    keys: KeyPair,
    upgrader: TransportUpgrader,
    transport: ITransport,
    *,
    limits: ConnectionLimits | None = None,
    addrs_factory: Callable[[list[Multiaddr]], list[Multiaddr]] | None = None,
) -> CourseHost:
    """A libp2p host over a ``CourseSwarm``, with exactly the security and muxers of ``upgrader``: nothing else is
    offered or accepted. ``addrs_factory`` makes of the addresses listened on those that others are told.

    Run it with ``async with host.run(addresses)``.
    """
    bounded.bound_negotiation()
    peer_id = generate_peer_id_from(keys)
    peerstore = CoursePeerStore()
    peerstore.add_key_pair(peer_id, keys)
    swarm = CourseSwarm(peer_id, peerstore, upgrader, transport, limits or ConnectionLimits())
    factory = None if addrs_factory is None else _for_a_moment(addrs_factory)
    # What a single peer says it sees of us would change our signed record at will; what we listen on does not.
    host = CourseHost(network=swarm, addrs_factory=factory, disable_identify_address_discovery=True)
    swarm.own_addresses = host.own_addresses
    return host


def _for_a_moment(factory: Callable[[list[Multiaddr]], list[Multiaddr]]) -> Callable[..., list[Multiaddr]]:
    """``factory``, remembering its answer: libp2p asks for our addresses at each message, and the system is slow."""
    asked: tuple[list[Multiaddr], float] | None = None
    answer: list[Multiaddr] = []

    def remembered(listening: list[Multiaddr]) -> list[Multiaddr]:
        nonlocal asked, answer
        now = time.monotonic()
        if asked is None or asked[0] != listening or now - asked[1] > OWN_ADDRESSES_SECONDS:
            asked, answer = (list(listening), now), factory(listening)
        return list(answer)

    return remembered


def _drop(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


async def _nothing(*_args: Any) -> None:
    return None


async def _quietly(close: Callable[[], Awaitable[Any]]) -> None:
    try:
        await close()
    except Exception as error:
        log.debug("closing failed: %s", error)


_seen: set[tuple[str, str]] = set()


def _log_once(what: str, error: Exception) -> None:
    key = (what, type(error).__name__)
    if key not in _seen:
        _seen.add(key)
        log.warning("%s ended with %s: %s", what, type(error).__name__, error)
