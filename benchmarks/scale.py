"""How cost grows: with the size of a course, with its files, with the courses that a node holds.

    python benchmarks/scale.py [--work DIR] [size|files|courses]... [--gib 1 4 16] [--files 10 1000 100000]
                               [--held 1 10 1000 10000]

size     publish without copying and get: seconds, CPU seconds a GiB, peak memory of both sides
files    publish and get of that many files of 4 KiB: seconds, microseconds a file
courses  a node with that many small courses: starts (the first, a later one, after SIGKILL), idle CPU and memory, what
         commands take, telling the network of all of them

A course of n GiB takes 3 n on the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from work import Node, made_file, made_folder, nodes, same

FEED = """
import sys, time
from pathlib import Path
from p2plearn.identity import load_or_create
from p2plearn.store.publish import PublishMeta
from p2plearn.store.store import Store
home, room, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
author = load_or_create(home / "keys" / "author.key")
store = Store.open(home)
began = time.perf_counter()
for number in range(len(store.courses()), count):
    file = room / "small.txt"
    file.write_text(f"course {number}")
    meta = PublishMeta(title=f"Course {number}")
    store.publish(file, meta, sign=author.sign, author=author.public, now=1_700_000_000)
print(time.perf_counter() - began)
store.close()
"""


IDLE_SECONDS = 30.0


def travel(room: Path, source: Path, *options: str) -> dict[str, float]:
    """Publish, get, compare."""
    with nodes(room, 2) as (a, b):
        published = a.run("publish", source, *options)
        os.sync()
        before = a.cpu(), b.cpu()
        got = b.run("get", published["course"], "--from", a.address, "-o", room / "out")
        if not same(source, room / "out" / source.name if source.is_file() else room / "out"):
            sys.exit("the bytes differ")
        figures = {
            "publish": float(published["seconds"]),
            "get": float(got["seconds"]),
            "sender": a.cpu() - before[0],
            "getter": b.cpu() - before[1],
            "publisher MiB": a.memory(),
            "getter MiB": b.memory(),
        }
    shutil.rmtree(room / "out")
    return figures


def sizes(room: Path, gib: list[int]) -> None:
    """Courses of one file."""
    for size in gib:
        f = travel(room, made_file(room / "course.bin", size << 30), "--no-copy")
        print(
            f"{size:3} GiB: publish {f['publish']:.1f} s, get {f['get']:.1f} s = {size * 1073.7 / f['get']:.0f} MB/s, "
            f"CPU a GiB {f['sender'] / size:.2f} and {f['getter'] / size:.2f} s, "
            f"peak {f['publisher MiB']:.0f} and {f['getter MiB']:.0f} MiB",
            flush=True,
        )
        (room / "course.bin").unlink()


def files(room: Path, counts: list[int]) -> None:
    """Courses of small files."""
    for count in counts:
        f = travel(room, made_folder(room / f"folder{count}", count, 4096))
        print(
            f"{count:7} files: publish {f['publish']:.2f} s, "
            f"get {f['get']:.2f} s = {f['get'] / count * 1e6:.0f} us a file, "
            f"CPU of the getter {f['getter']:.2f} s, "
            f"peak {f['publisher MiB']:.0f} and {f['getter MiB']:.0f} MiB",
            flush=True,
        )
        shutil.rmtree(room / f"folder{count}")


def cpu_of(node: Node, *words: object) -> tuple[dict[str, Any], float, float]:
    """What a command answered, the seconds it took, and the node's CPU seconds."""
    began, before = time.perf_counter(), node.cpu()
    answer = node.run(*words)
    return answer, time.perf_counter() - began, node.cpu() - before


def started(what: str, node: Node) -> None:
    """Print what a start took."""
    print(f"        {what}: {node.start_seconds:.2f} s, CPU {node.cpu():.2f} s, {node.memory():.0f} MiB at most")


def courses(room: Path, held: list[int]) -> None:
    """Nodes with many courses."""
    home = room / "home"
    Node(home).stop()
    other = Node(room / "other")
    for count in held:
        fed = subprocess.run(
            [sys.executable, "-P", "-c", FEED, home, room, str(count)], check=True, stdout=subprocess.PIPE, text=True
        )
        catalogue = (home / "store" / "catalogue.sqlite").stat().st_size / 2**20
        print(f"{count:6} courses: published in {float(fed.stdout):.1f} s, catalogue {catalogue:.1f} MiB")
        node = Node(home)  # notes that it looks after copies of each: done once
        started("first start", node)
        node.stop()
        node = Node(home)
        started("start", node)
        time.sleep(5)
        before = node.cpu()
        time.sleep(IDLE_SECONDS)
        print(
            f"        idle: {100 * (node.cpu() - before) / IDLE_SECONDS:.2f} % of a core, "
            f"{node.memory('VmRSS'):.0f} MiB"
        )
        (room / "one.txt").write_text(f"one more than {count}")
        for words in (
            ("node", "status"),
            ("list",),
            ("search", f"course {count // 2}"),
            ("publish", room / "one.txt", "--title", f"One more than {count}", "--private"),
            ("gc",),
        ):
            _, seconds, cpu = cpu_of(node, *words)
            print(f"        {' '.join(map(str, words[:2])).split(str(room))[0]}: {seconds:.2f} s, CPU {cpu:.3f} s")
        os.kill(node.pid, signal.SIGKILL)
        node = Node(home, "--bootstrap", other.address)
        started("start after SIGKILL", node)
        began, before = time.perf_counter(), node.cpu()
        while (told := node.run("node", "status")["dht"])["announced"] < count:
            time.sleep(1)
        seconds = time.perf_counter() - began
        print(
            f"        all told to the network, one peer: {seconds:.1f} s, CPU {node.cpu() - before:.2f} s, "
            f"{told['late']} late",
            flush=True,
        )
        node.stop()
    other.stop()


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", default=["size", "files", "courses"])
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--files", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--held", type=int, nargs="+", default=[1, 10, 1000, 10_000])
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2plearn-scale-", dir=given.work) as place:
        room = Path(place)
        for item in given.items:
            if item == "size":
                sizes(room, given.gib)
            elif item == "files":
                files(room, given.files)
            elif item == "courses":
                courses(room, given.held)
            else:
                parser.error(f"there is no item {item!r}")


if __name__ == "__main__":
    main()
