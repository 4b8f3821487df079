"""Whether a node has the ports that it was to have: from what it says itself, or, without one, from trying.

Imports ``facts`` and the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from p2plearn.doctor.facts import Port


def had_by_node(wanted: Sequence[str], bound: Sequence[str]) -> tuple[Port, ...]:
    """Of each multiaddr that a running node was to listen on, whether another program had its port at the start.

    ``bound``: the multiaddrs that it has. One that it has on another port was taken; one that it hasn't at all, such
    as IPv6 where there is none, can't be told.
    """
    return tuple(_had(each, bound) for each in wanted)


def _had(multiaddr: str, bound: Sequence[str]) -> Port:
    family, host, port, suffix = _split(multiaddr)
    if not port or multiaddr in bound:
        return Port(host, port, False)
    elsewhere = any((family, host, suffix) == (f, h, s) for f, h, _, s in map(_split, bound))
    return Port(host, port, True if elsewhere else None)


def try_port(multiaddr: str) -> Port:
    """Whether a port is taken now, where no node of ours runs: tries to have it for an instant."""
    family, host, port, _ = _split(multiaddr)
    if not port:
        return Port(host, 0)
    kind = socket.AF_INET6 if family == "ip6" else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Port(host, port, True if error.errno == errno.EADDRINUSE else None)
        return Port(host, port, False)
    return Port(host, port)


def untold(multiaddr: str) -> Port:
    """What is known of a port when a node is there that doesn't answer: it may have the port itself."""
    _, host, port, _ = _split(multiaddr)
    return Port(host, port)


def _split(multiaddr: str) -> tuple[str, str, int, str]:
    """``/ip4/0.0.0.0/tcp/4017/ws`` as ("ip4", "0.0.0.0", 4017, "ws"); port 0 for any, or for none."""
    _, family, host, _, word, *rest = (*multiaddr.split("/"), "", "", "", "", "")
    return family, host, int(word) if word.isdecimal() else 0, "".join(rest)
