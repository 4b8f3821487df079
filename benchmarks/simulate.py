"""The simulator at length: what docs/simulation.md quotes, and the figure beside it.

    python benchmarks/simulate.py day                   500 nodes, 24 virtual hours
    python benchmarks/simulate.py seeds [--seeds 200]   histories of all troubles together, a night's work
    python benchmarks/simulate.py compare [--seeds 12]  losses beside those that `p2plearn plan` expects
    python benchmarks/simulate.py week [--nodes 10000]  a week of a large network, half of it laptops; --save FILE
    python benchmarks/simulate.py sweep --save FILE     a week at several rates of leaving, the points of the figure
    python benchmarks/simulate.py sessions --save FILE  lookups while nodes come and go ever quicker, for the figure

`python benchmarks/simulation_figure.py FILE... SVG` draws what was saved; docs/simulation.jsonl is what the figure in
docs/ was drawn from.

Everything is virtual time; nothing is opened or sent. A run is a function of its seed (--seed).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from sim import agreement, chaos
from sim.churn import Simulation
from sim.scene import DAY, EXCHANGE_BYTES, HOUR, MIB, Scene
from sim.world import World

WEEK = 7 * DAY
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of the nodes that leave for good a day, without a word."""

HALF_LAPTOPS = {"laptops": 0.5, "session": 8 * HOUR, "absence": 16 * HOUR}
"""Half of the nodes are on for eight hours a day, in the mean, half of the times to be started anew."""


