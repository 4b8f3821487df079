"""A real node in a storm: hostile peers in other processes, while an honest node fetches from it.

    python benchmarks/storm.py [--frames N] [--peers N] [--seconds S] [--attackers N] [SCENARIO]...

Scenarios: a protocol id, ``multistream``, ``yamux`` or ``tls`` (N mutated frames of it from live connections), ``slow``
(peers of a byte in ten seconds in handshake, header and body), ``resets``, ``unread`` (windows never read), ``bombs``
(lengths of 0, -1, 2^31, 2^63, eleven-byte varints, 4 GiB). All of them by default, one after the other against the
same node. Prints a line each: what was done, how long a get of 8 MiB took before and meanwhile, memory and descriptors
before, at most and after, CPU seconds of the node (the gets' part included). Exits with 1 when the node died, a get
brought wrong bytes or none, or something was not given back.

Everything stays on loopback. ``mixed`` is N frames of each protocol, bombs and resets, all at once; ``--small`` some
of that, for every day.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc
from frames import STREAMS, WIRES
from work import Node, made_file, nodes, same

OTHERS = ("slow", "resets", "unread", "bombs", "mixed")
SLACK_MIB = 64
"""Memory that may stay: what was needed at once at worst is kept for the next time (a second and a third storm of
resets add 2 MiB each), and the tables (standing, peerstore, rates) have their caps."""
SLACK_FILES = 8
COURSE_BYTES = 8 << 20
HOSTILE = str(Path(__file__).resolve().parent / "hostile.py")


class Watch:
    """Memory (MiB) and descriptors of a process, at most so far."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self.memory = self.files = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            memory, files = now(self._node)
            self.memory, self.files = max(self.memory, memory), max(self.files, files)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def now(node: Node) -> tuple[float, int]:
    """Memory in MiB and open descriptors; zeros when the process is gone."""
    try:
        return node.memory("VmRSS"), proc.files(node.pid)
    except OSError:
        return 0.0, 0


def fetch(getter: Node, course: str, source: Path, target: Node, room: Path) -> float:
    """Get a course that the getter doesn't have, byte by byte the same; seconds."""
    out = room / "out"
    began = time.perf_counter()
    getter.run("get", course, "--from", target.address, "-o", out)
    seconds = time.perf_counter() - began
    if not same(source, out / source.name):
        sys.exit("a get brought wrong bytes")
    shutil.rmtree(out)
    getter.run("remove", course, "--yes")
    return seconds


def storm(name: str, given: argparse.Namespace, room: Path, target: Node, getter: Node, course: str) -> bool:
    """One scenario; whether the node stood it."""
    source = room / "course.bin"
    time.sleep(2)
    memory, files = now(target)
    quiet = fetch(getter, course, source, target, room)
    watch = Watch(target)
    what, count = "frames", given.frames // given.attackers
    if name in OTHERS:
        counts = {"slow": given.peers // given.attackers, "bombs": 1, "mixed": count}
        what, count = name, counts.get(name, given.seconds)
    began, cpu = time.perf_counter(), target.cpu()
    attackers = [
        subprocess.Popen(
            [sys.executable, HOSTILE, what, target.address, course, str(count), str(seed), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(given.attackers)
    ]
    try:
        during: list[float] = []
        while not during or any(attacker.poll() is None for attacker in attackers):
            during.append(fetch(getter, course, source, target, room))
        figures = [json.loads(attacker.communicate()[0] or "{}") for attacker in attackers]
    finally:
        for attacker in attackers:
            if attacker.poll() is None:
                attacker.kill()
            attacker.wait()
    seconds, cpu = time.perf_counter() - began, target.cpu() - cpu
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (now(target)[0] > memory + SLACK_MIB or now(target)[1] > files + SLACK_FILES):
        time.sleep(0.5)
    watch.end()
    memory_after, files_after = now(target)
    status = target.run("node", "status")
    print(
        f"{name}: {told(figures)} in {seconds:.0f} s ({cpu:.1f} s of the node's CPU); "
        f"get {quiet:.2f} s before, {min(during):.2f}-{max(during):.2f} s "
        f"in the storm ({len(during)}); MiB {memory:.0f} -> {watch.memory:.0f} -> {memory_after:.0f}; descriptors "
        f"{files} -> {watch.files:.0f} -> {files_after}; faults {status['faults']}; "
        f"restarts {status['network_restarts']}",
        flush=True,
    )
    fine = memory_after <= memory + SLACK_MIB and files_after <= files + SLACK_FILES and bool(figures[0])
    return fine and not status["network_restarts"] and status["pid"] == target.pid


def told(figures: list[dict[str, Any]]) -> str:
    """The figures of all attackers together."""
    if any(isinstance(value, dict) for value in figures[0].values()):
        return "; ".join(
            f"{kind}: {sum(each[kind]['peers'] for each in figures)} cut within "
            f"{max(each[kind]['longest'] for each in figures):.1f} s"
            for kind in figures[0]
        )
    return ", ".join(f"{sum(each.get(kind, 0) for each in figures):,} {kind}" for kind in figures[0]) or "nothing"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--peers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--attackers", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    everything = [*STREAMS, *WIRES, *OTHERS]
    unknown = set(given.scenarios) - set(everything)
    if unknown:
        parser.error(f"there is no {unknown.pop()!r}; there are {', '.join(everything)}")
    scenarios = given.scenarios or everything[:-1]
    if given.small:
        given.frames, given.peers, given.seconds, given.attackers = 10, 12, 2.0, 1
        scenarios = given.scenarios or ["mixed"]
    os.environ.setdefault("P2PLEARN_CUSTODY_HEARTBEAT", "5")
    with tempfile.TemporaryDirectory(prefix="p2plearn-storm-") as place, nodes(Path(place), 2) as (target, getter):
        room = Path(place)
        course = target.run("publish", made_file(room / "course.bin", COURSE_BYTES))["course"]
        fetch(getter, course, room / "course.bin", target, room)
        failed = [name for name in scenarios if not storm(name, given, room, target, getter, course)]
    if failed:
        sys.exit(f"not stood: {', '.join(failed)}")


if __name__ == "__main__":
    main()
