"""p2plearn by itself: start, idle, publish, get. Prints one line a figure: median (least-most).

    python benchmarks/figures.py [--work DIR] [--runs N] [start|commands|idle|file|small]...

DIR (default: a temporary one) is where everything lies; on a tmpfs it takes the disk out of the figures.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc
from verdicts import spread
from work import made_file, made_folder, nodes, same

MB = 1e6


def start(room: Path, runs: int) -> None:
    """From the command to ready; and what ``--help`` takes."""
    ready, helped = [], []
    for _ in range(runs):
        with nodes(room, 1) as (node,):
            ready.append(node.start_seconds)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-m", "p2plearn", "--help"], check=True, stdout=subprocess.DEVNULL)
        helped.append(time.perf_counter() - began)
    print(f"node start --detach, s      {spread(ready)}")
    print(f"p2plearn --help, s          {spread(helped)}")


COMMAND_RUNS = 20
COMMANDS = {"--help": ("--help",), "list": ("list",), "get": ("get", "ab" * 32), "node status": ("node", "status")}


def commands(room: Path) -> None:
    """What a command takes before it asks the node, in CPU time, the least of ``COMMAND_RUNS``: there is no node."""

    def milliseconds(*words: str) -> float:
        took = []
        for _ in range(COMMAND_RUNS):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-P", *words], capture_output=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return 1e3 * min(took)

    print(f"Python with click, CPU ms    {milliseconds('-c', 'import click'):.0f}")
    for name, words in COMMANDS.items():
        took = milliseconds("-m", "p2plearn", "--home", str(room / "none"), *words)
        print(f"{f'p2plearn {name}, CPU ms':<28} {took:.0f}")


class Idle(NamedTuple):
    """What a node takes that is left alone, one value a run."""

    memory: list[float]
    """MiB, resident."""
    load: list[float]
    """Percent of a core."""
    woken: list[float]
    """Wake-ups a second, of all its threads together."""


def idle(room: Path, runs: int) -> Idle:
    """A node that was left alone."""
    found = Idle([], [], [])
    for _ in range(runs):
        with nodes(room, 1) as (node,):
            time.sleep(5)
            began, before, asleep = time.perf_counter(), node.cpu(), proc.sleeps(node.pid)
            time.sleep(20)
            seconds = time.perf_counter() - began
            found.load.append((node.cpu() - before) / seconds * 100)
            woken = (count - asleep.get(thread, 0) for thread, count in proc.sleeps(node.pid).items())
            found.woken.append(sum(woken) / seconds)
            found.memory.append(node.memory("VmRSS"))
    return found


def travel(room: Path, source: Path, size: int, runs: int) -> None:
    """Publish on one node, get on another, compare every byte."""
    figures: dict[str, list[float]] = {}
    for run in range(runs):
        out = room / f"out{run}"
        with nodes(room, 2) as (a, b):
            os.sync()
            published = a.run("publish", source)
            os.sync()
            cpu_a, cpu_b = a.cpu(), b.cpu()
            got = b.run("get", published["course"], "--from", a.address, "-o", out)
            row = {
                "publish, s": published["seconds"],
                "publish, MB/s": size / MB / published["seconds"],
                "get, s": got["seconds"],
                "get, MB/s": size / MB / got["seconds"],
                "publisher's peak memory, MiB": a.memory(),
                "getter's peak memory, MiB": b.memory(),
                "publisher's CPU during the get, s": a.cpu() - cpu_a,
                "getter's CPU, s": b.cpu() - cpu_b,
            }
            if not same(source, out / source.name if source.is_file() else out):
                sys.exit(f"{source}: the bytes differ")
        for name, value in row.items():
            figures.setdefault(name, []).append(value)
        shutil.rmtree(out)
    for name, values in figures.items():
        print(f"{source.name}: {name:36} {spread(values)}", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", default=["start", "commands", "idle", "file", "small"])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2plearn-bench-", dir=given.work) as place:
        room = Path(place)
        for item in given.items:
            if item == "start":
                start(room, given.runs)
            elif item == "commands":
                commands(room)
            elif item == "idle":
                found = idle(room, min(given.runs, 3))
                print(f"idle memory, MiB            {spread(found.memory, 0)}")
                print(f"idle CPU, % of a core       {spread(found.load)}")
                print(f"idle wake-ups a second      {spread(found.woken, 1)}")
            elif item == "file":
                travel(room, made_file(room / "1-GiB-file", 1 << 30), 1 << 30, given.runs)
            elif item == "small":
                travel(room, made_folder(room / "10000-files-of-4-KiB", 10_000, 4096), 40_960_000, given.runs)
            else:
                parser.error(f"there is no item {item!r}")


if __name__ == "__main__":
    main()
