"""Nodes on the same network, found by multicast DNS: no configuration, no internet, no server.

libp2p's mDNS does the talking (zeroconf, in threads of its own). What is ours: a service name of our own, so that
other libp2p programs on the LAN are left alone; the crossing from its threads into trio; starting and stopping off the
event loop (each takes about a second); and starting anew when the machine's addresses change or when there was no
network at first. A node without any network runs on; only the reason is kept for status. Over IPv6 too, where the
system has it: a cable between two machines, with nothing else on it, has only link-local addresses.

Found peers are handed on, not dialled: that is for ``joining`` to decide.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.discovery.mdns import MDNSDiscovery, mdns
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr
from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it
from zeroconf import IPVersion, Zeroconf

from p2plearn.net.addresses import (
    MAX_ADDRESSES,
    Reach,
    bare,
    dial_order,
    is_relayed,
    is_websocket,
    list_interfaces,
    reach,
    reach_of_ip,
)

log = logging.getLogger("p2plearn.net")

CHECK_SECONDS = 15.0
"""Between looks at this machine's addresses: how long after a change of network we are found again."""

MAX_HEARD = 256
"""Peers remembered as heard; a LAN has fewer, an attacker on it does not."""

TOLD_ADDRESSES = 8
"""Addresses put into the announcement: it should fit one packet."""


def service_type(group: str = "") -> str:
    """The DNS-SD service to announce and to look for; ``group`` (any text) keeps apart those that don't share it."""
    if not group:
        return "_p2plearn._udp.local."
    # RFC 6763 allows 15 characters.
    return f"_p2plearn-{hashlib.sha256(group.encode()).hexdigest()[:6]}._udp.local."


def _open_zeroconf() -> Zeroconf:
    """On both IP versions, or on IPv4 alone where the system has no IPv6; raises what zeroconf does."""
    try:
        return Zeroconf(ip_version=IPVersion.All)
    except OSError:
        return Zeroconf()


# libp2p's MDNSDiscovery makes its own, for IPv4 alone, by this name.
vars(mdns)["Zeroconf"] = _open_zeroconf


class LanDiscovery:
    """``nursery.start(lan.run)`` announces ``host`` and calls ``found`` (in trio; it must not raise or block) with
    each peer heard, again when its addresses change.
    """

    def __init__(self, host: BasicHost, found: Callable[[PeerInfo], None], *, group: str = "") -> None:
        self._host = host
        self._found = found
        self._service = service_type(group)
        self.heard: dict[ID, PeerInfo] = {}
        """Who was heard, with the addresses told."""
        self.problem = ""
        """Why we can't be found on the LAN; empty while we can."""

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce and listen until cancelled. Counts as started at once, and never ends for want of a network."""
        task_status.started()
        token = trio.lowlevel.current_trio_token()
        while True:
            # The interfaces count too: the service listens on those that are there when it starts.
            seen = (self._addresses(), list_interfaces())
            running = await self._start(seen[0], token)
            try:
                while (self._addresses(), list_interfaces()) == seen:
                    await trio.sleep(CHECK_SECONDS)
                    if running is None and seen[0]:
                        break  # it did not start: try again
            finally:
                if running is not None:
                    await self._stop(running)

    def _addresses(self) -> list[str]:
        """What to announce; loopback only if there is nothing else (nodes on one machine, tests)."""
        own = [address for address in self._host.get_addrs() if not is_relayed(address)]
        return [str(address) for address in dial_order([*own, *self._on_the_cable()])[:TOLD_ADDRESSES]]

    def _on_the_cable(self) -> list[Multiaddr]:
        """Our link-local IPv6 addresses: good for whoever hears this announcement, and for nobody else."""
        listening = [
            a for a in self._host.get_transport_addrs() if str(a).startswith("/ip6/::/") and not is_websocket(a)
        ]
        found = [ip for ip in list_interfaces() if ":" in ip and reach_of_ip(ip) is Reach.LINK]
        return [Multiaddr(f"/ip6/{ip}/tcp/{a.value_for_protocol('tcp')}") for a in listening for ip in found]

    async def _start(self, addresses: list[str], token: trio.lowlevel.TrioToken) -> MDNSDiscovery | None:
        if not addresses:
            self.problem = "this node has no address on any network"
            return None
        port = int(Multiaddr(addresses[0]).value_for_protocol("tcp"))

        def start() -> MDNSDiscovery:
            discovery = MDNSDiscovery(
                _Hearing(self._host.get_id(), token, self._hear),
                port=port,
                listen_addrs=addresses,
                service_type=self._service,
            )
            # Not discovery.start(): it would block the event loop, and it starts a task that outlives its stop.
            discovery.broadcaster.register()
            return discovery

        try:
            discovery = await trio.to_thread.run_sync(start)
        except Exception as error:  # zeroconf: OSError, its own, and what its event loop raises
            self.problem = f"no multicast on this network: {error}"
            log.info("not to be found on the LAN: %s", error)
            return None
        self.problem = ""
        return discovery

    async def _stop(self, discovery: MDNSDiscovery) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(3.0):
            try:
                await trio.to_thread.run_sync(discovery.stop, abandon_on_cancel=True)  # type: ignore[call-arg]
            except Exception as error:
                log.debug("stopping mDNS failed: %s", error)

    def _hear(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        try:
            self._take(peer, addresses)
        except Exception as error:  # anybody on the LAN may say anything, and trio ends for what is raised here
            log.warning("what a peer on the LAN announced made us fail: %s: %s", type(error).__name__, error)

    def _take(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        # Nodes of one machine without a network find each other by loopback; nobody else has reason to tell it.
        alone = all(reach(Multiaddr(a)) <= Reach.LOOPBACK for a in self._addresses())
        usable = [bare(a) for a in addresses if reach(a) > (Reach.NONE if alone else Reach.LOOPBACK)][:MAX_ADDRESSES]
        if peer == self._host.get_id() or not usable:
            return
        info = PeerInfo(peer, usable)
        if self.heard.get(peer) == info:
            return
        if peer not in self.heard and len(self.heard) >= MAX_HEARD:
            del self.heard[next(iter(self.heard))]
        self.heard[peer] = info
        self._found(info)


class _Hearing:
    """What libp2p's mDNS takes for a swarm and its peerstore: it hands each find, from whatever thread, to trio."""

    def __init__(
        self, own: ID, token: trio.lowlevel.TrioToken, hear: Callable[[ID, Sequence[Multiaddr]], None]
    ) -> None:
        self._own = own
        self._token = token
        self._hear = hear
        self.peerstore = self

    def get_peer_id(self) -> ID:
        return self._own

    def add_addrs(self, peer: ID, addresses: Sequence[Multiaddr], _ttl: int = 0) -> None:
        self._in_trio(self._hear, peer, list(addresses))

    def clear_addrs(self, _peer: ID) -> None:
        """Called before new addresses and at goodbyes; what was heard stays until it is replaced."""

    def _in_trio(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            log.debug("heard a peer after the end")
