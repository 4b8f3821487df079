"""``/p2plearn/heartbeat/1`` and ``/p2plearn/custody/1``: their messages. Sans-IO.

A message is a header of five bytes (type, length of the body, big-endian) and a body; ``docs/protocol.md`` has the
layout of each.

What must hold, whatever a peer sends and however its bytes are split: decoding raises PeerFault or returns a message
that was checked (receipts to their signatures); nothing is set aside for a length before it was held against the cap
of its type; a message that the other end may not send is a fault.

Imports ``config``, ``errors``, ``course.manifest``, ``dht.custody``, ``dht.receipts``.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from p2plearn.config import MOST_COPIES
from p2plearn.course.manifest import MAX_CHUNK, MAX_MANIFEST
from p2plearn.dht.custody import Unit
from p2plearn.dht.receipts import RECEIPT_BYTES, Receipt, decode_receipt
from p2plearn.errors import PeerFault

HEARTBEAT: Final = "/p2plearn/heartbeat/1"
CUSTODY: Final = "/p2plearn/custody/1"

MOST_RECEIPTS: Final = 1024
"""Receipts in one message (142 KiB); who has more sends another."""

MOST_WITHDRAWN: Final = 1024
"""Courses in one message (32 KiB)."""

MOST_WORDS: Final = 200


class Kind(enum.IntEnum):
    """Message types of both protocols."""

    BEAT = 1
    OFFER = 2
    RECEIPTS = 3
    CHALLENGE = 4
    RELEASE = 5
    INQUIRY = 6
    WITHDRAW = 7
    ACCEPT = 16
    DECLINE = 17
    PROGRESS = 18
    ACK = 19
    PROOF = 20


class Reason(enum.IntEnum):
    """Why an offer, or a wish to release, is declined."""

    NO_QUOTA = 1
    NO_SPACE = 2
    LEAVING = 3
    BUSY = 4
    FAILED = 5
    NOT_HELD = 6


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life. ``free``: bytes it still gives; ``digest``: of the receipts that both ends should know."""

    sequence: int
    uptime: int
    free: int
    leaving: bool
    digest: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """Keep this unit; the course's manifest (unchecked) and who holds the unit already."""

    segment: int
    copies: int
    signature: bytes
    manifest: bytes


@dataclass(frozen=True, slots=True)
class Receipts:
    """What is known about units that both hold."""

    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class Challenge:
    """Show that ``length`` bytes at ``offset`` of a slot's chunk are there: SHA-256 of the nonce and them."""

    course: bytes
    slot: int
    offset: int
    length: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """May I let go of this unit? Whoever acknowledges keeps it for now, and lets nobody else go."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Who holds this unit? Who holds it itself answers with all receipts that it knows."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class Withdraw:
    """I no longer have these courses: name me for them no more."""

    courses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Accept:
    """The room is reserved; the pull begins."""


@dataclass(frozen=True, slots=True)
class Decline:
    """No, and why."""

    reason: Reason
    words: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of the unit that are there by now."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The unit is there, verified and durable."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Proof:
    """The answer to a challenge; empty: the chunk isn't there."""

    digest: bytes


Message = Beat | Offer | Receipts | Challenge | Release | Inquiry | Withdraw | Accept | Decline | Progress | Ack | Proof

_HEADER: Final = struct.Struct(">BI")
_BEAT: Final = struct.Struct(">QIQB16s")
_OFFER: Final = struct.Struct(">IB64s")
_CHALLENGE: Final = struct.Struct(">32sIII16s")
_UNIT: Final = struct.Struct(">32sI")
_PROGRESS: Final = struct.Struct(">Q")

BEATS: Final[Mapping[Kind, int]] = {Kind.BEAT: _BEAT.size}
"""What either end of a heartbeat accepts, and the longest body."""

ASKED: Final[Mapping[Kind, int]] = {
    Kind.OFFER: _OFFER.size + MAX_MANIFEST,
    Kind.RECEIPTS: MOST_RECEIPTS * RECEIPT_BYTES,
    Kind.CHALLENGE: _CHALLENGE.size,
    Kind.RELEASE: _UNIT.size,
    Kind.INQUIRY: _UNIT.size,
    Kind.WITHDRAW: MOST_WITHDRAWN * 32,
}
"""What the end that was called accepts."""

ANSWERED: Final[Mapping[Kind, int]] = {
    Kind.ACCEPT: 0,
    Kind.DECLINE: 1 + MOST_WORDS,
    Kind.PROGRESS: _PROGRESS.size,
    Kind.ACK: RECEIPT_BYTES,
    Kind.RECEIPTS: MOST_RECEIPTS * RECEIPT_BYTES,
    Kind.PROOF: 32,
}
"""What the end that called accepts."""


