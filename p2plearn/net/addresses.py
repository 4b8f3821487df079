"""Multiaddrs as this project uses them: how far one reaches, which to believe, which to tell. Pure but for
``list_interfaces``, which asks the machine.

Imports only libp2p's address types and ``errors``.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from functools import lru_cache

import ifaddr
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from multiaddr import Multiaddr

from p2plearn.errors import UsageProblem

MAX_ADDRESSES = 16
"""Addresses kept, told or tried of one peer: a laptop with VPN, docker and two radios has ten; more is abuse."""

HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
"""What an address may begin with for us to dial it: then ``tcp``, maybe a WebSocket, then at most a ``p2p``."""

WEBSOCKETS = (["ws"], ["wss"], ["tls", "ws"], ["tls", "sni", "ws"])
"""What marks a WebSocket: plain, and three spellings of one inside a web server's TLS."""

CIRCUIT = "p2p-circuit"
"""In an address: by way of the relay before it (which is named with its ``p2p``), to the peer after it."""


class Reach(enum.IntEnum):
    """How far an address reaches; one with a lower number is of no use (or a trap) farther away."""

    NONE = 0
    LOOPBACK = 1
    LINK = 2
    PRIVATE = 3
    GLOBAL = 4


def reach(address: Multiaddr) -> Reach:
    """How far ``address`` reaches; NONE for what can't be dialled over TCP at all (wildcard, port 0, UDP).

    One by way of a relay reaches as far as its relay.
    """
    return _reach(address.to_bytes())


_DIRECT = [["tcp", *web, *end] for web in ([], *WEBSOCKETS) for end in ([], ["p2p"])]
_SHAPES = (*_DIRECT, *([*way, CIRCUIT, *to] for way in _DIRECT if "p2p" in way for to in ([], ["p2p"])))


@lru_cache(maxsize=8192)  # a lookup asks it thousands of times of the same few hundred addresses
def _reach(raw: bytes) -> Reach:
    try:
        address = Multiaddr(raw)
        kind, *rest = [p.name for p in address.protocols()]
        if kind not in HOSTS or rest not in _SHAPES:
            return Reach.NONE
        if int(address.value_for_protocol("tcp") or 0) == 0:
            return Reach.NONE
        value = str(address.value_for_protocol(kind))
        # A part that is no peer id comes to light where it is written out, and everyone after us writes it out.
        str(address)
    except Exception:  # multiaddr raises a family of its own, and KeyError, ValueError, StopIteration
        return Reach.NONE
    if kind.startswith("dns"):
        return Reach.LOOPBACK if value == "localhost" else Reach.GLOBAL
    return reach_of_ip(value)


