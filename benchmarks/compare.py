"""p2plearn and whatever of its peers is installed, on the same work, in turn: medians, spread, ratios.

    python benchmarks/compare.py [--runs 5] [--work DIR] [--libtorrent PYTHON] [file] [small] [swarm] [ceiling]

file     1 GiB, one provider to one fetcher: published (copied into the store; and with --no-copy, served where it is,
         as the others do), then fetched, verified and in its place
small    10,000 files of 4 KiB (name a DIR on tmpfs, and one on a disk)
swarm    256 MiB from one provider to four fetchers at once, who know of each other
ceiling  TLS 1.3 with SHA-256 of every byte in this Python, discarded: what the wire could give at most

Every run begins with empty nodes and the source in memory, and its bytes are compared with the source. Ratios above 1
mean that p2plearn is faster. Files are deleted and synced between runs, so that one run's dirty pages don't slow the
next.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ceiling import tls_and_sha256
from peers import Peer
from peers.ours import InPlace, NoCopy, P2plearn
from peers.syncthing import Syncthing
from peers.torrent import Libtorrent
from verdicts import spread
from work import alone, in_memory, made_file, made_folder, progress, same, size_of

MB = 1e6
Figures = dict[str, dict[str, list[float]]]
"""By peer, by name of the figure, one value a run."""


def one_run(kind: type[Peer], room: Path, source: Path, fetchers: int, aside: Path | None = None) -> dict[str, float]:
    """Publish and fetch once; what it cost. What is left is deleted, or moved ``aside``."""
    size = size_of(source)
    peers: list[Peer] = []
    try:
        for number in range(fetchers + 1):
            peers.append(kind(room / f"{number}"))  # noqa: PERF401 - those that started are stopped
        provider, *rest = peers
        in_memory(source)
        began = time.perf_counter()
        name = provider.publish(source)
        published = time.perf_counter() - began
        os.sync()
        before, cpu = provider.sent(), [peer.cpu() for peer in peers]
        began = time.perf_counter()
        for peer in rest:
            peer.begin_fetch(name, peer.room / "out", [other.address for other in peers if other is not peer])
        for peer in rest:
            peer.finish_fetch()
        seconds = time.perf_counter() - began
        used = [peer.cpu() - was for peer, was in zip(peers, cpu, strict=True)]
        for peer in rest:
            out = peer.room / "out"
            found = out / source.name if (out / source.name).exists() else out / "course"
            if not same(source, found):
                raise SystemExit(f"{kind.name}: the bytes differ")
        return {
            "publish, MB/s": size / MB / published,
            "fetch, s": seconds,
            "fetch, MB/s": size / MB / seconds,
            "provider's CPU, s": used[0],
            "fetchers' CPU, s": sum(used[1:]),
            "provider's peak memory, MiB": provider.memory(),
            "fetcher's peak memory, MiB": max(peer.memory() for peer in rest),
            "provider's upload, x the course": (provider.sent() - before) / size,
        }
    finally:
        for peer in peers:
            peer.stop()
        if aside is not None and room.exists():
            aside.mkdir(parents=True, exist_ok=True)
            room.rename(aside / f"{len(list(aside.iterdir()))}")
        shutil.rmtree(room, ignore_errors=True)
        os.sync()


def compare(
    kinds: Sequence[type[Peer]],
    room: Path,
    source: Path,
    fetchers: int,
    runs: int,
    before_each: Callable[[], object] = lambda: None,
    *,
    aside: Path | None = None,
) -> Figures:
    """Run all in turn; ``before_each`` is called before each turn of all. See ``one_run``."""
    figures: Figures = {kind.name: {} for kind in kinds}
    for number in range(runs):
        before_each()
        # Turned around every second time, so that none always comes after the same one.
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            row = one_run(kind, room / "run", source, fetchers, aside)
            progress(f"{number + 1} of {runs}, {kind.name}: {row['fetch, s']:.2f} s")
            for name, value in row.items():
                figures[kind.name].setdefault(name, []).append(value)
    return figures


def others() -> list[type[Peer]]:
    """Those of the peers that are installed."""
    return [kind for kind in (Syncthing, Libtorrent) if kind.installed()]


def _print(label: str, figures: Figures) -> None:
    print(f"\n{label}")
    names = list(figures)
    print(f"  {'':32}" + "".join(f"{name:>26}" for name in names))
    for figure in figures[names[0]]:
        print(f"  {figure:32}" + "".join(f"{spread(figures[name][figure]):>26}" for name in names))
    ours = [name for name in names if name.startswith(P2plearn.name)]
    for mine, other in itertools.product(ours, [name for name in names if name not in ours]):
        for what, figure, sign in (("publishes", "publish, MB/s", 1), ("fetches", "fetch, s", -1)):
            pairs = [(a / b) ** sign for a, b in zip(figures[mine][figure], figures[other][figure], strict=True)]
            medians = [statistics.median(figures[name][figure]) for name in (mine, other)]
            ratio = (medians[0] / medians[1]) ** sign
            print(f"  {mine} {what} {ratio:.2f} x as fast as {other} (run by run {spread(pairs)})", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", default=[])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--libtorrent", default=sys.executable, metavar="PYTHON")
    given = parser.parse_args()
    Libtorrent.python = given.libtorrent
    kinds: list[type[Peer]] = [P2plearn, *others()]
    for kind in (Syncthing, Libtorrent):
        if kind not in kinds:
            print(f"{kind.name} is not installed: left out")

    def run(label: str, source: Path, fetchers: int, *more: type[Peer]) -> None:
        _print(label, compare([*kinds[:1], *more, *kinds[1:]], room, source, fetchers, given.runs))

    with tempfile.TemporaryDirectory(prefix="p2plearn-compare-", dir=given.work) as place:
        room = Path(place)
        items: dict[str, Callable[[], None]] = {
            "file": lambda: run(
                "1 GiB, one to one", made_file(room / "file" / "course.bin", 1 << 30), 1, InPlace, NoCopy
            ),
            "small": lambda: run("10,000 x 4 KiB, one to one", made_folder(room / "small" / "course", 10_000, 4096), 1),
            "swarm": lambda: run(
                "256 MiB, one to four", made_file(room / "swarm" / "course.bin", 256 << 20), 4, NoCopy
            ),
            "ceiling": lambda: print(f"\nTLS 1.3 + SHA-256 in this Python, MB/s: {spread(tls_and_sha256(given.runs))}"),
        }
        for item in given.items or items:
            if item not in items:
                parser.error(f"there is no item {item!r}")
            items[item]()
            for data in ("file", "small", "swarm"):
                shutil.rmtree(room / data, ignore_errors=True)


if __name__ == "__main__":
    alone()
    main()
