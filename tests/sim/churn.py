"""How nodes live: arrivals and departures as Poisson processes, laptops, flapping, and what happens to many at once."""

from __future__ import annotations

import random

from sim.lookups import Tables, look_up
from sim.peer import SimNode, State
from sim.scene import HOUR, Scene
from sim.world import World

FLAP = 90.0
"""Mean seconds that a flapping node is on, and off."""


class Simulation:
    """A world and the lives in it. Everything is planned from ``dice``, so a seed is a history."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.world = World(scene)
        self.clock, self.dice, self.figures = self.world.clock, self.world.dice, self.world.figures
        for _ in range(scene.nodes):
            self._born()
        nodes = list(self.world.nodes.values())
        for _ in range(scene.courses):
            self.world.publish(nodes[self.dice.randrange(len(nodes))], placed=True)
        goes = scene.crash_rate + scene.leave_rate
        self._arrivals = goes * scene.nodes if scene.arrivals is None else scene.arrivals
        if self._arrivals:
            self.clock.after(self.dice.expovariate(self._arrivals), self._arrives)
        if scene.publishes:
            self.clock.after(self.dice.expovariate(scene.publishes), self._publishes)
        self.clock.after(HOUR, self._samples)
        self.tables = Tables(self.world)
        self._lookup_dice = random.Random(f"lookups {scene.seed}")
        if scene.lookups:
            self.clock.after(1 / scene.lookups, self._looks_up)

        self._is_calm = False

    def calm(self) -> None:
        """From now on nobody comes, goes or sleeps; all who sleep wake up."""
        self._is_calm = True
        for node in self.world.living():
            self.world.comes(node)

    def run(self, seconds: float) -> World:
        """Live on for so long."""
        self.clock.run(self.clock.now + seconds)
        self.world.finish()
        return self.world

    # -- lives ---

    def _born(self) -> SimNode:
        node = self.world.new_node()
        scene, dice = self.scene, self.dice
        goes = scene.crash_rate + scene.leave_rate
        if goes:
            graceful = dice.random() < scene.leave_rate / goes
            self.clock.after(dice.expovariate(goes), self._leaves if graceful else self._dies, node)
        kind = dice.random()
        if kind < scene.flappers:
            self.clock.after(dice.expovariate(1 / FLAP), self._sleeps, node, FLAP, FLAP)
        elif kind < scene.flappers + scene.laptops:
            # As if it had lived like this for long: the first session is as memoryless as any other.
            self.clock.after(dice.expovariate(1 / scene.session), self._sleeps, node, scene.session, scene.absence)
        return node

    def _arrives(self) -> None:
        if self._is_calm:
            return
        self._born()
        self.figures.arrivals += 1
        self.clock.after(self.dice.expovariate(self._arrivals), self._arrives)

    def _publishes(self) -> None:
        if self._is_calm:
            return
        up = [node for node in self.world.nodes.values() if node.is_up and not node.leaving]
        if up:
            node = up[self.dice.randrange(len(up))]
            if node.free >= self.scene.size:
                self.world.publish(node)
        self.clock.after(self.dice.expovariate(self.scene.publishes), self._publishes)

    def _dies(self, node: SimNode) -> None:
        if node.state is not State.GONE and not self._is_calm:
            self.figures.deaths += 1
            self.world.goes(node, State.GONE)

    def _leaves(self, node: SimNode) -> None:
        """Its person opens the lid for it if need be."""
        if node.state is State.GONE or self._is_calm:
            return
        if not node.is_up:
            self.world.comes(node)
            self.clock.after(60.0, self._leaves_now, node)
        else:
            self._leaves_now(node)

    def _leaves_now(self, node: SimNode) -> None:
        if node.is_up and not node.leaving and not self._is_calm:
            node.leaves()

    def _sleeps(self, node: SimNode, session: float, absence: float) -> None:
        if node.state is State.GONE or node.leaving or self._is_calm:
            return
        state = State.ASLEEP if self.dice.random() < self.scene.lids else State.OFF
        self.world.goes(node, state)
        self.figures.absences += 1
        self.clock.after(self.dice.expovariate(1 / absence), self._wakes, node, session, absence)

    def _wakes(self, node: SimNode, session: float, absence: float) -> None:
        if node.state is State.GONE:
            return
        self.world.comes(node)
        self.clock.after(self.dice.expovariate(1 / session), self._sleeps, node, session, absence)

    def _samples(self) -> None:
        self.world.sample(HOUR)
        self.clock.after(HOUR, self._samples)

    def _looks_up(self) -> None:
        """Dice of its own: whether lookups are watched changes nothing else."""
        dice = self._lookup_dice
        up = [node for node in self.world.nodes.values() if node.is_up and node.side == 0]
        if up:
            look_up(self.world, self.tables, up[dice.randrange(len(up))], dice.randbytes(36), dice)
        self.clock.after(1 / self.scene.lookups, self._looks_up)

    # -- what happens to many ---

    def vanish(self, share: float) -> list[SimNode]:
        """So many of the nodes are gone at this moment."""
        living = self.world.living()
        gone = self.dice.sample(living, round(share * len(living)))
        for node in gone:
            self._dies(node)
        return gone