def reach_of_ip(text: str) -> Reach:
    """How far an IP address (text, zone allowed) reaches."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return Reach.NONE
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255":
        return Reach.NONE
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_link_local:
        return Reach.LINK
    return Reach.GLOBAL if ip.is_global else Reach.PRIVATE


def bare(address: Multiaddr) -> Multiaddr:
    """``address``, one with a reach, without its trailing ``/p2p/…``."""
    return _bare(address.to_bytes())


@lru_cache(maxsize=8192)
def _bare(raw: bytes) -> Multiaddr:
    address = Multiaddr(raw)
    value = address.get_peer_id()
    return address.decapsulate(Multiaddr(f"/p2p/{value}")) if value else address


def is_relayed(address: Multiaddr) -> bool:
    """Whether ``address`` is by way of a relay."""
    return any(part.name == CIRCUIT for part in address.protocols())


def is_websocket(address: Multiaddr) -> bool:
    """Whether ``address`` is dialled as a WebSocket (that of its relay, if it has one)."""
    return any(part.name in {"ws", "wss"} for part in address.protocols())


def is_inside_tls(address: Multiaddr) -> bool:
    """Whether ``address`` is a WebSocket's inside a web server's TLS."""
    return any(part.name in {"wss", "tls"} for part in address.protocols())


def relay_of(address: Multiaddr) -> PeerInfo:
    """The relay of ``address``, a relayed one with a reach, and where that is."""
    text = str(address).partition(f"/{CIRCUIT}")[0]
    found: PeerInfo = info_from_p2p_addr(Multiaddr(text))
    return found


def believable(addresses: Iterable[Multiaddr], told_over: Reach) -> list[Multiaddr]:
    """Those of ``addresses`` worth keeping when told by a peer that we reach over ``told_over``.

    A peer across the network that names 127.0.0.1 or a link-local address would have us knock at our own doors; one
    on this machine may name any. Private addresses are kept whoever tells them: two nodes behind one router learn of
    each other from a bootstrap node outside. No ``/p2p/`` part, no duplicates, at most ``MAX_ADDRESSES``.
    """
    kept: dict[bytes, Multiaddr] = {}
    for address in addresses:
        if not reach(address) > Reach.NONE or reach(address) < min(told_over, Reach.PRIVATE):
            continue
        plain = bare(address)
        kept.setdefault(plain.to_bytes(), plain)
        if len(kept) == MAX_ADDRESSES:
            break
    return list(kept.values())


def dial_order(addresses: Iterable[Multiaddr]) -> list[Multiaddr]:
    """Which of ``addresses`` to try, best first, bare and without duplicates; empty when none can be dialled.

    Loopback is tried only when nothing else is known: on the same machine the others work too, elsewhere it would be
    a knock at our own door. A relay is the last resort, since it lends little; a WebSocket comes after plain TCP.
    """
    kept: dict[bytes, tuple[Reach, Multiaddr]] = {}
    for address in addresses:
        far = reach(address)
        if far > Reach.NONE:
            plain = bare(address)
            kept.setdefault(plain.to_bytes(), (far, plain))
    rows = list(kept.values())
    if any(far > Reach.LOOPBACK for far, _ in rows):
        rows = [row for row in rows if row[0] > Reach.LOOPBACK]
    # The nearest network first: two nodes behind one router often can't reach each other by its public side.
    order = {Reach.PRIVATE: 0, Reach.GLOBAL: 1, Reach.LINK: 2, Reach.LOOPBACK: 3}
    rows.sort(key=lambda row: (is_relayed(row[1]), order[row[0]], is_websocket(row[1])))
    return [address for _, address in rows[:MAX_ADDRESSES]]


def list_interfaces() -> list[str]:
    """This machine's IP addresses, without zones; empty when it can't be told."""
    found: list[str] = []
    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return found
    for adapter in adapters:
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            if text not in found:
                found.append(text)
    return found


def read_peer(text: str, where: str = "") -> PeerInfo:
    """A peer from ``/ip4/…/tcp/…/p2p/ID``; raises UsageProblem that says what is wrong with it.

    ``where`` is put before the message (a file and an entry, say).
    """
    lead = f"{where}: " if where else ""
    try:
        address = Multiaddr(text)
    except Exception:  # multiaddr's parsers raise whatever the codec of a part raises, in their own words
        raise UsageProblem(f"{lead}“{text}” is no address of a node.", _EXAMPLE) from None
    try:
        info: PeerInfo = info_from_p2p_addr(address)
    except Exception:
        raise UsageProblem(f"{lead}“{text}” does not end with /p2p/ and a peer id.", _EXAMPLE) from None
    if not any(reach(a) > Reach.NONE for a in info.addrs):
        raise UsageProblem(f"{lead}“{text}” is not an address that can be dialled over TCP.", _EXAMPLE)
    return info


def read_address(text: str, where: str) -> Multiaddr:
    """An address to be told to others, without ``/p2p/``; raises UsageProblem that says what is wrong with it."""
    try:
        address = Multiaddr(text)
        if reach(address) > Reach.NONE and not is_relayed(address):
            return bare(address)
    except Exception:  # as above
        raise UsageProblem(f"{where}: “{text}” is no address of a node.", _ANNOUNCED) from None
    raise UsageProblem(f"{where}: “{text}” is not an address that can be dialled over TCP.", _ANNOUNCED)


def full(address: Multiaddr, peer: ID) -> str:
    """``address`` with its ``/p2p/`` part, as text."""
    return f"{bare(address)}/p2p/{peer}"


_ANNOUNCED = "An address looks like /dns4/courses.example.org/tcp/443/wss or /ip4/192.0.2.7/tcp/4017"
_EXAMPLE = "An address looks like /ip4/192.0.2.7/tcp/4017/p2p/12D3KooW…"


def peer_name(peer_id: bytes) -> str:
    """A binary peer id in text."""
    return str(ID(peer_id))
