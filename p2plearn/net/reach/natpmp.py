"""⊙ NAT-PMP (RFC 6886): asking a router to forward a port, in bytes. Sans-IO.

The router's answer carries no secret, so a neighbour could forge one; what it names is used only after somebody
beyond the network has called back there (``judge.py``). Imports ``errors``.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from p2plearn.errors import PeerFault

PORT: Final = 5351
"""Where routers listen for it (UDP)."""

FIRST_WAIT: Final = 0.25
"""Seconds until the question is repeated; twice as long each time (the RFC's section 3.1)."""

TRIES: Final = 5
"""Questions before a router counts as one that doesn't speak it: 7.75 seconds in all. The RFC's nine take a minute."""

_REASONS: Final = {
    1: "it speaks another version",
    2: "its owner does not allow it",
    3: "it has no network itself",
    4: "it is out of room",
    5: "it can't do that",
}


@dataclass(frozen=True, slots=True)
class Granted:
    """A port that the router forwards to us: ``outside`` for ``seconds``."""

    outside: int
    seconds: int


def ask_address() -> bytes:
    """A question for the router's outside address."""
    return struct.pack("!BB", 0, 0)


def ask_mapping(inside: int, outside: int, seconds: int) -> bytes:
    """A wish to have TCP port ``outside`` (or another) forwarded to our ``inside``; 0 seconds take it back."""
    return struct.pack("!BBHHHI", 0, 2, 0, inside, outside, seconds)


def read_address(raw: bytes) -> str:
    """The outside address in an answer; raises PeerFault with the router's reason."""
    _check(raw, 128, 12)
    return str(ipaddress.IPv4Address(raw[8:12]))


def read_mapping(raw: bytes, inside: int) -> Granted:
    """What is forwarded to our port ``inside``; raises PeerFault with the router's reason."""
    _check(raw, 130, 16)
    mine, outside, seconds = struct.unpack("!HHI", raw[8:16])
    if mine != inside:
        raise PeerFault("the router answered for another port")
    return Granted(outside, seconds)


def _check(raw: bytes, kind: int, length: int) -> None:
    if len(raw) < 4 or raw[0] != 0 or raw[1] != kind:
        raise PeerFault("the router answered something else")
    (result,) = struct.unpack("!H", raw[2:4])
    if result:
        raise PeerFault(f"the router refused: {_REASONS.get(result, f'result {result}')}")
    if len(raw) < length:
        raise PeerFault("the router's answer is cut short")
