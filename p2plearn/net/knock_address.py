"""An address as a person has it, read for knocking at: ``/ip4/…/tcp/…``, a WebSocket's, one by way of a relay, or
``host:port``, or a course's link that has one of these. Pure.

Imports ``course``, ``errors`` and libp2p's address types.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.course.names import SCHEME, parse_link
from p2plearn.errors import UsageProblem

_FAMILIES: Final = {
    "ip4": socket.AF_INET, "dns4": socket.AF_INET, "ip6": socket.AF_INET6, "dns6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
}  # fmt: skip

_WAY: Final = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]+)/tcp/(?P<port>[0-9]+)"
    r"(?P<web>/ws|(?P<tls>/wss|/tls(?:/sni/(?P<name>[^/]+))?/ws))?"
    r"(?:/p2p/(?P<peer>[^/]+))?(?P<circuit>/p2p-circuit(?:/p2p/(?P<beyond>[^/]+))?)?"
)


class Unreadable(ValueError):
    """It is no address that can be tried; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to knock. ``peer``: who should answer there, ``beyond``: who is called through that one, a relay; each
    empty when not named.
    """

    host: str
    port: int
    family: socket.AddressFamily = socket.AF_UNSPEC
    peer: str = ""
    web: bool = False
    """Whether the connection is inside a WebSocket ..."""
    tls: bool = False
    """... and that inside a web server's TLS ..."""
    name: str = ""
    """... which is told this name."""
    beyond: str = ""


def read(text: str) -> Asked:
    """What ``text`` asks for; raises Unreadable."""
    if text.lower().startswith(SCHEME):
        return _of_link(text)
    if not text.startswith("/"):
        return _host_and_port(text)
    try:
        address = str(Multiaddr(text))
    except Exception as error:  # whatever a part's codec raises
        raise Unreadable(f"it is no address: {error}") from None
    way = _WAY.fullmatch(address)
    if way is None:
        raise Unreadable(
            "only addresses with a TCP port can be tried: plain ones, WebSockets (…/ws, …/wss) and relays'"
        )
    if way["circuit"] and not (way["peer"] and way["beyond"]):
        raise Unreadable("an address by way of a relay names both: …/p2p/RELAY/p2p-circuit/p2p/NODE")
    for peer in filter(None, (way["peer"], way["beyond"])):
        try:
            ID.from_string(peer)
        except ValueError as error:
            raise Unreadable(f"{peer} is no peer id: {error}") from None
    if not 0 < int(way["port"]) < 65536:
        raise Unreadable("nobody can be called at port 0")
    name = way["name"] or (way["host"] if way["kind"].startswith("dns") else "")
    return Asked(
        way["host"], int(way["port"]), _FAMILIES[way["kind"]], way["peer"] or "",
        bool(way["web"]), bool(way["tls"]), name, way["beyond"] or "",
    )  # fmt: skip


def _of_link(text: str) -> Asked:
    """The first address that a link names."""
    try:
        providers = parse_link(text).providers
    except UsageProblem as error:
        raise Unreadable(f"it is no link of a course: {error.message}") from None
    if not providers:
        raise Unreadable("this link names a course, and no node's address (…?from=ADDRESS)")
    return read(providers[0])


def _host_and_port(text: str) -> Asked:
    if "://" in text:
        alone = text.partition("://")[2].rstrip("/")
        raise Unreadable(f"a web page's address is no node's: write {alone} alone")
    if _is_ip6(text):  # its last group may look like a port
        raise Unreadable(f"an IPv6 address is written in brackets, before its port: [{text}]:4017")
    host, _, word = text.rpartition(":")
    if not host or not word.isascii() or not word.isdecimal() or not 0 < int(word) < 65536:
        raise Unreadable("write it as /ip4/192.0.2.7/tcp/4017 or as host:port")
    return Asked(host.removeprefix("[").removesuffix("]"), int(word))


def _is_ip6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
