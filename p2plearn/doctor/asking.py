"""Asking the LAN for nodes, as any program could: one multicast question on every network, and who answers.

Imports ``facts``, ``net.tcp`` (which cables there are) and the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, Final

from p2plearn.doctor.facts import Interface, Multicast
from p2plearn.net.tcp import cables

MDNS: Final = ("224.0.0.251", 5353)
MDNS6: Final = "ff02::fb"
"""Where multicast DNS is asked over IPv6 (RFC 6762, 3); the port is the same."""

LISTEN_SECONDS: Final = 1.5
"""For answers on the LAN: responders wait up to 120 ms on purpose (RFC 6762), and radio loses some."""


def ask_lan(interfaces: Sequence[Interface], service: str, seconds: float = LISTEN_SECONDS) -> Multicast:
    """Ask for nodes that announce ``service`` by multicast DNS on every network, and count who answers."""
    own = {each.partition("/")[0].partition("%")[0] for interface in interfaces for each in interface.addresses}
    mine = [each for each in own if ":" not in each and not ipaddress.ip_address(each).is_loopback]
    ways: list[str | int] = [*mine, *cables()]
    if not ways:
        return Multicast("this machine is on no network", nowhere=True)
    # RFC 6762, 6.7: a question from another port than 5353 is answered to who asked.
    parts = service.rstrip(".").encode().split(b".")
    name = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    question = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + name + struct.pack("!2H", 12, 1)
    problem, forbidden, heard = "", False, set()
    with contextlib.ExitStack() as stack:
        asked = []
        for way in ways:
            family = socket.AF_INET6 if isinstance(way, int) else socket.AF_INET
            try:
                sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                _send(sock, way, question)
                asked.append(sock)
            except OSError as error:
                problem = error.strerror or str(error)
                forbidden |= error.errno in (errno.EPERM, errno.EACCES)
        if not asked:
            return Multicast(problem, forbidden=forbidden)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for sock in select.select(asked, [], [], left)[0]:
                with contextlib.suppress(OSError):
                    answer, sender = sock.recvfrom(9000)
                    if parts[0] in answer and len(answer) > len(question):
                        heard.add(str(sender[0]).partition("%")[0])
    # Who has both kinds of addresses answers once over each.
    others = [":" in each for each in heard - own]
    return Multicast(own=bool(heard & own), others=max(others.count(True), others.count(False)))


def _send(sock: socket.socket, way: str | int, question: bytes) -> None:
    """Multicast ``question`` from an IPv4 address of ours, or by an interface's number over IPv6."""
    where: tuple[Any, ...]
    if isinstance(way, int):
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, way)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        where = (MDNS6, MDNS[1], 0, way)
    else:
        sock.bind((way, 0))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(way))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        where = MDNS
    sock.sendto(question, where)
