"""Lookups in the simulated network: the real ``Lookup``, asking nodes whose routing tables are as old as they may be.

A routing table isn't kept for each node; what a node would answer is made when it is asked. It knows of each part of
the space (a bucket: all who share just so many bits with it) up to 20 nodes that were up when it last looked around, at
most ``REFRESH`` seconds ago: which ones follows from the node, the bucket and the time of that look, so it is the same
whenever it is asked. Who went since doesn't answer, and costs the asker a time-out.
"""

from __future__ import annotations

import bisect
import heapq
import random
from collections.abc import Callable

from p2plearn.dht.custody import Node, peer_id_of
from p2plearn.dht.lookup import WIDTH, Lookup, place
from sim.peer import SimNode, State
from sim.world import BITS, World

REFRESH = 600.0
"""Seconds between looks around (``kademlia.REFRESH_SECONDS``)."""

TIME_OUT = 4.0
"""Seconds for a question in vain (``kademlia.QUERY_SECONDS``)."""

ROUND_TRIP = (0.02, 0.3)
"""Seconds, from near to the other side of the world."""

TRIES = 3 * WIDTH


class Tables:
    """What nodes know of each other. ``members`` grows with the network; those gone long ago are passed over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._places: list[tuple[int, Node]] = []
        self._known = 0

    def _catch_up(self) -> None:
        nodes = self._world.nodes
        if len(nodes) != self._known:
            self._places = sorted((node.place, key) for key, node in nodes.items() if node.state is not State.GONE)
            self._known = len(nodes)

    def _was_up(self, node: SimNode, when: float) -> bool:
        return node.is_up == (node.since <= when)

    def _bucket(self, asked: SimNode, bits: int) -> tuple[int, int]:
        """Where those are who share ``bits`` bits with a node and no more."""
        shift = BITS - bits - 1
        first = (asked.place >> shift ^ 1) << shift
        return (
            bisect.bisect_left(self._places, (first, b"")),
            bisect.bisect_left(self._places, (first + (1 << shift), b"")),
        )

    def _knows(self, asked: SimNode, bits: int) -> list[SimNode]:
        """A bucket as it was at the last look around."""
        now = self._world.clock.now
        looked = now - (now + asked.place % REFRESH) % REFRESH
        low, high = self._bucket(asked, bits)
        nodes = self._world.nodes
        if high - low <= WIDTH:
            chosen = [nodes[key] for _, key in self._places[low:high]]
            return [node for node in chosen if self._was_up(node, looked)]
        dice = random.Random(f"{asked.number} {bits} {looked:.0f}")
        found: dict[Node, SimNode] = {}
        for _ in range(TRIES):
            node = nodes[self._places[dice.randrange(low, high)][1]]
            if self._was_up(node, looked):
                found[node.key] = node
                if len(found) == WIDTH:
                    break
        return list(found.values())

    def nearest(self, asked: SimNode, target: int) -> list[SimNode]:
        """The 20 nearest to a place that a node knows."""
        self._catch_up()
        shared = BITS - (asked.place ^ target).bit_length()
        known: list[SimNode] = []
        if shared < BITS:
            known += self._knows(asked, shared)  # all of them nearer than anybody else it knows
        bits = shared + 1
        while len(known) < WIDTH and bits < BITS:  # then those who share more with itself than the target does
            low, high = self._bucket(asked, bits)
            if low < high:
                known += self._knows(asked, bits)
            elif bits > shared + 40:
                break
            bits += 1
        bits = shared - 1
        while len(known) < WIDTH and bits >= 0:
            known += self._knows(asked, bits)
            bits -= 1
        return sorted(known, key=lambda node: node.place ^ target)[:WIDTH]


def look_up(world: World, tables: Tables, asker: SimNode, name: bytes, dice: random.Random) -> None:
    """One lookup, as of now; counts hops, seconds and whether it found the nearest there are."""
    target, figures = place(name), world.figures
    now = 0.0
    depth = {node.key: 1 for node in tables.nearest(asker, target)}
    by_id = {peer_id_of(key): key for key in depth}
    lookup = Lookup(name, by_id)
    queue: list[tuple[float, int, Callable[[], None]]] = []
    number = 0

    def ask(names: list[bytes]) -> None:
        nonlocal number
        for each in names:
            number += 1
            figures.lookup_asked += 1
            key = by_id[each]
            if world.can_reach(asker, key):
                heapq.heappush(queue, (now + dice.uniform(*ROUND_TRIP), number, lambda each=each: answered(each)))
            else:
                figures.lookup_silent += 1
                heapq.heappush(queue, (now + TIME_OUT, number, lambda each=each: lookup.failed(each)))

    def answered(name: bytes) -> None:
        nearer = [node for node in tables.nearest(world.nodes[by_id[name]], target) if node is not asker]
        for node in nearer:
            depth.setdefault(node.key, depth[by_id[name]] + 1)
            by_id[peer_id_of(node.key)] = node.key
        lookup.answered(name, [peer_id_of(node.key) for node in nearer], now)

    ask(lookup.next(now))
    while queue and not lookup.finished(now):
        wake = lookup.wake_at(now)
        if wake < queue[0][0]:
            now = wake
        else:
            now, _, happen = heapq.heappop(queue)
            happen()
        ask(lookup.next(now))
    found = [by_id[each] for each in lookup.nearest()][:3]
    figures.lookup_seconds.append(now)
    if found:
        figures.hops[depth[found[0]]] += 1
    figures.lookup_found += found == [node.key for node in world.nearest(asker, name)[:3]]
