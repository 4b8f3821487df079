"""One fast provider alone, then beside one that is ten times slower, one that is silent and one that lies.

    python benchmarks/providers.py [--runs 5] [--mib 256] [--work DIR] [slow] [silent] [liar]

Named kinds only are put beside the fast one, to see what each of them costs; without a name all three.

The fast and the slow provider and the fetcher are real nodes in processes of their own (the slow one by its own upload
limit); the silent one and the liar are those of the tests, in this process. The liar has to be named as banned.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adversary import peers
from courses import Course, make_course
from travel.test_hostile import Honest, providers
from verdicts import spread
from work import Node, progress

CHUNK = 512 * 1024


def with_limit(home: Path, bytes_a_second: int) -> Node:
    """A node that sends no faster than that, to the LAN either."""
    home.mkdir(parents=True)
    home.chmod(0o700)
    (home / "config.toml").write_text(f"[transfer]\nupload_limit = {bytes_a_second}\nlimit_lan = true\n")
    return Node(home)


def get(room: Path, course: Course, sources: list[str]) -> tuple[float, list[str]]:
    """A fresh fetcher's seconds, and whom it banned."""
    fetcher = Node(room / "fetcher")
    try:
        words = [part for source in sources for part in ("--from", source)]
        got = fetcher.run("get", course.hash.hex(), "-o", room / "out", *words)
        for entry in course.index.files:
            expected = b"".join(course.chunks[entry.first : entry.first + entry.count])
            if (room / "out" / entry.path).read_bytes() != expected:
                sys.exit("the bytes differ")
        banned = [str(row["peer"]) for row in fetcher.run("node", "status")["banned"]]
        return float(got["seconds"]), banned
    finally:
        fetcher.stop()
        shutil.rmtree(room / "fetcher", ignore_errors=True)
        shutil.rmtree(room / "out", ignore_errors=True)
        os.sync()


class Beside(NamedTuple):
    """One value a run."""

    alone: list[float]
    """Seconds from the fast one alone."""
    beside: list[float]
    """Seconds with the others beside it."""
    named: list[bool]
    """Whether the liar was banned and named."""


def measure(room: Path, size: int, kinds: Sequence[str], runs: int) -> Beside:
    """A course of ``size`` bytes, in turn from the fast provider alone and with those of ``kinds`` beside it."""
    course = make_course(chunks=max(1, size // CHUNK), size=CHUNK)
    found = Beside([], [], [])
    fast = Node(room / "fast")
    try:
        with providers(Honest(course)) as honest:
            fast.run("get", course.hash.hex(), "-o", room / "copy", "--from", honest[0])
        shutil.rmtree(room / "copy")
        first, _ = get(room, course, [fast.address])
        slow = with_limit(room / "slow", int(len(course.chunks) * CHUNK / first / 10))
        try:
            slow.run("get", course.hash.hex(), "-o", room / "copy", "--from", fast.address)
            shutil.rmtree(room / "copy")
            for _ in range(runs):
                found.alone.append(get(room, course, [fast.address])[0])
                with providers(peers.Silent(course), peers.Liar(course)) as (silent, liar):
                    others = {"slow": slow.address, "silent": silent, "liar": liar}
                    seconds, banned = get(room, course, [*(others[kind] for kind in kinds), fast.address])
                found.beside.append(seconds)
                found.named.append(any(peer in liar for peer in banned))
                progress(f"alone {found.alone[-1]:.2f} s, beside {', '.join(kinds)} {seconds:.2f} s")
        finally:
            slow.stop()
    finally:
        fast.stop()
    return found


def main() -> None:
    """Both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=["slow", "silent", "liar", []], default=[])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    kinds = given.kinds or ["slow", "silent", "liar"]
    with tempfile.TemporaryDirectory(prefix="p2plearn-providers-", dir=given.work) as place:
        alone, beside, named = measure(Path(place), given.mib << 20, kinds, given.runs)
    print(f"{given.mib} MiB from the fast one alone, s               {spread(alone)}")
    print(f"{'beside ' + ', '.join(kinds) + ', s':47}{spread(beside)}")
    print(
        f"ratio, run by run                              {spread([b / a for a, b in zip(alone, beside, strict=True)])}"
    )
    if "liar" in kinds:
        print(f"the liar was banned and named in               {sum(named)} of {given.runs} runs")


if __name__ == "__main__":
    main()
