"""Whether a node with many courses tells all of them again in time: real nodes, a process each, on loopback.

    python benchmarks/reprovide.py [--courses 10000] [--peers 4] [--repeat 900] [--rounds 2]

Every other node is started while the first tells its courses; then the first is watched for that many rounds of
``dht.repeat`` (12 h by default; shortened here, so that every round is a race against a clock that runs fast). Printed
for each tenth of a round: courses that the network knows of, how many were told (again), how many are late and by how
much, CPU and memory. At the end another node, which met one of the peers only,
looks some of the courses up. Exits with 1 if a course was late, not told in every round, or not found.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scale import FEED
from work import Node

LOOKED_UP = 50


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--courses", type=int, default=10_000)
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--repeat", type=float, default=900.0, help="seconds of a round (dht.repeat)")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2plearn-reprovide-") as place:
        return run(Path(place), given)


def run(room: Path, given: argparse.Namespace) -> int:
    """The whole of it, in ``room``."""
    home = room / "home"
    Node(home).stop()
    subprocess.run([sys.executable, "-P", "-c", FEED, home, room, str(given.courses)], check=True, capture_output=True)
    peers = [Node(room / "peer0")]
    started: list[Node] = peers
    try:
        peers += [Node(room / f"peer{n}", "--bootstrap", peers[0].address) for n in range(1, given.peers)]
        teller = Node(home, "--bootstrap", peers[0].address, env={"P2PLEARN_DHT_REPEAT": str(given.repeat)})
        started = [*peers, teller]
        began, late, told = time.perf_counter(), 0, dict[str, float]()
        while (told := teller.run("node", "status")["dht"])["announced"] < given.courses:
            time.sleep(1)
        print(f"{given.courses} courses told to {given.peers} nodes in {time.perf_counter() - began:.0f} s", flush=True)
        base, cpu = told["tellings"], teller.cpu()
        for tenth in range(10 * given.rounds):
            time.sleep(given.repeat / 10)
            told = teller.run("node", "status")["dht"]
            late = max(late, int(told["late"]))
            print(
                f"round {tenth // 10 + 1}, {10 * (tenth % 10 + 1):3} %: {told['announced']} known to peers, "
                f"{told['tellings'] - base} told again, {told['late']} late, by {told['lateness']:.0f} s at most; "
                f"CPU {teller.cpu() - cpu:.0f} s, {teller.memory('VmRSS'):.0f} MiB",
                flush=True,
            )
        stranger = Node(room / "stranger", "--bootstrap", peers[-1].address)
        started.append(stranger)
        sample = random.Random(1).sample([row["course"] for row in teller.run("list")["courses"]], LOOKED_UP)
        found = 0
        for course in sample:
            got = stranger.run("get", course, "-o", room / "out" / course)
            found += got["course"] == course
        print(f"{found} of {len(sample)} found and fetched by a node that met another peer only")
        # What is told a tenth early in every round fits in more often than once; told less often is what is wrong.
        held = not late and told["tellings"] - base >= given.courses * (given.rounds - 0.2) and found == len(sample)
    finally:
        for node in started:
            node.stop()
    print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
