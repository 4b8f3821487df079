"""What one node thinks of the others: by the detector that real nodes run, beat for beat or only where one is missed.

``Beats`` plays every heartbeat through a ``liveness.Detector``: exact, and as dear as the beats are many. ``Silences``
holds only who is silent and since when; when that becomes suspect and down it knows from ``patience``, which has a real
detector hear a peer for a while and then nothing. Both count a node's own absence as nobody's silence, as the detector
does.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Protocol

from p2plearn.dht.custody import Node
from p2plearn.dht.liveness import Detector, Life

if TYPE_CHECKING:
    from sim.peer import SimNode


@cache
def patience(interval: float) -> tuple[float, float]:
    """Seconds from the last sign of life until suspect, and until down, as a detector that ticks between beats says."""
    detector, now, peer = Detector(interval, 0.0), 0.0, b"peer"
    for _ in range(100):
        now += interval
        detector.beat(peer, now - 0.5 * interval)
        detector.tick(now, in_touch=True)
    heard = now - 0.5 * interval
    suspect = 0.0
    while True:
        now += interval
        detector.tick(now, in_touch=True)
        if detector.life(peer) is Life.SUSPECT and not suspect:
            suspect = now - heard
        if detector.life(peer) is Life.DOWN:
            return suspect, now - heard


class Sight(Protocol):
    """What a node asks of it."""

    def life(self, peer: Node) -> Life:
        """What is thought of ``peer`` now."""
        ...

    def gone_for(self, peer: Node) -> float:
        """Seconds that it has been down, counted from when it was heard; 0 while it isn't."""
        ...

    def watch(self, circle: set[Node], new: set[Node]) -> None:
        """These are to be watched, of them ``new`` from now on."""
        ...

    def lost(self, peer: Node) -> None:
        """It can't be reached any more."""
        ...

    def met(self, peer: Node) -> None:
        """It has answered."""
        ...

    def slept(self, seconds: float) -> None:
        """This node was not running for so long, and remembers what it knew."""
        ...

    def started(self) -> None:
        """This node is new, or has been started again."""
        ...

    def next_change(self) -> float:
        """When a silence reaches the grace period by itself; infinity for never."""
        ...


class Silences:
    """See the head of this file."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._away = 0.0
        self.silent: dict[Node, float] = {}
        """Peer: when it was last heard, on a clock that stands still while this node does not run."""
        self._suspect, self._down = patience(node.scene.interval)

    @property
    def _now(self) -> float:
        return self._node.clock.now - self._away

    def life(self, peer: Node) -> Life:
        since = self.silent.get(peer)
        if since is None:
            return Life.ALIVE
        silence = self._now - since
        return Life.DOWN if silence >= self._down else Life.SUSPECT if silence >= self._suspect else Life.ALIVE

    def gone_for(self, peer: Node) -> float:
        since = self.silent.get(peer)
        if since is None:
            return 0.0
        silence = self._now - since
        return silence if silence >= self._down else 0.0

    def watch(self, circle: set[Node], new: set[Node]) -> None:
        for peer in new:
            if not self._node.world.can_reach(self._node, peer):
                self.silent.setdefault(peer, self._now)
        for peer in [peer for peer in self.silent if peer not in circle]:
            del self.silent[peer]

    def lost(self, peer: Node) -> None:
        self.silent.setdefault(peer, self._now - self._node.world.dice.random() * self._node.scene.interval)

    def met(self, peer: Node) -> None:
        self.silent.pop(peer, None)

    def slept(self, seconds: float) -> None:
        self._away += seconds

    def started(self) -> None:
        if not self._node.scene.remembers:
            self.silent = dict.fromkeys(self.silent, self._now)

    def next_change(self) -> float:
        now, grace = self._now, self._node.scene.grace
        waits = [since + grace - now for since in self.silent.values()]
        return self._node.clock.now + min((wait for wait in waits if wait > 0.0), default=float("inf"))


class Beats:
    """See the head of this file."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self.detector = Detector(node.scene.interval, node.clock.now)
        self._circle: list[Node] = []
        self._heard_at = node.clock.now
        node.clock.after(node.world.dice.random() * node.scene.interval, self._tick, node.life_number)

    def _tick(self, life_number: int) -> None:
        """Ask who wasn't heard lately, then look at everybody: as ``heartbeat.Vigil.run``."""
        node, world, now = self._node, self._node.world, self._node.clock.now
        if not node.is_up or life_number != node.life_number:
            return
        for peer in self._circle:
            other = world.nodes[peer]
            if world.can_reach(node, peer) and world.dice.random() >= node.scene.lost_beats:
                self.beat(peer, now)
                if isinstance(other.sight, Beats):
                    other.sight.beat(node.key, now)
        if self._circle and now - self._heard_at > 2 * node.scene.interval and world.nearest(node, node.key):
            self._heard_at = now  # others than those of the circle were asked, and answered
        in_touch = not self._circle or now - self._heard_at <= 3 * node.scene.interval
        for peer, life in self.detector.tick(now, in_touch=in_touch):
            if life is Life.DOWN and world.can_reach(node, peer):
                world.figures.false_downs += 1
            node.look_in(0.5)
        if any(self.detector.life(peer) is Life.DOWN for peer in self._circle):
            node.look_in(0.5)
        node.clock.after(node.scene.interval, self._tick, life_number)

    def beat(self, peer: Node, now: float) -> None:
        """A sign of life came."""
        self._heard_at = now
        if peer in self.detector:
            self.detector.beat(peer, now)

    def life(self, peer: Node) -> Life:
        return self.detector.life(peer)

    def gone_for(self, peer: Node) -> float:
        return self.detector.gone_for(peer, self._node.clock.now)

    def watch(self, circle: set[Node], new: set[Node]) -> None:
        for peer in new:
            self.detector.watch(peer, self._node.clock.now)
        for peer in [peer for peer in self.detector if peer not in circle]:
            self.detector.forget(peer)
        self._circle = sorted(circle)

    def lost(self, peer: Node) -> None:
        """Nothing: it is noticed by its beats."""

    def met(self, peer: Node) -> None:
        self.beat(peer, self._node.clock.now)

    def slept(self, seconds: float) -> None:
        self._node.clock.after(0.0, self._tick, self._node.life_number)

    def started(self) -> None:
        self.__init__(self._node)  # type: ignore[misc]  # a process that was started knows nothing of the one before
        self.watch(set(self._node.circle), set(self._node.circle))

    def next_change(self) -> float:
        return float("inf")
