"""Asking the router to let calls through to this node: NAT-PMP first, which is one packet, then UPnP.

A thin driver of ``natpmp.py`` and ``upnp.py``. In: the port that the node listens on. Out: ``address``, where the
router says that calls get through, and ``words`` for status. A mapping is renewed at half its life and taken back when
the node stops; one that is lost to a crash ends by itself, an hour later at most. Nothing is asked when this machine
has a public address of its own. Routers are asked at private addresses of the LAN alone.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from multiaddr import Multiaddr
from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

from p2plearn.errors import PeerFault
from p2plearn.net.addresses import Reach, reach_of_ip
from p2plearn.net.neighbours import Interface, is_neighbour, list_networks
from p2plearn.net.reach import natpmp, upnp

log = logging.getLogger("p2plearn.net")

LEASE_SECONDS: Final = 3600
"""What is asked for: long enough not to be noticed, short enough not to outlive a crash by much."""

SEARCH_SECONDS: Final = 2.5
"""For routers to answer a UPnP search, which lets them take two."""

ANSWER_SECONDS: Final = 5.0
"""For a router's page."""

AGAIN_SECONDS: Final = 900.0
"""Until a router that would not is asked again."""

GOODBYE_SECONDS: Final = 3.0
"""For taking a mapping back when the node stops."""

MAX_ROUTERS: Final = 4
"""Answers to a search that are looked into."""

TakeBack = Callable[[], Awaitable[None]]


class PortMapping:
    """``nursery.start(mapping.run)``. ``port`` tells the TCP port to forward, None for none; ``changed`` is called
    when ``address`` became another.
    """

    def __init__(
        self,
        port: Callable[[], int | None],
        changed: Callable[[], None],
        *,
        networks: Callable[[], list[Interface]] = list_networks,
    ) -> None:
        self._port = port
        self._changed = changed
        self._list_networks = networks
        self._take_back: TakeBack | None = None
        self._again = trio.Event()
        self.address: Multiaddr | None = None
        """Where calls get through, as the router says."""
        self.words = "no router was asked yet"

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have the port forwarded until cancelled, then take that back."""
        task_status.started()
        try:
            while True:
                self._again = trio.Event()
                seconds = await self._once()
                with trio.move_on_after(seconds / 2):
                    await self._again.wait()
        finally:
            if self._take_back is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_SECONDS):
                    try:
                        await self._take_back()
                    except (OSError, PeerFault) as error:
                        log.debug("the port mapping could not be taken back: %s", error)

    def network_changed(self) -> None:
        """Another network has another router."""
        self._take_back = None
        self._is_at(None)
        self._again.set()

    async def _once(self) -> float:
        """Ask for the port; for how many seconds that is good."""
        port, networks = self._port(), self._list_networks()
        if port is None or any(i.version == 4 and reach_of_ip(str(i.ip)) is Reach.GLOBAL for i in networks):
            self.words = "not needed: this node listens on loopback alone, or has a public address of its own"
            self._is_at(None)
            return 2 * AGAIN_SECONDS
        problems: list[str] = []
        for way, name in ((self._by_natpmp, "NAT-PMP"), (self._by_upnp, "UPnP")):
            try:
                outside, forwarded, seconds = await way(port, networks)
            except (PeerFault, OSError, ValueError) as error:
                problems.append(f"{name}: {error or type(error).__name__}")
                continue
            self.words = f"the router forwards port {forwarded} ({name})"
            if reach_of_ip(outside) is not Reach.GLOBAL:
                self.words += f", but its own address {outside} is private: another router stands before it"
            self._is_at(Multiaddr(f"/ip4/{outside}/tcp/{forwarded}"))
            return float(min(max(seconds, 60), LEASE_SECONDS))
        self.words = f"no router forwards the port ({'; '.join(problems)})"
        self._is_at(None)
        return 2 * AGAIN_SECONDS

    def _is_at(self, address: Multiaddr | None) -> None:
        if address != self.address:
            self.address = address
            self._changed()

    # -- NAT-PMP -------------------------------------------------------------------------------------------------------

    async def _by_natpmp(self, port: int, networks: Sequence[Interface]) -> tuple[str, int, int]:
        router = default_router(networks)
        if router is None:
            raise PeerFault("no router is known")
        async with _udp() as sock:
            await sock.connect((router, natpmp.PORT))
            outside = natpmp.read_address(await _ask(sock, natpmp.ask_address()))
            granted = natpmp.read_mapping(await _ask(sock, natpmp.ask_mapping(port, port, LEASE_SECONDS)), port)

        async def take_back() -> None:
            async with _udp() as sock:
                await sock.connect((router, natpmp.PORT))
                await _ask(sock, natpmp.ask_mapping(port, 0, 0))

        self._take_back = take_back
        return outside, granted.outside, granted.seconds

    # -- UPnP ----------------------------------------------------------------------------------------------------------

    async def _by_upnp(self, port: int, networks: Sequence[Interface]) -> tuple[str, int, int]:
        control, own = await self._find(networks)
        wish = {
            "NewRemoteHost": "",
            "NewExternalPort": port,
            "NewProtocol": "TCP",
            "NewInternalPort": port,
            "NewInternalClient": own,
            "NewEnabled": 1,
            "NewPortMappingDescription": "p2plearn",
            "NewLeaseDuration": LEASE_SECONDS,
        }
        try:
            await _page(control.host, control.port, upnp.call(control, "AddPortMapping", **wish))
        except PeerFault as refused:
            if "725" not in str(refused):  # it keeps mappings for ever only; this one is taken back all the same
                raise
            await _page(control.host, control.port, upnp.call(control, "AddPortMapping", **wish | _FOR_EVER))

        async def take_back() -> None:
            request = upnp.call(control, "DeletePortMapping", NewRemoteHost="", NewExternalPort=port, NewProtocol="TCP")
            await _page(control.host, control.port, request)

        self._take_back = take_back
        answer = await _page(control.host, control.port, upnp.call(control, "GetExternalIPAddress"))
        return upnp.read_outside(answer), port, LEASE_SECONDS

    async def _find(self, networks: Sequence[Interface]) -> tuple[upnp.Control, str]:
        """A router that forwards ports, and our own address towards it; raises PeerFault."""
        found: dict[str, str] = {}
        async with trio.open_nursery() as nursery:
            for interface in networks:
                if interface.version == 4 and reach_of_ip(str(interface.ip)) is Reach.PRIVATE:
                    nursery.start_soon(_search, str(interface.ip), networks, found)
        problem = "no router answered"
        for location, own in list(found.items())[:MAX_ROUTERS]:
            try:
                host, port, path = upnp.split(location)
                page = await _page(host, port, upnp.fetch(host, port, path))
                return upnp.read_description(page, location), own
            except (PeerFault, OSError) as error:
                problem = str(error)
        raise PeerFault(problem)


_FOR_EVER: Final = {"NewLeaseDuration": 0}


def default_router(networks: Sequence[Interface]) -> str | None:
    """The router that this machine's calls go out by: Linux tells it; elsewhere the first address of a home network."""
    try:
        lines = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except (OSError, ValueError):
        lines = []
    for fields in (line.split() for line in lines):
        if len(fields) > 3 and fields[1] == "00000000" and int(fields[3], 16) & 2:
            router = str(ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[2]), "little")))
            return router if reach_of_ip(router) is Reach.PRIVATE else None
    if lines:
        return None
    homes = [
        i for i in networks if i.version == 4 and reach_of_ip(str(i.ip)) is Reach.PRIVATE and i.network.prefixlen < 31
    ]
    return str(homes[0].network.network_address + 1) if homes else None


