"""How fast it goes by each way: plain TCP, a WebSocket, a hole through two routers, a relay.

    python benchmarks/reaching.py [--size MIB] [plain] [websocket] [punched] [relayed]

Real nodes in network namespaces that this makes (as root), with routers in user space (Python; what they can carry is
the ceiling of the last two, and is the same for both). For each way a course of SIZE MiB is fetched once; the relay
lends without limits, so that its own speed shows. ``first`` is a get of a course of 1 KiB before it, with finding the
provider, dialling, and for the last two the relay and the hole, in it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.nodes import RealNode
from tests.reach.lab import Lab, Machine, random_course

TCP, WEB = "/ip4/0.0.0.0/tcp/4017", "/ip4/0.0.0.0/tcp/80/ws"
GENEROUS = {"P2PLEARN_RELAY_RATE": "10 GiB", "P2PLEARN_RELAY_CALL_BYTES": "10 GiB"}


def measure(name: str, size: int, listen: str, machines: Callable[[Lab], tuple[Machine, Machine]]) -> None:
    """Print what a first small get and one of ``size`` MiB took between two machines."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lab = stack.enter_context(Lab())
        relay = node(work / "r", lab.public(9), TCP)
        stack.enter_context(relay)
        teacher, learner = (
            stack.enter_context(node(work / name, machine, listen, relay.address))
            for name, machine in zip("ab", machines(lab), strict=True)
        )
        for one in (teacher, learner):
            one.wait_for(lambda s: s["peers"] and s["reach"]["standing"] in {"public", "behind-router"})
        if name in {"punched", "relayed"}:
            teacher.wait_for(lambda s: s["reach"]["relays"])
        seconds = []
        for number, length in enumerate((1024, size * 1024 * 1024)):
            course = random_course(work / f"course{number}", length)
            published = teacher.run("publish", course, timeout=300)["course"]
            teacher.wait_for(lambda s: s["dht"]["announced"] and not s["dht"]["waiting"])
            began = time.monotonic()
            learner.run("get", published, "-o", work / f"out{number}", timeout=600)
            seconds.append(time.monotonic() - began)
        way = {row["peer_id"]: row["way"] for row in learner.run("node", "peers")["peers"]}[teacher.peer_id]
        print(
            f"{name}: first {seconds[0]:.2f} s; {size} MiB in {seconds[1]:.2f} s, {size / seconds[1]:.1f} MiB/s ({way})"
        )


def node(folder: Path, machine: Machine, listen: str, *bootstrap: str) -> RealNode:
    """A node on a machine of the lab."""
    return RealNode(folder, prefix=machine.prefix, listen=[listen], bootstrap=bootstrap, env=GENEROUS)


def main() -> None:
    """Measure what was asked for, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, metavar="MIB")
    parser.add_argument("ways", nargs="*", metavar="WAY")
    wanted = parser.parse_args()
    ways: dict[str, tuple[str, Callable[[Lab], tuple[Machine, Machine]]]] = {
        "plain": (TCP, lambda lab: (lab.public(1), lab.public(2))),
        "websocket": (WEB, lambda lab: (lab.public(1), lab.public(2))),
        "punched": (TCP, lambda lab: (lab.home(1), lab.home(2))),
        "relayed": (TCP, lambda lab: (lab.home(1, kind="symmetric"), lab.home(2, kind="symmetric"))),
    }
    for name in wanted.ways or ways:
        measure(name, wanted.size, *ways[name])


if __name__ == "__main__":
    main()