def encode(message: Message) -> bytes:
    """A message as it travels."""
    match message:
        case Beat(sequence, uptime, free, leaving, digest):
            return _frame(Kind.BEAT, _BEAT.pack(sequence, uptime, free, leaving, digest))
        case Offer(segment, copies, signature, manifest):
            return _frame(Kind.OFFER, _OFFER.pack(segment, copies, signature) + manifest)
        case Receipts(receipts):
            return _frame(Kind.RECEIPTS, b"".join(receipt.encode() for receipt in receipts))
        case Challenge(course, slot, offset, length, nonce):
            return _frame(Kind.CHALLENGE, _CHALLENGE.pack(course, slot, offset, length, nonce))
        case Release(unit):
            return _frame(Kind.RELEASE, _UNIT.pack(unit.course, unit.segment))
        case Inquiry(unit):
            return _frame(Kind.INQUIRY, _UNIT.pack(unit.course, unit.segment))
        case Withdraw(courses):
            return _frame(Kind.WITHDRAW, b"".join(courses))
        case Accept():
            return _frame(Kind.ACCEPT, b"")
        case Decline(reason, words):
            cut = words.encode()[:MOST_WORDS].decode(errors="ignore").encode()
            return _frame(Kind.DECLINE, bytes([reason]) + cut)
        case Progress(done):
            return _frame(Kind.PROGRESS, _PROGRESS.pack(done))
        case Ack(receipt):
            return _frame(Kind.ACK, receipt.encode())
        case Proof(digest):
            return _frame(Kind.PROOF, digest)


def _frame(kind: Kind, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body)) + body


class Decoder:
    """Bytes of one direction in, checked messages out, whatever the pieces they come in."""

    def __init__(self, accepts: Mapping[Kind, int]) -> None:
        self._accepts = accepts
        self._held = bytearray()

    @property
    def idle(self) -> bool:
        """Nothing of an unfinished message is held."""
        return not self._held

    def feed(self, arrived: bytes | memoryview) -> Iterator[Message]:
        """The messages that ``arrived`` completes; raises PeerFault at the first thing that is off."""
        self._held += arrived
        while len(self._held) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._held)
            cap = self._accepts.get(number)
            if cap is None:
                raise PeerFault(f"custody: message type {number} is not for this end")
            if length > cap:
                raise PeerFault(f"custody: {Kind(number).name} of {length} bytes, at most {cap}")
            end = _HEADER.size + length
            if len(self._held) < end:
                return
            body = bytes(self._held[_HEADER.size : end])
            del self._held[:end]
            yield _parse(Kind(number), body)


def _parse(kind: Kind, body: bytes) -> Message:
    try:
        return _PARSERS[kind](body)
    except (struct.error, ValueError) as error:
        raise PeerFault(f"custody: malformed {kind.name}: {error}") from None


def _beat(body: bytes) -> Beat:
    sequence, uptime, free, leaving, digest = _BEAT.unpack(body)
    if leaving > 1:
        raise ValueError("a flag that is neither 0 nor 1")
    return Beat(sequence, uptime, free, bool(leaving), digest)


def _offer(body: bytes) -> Offer:
    segment, copies, signature = _OFFER.unpack_from(body)
    if not 1 <= copies <= MOST_COPIES or len(body) == _OFFER.size:
        raise ValueError("copies out of range, or no manifest")
    return Offer(segment, copies, signature, body[_OFFER.size :])


def _receipts(body: bytes) -> Receipts:
    if len(body) % RECEIPT_BYTES:
        raise ValueError("a receipt cut short")
    return Receipts(tuple(decode_receipt(body[at : at + RECEIPT_BYTES]) for at in range(0, len(body), RECEIPT_BYTES)))


def _challenge(body: bytes) -> Challenge:
    course, slot, offset, length, nonce = _CHALLENGE.unpack(body)
    if not 1 <= length <= MAX_CHUNK or offset + length > MAX_CHUNK:
        raise ValueError("no range of a chunk")
    return Challenge(course, slot, offset, length, nonce)


def _unit(body: bytes) -> Unit:
    course, segment = _UNIT.unpack(body)
    return Unit(course, segment)


def _withdraw(body: bytes) -> Withdraw:
    if len(body) % 32:
        raise ValueError("a course hash cut short")
    return Withdraw(tuple(body[at : at + 32] for at in range(0, len(body), 32)))


def _accept(body: bytes) -> Accept:
    if body:
        raise ValueError("more than nothing")
    return Accept()


def _decline(body: bytes) -> Decline:
    if not body:
        raise ValueError("no reason")
    return Decline(Reason(body[0]), body[1:].decode("utf-8"))


def _proof(body: bytes) -> Proof:
    if len(body) not in (0, 32):
        raise ValueError("neither a digest nor nothing")
    return Proof(body)


_PARSERS: Final[Mapping[Kind, Callable[[bytes], Message]]] = {
    Kind.BEAT: _beat,
    Kind.OFFER: _offer,
    Kind.RECEIPTS: _receipts,
    Kind.CHALLENGE: _challenge,
    Kind.RELEASE: lambda body: Release(_unit(body)),
    Kind.INQUIRY: lambda body: Inquiry(_unit(body)),
    Kind.WITHDRAW: _withdraw,
    Kind.ACCEPT: _accept,
    Kind.DECLINE: _decline,
    Kind.PROGRESS: lambda body: Progress(_PROGRESS.unpack(body)[0]),
    Kind.ACK: lambda body: Ack(decode_receipt(body)),
    Kind.PROOF: _proof,
}
