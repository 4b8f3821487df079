"""⊙ What two nodes say to each other on ``/p2plearn/sync/1``: one turn each, in turn, until neither has more to say.

A turn on the wire is four bytes of length (big-endian) and a canonical msgpack list of five: ranges by feed, ids at
hand by feed, wanted ids, envelopes, and whether more is waiting to be sent. ``decode`` returns only what is within
every limit and raises PeerFault for the rest; envelopes in it are bytes still to be opened.

Sans-IO. Imports ``errors``, ``course`` and siblings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from p2plearn.course import msgpacking
from p2plearn.errors import PeerFault
from p2plearn.gossip.envelope import ID_BYTES, MAX_ENTRY
from p2plearn.gossip.reconcile import MAX_RANGES, Range, check_ranges

PROTOCOL: Final = "/p2plearn/sync/1"
ENVELOPE_BYTES: Final = 128 * 1024
"""Envelopes of one turn, about: some 400 posts, checked in 60 ms, so that peers get their turns quickly."""
MAX_TURN: Final = 512 * 1024
"""Bytes of a turn. Ours stay below 300 KiB: envelopes, ids and ranges each have their share."""
MAX_FEEDS: Final = 512
"""Feeds named in one turn; who follows more takes several exchanges."""
MAX_IDS: Final = 2_048
"""Ids wanted, or told for one feed, in one turn: 64 KiB."""


@dataclass(slots=True)
class Turn:
    """One side's turn. Feeds are 32 bytes: CATALOGUE or a course hash."""

    ranges: dict[bytes, list[Range]] = field(default_factory=dict)
    have: dict[bytes, list[bytes]] = field(default_factory=dict)
    want: list[bytes] = field(default_factory=list)
    envelopes: list[bytes] = field(default_factory=list)
    more: bool = False

    @property
    def empty(self) -> bool:
        """Nothing in it that asks for an answer or gives one."""
        return not (self.ranges or self.have or self.want or self.envelopes or self.more)


def encode(turn: Turn) -> bytes:
    """A turn with its length before it."""
    packed = msgpacking.pack(
        [
            [[feed, [list(one) for one in ranges]] for feed, ranges in sorted(turn.ranges.items())],
            [[feed, b"".join(ids)] for feed, ids in sorted(turn.have.items())],
            b"".join(turn.want),
            turn.envelopes,
            turn.more,
        ]
    )
    if len(packed) > MAX_TURN:
        raise AssertionError(f"a turn of {len(packed)} bytes")
    return len(packed).to_bytes(4, "big") + packed


def decode(packed: bytes) -> Turn:
    """A turn without its length. Raises PeerFault."""
    try:
        value = msgpacking.unpack(packed, longest=max(MAX_ENTRY, MAX_IDS * ID_BYTES), most=MAX_RANGES)
    except ValueError as wrong:
        raise PeerFault(f"sync: {wrong}") from None
    if type(value) is not tuple or len(value) != 5:
        raise PeerFault("sync: a turn is no list of five")
    ranges, have, want, envelopes, more = value
    if type(envelopes) is not tuple or not all(type(raw) is bytes for raw in envelopes) or type(more) is not bool:
        raise PeerFault("sync: envelopes are no bytes")
    return Turn(
        {feed: check_ranges(those) for feed, those in _by_feed(ranges)},
        {feed: _ids(those) for feed, those in _by_feed(have)},
        _ids(want),
        list(envelopes),
        more,
    )


def _by_feed(value: Any) -> Iterable[tuple[bytes, Any]]:
    if type(value) is not tuple or len(value) > MAX_FEEDS:
        raise PeerFault("sync: feeds are no list, or too many")
    seen: set[bytes] = set()
    for pair in value:
        if type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not bytes or len(pair[0]) != ID_BYTES:
            raise PeerFault("sync: a feed is no pair")
        if pair[0] in seen:
            raise PeerFault("sync: a feed is there twice")
        seen.add(pair[0])
        yield pair[0], pair[1]


def _ids(value: Any) -> list[bytes]:
    if type(value) is not bytes or len(value) % ID_BYTES or len(value) > MAX_IDS * ID_BYTES:
        raise PeerFault("sync: ids are no ids, or too many")
    return [value[at : at + ID_BYTES] for at in range(0, len(value), ID_BYTES)]
