"""A crowd of real nodes talks while some are away and the network is in two halves; then it heals.

    python benchmarks/crowd.py [--nodes 40] [--authors 20] [--each 50]

Each author says EACH ratings (of as many courses) and EACH posts, as fast as its node takes them. A third of the nodes
is off meanwhile, and the two halves know nothing of each other. Then those that were off start, and one more that is
told of both halves. Prints how long it takes until all have the same digests, and what was received against what
had to be. Exits with 1 when that takes longer than 60 s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc

from p2plearn import people
from p2plearn.client import NodeClient
from tests.nodes import RealNode

BOUND_SECONDS = 60.0


def cpu(nodes: list[RealNode]) -> float:
    """CPU seconds that those which run have used since each started."""
    return sum(proc.cpu(node.pid) for node in nodes if node.process is not None and node.process.poll() is None)


def see_that_all_live(nodes: list[RealNode]) -> None:
    """Raises AssertionError with the end of its log for a node that ended by itself."""
    for node in nodes:
        code = None if node.process is None else node.process.poll()
        assert code is None, f"{node.home.path} ended with {code}: {node.log[-3000:]!r}"


def digests(node: RealNode, course: str) -> tuple[int, str, int, str]:
    """What a node has of the catalogue and of the course's discussion."""
    client = NodeClient(node.home.path)
    catalogue = client.status()["people"]
    talk = client.people("discussion", people.DiscussionRequest(course, limit=1))
    return catalogue["catalogue"], catalogue["digest"], talk["envelopes"], talk["digest"]


def main() -> int:
    """Talk, heal, wait, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=40)
    parser.add_argument("--authors", type=int, default=20)
    parser.add_argument("--each", type=int, default=50)
    given = parser.parse_args()
    room = Path(tempfile.mkdtemp())
    nodes = [RealNode(room / f"n{n}") for n in range(given.nodes)]
    try:
        return talk(nodes, room, given.authors, given.each)
    except BaseException:
        for node in nodes:
            print(node.home.path, node.process and node.process.poll(), node.log[-1500:])
        raise
    finally:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(RealNode.kill, nodes))
        shutil.rmtree(room)


def talk(nodes: list[RealNode], room: Path, authors: int, each: int) -> int:
    """The run itself."""
    halves = nodes[::2], nodes[1::2]
    for half in halves:
        half[0].start()
        for node in half[1:]:
            node.bootstrap = [half[0].address]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda node: node.process or node.start(), nodes))
    held = [proc.memory(node.pid) for node in nodes]
    print(f"{len(nodes)} nodes are up, {sum(held) / len(held):.0f} MiB each")
    (room / "x.txt").write_text("a course to talk about")
    course = str(nodes[0].run("publish", room / "x.txt", "--title", "Talk", "--copies", "1")["course"])
    for node in nodes:
        NodeClient(node.home.path).people("discussion", people.DiscussionRequest(course))  # follows it from here on
    away = [node for n, node in enumerate(nodes) if n % 3 == 2 and n > 1]
    speakers = [node for node in nodes if node not in away][:authors]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(RealNode.stop, away))

    def speak(speaker: RealNode) -> None:
        client = NodeClient(speaker.home.path)
        for n in range(each):
            client.people("post", people.PostRequest("comment", f"{speaker.home.path.name} says {n}", course))
            client.people("rate", people.RateRequest(f"{n:064x}".replace("0" * 60, "c" * 60), 1 + n % 5))

    used, own = cpu(nodes), time.process_time()
    begun = time.monotonic()
    threads = [threading.Thread(target=speak, args=(speaker,)) for speaker in speakers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = 2 * each * len(speakers)
    print(
        f"{len(speakers)} authors said {said:,} things in {time.monotonic() - begun:.1f} s, {len(away)} nodes off; "
        f"CPU seconds: nodes {cpu(nodes) - used:.1f}, the speakers' programs {time.process_time() - own:.1f}, "
        f"on {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.0f}",
        flush=True,
    )
    see_that_all_live([node for node in nodes if node not in away])
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(RealNode.start, away))
    bridge = RealNode(room / "bridge", bootstrap=[half[0].address for half in halves])
    nodes.append(bridge)
    bridge.start()
    healed = time.monotonic()
    NodeClient(bridge.home.path).people("discussion", people.DiscussionRequest(course))
    while True:
        see_that_all_live(nodes)
        with ThreadPoolExecutor(4) as pool:
            seen = list(pool.map(lambda node: digests(node, course), nodes))
        took = time.monotonic() - healed
        posts, listed = [one[2] for one in seen], [one[0] for one in seen]
        print(
            f"  {took:5.1f} s after the heal: {len(set(seen))} different records, {min(posts)} to {max(posts)} posts, "
            f"{min(listed)} to {max(listed)} in the catalogue",
            flush=True,
        )
        whole = {(each * len(speakers) + 1, each * len(speakers))} == {(s[0], s[2]) for s in seen}
        if (len(set(seen)) == 1 and whole) or took > 4 * BOUND_SECONDS:
            break
        time.sleep(1)
    for digest in sorted(set(seen)):
        print(f"  digest {digest[1]} {digest[3]}: {sum(one == digest for one in seen)} nodes")
    figures = [NodeClient(node.home.path).status()["people"] for node in nodes]
    received = sum(one["bytes_in"] for one in figures)
    size = 330  # bytes of these envelopes, about
    ideal = said * size * (len(nodes) - 1)
    print(f"received {received / 2**20:.1f} MiB in all since each started; ideal {ideal / 2**20:.1f} MiB")
    held = [proc.memory(node.pid) for node in nodes]
    print(f"memory {sum(held) / len(held):.0f} MiB each, most {max(held):.0f}")
    return 0 if len(set(seen)) == 1 and whole and took <= BOUND_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
