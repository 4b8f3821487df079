"""A part of the space of distances all of whose peers are known: each key in it has its nearest without a lookup. ⊙

A lookup finds the peers nearest to its target and asks them all, so of the largest subtree around the target that they
fill nobody was missed: whoever is in it is nearer than the farthest of them. If the subtree has ``WIDTH`` peers, the
``WIDTH`` nearest of every key in it are among them, for whoever is outside is farther from that key than all inside.

Sans-IO. Imports only ``dht.lookup``.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from p2plearn.dht.lookup import WIDTH, place

BITS = 256
"""Of a place."""

PEERS = 64
"""How many nearest peers to look up for a region. A subtree doubles with each bit, so 32 to 63 of them fill one.
Fewer: regions that don't reach ``WIDTH``; more: lookups that ask more than they have to (at most 96)."""


class Region:
    """The keys whose first ``depth`` bits are those of ``target``; ``peers`` are all that lie there."""

    def __init__(self, target: int, depth: int, peers: Sequence[bytes]) -> None:
        self._prefix = target >> (BITS - depth)
        self._shift = BITS - depth
        self._peers = [(place(peer), peer) for peer in peers]

    def __contains__(self, key: bytes) -> bool:
        return place(key) >> self._shift == self._prefix

    def nearest(self, key: bytes) -> list[bytes]:
        """The ``WIDTH`` peers nearest to a key of this region, nearest first."""
        target = place(key)
        return [peer for _, peer in heapq.nsmallest(WIDTH, ((at ^ target, peer) for at, peer in self._peers))]


def region_around(key: bytes, found: Sequence[bytes], asked_for: int) -> Region | None:
    """The region that a lookup of ``key`` knows, which ``found`` these of the ``asked_for`` nearest, nearest first.

    None if it is too small to be of use to another key.
    """
    target = place(key)
    if len(found) < asked_for:
        return Region(target, 0, found)  # that is everybody
    # The farthest one's subtree may hold others as far; the one inside it is known as a whole.
    depth = BITS - (place(found[-1]) ^ target).bit_length() + 1
    inside = [peer for peer in found if (place(peer) ^ target) >> (BITS - depth) == 0] if depth <= BITS else []
    return Region(target, depth, inside) if len(inside) >= WIDTH else None
