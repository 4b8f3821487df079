"""Courses while nodes come and go: real nodes on this machine, what is lost, how long and how many bytes repair takes.

    python benchmarks/churn.py [--nodes 40] [--courses 100] [--bytes 200000] [--grace 8] [--work DIR]
                               [pairs|leave|spaced|half]...

leave: half of the nodes leave at once. spaced: half are killed, each when all is whole again. pairs: the publisher's
two helpers, that is two of the three holders of a course, killed together, again and again (the killed ones start
again). half: half killed at once; what is lost is compared with what chance says, and is to be named by who is left.
All on one network: whoever went is started again before the next scenario. Nothing here is timed against a limit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import comb
from pathlib import Path

from p2plearn.client import NodeClient
from p2plearn.errors import P2plearnError
from p2plearn.operations import LeaveRequest, LeaveResult, PublishRequest

COPIES = 3
POLL_SECONDS = 3.0
"""Between looks at what each node has: forty that are asked twice a second are a load of their own."""


class Node:
    """A node as a process, asked over its local API."""

    def __init__(self, home: Path, grace: float, bootstrap: Iterable[str]) -> None:
        self.home, self.grace, self.bootstrap = home, grace, list(bootstrap)
        self.client = NodeClient(home)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-P", "-m", "p2plearn", "--home", str(self.home), "node", "start", "--no-mdns"]
        command += ["--listen", "/ip4/127.0.0.1/tcp/0"]
        command += [word for address in self.bootstrap for word in ("--bootstrap", address)]
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.home / "said").open("ab") as said:
            self.process = subprocess.Popen(
                command,
                stdout=said,
                stderr=said,
                env=os.environ | {"P2PLEARN_CUSTODY_GRACE": str(self.grace)},
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                self.address = str(self.client.status()["addresses"][0])
                break
            except P2plearnError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self.process is not None

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def leave(self) -> LeaveResult:
        """Hand over and stop."""
        result = self.client.leave(LeaveRequest(300.0), lambda _: None)
        self.client.stop()
        assert self.process is not None
        self.process.wait(60)
        self.process = None
        return result

    def named_lost(self) -> set[str]:
        """Courses that its status says are lost."""
        return {str(each["course"]) for each in self.client.status()["custody"]["lost"]}

    def holds(self) -> set[str]:
        """Courses that it has as a whole."""
        return {str(row["course"]) for row in self.client.courses() if row["complete"]}


def copies(nodes: Iterable[Node], courses: Iterable[str]) -> dict[str, list[Node]]:
    """Who that is up holds each course."""
    held: dict[str, list[Node]] = {course: [] for course in courses}
    up = [node for node in nodes if node.up]
    with ThreadPoolExecutor(8) as pool:
        for node, kept in zip(up, pool.map(Node.holds, up), strict=True):
            for course in kept & held.keys():
                held[course].append(node)
    return held


def until_whole(nodes: list[Node], courses: Iterable[str], seconds: float = 300.0) -> tuple[float, list[str]]:
    """Wait until every course that isn't lost has its copies; seconds it took, and the lost ones."""
    begun = time.monotonic()
    while True:
        held = copies(nodes, courses)
        lost = [course for course, who in held.items() if not who]
        short = {course: len(who) for course, who in held.items() if 0 < len(who) < COPIES}
        if not short:
            return time.monotonic() - begun, lost
        if time.monotonic() - begun > seconds:
            print(f"  still short after {seconds:.0f} s: {len(short)}: {sorted(short.values())}")
            return time.monotonic() - begun, lost
        time.sleep(POLL_SECONDS)


def sent(nodes: Iterable[Node]) -> int:
    """Bytes that those that are up have served."""
    return sum(int(node.client.status()["serving"]["sent"]) for node in nodes if node.up)


def report(what: str, nodes: list[Node], courses: list[str], act: Callable[[], None]) -> list[str]:
    """Do it, wait until all is whole, print what it took; the courses lost."""
    before = {id(node): sent([node]) for node in nodes if node.up}
    act()
    seconds, lost = until_whole(nodes, courses)
    moved = sum(sent([node]) - before.get(id(node), 0) for node in nodes if node.up)
    extra = sum(max(len(who) - COPIES, 0) for who in copies(nodes, courses).values())
    print(f"{what}: {len(lost)} lost, whole after {seconds:.1f} s, {moved / 1e6:.1f} MB moved, {extra} copies too many")
    return lost


