"""The simulated network: who reaches whom, bytes that move, what is really on the disks, and what must never happen."""

from __future__ import annotations

import bisect
import hashlib
import random
from collections import defaultdict

from p2plearn.dht.copying import AT_ONCE
from p2plearn.dht.custody import Node, Unit, ranked
from p2plearn.dht.duty import LettingGo
from p2plearn.dht.intake import INCOMING
from p2plearn.dht.lookup import WIDTH, place
from p2plearn.dht.messages import Reason
from p2plearn.dht.receipts import Receipt
from sim.clock import Clock
from sim.peer import SimNode, State
from sim.scene import Figures, Scene

LATENCY = 0.1
"""Seconds for an offer to be answered."""

IN_VAIN = 10.0
"""Seconds after which a node that isn't there is given up."""

BITS = 256


class Fault(AssertionError):
    """Something happened that must never happen."""


class World:
    """See the head of this file. ``dice`` is the only source of chance."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.clock = Clock()
        self.dice = random.Random(f"p2plearn {scene.seed}")
        self.figures = Figures()
        self.nodes: dict[Node, SimNode] = {}
        self.watchers: defaultdict[Node, set[Node]] = defaultdict(set)
        self._reachable: dict[int, list[tuple[int, Node]]] = {0: []}
        self.units: list[Unit] = []
        self.disks: dict[Unit, set[Node]] = {}
        """What is really there: the nodes on whose disks a unit is whole, gone ones excepted."""
        self._losses: dict[Unit, int] = {}
        """Copies of a unit that went with their nodes since it was last whole; absent until it has been whole."""
        self.lost: dict[Unit, float] = {}
        """When the last copy of a unit went."""

    # -- who is there ---

    def new_node(self) -> SimNode:
        """One more, up and empty."""
        number = len(self.nodes)
        key = hashlib.sha256(f"{self.scene.seed} node {number}".encode()).digest()
        node = self.nodes[key] = SimNode(self, number, key)
        bisect.insort(self._reachable[0], (node.place, key))
        self.clock.note("new", number)
        return node

    def living(self) -> list[SimNode]:
        """All that aren't gone for good."""
        return [node for node in self.nodes.values() if node.state is not State.GONE]

    def can_reach(self, node: SimNode, other: Node) -> bool:
        """Whether a message would get through."""
        peer = self.nodes[other]
        return node.state is State.UP and peer.state is State.UP and node.side == peer.side

    def said_leaving(self, _: SimNode, other: Node) -> bool:
        """Whether its beats say that it leaves."""
        return self.nodes[other].leaving

    def nearest(self, node: SimNode, name: bytes) -> list[SimNode]:
        """Who is up and nearest to a name, as a lookup finds them; without ``node``."""
        target, there = place(name), self._reachable[node.side]
        width = WIDTH + 1
        low, high = 0, len(there)
        for bits in range(1, BITS):  # the longest common prefix that as many as are wanted share
            shift = BITS - bits
            first = target >> shift << shift
            begin = bisect.bisect_left(there, (first, b""), low, high)
            end = bisect.bisect_left(there, (first + (1 << shift), b""), low, high)
            if end - begin < width:
                break
            low, high = begin, end
        near = sorted(there[low:high], key=lambda each: each[0] ^ target)[:width]
        return [self.nodes[key] for _, key in near if key != node.key][:WIDTH]

    def watches(self, node: SimNode, old: set[Node], new: set[Node]) -> None:
        """``node`` watches others than before."""
        for peer in old:
            self.watchers[peer].discard(node.key)
        for peer in new:
            self.watchers[peer].add(node.key)

    # -- coming and going ---

    def goes(self, node: SimNode, state: State) -> None:
        """A node sleeps, stops, or is gone for good with its disk."""
        if node.state is State.GONE or node.state is state:
            return
        was_up = node.is_up
        if was_up:
            self.figures.node_seconds += self.clock.now - node.since
            self._reachable[node.side].remove((node.place, node.key))
        node.goes(state)
        self.clock.note(state.value, node.number)
        if was_up:
            for key in sorted(self.watchers[node.key]):
                watcher = self.nodes[key]
                if watcher.is_up and watcher.side == node.side:
                    watcher.sight.lost(node.key)
                    watcher.noticed_silence()
        if state is State.GONE:
            for unit in list(node.ledger):
                self._disk_gone(unit, node)
            self.watches(node, node.circle, set())

    def comes(self, node: SimNode) -> None:
        """A node is back."""
        if node.state in {State.GONE, State.UP}:
            return
        for key in sorted(self.watchers[node.key]):
            watcher = self.nodes[key]
            if watcher.is_up and watcher.side == node.side and watcher.sight.gone_for(node.key) >= self.scene.grace:
                self.figures.written_off += sum(
                    node.key in entry.holders
                    for unit in watcher.ledger
                    if (entry := watcher.ledger.entry(unit)) is not None
                )
        node.comes()
        bisect.insort(self._reachable[node.side], (node.place, node.key))
        self.clock.note("up", node.number)
        for peer in sorted(node.circle):
            if not self.can_reach(node, peer):
                node.sight.lost(peer)
        self.clock.after(self.dice.random() * self.scene.interval, self._greets, node, node.life_number)

    def _greets(self, node: SimNode, life_number: int) -> None:
        """Its beats with all who share something with it: the first ones, or those after something new."""
        if life_number != node.life_number or not node.is_up:
            return
        node.will_reconcile = False
        for key in sorted(node.circle | self.watchers[node.key]):
            if self.can_reach(node, key):
                peer = self.nodes[key]
                node.sight.met(key)
                peer.sight.met(node.key)
                peer.look_in(self.scene.grace / 4)  # with it there may be more copies than asked for
                self._exchange(node, peer)
                self._exchange(peer, node)
        node.look_in(self.scene.interval)

    def will_reconcile(self, node: SimNode) -> None:
        """It knows something new: with the next beats digests differ, and those who share the unit hear of it."""
        if not node.will_reconcile:
            node.will_reconcile = True
            self.clock.after(self.scene.interval, self._greets, node, node.life_number)

    def _exchange(self, asker: SimNode, answerer: SimNode) -> None:
        """Receipts about what both hold, as after beats whose digests differ."""
        said = asker.ledger.shared(answerer.key)
        if not said or asker.ledger.digest(answerer.key) == answerer.ledger.digest(asker.key):
            return
        answerer.merge(said)
        known = [each for unit in sorted({each.unit for each in said}) for each in answerer.receipts_of(unit)]
        asker.merge(known + answerer.ledger.denials(said, int(self.clock.now * 1000)))

    def splits(self, share: float, seconds: float) -> None:
        """Part of the network can't reach the rest for a while."""
        self._reachable.setdefault(1, [])
        moved = [node for node in self.living() if self.dice.random() < share]
        self.clock.note("split", len(moved))
        self._moves(moved, 1)
        self.clock.after(seconds, self._heals)

    def _heals(self) -> None:
        self.clock.note("heal")
        moved = [node for node in self.living() if node.side == 1]
        self._moves(moved, 0)
        for node in moved:
            if node.is_up:
                self.clock.after(self.dice.random() * self.scene.interval, self._greets, node, node.life_number)

    def _moves(self, nodes: list[SimNode], side: int) -> None:
        for node in nodes:
            if node.is_up:
                self._reachable[node.side].remove((node.place, node.key))
                bisect.insort(self._reachable[side], (node.place, node.key))
            node.side = side
        for node in self.living():
            if not node.is_up:
                continue
            lost = [peer for peer in sorted(node.circle) if not self.can_reach(node, peer)]
            for peer in lost:
                node.sight.lost(peer)
            if lost:
                node.noticed_silence()

    # -- courses ---

    def publish(self, node: SimNode, *, placed: bool = False) -> Unit:
        """A new course of ``node``'s; ``placed``: with all its copies already where they belong."""
        unit = Unit(hashlib.sha256(f"{self.scene.seed} course {len(self.units)}".encode()).digest(), 0)
        self.units.append(unit)
        self.disks[unit] = set()
        holders = [node]
        if placed:
            holders += [each for each in self.nearest(node, unit.name) if each.free >= self.scene.size]
        node.own.add(unit)
        receipts = []
        for holder in holders[: self.scene.copies]:
            if holder is not node:
                holder.given += self.scene.size
            receipts.append(holder.states(unit, self.scene.size, self.scene.copies, holds=True))
            self._disk_has(unit, holder)
        for holder in holders[: self.scene.copies]:
            holder.merge(receipts)
        node.look_in(self.scene.interval)
        self.figures.published += 1
        self.clock.note("publish", node.number, unit.course.hex()[:8])
        return unit

    def _disk_has(self, unit: Unit, node: SimNode) -> None:
        self.disks[unit].add(node.key)
        if node.given > self.scene.give:
            raise Fault(f"{node} keeps {node.given} bytes and gives {self.scene.give}")
        if len(self.disks[unit]) >= self.scene.copies:
            self._losses[unit] = 0

    def _disk_gone(self, unit: Unit, node: SimNode) -> None:
        if node.key not in self.disks[unit]:
            raise Fault(f"{node} says that it holds a unit and does not")
        self.disks[unit].discard(node.key)
        if unit in self._losses:
            self._losses[unit] += 1
        if not self.disks[unit]:
            self.lost[unit] = self.clock.now
            self.clock.note("lost", unit.course.hex()[:8])
            if self._losses.get(unit, self.scene.copies) < self.scene.copies:
                raise Fault(f"{unit.course.hex()[:8]} was lost with {self._losses[unit]} nodes of {self.scene.copies}")

    # -- copies ---

    def offers(self, giver: SimNode, unit: Unit, to: Node) -> None:
        """A copy is offered."""
        if self.can_reach(giver, to):
            self.clock.after(LATENCY, self._considers, giver, giver.life_number, unit, self.nodes[to])
        else:
            self.clock.after(IN_VAIN, self._answers, giver, giver.life_number, unit, to, Reason.FAILED)

    def _answers(self, giver: SimNode, life_number: int, unit: Unit, to: Node, refusal: Reason | None) -> None:
        if giver.life_number == life_number:
            giver.offer_ended(unit, to, refusal)

    def _considers(self, giver: SimNode, life_number: int, unit: Unit, to: SimNode) -> None:
        if giver.life_number != life_number:
            return
        entry = giver.ledger.entry(unit)
        if entry is None:
            giver.offer_ended(unit, to.key, Reason.NOT_HELD)
        elif not self.can_reach(giver, to.key):
            self.clock.after(IN_VAIN, self._answers, giver, life_number, unit, to.key, Reason.FAILED)
        elif to.leaving or unit in to.releasing:
            giver.offer_ended(unit, to.key, Reason.LEAVING)
        elif (held := to.ledger.entry(unit)) is not None:
            to.states(unit, held.size, max(held.copies, entry.copies), holds=True)
            self._acknowledged(giver, life_number, unit, to)
        elif unit in to.coming:
            to.coming[unit].append((giver, life_number))
        elif len(to.coming) >= INCOMING:
            giver.offer_ended(unit, to.key, Reason.BUSY)
        elif to.free < entry.size:
            giver.offer_ended(unit, to.key, Reason.NO_QUOTA)
        else:
            to.given += entry.size
            to.coming[unit] = [(giver, life_number)]
            self.clock.note("offer", giver.number, unit.course.hex()[:8], to.number)
            seconds = entry.size / (self.scene.upload / AT_ONCE)
            why, said = "leave" if giver.leaving else "repair", giver.receipts_of(unit)
            self.clock.after(seconds, self._arrives, unit, to, to.life_number, why, said)

    def breaks_off(self, node: SimNode, unit: Unit) -> None:
        """What was coming to ``node`` comes no more; its room is free again."""
        givers = node.coming.pop(unit)
        node.given -= self.scene.size
        self.figures.copies_failed += 1
        self.figures.bytes_wasted += self.scene.size // 2
        for giver, life_number in givers:
            self.clock.after(IN_VAIN, self._answers, giver, life_number, unit, node.key, Reason.FAILED)

    def _arrives(self, unit: Unit, to: SimNode, life_number: int, why: str, said: list[Receipt]) -> None:
        """The last byte: durable if anybody who has it could still be reached, then receipts. ``said`` came first."""
        if to.life_number != life_number or unit not in to.coming:
            return
        if not any(self.can_reach(to, holder) for holder in self.disks[unit]):
            self.breaks_off(to, unit)
            return
        givers = to.coming.pop(unit)
        to.states(unit, self.scene.size, self.scene.copies, holds=True)
        to.merge(said)
        self._disk_has(unit, to)
        self.figures.copies_made[why] += 1
        self.figures.bytes_moved[why] += self.scene.size
        self.clock.note("copy", unit.course.hex()[:8], to.number)
        for giver, offered in givers:
            if self.can_reach(to, giver.key) and unit in giver.ledger:
                self.clock.after(LATENCY, self._acknowledged, giver, offered, unit, to)
            else:
                self.clock.after(IN_VAIN, self._answers, giver, offered, unit, to.key, Reason.FAILED)
        to.look_in(self.scene.interval)

    def _acknowledged(self, giver: SimNode, life_number: int, unit: Unit, to: SimNode) -> None:
        """A receipt arrives; the giver passes on who else holds the unit, and tells them."""
        if giver.life_number != life_number:
            return
        giver.merge(to.receipts_of(unit))
        everything = giver.receipts_of(unit)
        entry = giver.ledger.entry(unit)
        for key in sorted(entry.holders) if entry is not None else ():
            if key != giver.key and self.can_reach(giver, key):
                self.nodes[key].merge(everything)
        giver.offer_ended(unit, to.key, None)

    def releases(self, node: SimNode, unit: Unit, going: LettingGo) -> None:
        """A node lets go of a unit, relying on those who promised to keep it."""
        entry = node.ledger.entry(unit)
        if entry is None:
            return
        if node.promises.holds(unit, self.clock.now):
            raise Fault(f"{node} lets go of what it has promised to keep")
        true = [key for key in going.granted if key in self.disks[unit] or self.nodes[key].state is State.GONE]
        if len(true) < self.scene.copies:
            raise Fault(f"{node} let go of a unit with {len(true)} copies elsewhere")
        tell = [key for key in ranked(unit, entry.holders) if key != node.key and self.can_reach(node, key)]
        receipt = node.states(unit, entry.size, entry.copies, holds=False)
        if unit not in node.own:
            node.given -= entry.size
        self.disks[unit].discard(node.key)
        self.figures.released += 1
        self.clock.note("release", unit.course.hex()[:8], node.number)
        for key in tell:
            self.nodes[key].merge([receipt])

    def left(self, node: SimNode) -> None:
        """A leaver goes: with nothing if it could place everything."""
        if len(node.ledger):
            self.figures.leaves_incomplete += 1
        else:
            self.figures.leaves += 1
        self.goes(node, State.GONE)

    # -- counting ---

    def sample(self, seconds: float) -> None:
        """Count copies and beats now, as standing for so many seconds."""
        for unit in self.units:
            self.figures.copy_samples[len(self.disks[unit])] += 1
        pairs = sum(self.can_reach(node, peer) for node in self.nodes.values() if node.is_up for peer in node.circle)
        self.figures.exchanges += pairs / 2 * seconds / self.scene.interval

    def finish(self) -> Figures:
        """What has been counted, up to now."""
        for node in self.nodes.values():
            if node.is_up:
                self.figures.node_seconds += self.clock.now - node.since
                node.since = self.clock.now
        return self.figures
