"""⊙ What nodes say on libp2p's protocols for reaching each other: AutoNAT 1.0, circuit relay v2, DCUtR.

In: bytes of one message, without its length. Out: a checked message, or PeerFault. The formats are protocol buffers;
the few fields there are fit in a page, so they are read here, with every limit in sight: a decoder takes known
fields of the right kind, passes over unknown ones, and refuses what is truncated, too long or too much.

Specifications: https://github.com/libp2p/specs/tree/master/autonat, …/relay/circuit-v2.md, …/relay/DCUtR.md.
Sans-IO. Imports ``errors``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from p2plearn.course.varint import varint
from p2plearn.errors import PeerFault

AUTONAT: Final = "/libp2p/autonat/1.0.0"
HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
DCUTR: Final = "/libp2p/dcutr"

MAX_MESSAGE: Final = 4096
"""Bytes of one message: what the relay specification allows; sixteen addresses take 600."""

MAX_ADDRESSES: Final = 16
"""Addresses taken from one message."""

MAX_ID: Final = 128
"""Bytes of a peer id; ours have 38, the longest in use 42."""


class Status(enum.IntEnum):
    """What a relay answers."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


class Dialled(enum.IntEnum):
    """What came of an AutoNAT dial-back."""

    OK = 0
    DIAL_ERROR = 100
    DIAL_REFUSED = 101
    BAD_REQUEST = 200
    INTERNAL_ERROR = 300


class HopKind(enum.IntEnum):
    """What a hop message is."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopKind(enum.IntEnum):
    """What a stop message is."""

    CONNECT = 0
    STATUS = 1


class PunchKind(enum.IntEnum):
    """What a DCUtR message is."""

    CONNECT = 100
    SYNC = 300


class AutonatKind(enum.IntEnum):
    """What an AutoNAT message is."""

    DIAL = 0
    RESPONSE = 1


@dataclass(frozen=True, slots=True)
class Hop:
    """Between a node and a relay. ``peer`` is a binary peer id, ``expire`` seconds since 1970; 0 and empty: not said.

    ``seconds`` and ``data`` (bytes each way) are what the relay grants a connection; 0: no limit is told.
    """

    kind: HopKind
    peer: bytes = b""
    status: int = 0
    expire: int = 0
    addresses: tuple[bytes, ...] = ()
    seconds: int = 0
    data: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Between a relay and the node that is called through it; fields as in ``Hop``."""

    kind: StopKind
    peer: bytes = b""
    status: int = 0
    seconds: int = 0
    data: int = 0


@dataclass(frozen=True, slots=True)
class Punch:
    """Between two nodes that are about to call each other at the same moment."""

    kind: PunchKind
    addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Autonat:
    """A wish to be called back, or what came of it. ``address`` is the one that could be called."""

    kind: AutonatKind
    peer: bytes = b""
    addresses: tuple[bytes, ...] = ()
    status: int = 0
    words: str = ""
    address: bytes = b""


# ---------------------------------------------------------------------------------------------------------------------
# Messages.


def encode_hop(message: Hop) -> bytes:
    """A hop message without its length."""
    peer = _bytes(1, message.peer) if message.peer else b""
    reservation = b""
    if message.expire:
        reservation = _number(1, message.expire) + b"".join(_bytes(2, each) for each in message.addresses)
    return (
        _number(1, message.kind)
        + (_bytes(2, peer) if peer else b"")
        + (_bytes(3, reservation) if reservation else b"")
        + _limit(4, message.seconds, message.data)
        + (_number(5, message.status) if message.status else b"")
    )


def decode_hop(raw: bytes) -> Hop:
    """Raises PeerFault."""
    fields = _fields(raw)
    reservation = _fields(_one_bytes(fields, 3))
    seconds, data = _read_limit(fields, 4)
    return Hop(
        HopKind(_among(HopKind, _one_number(fields, 1))),
        _peer(fields, 2),
        _one_number(fields, 5),
        _one_number(reservation, 1),
        _addresses(reservation, 2),
        seconds,
        data,
    )


def encode_stop(message: Stop) -> bytes:
    """A stop message without its length."""
    return (
        _number(1, message.kind)
        + (_bytes(2, _bytes(1, message.peer)) if message.peer else b"")
        + _limit(3, message.seconds, message.data)
        + (_number(4, message.status) if message.status else b"")
    )


