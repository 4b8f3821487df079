"""The simulator held against the formulas behind ``p2plearn plan``: the same network, played and calculated."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace

from p2plearn.dht.copying import AT_ONCE
from p2plearn.planning import durability
from sim.churn import Simulation
from sim.scene import DAY, HOUR, Scene

SETTLE_INTERVALS = 3.0
"""From the end of a grace period to the first offer: a beat, the look after it, and two intervals of waiting."""


@dataclass(frozen=True)
class Compared:
    """Losses of each run of a scene, and the chance that the formula gives for one course."""

    scene: Scene
    seconds: float
    losses: tuple[int, ...]
    chance: float

    @property
    def courses(self) -> int:
        """Of all runs."""
        return len(self.losses) * self.scene.courses

    @property
    def lost(self) -> int:
        """Of them."""
        return sum(self.losses)

    @property
    def expected(self) -> float:
        """As the formula has it."""
        return self.courses * self.chance

    @property
    def error(self) -> float:
        """One standard deviation of ``lost``: the binomial's, or the runs' own where that is more.

        Courses that share nodes are lost together, so runs differ by more than single courses would.
        """
        binomial = math.sqrt(self.expected * (1.0 - self.chance))
        return max(binomial, math.sqrt(len(self.losses)) * statistics.stdev(self.losses), 1.0)

    @property
    def sigmas(self) -> float:
        """How far apart the two are, in such deviations."""
        return (self.lost - self.expected) / self.error


def formula(scene: Scene, seconds: float) -> float:
    """What ``p2plearn plan`` would say of the scene: the chance that one course is lost."""
    online = 1.0
    if scene.laptops:
        online = 1.0 - scene.laptops * scene.absence / (scene.session + scene.absence)
    transfer = scene.size / (scene.upload / AT_ONCE)
    window = durability.repair_window(scene.grace, online, SETTLE_INTERVALS * scene.interval, transfer)
    return durability.loss(scene.copies, scene.crash_rate, window, seconds)


def compare(scene: Scene, seconds: float, seeds: int) -> Compared:
    """Play a scene with so many seeds."""
    runs = (Simulation(replace(scene, seed=scene.seed + number)).run(seconds) for number in range(seeds))
    return Compared(scene, seconds, tuple(len(world.lost) for world in runs), formula(scene, seconds))


SCENES: dict[str, tuple[Scene, float]] = {
    f"{nodes} nodes, {100 * rate:g} %/day, {copies} copies, {grace:g} h grace": (
        Scene(nodes=nodes, courses=nodes, copies=copies, crash_rate=rate / DAY, grace=grace * HOUR),
        days * DAY,
    )
    for nodes, rate, copies, grace, days in (
        (50, 0.20, 1, 12, 4),
        (50, 0.20, 2, 12, 8),
        (60, 0.40, 3, 12, 8),
        (60, 0.80, 3, 4, 8),
        (60, 0.80, 4, 12, 5),
        (60, 1.00, 4, 6, 6),
    )
}
"""Scenes rough enough for losses to be counted: in a calm one nobody would live to see any."""
