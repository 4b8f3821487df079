"""Who keeps which part of a course. Sans-IO: plain values in, plain values out.

The *unit* of custody is a course, or each 256 MiB segment of a large one: few parts that are whole, because when many
small ones are placed independently, the same loss of nodes hits some part of nearly every course.

A node is named by its Ed25519 public key (32 bytes), and lies in the space of Kademlia's distances at the SHA-256 of
its peer id; a unit lies at SHA-256(course hash, segment number). The custodians of a unit are the nodes nearest to it
by XOR that are there, have quota to give and accept it (as in PAST: Rowstron and Druschel 2001). So everybody who
knows the same nodes names the same custodians, and a node that leaves changes only the units that it kept.

Imports only ``dht.lookup``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from p2plearn.dht.lookup import place

SEGMENT: Final = 256 * 1024 * 1024
"""Bytes of a course in one unit. Larger: fewer and rarer losses, but one offer fills more of a small quota."""

_IDENTITY: Final = bytes.fromhex("002408011220")
"""What libp2p puts before an Ed25519 public key to make a peer id of it: identity multihash, protobuf header."""

Node = bytes
"""A node's Ed25519 public key, 32 bytes."""


class Unit(NamedTuple):
    """A course (its hash), or one segment of a large one."""

    course: bytes
    segment: int

    @property
    def name(self) -> bytes:
        """What is hashed to find its custodians."""
        return self.course + self.segment.to_bytes(4, "big")


def peer_id_of(node: Node) -> bytes:
    """The binary peer id of a node."""
    return _IDENTITY + node


def node_of(peer_id: bytes) -> Node | None:
    """The public key in a binary peer id; None if it holds none (only Ed25519 keys are written out in it)."""
    return peer_id[6:] if peer_id.startswith(_IDENTITY) and len(peer_id) == 38 else None


def segments(size: int) -> int:
    """Number of units of a course of ``size`` bytes; at least one."""
    return max(1, -(-size // SEGMENT))


def units_of(course: bytes, size: int) -> list[Unit]:
    """The units of a course of ``size`` bytes."""
    return [Unit(course, segment) for segment in range(segments(size))]


def slots_of(segment: int, lengths: Sequence[int]) -> tuple[int, int, int]:
    """The chunk slots of a segment: (first slot, number of slots, their bytes); slots belong where they begin."""
    at, first, count, size = 0, 0, 0, 0
    for slot, length in enumerate(lengths):
        mine = at // SEGMENT == segment
        if mine and not count:
            first = slot
        count += mine
        size += length * mine
        at += length
        if at // SEGMENT > segment:
            break
    return first, count, size


def distance(unit: Unit, node: Node) -> int:
    """How far a node is from a unit."""
    return place(unit.name) ^ place(peer_id_of(node))


def ranked(unit: Unit, nodes: Iterable[Node]) -> list[Node]:
    """``nodes``, the nearest to the unit first."""
    target = place(unit.name)
    return sorted(set(nodes), key=lambda node: target ^ place(peer_id_of(node)))


def custodians(unit: Unit, willing: Iterable[Node], copies: int) -> list[Node]:
    """The nodes that should keep a unit, out of those that are there and have quota to give."""
    return ranked(unit, willing)[:copies]


def leads_repair(unit: Unit, me: Node, alive: Collection[Node], missing_for: float, patience: float) -> bool:
    """Whether ``me`` is to repair a unit: the nearest of its custodians that are alive.

    The next one steps in when nothing has come of it for ``patience`` seconds, the one after it for twice that, …:
    a leader that is alive and does nothing must not cost the course.
    """
    rank = ranked(unit, {*alive, me}).index(me)
    return missing_for >= rank * patience


def releases(
    unit: Unit, me: Node, alive: Collection[Node], copies: int, *, too_many_for: float, patience: float
) -> bool:
    """Whether ``me`` is to let go of a unit of which more copies are alive than asked for: the farthest first.

    The next farthest after ``patience`` seconds more, the one after it after twice that, …: the farthest may keep it
    because its person wants it, and that must cost nobody else's disk.
    """
    others = {*alive} - {me}
    if len(others) < copies:
        return False
    return too_many_for >= ranked(unit, {*others, me})[::-1].index(me) * patience
