"""Change input where its format has joints, and sign it again: what changed bytes alone hardly ever come to.

A fuzzer that knows only bytes seldom makes another map that its format still takes, and never a signature: behind
those nothing would be tried. Here the value is read, changed in one to three places (an item dropped, repeated, moved,
put in; a number at an edge; text too long, blank, decomposed; another type) and written again as it came, by no rule
but the notation's. Whoever attacks can sign too, so what is signed is signed by a key that made it.

Pure: what is to happen comes from the dice handed in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import notations
from gossip.people import person

from p2plearn.archive import dagcbor
from p2plearn.course import manifest
from p2plearn.dht import receipts
from p2plearn.gossip import envelope

SIGNATURE = 64
EDGES: tuple[Any, ...] = (
    0, 1, -1, 2, 127, 255, 256, 65536, 2**31 - 1, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 1.5, True,
    False, None, "", " ", "\0", "\n", "e\u0301", "\u202e", "a/../b", "/", "con", "a" * 300, "b" * 2100, b"", bytes(31),
    bytes(32), bytes(33), bytes(64), [], {}, [[]], [0] * 70, {"v": 1},
)  # fmt: skip
"""Values at which some limit of some format lies."""


@dataclass(frozen=True)
class Shape:
    """How the value of one decoder is read and written; ``signed``: what stands before it where it is signed."""

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    signed: bytes | None = None


def _packed(value: Any) -> bytes:
    raw: bytes = msgpack.packb(value, use_bin_type=True)
    return raw


def _unpacked(raw: bytes) -> Any:
    return msgpack.unpackb(raw, strict_map_key=False)


def _json(value: Any) -> bytes:
    return json.dumps(value, default=lambda data: data.hex()).encode()


SHAPES = {
    "manifest": Shape(_unpacked, _packed, manifest.SIGNED_PREFIX),
    "envelope": Shape(_unpacked, _packed, envelope.SIGNED_PREFIX),
    **dict.fromkeys(("manifest-fields", "msgpack", "sync-turn", "index"), Shape(_unpacked, _packed)),
    **dict.fromkeys(("dag-cbor", "archive-bundle", "archive-page"), Shape(dagcbor.decode, dagcbor.encode)),
    **dict.fromkeys(
        ("peers.json", "absences.json", "providers.json", "traffic.json", "api-body"), Shape(json.loads, _json)
    ),
    **dict.fromkeys(
        ("chunk-served", "chunk-fetched", "heartbeat", "custody-asked", "custody-answered"),
        Shape(notations.read_frames, notations.write_frames),
    ),
    **dict.fromkeys(
        ("kademlia", "relay-hop", "relay-stop", "hole-punch", "autonat"),
        Shape(notations.read_protobuf, notations.write_protobuf),
    ),
}


def reshaped(shape: Shape, raw: bytes, dice: random.Random) -> bytes:
    """``raw`` with its value changed and signed anew; raises whatever reading or writing it does."""
    value = shape.read(raw if shape.signed is None else raw[SIGNATURE:])
    for _ in range(dice.choice((1, 1, 2, 3))):
        value = changed(value, dice)
    if shape.signed is None:
        return shape.write(value)
    ann = person("ann")
    if isinstance(value, dict) and "author" in value and dice.randrange(20):
        value["author"] = ann.key
    packed = shape.write(value)
    return ann.private.sign(shape.signed + packed) + packed


def receipt_signed(raw: bytes) -> bytes:
    """A receipt of whatever it says, by a key that may say it."""
    ann = person("ann")
    body = raw[: receipts.RECEIPT_BYTES - SIGNATURE].ljust(receipts.RECEIPT_BYTES - SIGNATURE, b"\0")
    body = body[:36] + ann.key + body[68:]
    return body + ann.private.sign(receipts.DOMAIN + body)


def changed(value: Any, dice: random.Random) -> Any:
    """``value`` with one thing in it another; lists and maps stay what they are three times in four."""
    if isinstance(value, dict) and value and dice.randrange(4):
        key = dice.choice(list(value))
        return {name: changed(item, dice) if name == key else item for name, item in value.items()}
    if isinstance(value, list | tuple) and value and dice.randrange(4):
        at = dice.randrange(len(value))
        return [changed(item, dice) if place == at else item for place, item in enumerate(value)]
    match value:
        case dict() if dice.randrange(3):
            return _map_changed(value, dice)
        case list() | tuple() if dice.randrange(3):
            return _list_changed(list(value), dice)
        case bool():
            return dice.choice((not value, *EDGES))
        case int() if dice.randrange(3):
            return dice.choice((value + 1, value - 1, -value, value * 2, value ^ (1 << dice.randrange(33))))
        case str() | bytes() if dice.randrange(3):
            return _run_changed(value, dice)
    return dice.choice(EDGES)


def _map_changed(value: dict[Any, Any], dice: random.Random) -> dict[Any, Any]:
    rows = list(value.items())
    match dice.randrange(3):
        case 0 if rows:
            del rows[dice.randrange(len(rows))]
        case 1 if rows:
            rows.append(rows.pop(dice.randrange(len(rows))))
        case _:
            rows.append((dice.choice(("v", "a", "zz", "")), dice.choice(EDGES)))
    return dict(rows)


def _list_changed(value: list[Any], dice: random.Random) -> list[Any]:
    at = dice.randrange(len(value) + 1)
    match dice.randrange(4):
        case 0 if value:
            del value[min(at, len(value) - 1)]
        case 1 if value:
            value.insert(at, dice.choice(value))
        case 2 if value:
            value.append(value.pop(min(at, len(value) - 1)))
        case _:
            value.insert(at, dice.choice(EDGES))
    return value


def _run_changed(value: Any, dice: random.Random) -> Any:
    at = dice.randrange(len(value) + 1)
    other = dice.choice([edge for edge in EDGES if type(edge) is type(value)])
    return dice.choice((value[:at], value[at:], value[:at] + other + value[at:], value + value, other))