def facts_of(world: World, seconds: float) -> dict[str, Any]:
    """What a run says, in figures."""
    scene, figures = world.scene, world.figures
    moved = sum(figures.bytes_moved.values())
    samples = sum(figures.copy_samples.values())
    lookups = len(figures.lookup_seconds)
    times = sorted(figures.lookup_seconds)
    return {
        "nodes": scene.nodes,
        "courses": len(world.units),
        "days": seconds / DAY,
        "crash_rate": scene.crash_rate * DAY,
        "laptops": scene.laptops,
        "lost": len(world.lost),
        "formula_lost": len(world.units) * agreement.formula(scene, seconds),
        "deaths": figures.deaths,
        "leaves": figures.leaves,
        "leaves_incomplete": figures.leaves_incomplete,
        "absences": figures.absences,
        "copies_made": dict(figures.copies_made),
        "released": figures.released,
        "written_off_and_back": figures.written_off,
        "mean_copies": sum(copies * number for copies, number in figures.copy_samples.items()) / max(samples, 1),
        "repair_bytes_node_day": figures.per_node_day(moved),
        "kept_bytes_node": len(world.units) * scene.copies * scene.size / scene.nodes,
        "beat_bytes_node_day": figures.per_node_day(2 * figures.exchanges * EXCHANGE_BYTES),
        "beats_node_minute": figures.per_node_day(2 * figures.exchanges) / 1440,
        "hops": figures.mean_hops,
        "lookups": lookups,
        "lookups_right": figures.lookup_found / max(lookups, 1),
        "lookup_p50": times[lookups // 2] if times else 0.0,
        "lookup_p99": times[lookups * 99 // 100] if times else 0.0,
        "silent_share": figures.lookup_silent / max(figures.lookup_asked, 1),
        "events": world.clock.events,
        "digest": world.clock.digest,
    }


def show(facts: dict[str, Any]) -> None:
    """Print them, one a line."""
    for name, value in facts.items():
        print(f"  {name:22} {value:.4g}" if isinstance(value, float) else f"  {name:22} {value}", flush=True)


def run(scene: Scene, seconds: float, words: str) -> dict[str, Any]:
    """Play a scene and say how it went and what it took."""
    begun = time.monotonic()
    simulation = Simulation(scene)
    world = simulation.run(seconds)
    facts = facts_of(world, seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{words}: {time.monotonic() - begun:.1f} s, at most {memory:.0f} MiB so far", flush=True)
    show(facts)
    return facts


def day(options: argparse.Namespace) -> None:
    """500 nodes, 24 hours, everything that happens to laptops."""
    scene = Scene(
        seed=options.seed, nodes=options.nodes or 500, courses=options.nodes or 500, crash_rate=0.05 / DAY,
        leave_rate=0.05 / DAY, flappers=0.02, publishes=50 / DAY, lookups=500 / DAY, **HALF_LAPTOPS,
    )  # fmt: skip
    run(scene, DAY, f"{scene.nodes} nodes, 24 hours")


def week(options: argparse.Namespace) -> None:
    """A large network."""
    nodes = options.nodes or 10_000
    scene = Scene(
        seed=options.seed, nodes=nodes, courses=nodes, crash_rate=0.02 / DAY, leave_rate=0.02 / DAY,
        lookups=1000 / WEEK, **HALF_LAPTOPS,
    )  # fmt: skip
    facts = run(scene, WEEK, f"{nodes} nodes, a week")
    if options.save:
        with options.save.open("a") as file:
            file.write(json.dumps(facts | {"large": True}) + "\n")


def seeds(options: argparse.Namespace) -> None:
    """Many small histories; ends with 1 if any broke a rule."""
    bad = []
    begun = time.monotonic()
    for seed in range(options.seed, options.seed + options.seeds):
        try:
            world = chaos.play(seed)
            print(
                f"seed {seed}: {len(world.lost)} lost, {world.clock.events} events, {world.clock.digest[:16]}",
                flush=True,
            )
        except AssertionError as fault:
            bad.append(seed)
            print(f"seed {seed}: {fault}", flush=True)
    print(f"{options.seeds} seeds, {time.monotonic() - begun:.0f} s, {len(bad)} broke a rule {bad}")
    if bad:
        sys.exit(1)


def compare(options: argparse.Namespace) -> None:
    """Played and calculated, side by side."""
    print(f"{'':44} {'played':>14} {'formula':>9} {'error':>6} {'apart':>12}")
    for name, (scene, seconds) in agreement.SCENES.items():
        found = agreement.compare(replace(scene, seed=options.seed), seconds, options.seeds)
        print(
            f"{name:44} {found.lost:5} of {found.courses:5} {found.expected:9.1f} {found.error:6.1f} "
            f"{found.sigmas:+6.1f} sigma",
            flush=True,
        )
    for copies in (3, 5, 8):
        lost = played = 0
        for seed in range(options.seeds):
            simulation = Simulation(Scene(seed=options.seed + seed, nodes=20, courses=200, copies=copies, size=MIB))
            simulation.vanish(0.5)
            lost, played = lost + len(simulation.world.lost), played + 200
        expected = 100 * agreement.durability.mass_loss(20, copies, 10)
        print(
            f"half of 20 nodes vanish, {copies} copies: {100 * lost / played:.2f} % played, {expected:.2f} % formula",
            flush=True,
        )


def sweep(options: argparse.Namespace) -> None:
    """A week at several rates of leaving; ``--save`` grows by a line with each."""
    nodes = options.nodes or 1000
    for laptops in options.laptops:
        for rate in RATES:
            scene = Scene(
                seed=options.seed, nodes=nodes, courses=2 * nodes, crash_rate=rate / DAY, lookups=300 / WEEK,
                **(HALF_LAPTOPS | {"laptops": laptops}),
            )  # fmt: skip
            facts = run(scene, WEEK, f"{nodes} nodes, a week, {100 * rate:g} % leaving a day, {laptops:.0%} laptops")
            if options.save:
                with options.save.open("a") as file:
                    file.write(json.dumps(facts) + "\n")


def sessions(options: argparse.Namespace) -> None:
    """Lookups among nodes that are on and off for ever shorter times; no courses, nobody leaves for good."""
    nodes = options.nodes or 1000
    for hours in (8.0, 2.9, 1.0, 0.5, 0.25):  # 2.9: half are gone after two hours
        scene = Scene(
            seed=options.seed, nodes=nodes, courses=0, laptops=1.0, session=hours * HOUR, absence=hours * HOUR,
            lookups=300 / (3 * HOUR),
        )  # fmt: skip
        facts = run(scene, 3 * HOUR, f"{nodes} nodes on for {hours:g} h and off for as long")
        if options.save:
            with options.save.open("a") as file:
                file.write(json.dumps(facts | {"session_hours": hours}) + "\n")


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("day", "seeds", "compare", "week", "sweep", "sessions"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--laptops", type=float, nargs="*", default=[0.0, 0.5], help="for sweep: shares of laptops")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    options.seeds = options.seeds or {"seeds": 200}.get(options.what, 12)
    commands = {"day": day, "seeds": seeds, "compare": compare, "week": week, "sweep": sweep, "sessions": sessions}
    commands[options.what](options)


if __name__ == "__main__":
    main()
