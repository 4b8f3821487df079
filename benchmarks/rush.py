"""Many gets at once of one course, from a few providers: how fast together, and how evenly.

    python benchmarks/rush.py [--gets 16] [--providers 4] [--mib 64] [--work DIR]

All are real nodes in processes of their own. "One stream's raw rate" is that of ``ceiling.py``: TLS 1.3 with SHA-256 of
every byte in this Python, discarded. Each get is timed from the command to the files in their place, and its bytes are
compared with the source.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ceiling import tls_and_sha256
from peers.ours import P2plearn
from verdicts import spread
from work import made_file, same

MB = 1e6


def evenness(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has all."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def rush(room: Path, source: Path, gets: int, providers: int) -> None:
    """Start all nodes, spread the course over the providers, get it everywhere at once, and print what it took."""
    size = source.stat().st_size
    with contextlib.ExitStack() as stack:
        peers: list[P2plearn] = []
        for number in range(providers + gets):
            peers.append(P2plearn(room / f"{number}"))
            stack.callback(peers[-1].stop)
        having, rest = peers[:providers], peers[providers:]
        name = having[0].publish(source)
        for peer in having[1:]:
            peer.begin_fetch(name, peer.room / "out", [having[0].address])
            peer.finish_fetch()
            shutil.rmtree(peer.room / "out", ignore_errors=True)
        before = [peer.sent() for peer in peers]
        began = time.perf_counter()
        for peer in rest:
            peer.begin_fetch(name, peer.room / "out", [other.address for other in having])
        for peer in rest:
            peer.finish_fetch()
        seconds = time.perf_counter() - began
        sent = [(peer.sent() - was) / size for peer, was in zip(peers, before, strict=True)]
        right = 0
        for peer in rest:
            out = peer.room / "out"
            right += same(source, out / source.name if (out / source.name).exists() else out / "course")
        took = [float(peer.got["seconds"]) for peer in rest]
    together, raw = gets * size / seconds / MB, statistics.median(tls_and_sha256(3))
    print(f"byte-identical                                 {right} of {gets}")
    print(f"together, MB/s                                 {together:.0f} in {seconds:.2f} s")
    print(f"one stream's raw rate, MB/s                    {raw:.0f}: {together / raw:.0%} of it")
    print(f"each get, s                                    {spread(took)}, evenness {evenness(took):.2f}")
    given, evenly = spread(sent[:providers]), evenness(sent[:providers])
    print(f"providers' uploads, x the course               {given}, evenness {evenly:.2f}")
    print(f"given by the getters to each other             {sum(sent[providers:]) / sum(sent):.0%}")


def main() -> None:
    """Once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gets", type=int, default=16)
    parser.add_argument("--providers", type=int, default=4)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2plearn-rush-", dir=given.work) as place:
        room = Path(place)
        rush(room, made_file(room / "source" / "course.bin", given.mib << 20), given.gets, given.providers)


if __name__ == "__main__":
    main()
