"""What a new version costs: 1 % of a course edited, at some places, half of them by insertion; how many bytes move.

    python benchmarks/update.py [--mib 1024] [--work DIR] [--places 1 8 32]

Prints, for each number of places, the share of the course that the fetcher of the old version fetches of the new one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parent))

from work import made_file, nodes, same


def edited(source: Path, target: Path, places: int, seed: int = 0) -> None:
    """1 % of the bytes changed at so many places spread over the file; every second one is an insertion."""
    size = source.stat().st_size
    each, rng = size // 100 // places, random.Random(seed << 32 | places)
    with source.open("rb") as old, target.open("wb") as new:
        for place in range(places):
            end = (place + 1) * size // places
            at = rng.randrange(old.tell(), end - each)
            _copy(old, new, at - old.tell())
            new.write(rng.randbytes(each))
            if place % 2 == 0:
                old.seek(each, 1)
            _copy(old, new, end - old.tell())


def _copy(old: BinaryIO, new: BinaryIO, count: int) -> None:
    while count > 0:
        block = old.read(min(count, 1 << 22))
        new.write(block)
        count -= len(block)


def update(room: Path, source: Path, places: int, seed: int = 0) -> tuple[float, float]:
    """Publish, get, edit, publish, get: the share of the bytes that moved the second time, and the seconds it took."""
    course = room / f"edited-{places}" / "course.bin"
    course.parent.mkdir()
    course.hardlink_to(source)
    with nodes(room, 2) as (a, b):
        words = ("--title", "A course")
        first = a.run("publish", course, *words)["course"]
        b.run("get", first, "--from", a.address, "-o", room / "out")
        course.unlink()
        edited(source, course, places, seed)
        second = a.run("publish", course, *words)["course"]
        got = b.run("get", second, "--from", a.address, "-o", room / "out")
        if not same(course, room / "out" / course.name):
            sys.exit("the bytes differ")
        share = got["fetched_bytes"] / course.stat().st_size
    shutil.rmtree(course.parent)
    shutil.rmtree(room / "out")
    return share, float(got["seconds"])


def main() -> None:
    """For each number of places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--places", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2plearn-update-", dir=given.work) as place:
        room = Path(place)
        source = made_file(room / "course.bin", given.mib << 20)
        for places in given.places:
            share, seconds = update(room, source, places)
            print(f"1 % edited at {places:3} places: {share:.2%} of the bytes moved, {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
