"""Who is on the same LAN: peers whose bytes cost no line to the internet.

A peer is a neighbour when it is on this very machine, at a link-local address, or at an address of a network that one
of this machine's interfaces is on. A private address alone proves nothing: behind a VPN or a provider's own NAT there
are private addresses a world away. For the same reason point-to-point interfaces (VPN, mobile, dial-up) don't count,
nor public IPv4 networks, which are a provider's, with its other customers in them; IPv6 networks of 64 bits are a
home's.

Pure but for ``list_networks``, which asks the machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import ifaddr

from p2plearn.net.addresses import Reach, reach_of_ip

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_POINT_TO_POINT: Final = 0x10
_TUNNELS: Final = ("tun", "tap", "utun", "wg", "ppp", "wwan", "rmnet", "ipsec", "tailscale", "zt", "gif", "stf")
"""Names of interfaces that lead elsewhere, for systems that don't tell it otherwise, or tell it wrong."""


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