def main() -> None:
    """Run the scenarios that are asked for, each on a network of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["pairs", "leave", "spaced", "half"])
    parser.add_argument("--nodes", type=int, default=40)
    parser.add_argument("--courses", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=200_000)
    parser.add_argument("--grace", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--work", type=Path, help="where the homes go: a file system in memory stands for forty disks")
    parser.add_argument("--parallel", type=int, default=4, help="nodes started and courses published at a time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as room:
        run(Path(room), given)


def run(room: Path, given: argparse.Namespace) -> None:
    """All scenarios on one network."""
    rng = random.Random(given.nodes)
    begun = time.monotonic()
    nodes: list[Node] = []
    try:
        for number in range(2):
            nodes.append(Node(room / f"n{number}", given.grace, [node.address for node in nodes]))
        named = [node.address for node in nodes]
        with ThreadPoolExecutor(given.parallel) as pool:
            rest = range(2, given.nodes)
            nodes += pool.map(lambda number: Node(room / f"n{number}", given.grace, named), rest)
            print(f"{len(nodes)} nodes up after {time.monotonic() - begun:.0f} s")

            def publish(number: int) -> str:
                source = room / f"course{number}.bin"
                source.write_bytes(random.Random(number).randbytes(given.bytes))
                node = nodes[number % len(nodes)]
                return node.client.publish(PublishRequest(str(source)), lambda _: None).course

            courses = list(pool.map(publish, range(given.courses)))
            _, lost = until_whole(nodes, courses)
            print(
                f"{given.courses} courses with {COPIES} copies after {time.monotonic() - begun:.0f} s, {len(lost)} lost"
            )
            for scenario in given.scenarios:
                list(pool.map(Node.start, [node for node in nodes if not node.up]))
                print(f"--- {scenario} ({time.monotonic() - begun:.0f} s)")
                until_whole(nodes, courses)
                lost = SCENARIOS[scenario](nodes, courses, rng, given)
                courses = [course for course in courses if course not in lost]
    finally:
        for node in nodes:
            node.kill()


def _leave(nodes: list[Node], courses: list[str], rng: random.Random, _: argparse.Namespace) -> list[str]:
    leavers = rng.sample(nodes, len(nodes) // 2)
    results: list[LeaveResult] = []

    def act() -> None:
        threads = [threading.Thread(target=lambda node=node: results.append(node.leave())) for node in leavers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lost = report(f"{len(leavers)} of {len(nodes)} leave at once", nodes, courses, act)
    unplaced = sum(len(result.unplaced) for result in results)
    longest = max(result.seconds for result in results)
    print(f"  {len(results)} left, {unplaced} units unplaced, the slowest took {longest:.1f} s", flush=True)
    return lost


def _spaced(nodes: list[Node], courses: list[str], rng: random.Random, _: argparse.Namespace) -> list[str]:
    lost: set[str] = set()
    for number, node in enumerate(rng.sample(nodes, len(nodes) // 2)):
        lost.update(report(f"kill {number + 1}", nodes, courses, node.kill))
    return sorted(lost)


def _pairs(nodes: list[Node], courses: list[str], rng: random.Random, given: argparse.Namespace) -> list[str]:
    lost: set[str] = set()
    for number in range(given.rounds):
        course = rng.choice(courses)
        victims = rng.sample(copies(nodes, [course])[course], COPIES - 1)
        what = f"pair {number + 1}"
        lost.update(report(what, nodes, courses, lambda victims=victims: [v.kill() for v in victims] and None))
        for victim in victims:
            victim.start()
    return sorted(lost)


def _half(nodes: list[Node], courses: list[str], rng: random.Random, given: argparse.Namespace) -> list[str]:
    total, gone = len(nodes), len(nodes) // 2
    victims = rng.sample(nodes, gone)
    held = copies(nodes, courses)
    # Some courses have more copies than asked for by now: each is lost with the chance that its own number says.
    chance = sum(comb(total - len(who), gone - len(who)) / comb(total, gone) for who in held.values())
    exactly = sum(all(node in victims for node in who) for who in held.values())
    lost = report(
        f"{gone} of {total} killed at once ({chance:.1f} lost expected, {exactly} with these)", nodes, courses,
        lambda: [victim.kill() for victim in victims] and None,
    )  # fmt: skip
    begun = time.monotonic()
    left = [node for node in nodes if node.up]
    namers: dict[str, int] = {}
    while len(namers) < len(lost) and time.monotonic() - begun < 300.0:
        time.sleep(1.0)
        named = [node.named_lost() for node in left]
        namers = {course: count for course in lost if (count := sum(course in each for each in named))}
    wrong = {course for node in left for course in node.named_lost()} - set(lost)
    took = time.monotonic() - begun
    print(f"  {len(namers)} of {len(lost)} lost ones named by status after {took:.0f} s more, each by so many of the "
          f"{len(left)} nodes: {sorted(namers.values())}; {len(wrong)} named wrongly")  # fmt: skip
    return lost


SCENARIOS = {"leave": _leave, "spaced": _spaced, "pairs": _pairs, "half": _half}

if __name__ == "__main__":
    main()
