"""Who takes whom for dead: real nodes that stand still, that die, and what the others say and do about it.

    python benchmarks/heartbeats.py [--nodes 8] [--courses 24] [--heartbeat 10] [--grace 60] [--minutes 6] [--crashes 3]

*Pauses*: some nodes stand still (SIGSTOP) for 20 s of each minute, one after the other. Counted in the logs of all:
suspicions and deaths, of nodes that stood still and of nodes that ran; copies made meanwhile (there should be none).
*Crashes*: one is killed, and the seconds until the others suspect it and hold it for down are read from their logs;
then one falls silent, as if its machine were gone (where a machine can still refuse connections, down comes sooner).
With --heartbeat 1 these are the seconds that docs/reliability.md asks for. *Idle*: CPU of all nodes together, before
any of it, as a share of one core.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import proc
from churn import Node, until_whole
from libp2p.peer.id import ID

from p2plearn.dht.custody import node_of
from p2plearn.operations import PublishRequest

PAUSE, PERIOD = 20.0, 60.0
"""Seconds: how long a node stands still, and how often."""

SAID = re.compile(r"^(\S+Z) info +p2plearn\.custody: ([0-9a-f]{8}) is (suspect|down)$", re.MULTILINE)
COPIED = re.compile(r"^\S+Z info +p2plearn\.custody: (?:keeps|repairs) ", re.MULTILINE)


class Saying(NamedTuple):
    """At a time (seconds since 1970) node ``by`` said of ``of`` that it is suspect or down."""

    at: float
    by: str
    of: str
    life: str


def name_of(node: Node) -> str:
    """What the logs call it."""
    key = node_of(ID.from_string(str(node.client.status()["peer_id"])).to_bytes())
    assert key is not None
    return key.hex()[:8]


def sayings(nodes: dict[str, Node], since: float) -> Iterator[Saying]:
    """All that was said of others' lives since a time."""
    for name, node in nodes.items():
        for when, of, life in SAID.findall((node.home / "said").read_text(errors="replace")):
            at = datetime.strptime(when, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
            if at >= since:
                yield Saying(at, name, of, life)


def copied(nodes: Iterable[Node]) -> int:
    """Copies begun or taken, as the logs have it."""
    return sum(len(COPIED.findall((node.home / "said").read_text(errors="replace"))) for node in nodes)


def pairs(nodes: Iterable[Node]) -> int:
    """Pairs of nodes that keep something in common, which is to say that hear each other's beats."""
    return sum(bool(one & other) for one, other in combinations([node.holds() for node in nodes], 2))


def pauses(nodes: dict[str, Node], given: argparse.Namespace) -> None:
    """See the head of this file."""
    pausing = list(nodes)[-given.pausing :]
    heard, before, begun = pairs(nodes.values()), copied(nodes.values()), time.time()
    stood: list[tuple[str, float, float]] = []
    for _ in range(given.minutes):
        minute = time.time()
        for name in pausing:
            process = nodes[name].process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            still = time.time()
            time.sleep(PAUSE)
            process.send_signal(signal.SIGCONT)
            stood.append((name, still, time.time()))
        time.sleep(max(minute + PERIOD - time.time(), 0.0))
    seconds = time.time() - begun
    time.sleep(3 * given.heartbeat)
    counts: Counter[tuple[str, bool]] = Counter()
    for said in sayings(nodes, begun):
        # What is said a moment after it runs again was decided before.
        still = any(said.of == name and first <= said.at <= last + 1.0 for name, first, last in stood)
        counts[said.life, still] += 1
    beats = 2 * heard * seconds / given.heartbeat
    print(
        f"pauses: {given.pausing} of {len(nodes)} nodes stood still for {PAUSE:.0f} s of each minute, "
        f"{len(stood)} times in {seconds:.0f} s\n"
        f"  of those that stood still: {counts['suspect', True]} times suspected, {counts['down', True]} times down\n"
        f"  of those that ran: {counts['suspect', False]} times suspected, {counts['down', False]} times down "
        f"in some {beats:.0f} beats\n"
        f"  {copied(nodes.values()) - before} copies made",
        flush=True,
    )


def crash(nodes: dict[str, Node], name: str, how: signal.Signals, given: argparse.Namespace) -> None:
    """Have one be gone, wait until all who watch it hold it for down, and bring it back."""
    node, others = nodes[name], {each: other for each, other in nodes.items() if each != name}
    watchers = {each for each, other in others.items() if other.holds() & node.holds()}
    begun = time.time()
    assert node.process is not None
    node.process.send_signal(how)
    deadline = begun + 60.0 * given.heartbeat
    seen: dict[str, dict[str, float]] = {"suspect": {}, "down": {}}
    while seen["down"].keys() < watchers and time.time() < deadline:
        time.sleep(0.5 * given.heartbeat)
        for said in sayings(others, begun):
            if said.of == name:
                seen[said.life].setdefault(said.by, said.at - begun)
    words = ", ".join(
        f"{life} after {min(times.values()):.1f} to {max(times.values()):.1f} s "
        f"(median {statistics.median(times.values()):.1f}, {len(times)} of {len(watchers)} who watch it)"
        for life, times in seen.items()
        if times
    )
    print(f"{'killed' if how is signal.SIGKILL else 'silent'}: {words or 'nobody noticed'}", flush=True)
    if how is signal.SIGKILL:
        node.kill()
        node.start()
    else:
        node.process.send_signal(signal.SIGCONT)
    time.sleep(5 * given.heartbeat)


def idle(nodes: Iterable[Node], seconds: float) -> None:
    """CPU of all together while nobody asks anything of them."""
    nodes = list(nodes)
    pids = [node.process.pid for node in nodes if node.process is not None]
    before, begun = sum(map(proc.cpu, pids)), time.monotonic()
    time.sleep(seconds)
    share = (sum(map(proc.cpu, pids)) - before) / (time.monotonic() - begun)
    print(f"idle: {len(nodes)} nodes take {100 * share:.1f} % of a core together", flush=True)


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--courses", type=int, default=24)
    parser.add_argument("--pausing", type=int, default=3, help="nodes that stand still now and then; 3 at most")
    parser.add_argument("--heartbeat", type=float, default=10.0)
    parser.add_argument("--grace", type=float, default=120.0)
    parser.add_argument("--minutes", type=int, default=6)
    parser.add_argument("--crashes", type=int, default=3)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds")
    given = parser.parse_args()
    os.environ["P2PLEARN_CUSTODY_HEARTBEAT"] = str(given.heartbeat)
    running: list[Node] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        room = Path(folder)
        try:
            running.append(Node(room / "n0", given.grace, []))
            first = [running[0].address]
            running += pool.map(lambda n: Node(room / f"n{n}", given.grace, first), range(1, given.nodes))

            def publish(number: int) -> str:
                source = room / f"course{number}.bin"
                source.write_bytes(os.urandom(50_000))
                node = running[number % given.nodes]
                return node.client.publish(PublishRequest(str(source)), lambda _: None).course

            until_whole(running, list(pool.map(publish, range(given.courses))))
            nodes = {name_of(node): node for node in running}
            print(f"{given.nodes} nodes, {given.heartbeat:g} s heartbeats, {pairs(running)} pairs hear each other")
            time.sleep(12 * given.heartbeat)  # habits to go by
            idle(running, given.idle)
            if given.minutes:
                pauses(nodes, given)
            for number in range(given.crashes):
                for how in (signal.SIGKILL, signal.SIGSTOP):
                    crash(nodes, list(nodes)[1 + number % (given.nodes - 1)], how, given)
        finally:
            for node in running:
                if node.process is not None:
                    node.process.send_signal(signal.SIGCONT)
                node.kill()


if __name__ == "__main__":
    main()
