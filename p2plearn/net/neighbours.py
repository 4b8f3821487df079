"""Who is on the same LAN: peers whose bytes cost no line to the internet.

A peer is a neighbour when it is on this very machine, at a link-local address, or at an address of a network that one
of this machine's interfaces is on. A private address alone proves nothing: behind a VPN or a provider's own NAT there
are private addresses a world away. For the same reason point-to-point interfaces (VPN, mobile, dial-up) don't count,
nor public IPv4 networks, which are a provider's, with its other customers in them; IPv6 networks of 64 bits are a
home's.

Pure but for ``list_networks``, which asks the machine, and ``Vicinity``, which is handed a clock.
"""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import ifaddr

from p2plearn.net.addresses import Reach, reach_of_ip

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_POINT_TO_POINT: Final = 0x10
_TUNNELS: Final = ("tun", "tap", "utun", "wg", "ppp", "wwan", "rmnet", "ipsec", "tailscale", "zt", "gif", "stf")
"""Names of interfaces that lead elsewhere, for systems that don't tell it otherwise, or tell it wrong."""

NETWORKS_SECONDS: Final = 10.0
"""For which this machine's networks are remembered."""


class Vicinity:
    """This machine's networks, as ``look`` lists them now and then by ``clock``, and which connections stay on them.

    Once with a neighbour, a connection is for as long as it lasts: it goes the way by which it was opened, and an
    address of ours that vanishes (a pulled cable) puts nobody beyond it. And before one counts as from beyond for the
    first time, the networks are listed anew: it may have come by an address as young as itself.
    """

    def __init__(self, look: Callable[[], list[Interface]], clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._networks: list[Interface] = []
        self._until = float("-inf")
        self._near: weakref.WeakSet[object] = weakref.WeakSet()
        self._far: weakref.WeakSet[object] = weakref.WeakSet()

    def networks(self) -> list[Interface]:
        """This machine's, as ``list_networks`` gives them; at most ``NETWORKS_SECONDS`` old."""
        now = self._clock()
        if now >= self._until:
            self._networks, self._until = self._look(), now + NETWORKS_SECONDS
        return self._networks

    def changed(self) -> None:
        """This machine is on another network now."""
        self._until = float("-inf")

    def is_near(self, connection: object, remote: str) -> bool:
        """Whether ``connection``, of which the other end is at the IP address ``remote``, is with a neighbour."""
        if connection in self._near:
            return True
        near = is_neighbour(remote, self.networks())
        if not near and connection not in self._far:
            self.changed()
            near = is_neighbour(remote, self.networks())
        (self._near if near else self._far).add(connection)
        return near


def is_neighbour(remote: str, own: Iterable[Interface]) -> bool:
    """Whether the IP address ``remote`` (zone allowed) is on the LAN; ``own`` are this machine's interfaces."""
    reach = reach_of_ip(remote)
    if reach in (Reach.LOOPBACK, Reach.LINK):
        return True
    if reach is Reach.NONE:
        return False
    address = ipaddress.ip_address(remote.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(
        address == interface.ip or (address in interface.network and _is_lan(interface, reach))
        for interface in own
        if interface.version == address.version
    )


def _is_lan(interface: Interface, reach: Reach) -> bool:
    if isinstance(interface, ipaddress.IPv6Interface):
        return interface.network.prefixlen >= 64
    return reach is Reach.PRIVATE


def list_networks() -> list[Interface]:
    """This machine's interfaces with their networks; those that lead elsewhere with their own address alone.

    Empty when it can't be told.
    """
    found: list[Interface] = []
    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return found
    for adapter in adapters:
        name = adapter.name if isinstance(adapter.name, str) else adapter.name.decode(errors="replace")
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            length = (32 if isinstance(entry.ip, str) else 128) if _leads_elsewhere(name) else entry.network_prefix
            try:
                found.append(ipaddress.ip_interface(f"{text.partition('%')[0]}/{length}"))
            except ValueError:  # a prefix that the system made up
                continue
    return found


def _leads_elsewhere(name: str) -> bool:
    if name.startswith(_TUNNELS):
        return True
    try:
        flags = int(Path("/sys/class/net", name, "flags").read_text(encoding="ascii"), 16)
    except (OSError, ValueError):  # not Linux, or gone meanwhile
        return False
    return bool(flags & _POINT_TO_POINT)
