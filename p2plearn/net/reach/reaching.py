"""Being reachable, as far as this network lets us: judge, relays, hole punching and port mapping, put together and run.

A thin driver of ``judge.py`` and of what its siblings do. In: the host, and who comes and goes on it. Out: the
addresses by which this node can be called beyond those it listens on (``host.announced``), a word and a sentence on
how it stands, and direct connections where there were relayed ones.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from libp2p.abc import INetConn
from libp2p.custom_types import TProtocol
from libp2p.identity.identify_push.identify_push import push_identify_to_peer
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

from p2plearn.net.addresses import Reach, bare, is_relayed, is_websocket, reach, reach_of_ip
from p2plearn.net.course_host import CourseHost
from p2plearn.net.links import on_a_network
from p2plearn.net.neighbours import Interface, Vicinity, list_networks
from p2plearn.net.reach.autonat import CallBack, ask
from p2plearn.net.reach.circuit import Circuits, RelayRefused
from p2plearn.net.reach.holepunch import HolePunching, Sighting
from p2plearn.net.reach.judge import NOWHERE, Judge, Standing
from p2plearn.net.reach.lending import Lending, LendingLimits
from p2plearn.net.reach.portmap import PortMapping
from p2plearn.net.reach.relay import Relay
from p2plearn.net.reach.wire import AUTONAT, DCUTR, HOP, STOP
from p2plearn.net.swarm import CourseSwarm

log = logging.getLogger("p2plearn.net")

TICK_SECONDS: Final = 1.0
"""Between looks at who is there; cheap, for nothing is asked of the system or the network without need."""

RENEW_SECONDS: Final = 1800.0
"""A place at a relay is renewed when it lasts no longer than this: half of its hour."""

REFUSED_SECONDS: Final = (5.0, 600.0)
"""Until a relay that refused is asked again: first, and at most; twice as long each time."""


@dataclass(frozen=True, slots=True)
class ReachSettings:
    """What the user wants: ``serve`` as a relay ("auto", "yes", "no"), what to use, and how much to lend."""

    serve: str = "auto"
    use: bool = True
    map_port: bool = False  # ask the router to forward our port
    places: int = 2  # relays to be called through: one may go
    announce: tuple[Multiaddr, ...] = ()  # where else others can call, as somebody who knows it says
    lending: LendingLimits = field(default_factory=LendingLimits)


class Reaching:
    """``nursery.start(reaching.run)``. ``moved`` is called when the addresses by which we are reached changed."""

    def __init__(
        self,
        host: CourseHost,
        settings: ReachSettings,
        *,
        moved: Callable[[], None] = lambda: None,
        networks: Callable[[], list[Interface]] = list_networks,
        connected: Callable[[], bool] = on_a_network,
    ) -> None:
        swarm = host.get_network()
        if not isinstance(swarm, CourseSwarm):
            raise TypeError("this host was not built by course_host")
        self._host = host
        self._swarm: CourseSwarm = swarm
        self._settings = settings
        self._moved = moved
        self._connected = connected
        self._vicinity = Vicinity(networks, trio.current_time)
        self._judge = Judge(0.0)
        self._sightings: dict[ID, Sighting] = {}
        self._asking = False
        self._refused: dict[ID, tuple[int, float]] = {}  # by relay: times in a row, and when it may be asked again
        self._reserving: set[ID] = set()
        self._announced: list[Multiaddr] = list(settings.announce)
        self._mapping = PortMapping(self._own_port, self._mapped, networks=networks) if settings.map_port else None
        self.may_lend: Callable[[], bool] = lambda: True
        """Whether the line may be lent to others now: not while it is paid by volume, nor while paused."""
        self._nursery: trio.Nursery | None = None
        self.circuits = Circuits(host)
        self.circuits.came = self._called_through_a_relay
        self.relay = Relay(host, Lending(settings.lending), self._relays_now, self._outward)
        self.punching = HolePunching(host, self.sightings)
        host.announced = lambda: self._announced
        host._observed_addr_manager = _Observations(self._observed)
        for protocol, serve in (
            (AUTONAT, CallBack(host).serve),
            (HOP, self.relay.serve),
            (STOP, self.circuits.serve),
            (DCUTR, self.punching.serve),
        ):
            host.set_stream_handler(TProtocol(protocol), serve)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        self._judge = Judge(trio.current_time())
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._mapping is not None:
                await nursery.start(self._mapping.run)
            task_status.started()
            while True:
                try:
                    self._look()
                except Exception as error:  # what a peer or libp2p did to us must not end the network part
                    log.warning("looking after reachability failed: %s: %s", type(error).__name__, error)
                await trio.sleep(TICK_SECONDS)

    def network_changed(self, slept: float = 0.0) -> None:
        """This machine is on another network now, or slept for so many seconds: what was found out counts no more."""
        self.circuits.slept(slept)
        self._judge.network_changed(trio.current_time())
        self._vicinity.changed()
        self._sightings.clear()
        self._refused.clear()
        self.punching.network_changed()
        if self._mapping is not None:
            self._mapping.network_changed()

    async def direct(self, peer: ID, seconds: float) -> None:
        """When ``peer`` is connected through a relay only, give a direct connection up to ``seconds`` to come about."""
        if self.circuits.is_relayed(peer):
            await self.punching.wait(peer, seconds)

    # -- how it stands -------------------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """Who can call this node."""
        return self._judge.standing(self._own(), trio.current_time())

    def figures(self) -> dict[str, Any]:
        """What ``status`` shows."""
        standing, words = self._in_words()
        lending = self.relay.lending
        return {
            "standing": standing.value,
            "words": words,
            "port_mapping": "off" if self._mapping is None else self._mapping.words,
            "outside": self._judge.outside_addresses(self._own()),
            "relays": [str(relay) for relay in self.circuits.places],
            "relayed_peers": [str(peer) for peer in self._host.get_connected_peers() if self.circuits.is_relayed(peer)],
            "punched": self.punching.succeeded,
            "punch_failed": self.punching.failed,
            "relaying": {
                "on": self._relays_now(),
                "places": lending.reservations,
                "calls": len(lending.circuits),
                "moved": lending.moved,
            },
        }

    def _in_words(self) -> tuple[Standing, str]:
        if not self._connected():
            return Standing.NO_NETWORK, f"{_WORDS[Standing.NO_NETWORK]}: {NOWHERE}"
        standing, why = self.standing(), self._judge.words(self._own(), trio.current_time())
        return standing, f"{_WORDS[standing]}: {why}" + self._by_way_of(standing)

    def _by_way_of(self, standing: Standing) -> str:
        places = len(self.circuits.places)
        if places:
            return f"; it is called by way of {places} relay{'s' if places > 1 else ''}"
        if standing is Standing.BEHIND_ROUTER:
            return "; no relay is known yet, so only nodes that it calls reach it"
        return ""

    def sightings(self) -> list[Sighting]:
        """How others beyond our router see connections of ours that are still there, the newest first."""
        live = {peer: s for peer, s in self._sightings.items() if s.connection in self._swarm.direct(peer)}
        self._sightings = live
        return list(reversed(live.values()))

    # -- what happens --------------------------------------------------------------------------------------------------

    def _observed(self, connection: INetConn, observed: Multiaddr) -> None:
        """A peer told by identify from where it sees our connection come."""
        peer = connection.muxed_conn.peer_id
        if connection.direction.name != "OUTBOUND" or reach(observed) < Reach.PRIVATE or is_relayed(observed):
            return
        if connection not in self._swarm.direct(peer) or not self._is_beyond(connection):
            return
        plain = bare(observed)
        ip = str(plain.value_for_protocol("ip6" if str(plain).startswith("/ip6/") else "ip4"))
        self._judge.seen_as(str(peer), ip)
        self._sightings.pop(peer, None)
        if not is_websocket(connection.get_transport_addresses()[0]):
            self._sightings[peer] = Sighting(plain, connection)

    def _called_through_a_relay(self, peer: ID) -> None:
        if self._nursery is not None:
            self._spawn(self.punching.upgrade, peer)

    def _look(self) -> None:
        """See who is there, and begin what is due."""
        now = trio.current_time()
        beyond = self._beyond()
        self._judge.beyond({str(peer) for peer in beyond}, now)
        if not self._asking and beyond:
            able = {str(peer): peer for peer in beyond if self._swarm.peerstore.speaks(peer, AUTONAT)}
            choice = self._judge.ask(list(able), now)
            if choice is not None:
                self._asking = True
                self._spawn(self._ask, able[choice])
        self._see_to_places(beyond, now)
        self._see_to_lending()
        self._announce(now)

    async def _ask(self, peer: ID) -> None:
        try:
            reached = await ask(self._host, peer, self._to_be_called_at())
        finally:
            self._asking = False
        if reached is not None:
            before = self.standing()
            self._judge.called_back(str(peer), reached, trio.current_time())
            self._announce(trio.current_time())
            if self.standing() is not before:
                log.info("reachability: %s", self.figures()["words"])

    def _to_be_called_at(self) -> list[Multiaddr]:
        """Our addresses, and those that we would have if the router let calls through."""
        own = [bare(a) for a in self._host.get_addrs() if not is_relayed(a) and reach(a) > Reach.LINK]
        ports = {str(a.value_for_protocol("tcp")) for a in self._host.get_transport_addrs() if not is_websocket(a)}
        outside = [
            Multiaddr(f"/ip{6 if ':' in ip else 4}/{ip}/tcp/{port}")
            for ip in self._judge.outside_addresses(self._own())[:2]
            for port in sorted(ports)
        ]
        mapped = [] if self._mapping is None or self._mapping.address is None else [self._mapping.address]
        return list(dict.fromkeys([*mapped, *outside, *own]))

    def _own_port(self) -> int | None:
        """The port that this node listens on for calls from other machines, if it does."""
        for address in self._host.get_transport_addrs():
            if str(address).startswith("/ip4/") and not is_websocket(address):
                host = str(address.value_for_protocol("ip4"))
                if not ipaddress.ip_address(host).is_loopback:
                    return int(str(address.value_for_protocol("tcp")))
        return None

    def _mapped(self) -> None:
        """The router forwards a port to us, or no longer does: whether calls get through is to be seen."""
        self._judge.look_again(trio.current_time())

    # -- relays --------------------------------------------------------------------------------------------------------

    def _see_to_places(self, beyond: list[ID], now: float) -> None:
        """Keep as many places at relays as are wanted."""
        places = self.circuits.places
        for relay in list(places):
            if not self._swarm.direct(relay):
                self.circuits.gone(relay)
        wanted = self._settings.places if self._settings.use and self._needs_relays() else 0
        for relay in list(places)[wanted:]:
            self.circuits.gone(relay)
        due = [relay for relay, (until, _) in places.items() if until - now < RENEW_SECONDS]
        fresh = [
            peer
            for peer in beyond
            if peer not in places
            and self._swarm.peerstore.speaks(peer, HOP)
            and self._refused.get(peer, (0, 0.0))[1] <= now
            and any(c.direction.name == "OUTBOUND" for c in self._swarm.direct(peer))
        ]
        for peer in [*due, *fresh[: max(0, wanted - len(places) - len(self._reserving))]]:
            if peer not in self._reserving:
                self._reserving.add(peer)
                self._spawn(self._reserve, peer)

    async def _reserve(self, peer: ID) -> None:
        try:
            await self.circuits.reserve(peer)
        except RelayRefused as refused:
            times = self._refused.get(peer, (0, 0.0))[0] + 1
            wait = min(REFUSED_SECONDS[0] * 2.0 ** (times - 1), REFUSED_SECONDS[1])
            self._refused[peer] = (times, trio.current_time() + wait)
            log.debug("%s gives no place as a relay: %s", peer, refused)
        else:
            self._refused.pop(peer, None)
            self._announce(trio.current_time())
        finally:
            self._reserving.discard(peer)
        if len(self._refused) > 256:
            self._refused.clear()

    def _see_to_lending(self) -> None:
        for name in list(self.relay.lending.takers):
            if not self._swarm.get_connections(ID.from_string(name)):
                self.relay.lending.gone(name)

    def _relays_now(self) -> bool:
        """Whether others get places and calls here: where others can call, unless the user says otherwise."""
        if self._settings.serve == "no" or not self.may_lend():
            return False
        if self._settings.serve == "yes":
            return True
        standing = self.standing()
        return standing is Standing.PUBLIC or (standing is Standing.UNKNOWN and self._in_the_open())

    def _needs_relays(self) -> bool:
        standing = self.standing()
        return standing is Standing.BEHIND_ROUTER or (standing is Standing.UNKNOWN and not self._in_the_open())

    def _in_the_open(self) -> bool:
        """Whether this machine has a public address of its own, which says nothing of firewalls."""
        return any(reach_of_ip(ip) is Reach.GLOBAL for ip in self._own())

    def _outward(self) -> list[Multiaddr]:
        """Our direct addresses that reach beyond this network."""
        own = [bare(a) for a in self._host.get_addrs() if not is_relayed(a)]
        return [a for a in own if reach(a) is Reach.GLOBAL] or [a for a in own if reach(a) > Reach.LINK]

    # -- addresses -----------------------------------------------------------------------------------------------------

    def _announce(self, now: float) -> None:
        """Have others know by which addresses they can call us, when these changed."""
        open_doors = [Multiaddr(text) for text in self._judge.reached_at(now)]
        through = self.circuits.addresses() if self._needs_relays() else []
        announced = list(dict.fromkeys([*self._settings.announce, *open_doors, *through]))
        if set(announced) == set(self._announced):
            return
        self._announced = announced
        self._moved()
        for peer in self._host.get_connected_peers():
            self._spawn(push_identify_to_peer, self._host, peer)

    def _own(self) -> list[str]:
        """This machine's addresses that reach farther than its cable."""
        return [str(i.ip) for i in self._vicinity.networks() if reach_of_ip(str(i.ip)) > Reach.LINK]

    def _beyond(self) -> list[ID]:
        """Peers that are connected directly, and are not on this network."""
        return [
            peer
            for peer in self._host.get_connected_peers()
            if any(self._is_beyond(connection) for connection in self._swarm.direct(peer))
        ]

    def _is_beyond(self, connection: INetConn) -> bool:
        remote = connection.muxed_conn.get_remote_address()
        return remote is not None and not self._vicinity.is_near(connection, remote[0])

    def _spawn(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Begin something that must end neither this task nor the node."""
        if self._nursery is not None:
            self._nursery.start_soon(_contained, function, args)


async def _contained(function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
    try:
        await function(*args)
    except Exception as error:
        log.warning("%s failed: %s: %s", getattr(function, "__qualname__", function), type(error).__name__, error)


class _Observations:
    """What libp2p's identify takes for its book of observed addresses: it hands each on, and tells of none."""

    def __init__(self, seen: Callable[[INetConn, Multiaddr], None]) -> None:
        self._seen = seen

    def record_observation(self, connection: INetConn, observed: Multiaddr, _listening: object) -> None:
        """A peer sees ``connection`` come from ``observed``."""
        self._seen(connection, observed)

    def addrs(self) -> list[Multiaddr]:
        """None: what a single peer says must not change what we tell others."""
        return []

    def remove_conn(self, connection: INetConn) -> None:
        """Who is still connected is looked up when it matters."""


_WORDS: Final = {
    Standing.PUBLIC: "others can call this node",
    Standing.BEHIND_ROUTER: "behind a router",
    Standing.LAN_ONLY: "on this network only",
    Standing.UNKNOWN: "not known yet whether others can call this node",
    Standing.NO_NETWORK: "this machine has no network",
}
