"""Receipts: what a node states, under its own key, about a unit of custody. Sans-IO.

A receipt says "I hold this unit, verified and durable" or "I no longer hold it". Of two receipts of one node about one
unit the later counts; nobody can make one in another's name. So any node may pass them on, in any order, as often as
it likes, and all who have seen the same ones agree on who holds what.

How many copies a course shall have is for its author to say: a receipt under the author's key (which is in the
manifest) that holds nothing is a *wish*. The newest one counts and nobody else's number does; who holds a unit can
neither raise nor lower it. To a node that knows of no wishes it is one more receipt of somebody who holds nothing.

Layout (142 bytes, big-endian): course hash 32, segment 4, node 32, time 8 (milliseconds since 1970 by the node's own
clock, growing with each receipt), copies asked for 1, holds 1, Ed25519 signature 64 over ``DOMAIN`` and what stands
before it.

Imports ``config``, ``errors``, ``identity``, ``dht.custody``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from p2plearn import identity
from p2plearn.config import MOST_COPIES
from p2plearn.dht.custody import Node, Unit
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


def sign_wish(
    unit: Unit, author: bytes, copies: int, sign: Callable[[bytes], bytes], *, now: int, before: Receipt | None
) -> Receipt:
    """The wish for so many copies of the author whose key ``sign`` signs with, newer than the one ``before``.

    ``now`` in milliseconds since 1970: an author whose clock went back is believed all the same.
    """
    return sign_receipt(unit, author, max(now, before.time + 1 if before else 0), copies, False, sign)


def copies_asked(receipts: Mapping[Node, Receipt], author: bytes, otherwise: int) -> int:
    """Copies asked for of a unit, by ``receipts`` about it: the author's wish.

    Of a course without one (published by a node that makes none) the most that any holder was asked for;
    ``otherwise`` where nobody holds it.
    """
    wish = receipts.get(author)
    if wish is not None:
        return wish.copies
    return max((receipt.copies for receipt in receipts.values() if receipt.holds), default=otherwise)


def _body(unit: Unit, node: Node, time: int, copies: int, holds: bool) -> bytes:
    return _BODY.pack(unit.course, unit.segment, node, time, copies, holds)