def decode_stop(raw: bytes) -> Stop:
    """Raises PeerFault."""
    fields = _fields(raw)
    seconds, data = _read_limit(fields, 3)
    kind = StopKind(_among(StopKind, _one_number(fields, 1)))
    return Stop(kind, _peer(fields, 2), _one_number(fields, 4), seconds, data)


def encode_punch(message: Punch) -> bytes:
    """A DCUtR message without its length."""
    return _number(1, message.kind) + b"".join(_bytes(2, each) for each in message.addresses)


def decode_punch(raw: bytes) -> Punch:
    """Raises PeerFault."""
    fields = _fields(raw)
    return Punch(PunchKind(_among(PunchKind, _one_number(fields, 1))), _addresses(fields, 2))


def encode_autonat(message: Autonat) -> bytes:
    """An AutoNAT message without its length."""
    if message.kind is AutonatKind.DIAL:
        peer = _bytes(1, message.peer) + b"".join(_bytes(2, each) for each in message.addresses)
        return _number(1, message.kind) + _bytes(2, _bytes(1, peer))
    response = _number(1, message.status)
    if message.words:
        response += _bytes(2, message.words.encode())
    if message.address:
        response += _bytes(3, message.address)
    return _number(1, message.kind) + _bytes(3, response)


def decode_autonat(raw: bytes) -> Autonat:
    """Raises PeerFault."""
    fields = _fields(raw)
    kind = AutonatKind(_among(AutonatKind, _one_number(fields, 1)))
    if kind is AutonatKind.DIAL:
        peer = _fields(_one_bytes(_fields(_one_bytes(fields, 2)), 1))
        return Autonat(kind, _one_bytes(peer, 1, MAX_ID), _addresses(peer, 2))
    response = _fields(_one_bytes(fields, 3))
    words = _one_bytes(response, 2, 200).decode(errors="replace")
    return Autonat(kind, b"", (), _one_number(response, 1), words, _one_bytes(response, 3, 256))


# ---------------------------------------------------------------------------------------------------------------------
# Protocol buffers, as much as these need: https://protobuf.dev/programming-guides/encoding/

_Fields = dict[int, list[int | bytes]]


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def _limit(field: int, seconds: int, data: int) -> bytes:
    inner = (_number(1, seconds) if seconds else b"") + (_number(2, data) if data else b"")
    return _bytes(field, inner) if inner else b""


def _fields(raw: bytes) -> _Fields:
    if len(raw) > MAX_MESSAGE:
        raise PeerFault("a message that is too long")
    found: _Fields = {}
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(raw, at)
        elif kind in (1, 2, 5):
            length, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(raw, at)
            if length > len(raw) - at:
                raise PeerFault("a message cut short")
            value, at = raw[at : at + length], at + length
        else:
            raise PeerFault(f"a message with a field of kind {kind}")
        if tag >> 3 == 0:
            raise PeerFault("a message with a field 0")
        if kind in (0, 2):
            found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            raise PeerFault("a message cut short")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise PeerFault("a message with a number that is too large")


def _one_number(fields: _Fields, field: int) -> int:
    """The field's value, the last one if there are several (so the format has it); 0 when there is none."""
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise PeerFault(f"a message whose field {field} is no number")
    return value


def _one_bytes(fields: _Fields, field: int, most: int = MAX_MESSAGE) -> bytes:
    value = fields.get(field, [b""])[-1]
    if not isinstance(value, bytes) or len(value) > most:
        raise PeerFault(f"a message whose field {field} is not what it should be")
    return value


def _addresses(fields: _Fields, field: int) -> tuple[bytes, ...]:
    return tuple(value for value in fields.get(field, [])[:MAX_ADDRESSES] if isinstance(value, bytes))


def _peer(fields: _Fields, field: int) -> bytes:
    return _one_bytes(_fields(_one_bytes(fields, field)), 1, MAX_ID)


def _read_limit(fields: _Fields, field: int) -> tuple[int, int]:
    limit = _fields(_one_bytes(fields, field))
    return _one_number(limit, 1), _one_number(limit, 2)


def _among(kinds: Iterable[int], value: int) -> int:
    if value not in list(kinds):
        raise PeerFault(f"a message of the unknown kind {value}")
    return value


def packed(addresses: Sequence[bytes]) -> tuple[bytes, ...]:
    """The first ``MAX_ADDRESSES`` of ``addresses``, for a message."""
    return tuple(addresses[:MAX_ADDRESSES])
