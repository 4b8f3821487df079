"""Histories of all that may happen together, one for each seed; then calm, and whether everything was made good."""

from __future__ import annotations

import random

from sim.churn import Simulation
from sim.scene import DAY, HOUR, MIB, Scene
from sim.world import Fault, World

WILD = 1.5 * DAY
"""Seconds of things happening."""


def scene_of(seed: int) -> Scene:
    """A small network with troubles of all kinds."""
    dice = random.Random(f"chaos {seed}")
    beats = seed % 8 == 7  # every heartbeat for real: dear, so not in each
    return Scene(
        seed=seed,
        nodes=dice.randrange(8, 16 if beats else 30),
        courses=dice.randrange(5, 12 if beats else 30),
        copies=dice.choice((2, 3, 3, 4)),
        size=dice.choice((4, 64, 256)) * MIB,
        grace=dice.choice((0.5, 1, 4)) * HOUR,
        interval=30.0 if beats else 10.0,
        upload=dice.choice((0.1, 1, 8)) * MIB,
        crash_rate=dice.choice((0.0, 0.1, 0.5)) / DAY,
        leave_rate=dice.choice((0.0, 0.1, 0.5)) / DAY,
        laptops=dice.choice((0.0, 0.5, 0.9)),
        session=dice.choice((0.5, 2, 8)) * HOUR,
        absence=dice.choice((0.5, 2, 8)) * HOUR,
        lids=dice.random(),
        flappers=dice.choice((0.0, 0.0, 0.2)),
        publishes=dice.choice((0.0, 20 / DAY)),
        beats=beats,
        lost_beats=0.02 * beats,
    )


def play(seed: int) -> World:
    """One history; raises ``Fault`` for whatever must never happen."""
    scene = scene_of(seed)
    dice = random.Random(f"troubles {seed}")
    simulation = Simulation(scene)
    world = simulation.world
    healed = 0.0
    if dice.random() < 0.5:
        when, share, seconds = dice.uniform(0, WILD), dice.random(), dice.choice((0.1, 2, 10)) * scene.grace
        world.clock.at(when, world.splits, share, seconds)
        healed = when + seconds
    if dice.random() < 0.3:
        world.clock.at(dice.uniform(0, WILD), simulation.vanish, dice.uniform(0.1, 0.5))
    simulation.run(WILD)
    simulation.calm()
    # Once the network is whole: time for a grace, for repair, and for what is then too much to wait four graces.
    simulation.run(max(healed - WILD, 0.0) + 7 * scene.grace + 12 * HOUR)
    check_whole(world)
    return world


def check_whole(world: World) -> None:
    """Whether in a network that has been calm every course is there as often as was asked for, and no more."""
    living = world.living()
    for unit in world.units:
        holders = world.disks[unit]
        if unit in world.lost:
            if holders:
                raise Fault(f"{unit.course.hex()[:8]} was lost and is on {len(holders)} disks")
            continue
        wanted = min(world.scene.copies, len(living))
        if len(holders) != wanted:
            raise Fault(f"seed {world.scene.seed}: {unit.course.hex()[:8]} is on {len(holders)} disks, not {wanted}")
        for key in sorted(holders):
            if world.nodes[key].counts(unit) != holders:
                raise Fault(f"{world.nodes[key]} has another idea of who holds {unit.course.hex()[:8]}")
    for node in living:
        others = [unit for unit, holders in world.disks.items() if node.key in holders and unit not in node.own]
        on_disk = len(others) * world.scene.size
        if node.given != on_disk:
            raise Fault(f"{node} counts {node.given} bytes and keeps {on_disk}")
