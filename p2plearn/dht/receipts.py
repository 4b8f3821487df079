"""Receipts: what a node states, under its own key, about a unit of custody. Sans-IO.

A receipt says "I hold this unit, verified and durable" or "I no longer hold it". Of two receipts of one node about one
unit the later counts; nobody can make one in another's name. So any node may pass them on, in any order, as often as
it likes, and all who have seen the same ones agree on who holds what.

Layout (142 bytes, big-endian): course hash 32, segment 4, node 32, time 8 (milliseconds since 1970 by the node's own
clock, growing with each receipt), copies asked for 1, holds 1, Ed25519 signature 64 over ``DOMAIN`` and what stands
before it.

Imports ``errors``, ``identity``, ``dht.custody``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2plearn import identity
from p2plearn.dht.custody import MOST_COPIES, Node, Unit
from p2plearn.errors import PeerFault

DOMAIN: Final = b"p2plearn receipt v1\n"
_BODY: Final = struct.Struct(">32sI32sQBB")
RECEIPT_BYTES: Final = _BODY.size + 64


@dataclass(frozen=True, slots=True)
class Receipt:
    """See the head of this file; ``signature`` was checked unless it was made by hand."""

    unit: Unit
    node: Node
    time: int
    copies: int
    holds: bool
    signature: bytes

    def encode(self) -> bytes:
        """The receipt as it travels."""
        return _body(self.unit, self.node, self.time, self.copies, self.holds) + self.signature


def sign_receipt(  # noqa: PLR0917 - the fields of a receipt, in their order
    unit: Unit, node: Node, time: int, copies: int, holds: bool, sign: Callable[[bytes], bytes]
) -> Receipt:
    """A receipt of ``node``, whose key ``sign`` signs with."""
    return Receipt(unit, node, time, copies, holds, sign(DOMAIN + _body(unit, node, time, copies, holds)))


def decode_receipt(raw: bytes, *, checked: bool = False) -> Receipt:
    """A receipt whose form and signature are right; raises PeerFault.

    ``checked``: its signature was, before it came where nobody could change it since. (It takes 0.1 ms.)
    """
    if len(raw) != RECEIPT_BYTES:
        raise PeerFault(f"custody: a receipt of {len(raw)} bytes")
    course, segment, node, time, copies, holds = _BODY.unpack_from(raw)
    signature = raw[_BODY.size :]
    if not 1 <= copies <= MOST_COPIES or holds > 1:
        raise PeerFault("custody: malformed receipt")
    if not checked and not identity.verify(node, DOMAIN + raw[: _BODY.size], signature):
        raise PeerFault("custody: a receipt with a wrong signature")
    return Receipt(Unit(course, segment), node, time, copies, bool(holds), signature)


def _body(unit: Unit, node: Node, time: int, copies: int, holds: bool) -> bytes:
    return _BODY.pack(unit.course, unit.segment, node, time, copies, holds)
