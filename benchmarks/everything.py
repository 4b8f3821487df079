"""Everything at once: nodes, gets, ratings, churn, and two attackers of each named kind, for an hour.

    python benchmarks/everything.py [--minutes 60] [--nodes 20] [--courses 20] [--bytes 1000000] [--each 2]

First a quiet time (a sixth of it): gets only. Then, beside the gets: every 20 s a node is killed (or leaves) and comes
back after 20 s, never more than one at a time; every 5 s one rates a course; and the attackers of ``attackers.py``
claim to have every course. At the end all come back, and it is asked: is every course whole on as many nodes as
promised, byte for byte; does every node say the same of what people rated; how long took honest gets beside the quiet
ones (medians and 95th percentiles), what the slowest of them waited for, and which kinds of attackers were banned.
Exits with 1 if something was lost or wrong, a get failed, a fault of ours ended a node's network part, or gets took
more than twice as long, in the median or the 95th percentile. Takes the minutes, and up to ten more before and after;
20 nodes and the attackers take 3 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc
from churn import Node, until_whole

from p2plearn.errors import P2plearnError
from p2plearn.operations import GetRequest, PublishRequest
from p2plearn.people import RateRequest, RatingsRequest

GRACE = 15.0
GET_SECONDS = 120.0
LEAST_GETS = 5
CHURN_SECONDS = 20.0
RATE_SECONDS = 5.0
SETTLE_SECONDS = 300.0
SLOWEST = 8
"""Gets of which it is said what they waited for."""


@dataclass
class Seen:
    """What happened so far."""

    quiet: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: int = 0
    wrong: int = 0
    kills: int = 0
    leaves: int = 0
    ratings: dict[str, set[int]] = field(default_factory=dict)
    slow: list[tuple[float, str]] = field(default_factory=list)
    banned: set[str] = field(default_factory=set)
    faults: int = 0
    restarts: int = 0
    memory: float = 0.0


class Trial:
    """One run: the nodes, what they published, what was seen."""

    def __init__(self, room: Path, given: argparse.Namespace) -> None:
        self.room, self.given = room, given
        self.rng = random.Random(4)
        self.nodes: list[Node] = []
        self.sources: dict[str, Path] = {}
        self.seen = Seen()
        self.stop = threading.Event()
        self.resting: set[int] = set()  # nodes that are down, or about to be: nothing is asked of them

    def begin(self) -> None:
        """Start the nodes, publish, and wait for the copies."""
        for number in range(self.given.nodes):
            self.nodes.append(Node(self.room / f"n{number}", GRACE, [node.address for node in self.nodes[:2]]))
        for number in range(self.given.courses):
            source = self.room / f"course{number}.bin"
            source.write_bytes(self.rng.randbytes(self.given.bytes))
            client = self.nodes[number % len(self.nodes)].client
            self.sources[client.publish(PublishRequest(str(source)), lambda _: None).course] = source
        seconds, lost = until_whole(self.nodes, self.sources)
        print(
            f"{len(self.nodes)} nodes, {len(self.sources)} courses, whole after {seconds:.0f} s; {len(lost)} lost",
            flush=True,
        )

    def get_for(self, seconds: float, times: list[float]) -> None:
        """Gets by nodes that don't have the course, one after the other, until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(times) < LEAST_GETS:
            began = time.monotonic()
            self.get_one(times)
            time.sleep(max(0.0, 2.0 - (time.monotonic() - began)))

    def get_one(self, times: list[float]) -> None:
        """One get, timed and compared."""
        at = self.rng.choice([n for n in range(2, len(self.nodes)) if n not in self.resting])
        node, out = self.nodes[at], self.room / "out"
        process, course = node.process, ""
        try:
            lacking = sorted(self.sources.keys() - node.holds())
            if not lacking:
                return
            course = self.rng.choice(lacking)
            began = time.monotonic()
            waits: list[tuple[float, str]] = []
            result = node.client.get(
                GetRequest(course, str(out), timeout=GET_SECONDS),
                lambda told: waits.append((time.monotonic() - began, f"{told.stage} {told.waiting_for}".strip())),
            )
            seconds = time.monotonic() - began
            times.append(seconds)
            self.seen.slow.append((seconds, f"n{at}, {result.providers} gave; {_longest(waits, seconds)}"))
            self.seen.wrong += (out / self.sources[course].name).read_bytes() != self.sources[course].read_bytes()
            node.client.remove(course, last_copy=True)  # who has it may be down
        except P2plearnError as problem:
            if at in self.resting or node.process is not process:
                self.seen.interrupted += 1  # its own node was killed
            else:
                self.seen.failed.append(f"{course[:8]} at n{at}: {problem.message}")
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def churn(self) -> None:
        """Nodes go and come back, one at a time."""
        rng = random.Random(5)
        while not self.stop.wait(CHURN_SECONDS):
            at = rng.randrange(2, len(self.nodes))
            self.resting.add(at)
            node = self.nodes[at]
            self.note(node)
            try:
                if rng.random() < 0.25:
                    node.leave()
                    self.seen.leaves += 1
                else:
                    node.kill()
                    self.seen.kills += 1
            except P2plearnError as problem:
                print(f"  n{at} would not leave: {problem.message}", flush=True)
                node.kill()
            self.stop.wait(CHURN_SECONDS)
            node.start()
            self.resting.discard(at)

    def rate(self) -> None:
        """People rate courses."""
        rng = random.Random(6)
        while not self.stop.wait(RATE_SECONDS):
            at = rng.choice([n for n in range(len(self.nodes)) if n not in self.resting])
            course = rng.choice(list(self.sources))
            try:
                self.nodes[at].client.people("rate", RateRequest(course, rng.randint(1, 5)))
            except P2plearnError:
                continue  # not acknowledged: nothing was promised
            self.seen.ratings.setdefault(course, set()).add(at)

    def ratings_agree(self) -> list[str]:
        """Courses that some holder counts other ratings of than were acknowledged."""
        off = []
        for course, raters in self.seen.ratings.items():
            for node in self.nodes:
                if course in node.holds():
                    count = int(node.client.people("ratings", RatingsRequest(course))["everyone"]["count"])
                    if count != len(raters):
                        off.append(f"{course[:8]} at {node.home.name}: {count} of {len(raters)}")
        return off

    def note(self, node: Node) -> None:
        """See whom a node has banned, before it forgets."""
        with contextlib.suppress(P2plearnError, OSError):
            state = node.client.status()
            self.seen.banned |= {str(row["peer"]) for row in state["banned"]}
            self.seen.faults += int(state["faults"])
            self.seen.restarts += int(state["network_restarts"])
            self.seen.memory = max(self.seen.memory, proc.memory(int(state["pid"]), "VmHWM"))

    def storm(self, seconds: float) -> None:
        """All of it at once."""
        words = [sys.executable, "-P", str(Path(__file__).with_name("attackers.py")), "--nodes"]
        words += [",".join(node.address for node in self.nodes), "--each", str(self.given.each), *self.sources]
        attackers = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert attackers.stdin is not None
        assert attackers.stdout is not None
        threads: list[threading.Thread] = []
        try:
            said = attackers.stdout.readline().strip()
            if not said.startswith("{"):
                raise RuntimeError("the attackers did not come up")
            kinds: dict[str, str] = json.loads(said)
            print(f"{len(kinds)} attackers", flush=True)
            threads = [threading.Thread(target=act) for act in (self.churn, self.rate)]
            for thread in threads:
                thread.start()
            self.get_for(seconds, self.seen.busy)
            for node in self.nodes:
                if node.up:
                    self.note(node)
            bans = sorted({kinds.get(peer, "an honest node") for peer in self.seen.banned})
            print(
                f"faults counted {self.seen.faults}, banned {len(self.seen.banned)} ({', '.join(bans) or 'none'}), "
                f"network parts begun anew after a fault {self.seen.restarts}, largest node {self.seen.memory:.0f} MiB",
                flush=True,
            )
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
            attackers.stdin.close()
            print(f"conversations: {attackers.stdout.read().strip()}")
            attackers.stdout.close()
            attackers.wait(60)

    def judge(self) -> bool:
        """Print what was seen; whether all of it held."""
        seen = self.seen
        seconds, lost = until_whole(self.nodes, self.sources, SETTLE_SECONDS)
        deadline = time.monotonic() + SETTLE_SECONDS
        while (off := self.ratings_agree()) and time.monotonic() < deadline:
            time.sleep(5)
        reader = self.nodes[0].client
        wrong = seen.wrong
        for course, source in self.sources.items():
            out = self.room / "last"
            reader.get(GetRequest(course, str(out), timeout=GET_SECONDS), lambda _: None)
            wrong += (out / source.name).read_bytes() != source.read_bytes()
            shutil.rmtree(out)
        print(f"{seen.kills} kills, {seen.leaves} leaves; whole again after {seconds:.0f} s; {len(lost)} courses lost")
        said = sum(map(len, seen.ratings.values()))
        print(f"{said} ratings acknowledged; holders that count otherwise: {off or 'none'}")
        print(f"gets: {len(seen.quiet)} quiet, {len(seen.busy)} in the storm, {len(seen.failed)} failed, "
              f"{seen.interrupted} interrupted by the death of their own node, {wrong} wrong")  # fmt: skip
        for line in seen.failed:
            print(f"  failed: {line}")
        for seconds, what in sorted(seen.slow, reverse=True)[:SLOWEST]:
            print(f"  {seconds:.1f} s: {what}")
        ratio = statistics.median(seen.busy) / statistics.median(seen.quiet)
        tail = _p95(seen.busy) / _p95(seen.quiet)
        print(
            f"quiet: {_spread(seen.quiet)}; storm: {_spread(seen.busy)}; medians {ratio:.2f} to 1, p95 {tail:.2f} to 1"
        )
        return not (lost or off or wrong or seen.failed or seen.restarts) and ratio <= 2 and tail <= 2


def _longest(waits: list[tuple[float, str]], end: float) -> str:
    """What a get was at for longest, and for how many seconds."""
    spent: dict[str, float] = {}
    for (at, what), (until, _) in zip(waits, [*waits[1:], (end, "")], strict=True):
        spent[what] = spent.get(what, 0.0) + until - at
    longest = max(spent, key=spent.__getitem__, default="")
    return f"{spent[longest]:.1f} s {longest}" if longest else "nothing said"


def _p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * (len(times) - 1))]


def _spread(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s, p95 {_p95(times):.2f}, most {max(times):.2f}"


def main() -> int:
    """Parse, run, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--courses", type=int, default=20)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=2, help="attackers of each kind")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        trial = Trial(Path(room), given)
        try:
            trial.begin()
            trial.get_for(10 * given.minutes, trial.seen.quiet)
            trial.storm(50 * given.minutes)
            held = trial.judge()
        finally:
            for node in trial.nodes:
                node.kill()
    print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
