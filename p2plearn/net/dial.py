"""Reaching a peer, or saying in plain words why not."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import ClassVar, Literal

import trio
from libp2p.abc import IHost
from libp2p.peer.peerinfo import PeerInfo
from libp2p.transport.exceptions import OpenConnectionError

from p2plearn.errors import P2plearnError
from p2plearn.net.addresses import bare, dial_order
from p2plearn.net.group import NotInGroup
from p2plearn.net.race import DialFailed
from p2plearn.net.swarm import CourseSwarm

Reason = Literal[
    "no-address",
    "refused",
    "timed-out",
    "unreachable",
    "unopened",
    "wrong-peer",
    "banned",
    "handshake",
    "group",
    "self",
]

GIVEN_TTL = 3600
"""Seconds for which an address that was handed in is remembered."""

_WORDS: dict[Reason, str] = {
    "no-address": "none of its addresses can be dialled over TCP",
    "refused": "nothing listens there (connection refused)",
    "timed-out": "no answer in time",
    "unreachable": "there is no route to it",
    "unopened": "no connection to it could be opened",
    "wrong-peer": "another peer answers at that address",
    "banned": "it is banned for now",
    "handshake": "it answers, but the secure handshake failed",
    "group": "it is not in this home's group, or has another key of it",
    "self": "that is this node itself",
}
# Which reason to tell when each address failed in its own way: the one that says most.
_TELLING: tuple[Reason, ...] = (
    "wrong-peer", "group", "handshake", "refused", "timed-out", "unopened", "unreachable", "no-address",
)  # fmt: skip


class ConnectFailed(P2plearnError):
    """A peer could not be reached; ``reason`` is one of ``Reason``, ``tried`` the addresses."""

    code = "unreachable"
    exit_code: ClassVar[int] = 4
    http_status: ClassVar[int] = 502

    def __init__(self, peer: str, reason: Reason, tried: tuple[str, ...] = ()) -> None:
        where = f" at {', '.join(tried[:3])}{' …' if len(tried) > 3 else ''}" if tried else ""
        super().__init__(f"Can't reach {short(peer)}{where}: {_WORDS[reason]}.")
        self.peer = peer
        self.reason: Reason = reason
        self.tried = tried


def short(peer: str) -> str:
    """A peer id as people can compare it: its last eight characters (the first ones are the same for all)."""
    return f"…{peer[-8:]}" if len(peer) > 12 else peer


async def connect(host: IHost, peer: PeerInfo, deadline: float) -> None:
    """Be connected to ``peer`` within ``deadline`` seconds; its addresses are tried with those known already.

    Returns at once when there is a live connection. A failure is not remembered: the next call tries again. Raises
    ConnectFailed. When cancelled, half-made connections are closed.
    """
    swarm = host.get_network()
    if not isinstance(swarm, CourseSwarm):
        raise TypeError("this host was not built by course_host")
    name = str(peer.peer_id)
    if peer.peer_id == host.get_id():
        raise ConnectFailed(name, "self")
    if swarm.refuses(peer.peer_id):
        raise ConnectFailed(name, "banned")
    if peer.addrs:
        swarm.peerstore.add_addrs(peer.peer_id, peer.addrs, GIVEN_TTL)
    if not dial_order(swarm.peerstore.addresses(peer.peer_id)) and not swarm.get_connections(peer.peer_id):
        raise ConnectFailed(name, "no-address", tuple(str(a) for a in peer.addrs))
    try:
        await swarm.dial(peer.peer_id, trio.current_time() + deadline)
    except DialFailed as error:
        reasons = [why(e) for _, e in error.attempts]
        reason: Reason = next((r for r in _TELLING if r in reasons), "timed-out")
        tried = tuple(str(bare(address)) for address, _ in error.attempts)
        raise ConnectFailed(name, reason, tried) from error


def why(error: BaseException) -> Reason:
    """The reason in what a dial raised, looked for along its causes."""
    opened = True
    for cause in _causes(error):
        if isinstance(cause, NotInGroup):
            return "timed-out" if isinstance(cause.__cause__, trio.TooSlowError) else "group"
        if any(mark in str(cause) for mark in _WRONG_PEER) or "PeerIDMismatch" in type(cause).__name__:
            return "wrong-peer"
        if isinstance(cause, ConnectionRefusedError):  # (a reset comes from somebody who answered)
            return "refused"
        if isinstance(cause, TimeoutError | trio.TooSlowError):
            return "timed-out"
        if isinstance(cause, OSError) and cause.errno in _ROUTELESS:
            return "unreachable"
        if isinstance(cause, OpenConnectionError) and isinstance(cause.__cause__, OSError):
            opened = False  # whatever the reason, nobody has answered yet
    return "handshake" if opened else "unopened"


# How TLS of ours, and libp2p's upgrader and Noise, put it.
_WRONG_PEER = ("expected peer", "Peer ID mismatch")
_ROUTELESS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            queue.extend(current.exceptions)
        queue.extend(e for e in (current.__cause__, current.__context__) if e is not None)
