"""An hour of gets: whether memory and open files of publisher and getter stay where they are.

    python benchmarks/soak.py [--minutes 60] [--each 5] [--bytes 8000000] [--work DIR]

``--each`` gets a minute, in turn of four courses, each compared byte by byte, then forgotten by the getter, so that
every get comes over the network anew. Sampled after each minute: VmRSS and open descriptors of both nodes. Judged is
the last quarter of the samples against the second (the first is for warming up), by their medians: memory may be
5 % more (less is no leak) and descriptors may differ by 2. Exits with 1 when they don't, or when a get fails.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc
from work import Node, made_file, nodes, same

COURSES = 4
MOST_GROWTH = 0.05
MOST_FILES = 2


@dataclass
class Samples:
    """What one node held, a sample a minute."""

    memory: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)

    def take(self, node: Node) -> None:
        """One more sample: MiB and descriptors."""
        self.memory.append(node.memory("VmRSS"))
        self.files.append(proc.files(node.pid))


def quarters(values: list[float]) -> tuple[float, float]:
    """Medians of the second and of the last quarter (of all there is, where that is too little)."""
    size = max(1, len(values) // 4)
    return statistics.median(values[size : 2 * size] or values), statistics.median(values[-size:])


def soak(room: Path, given: argparse.Namespace) -> bool:
    """Run it and print what was seen; whether it held."""
    failed = done = 0
    with nodes(room, 2) as (publisher, getter):
        sources = [made_file(room / f"course{n}.bin", given.bytes + n) for n in range(COURSES)]
        courses = [str(publisher.run("publish", source)["course"]) for source in sources]
        seen = {"publisher": Samples(), "getter": Samples()}
        begun = time.monotonic()
        for minute in range(given.minutes):
            for turn in range(given.each):
                at = done % COURSES
                out = room / "out"
                try:
                    got = getter.run("get", courses[at], "-o", out, "--from", publisher.address)
                    if got["fetched_bytes"] < given.bytes or not same(sources[at], out / sources[at].name):
                        failed += 1
                    getter.run("remove", courses[at], "--yes")
                except Exception as error:  # counted, told, and on with the next
                    print(f"get {done}: {error}", flush=True)
                    failed += 1
                shutil.rmtree(out, ignore_errors=True)
                done += 1
                due = begun + 60 * minute + 60 * (turn + 1) / given.each
                time.sleep(max(0.0, due - time.monotonic()))
            for name, node in (("publisher", publisher), ("getter", getter)):
                seen[name].take(node)
            print(f"{minute + 1:3} min " + " ".join(
                f" {name} {each.memory[-1]:.1f} MiB {each.files[-1]:.0f} files" for name, each in seen.items()
            ), flush=True)  # fmt: skip
    held = not failed
    print(f"{done} gets in {(time.monotonic() - begun) / 60:.1f} min, {failed} failed")
    for name, each in seen.items():
        (memory, later), (files, files_later) = quarters(each.memory), quarters(each.files)
        growth = later / memory - 1
        held = held and growth <= MOST_GROWTH and abs(files_later - files) <= MOST_FILES
        print(f"{name}: memory {memory:.1f} -> {later:.1f} MiB ({growth:+.1%}), files {files:.0f} -> {files_later:.0f}")
    return held


def main() -> int:
    """Parse, run, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--each", type=int, default=5, help="gets a minute")
    parser.add_argument("--bytes", type=int, default=8_000_000, help="of a course")
    parser.add_argument("--work", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as room:
        held = soak(Path(room), given)
    print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