@asynccontextmanager
async def _udp() -> AsyncIterator[trio.socket.SocketType]:
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        yield sock
    finally:
        sock.close()


async def _ask(sock: trio.socket.SocketType, question: bytes) -> bytes:
    """The answer to a NAT-PMP question, asked again with longer waits; raises PeerFault when there is none."""
    for turn in range(natpmp.TRIES):
        await sock.send(question)
        answer = b""
        with trio.move_on_after(natpmp.FIRST_WAIT * 2**turn) as scope:
            while answer[1:2] != bytes([question[1] + 128]):  # one to an earlier question may come late
                answer = await sock.recv(64)
        if not scope.cancelled_caught:
            return answer
    raise PeerFault("the router does not answer")


async def _search(own: str, networks: Sequence[Interface], found: dict[str, str]) -> None:
    """Add to ``found`` where routers that answer on the network of ``own`` describe themselves."""
    async with _udp() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
            await sock.bind((own, 0))
            with trio.move_on_after(SEARCH_SECONDS):
                await sock.sendto(upnp.search(), upnp.GROUP)
                while len(found) < MAX_ROUTERS:
                    raw, sender = await sock.recvfrom(2048)
                    if not is_neighbour(sender[0], networks):
                        continue
                    try:
                        found[upnp.read_location(raw, sender[0])] = own
                    except PeerFault as error:
                        log.debug("%s answered a search for routers: %s", sender[0], error)
        except OSError as error:
            log.debug("no search for routers from %s: %s", own, error)


async def _page(host: str, port: int, request: bytes) -> bytes:
    """The body of the answer to an HTTP request; raises PeerFault, OSError."""
    raw = bytearray()
    with trio.move_on_after(ANSWER_SECONDS) as scope:
        async with await trio.open_tcp_stream(host, port) as stream:
            try:
                await stream.send_all(request)
                while len(raw) < upnp.MAX_PAGE and (more := await stream.receive_some(16384)):
                    raw += more
            except trio.BrokenResourceError as error:
                raise PeerFault("the router hung up") from error
    if scope.cancelled_caught:
        raise PeerFault("the router took too long")
    return upnp.read_page(bytes(raw))
