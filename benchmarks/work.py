"""The same bytes and the same measuring for every benchmark: made data, nodes as processes, what they cost.

Nothing here judges: figures are printed, and ``docs/figures.md`` sets them beside their targets.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import proc


def made_file(path: Path, size: int) -> Path:
    """``size`` bytes that don't compress, the same on every machine; made once."""
    if not path.exists() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = random.Random(size)
        with path.open("wb") as out:
            for at in range(0, size, 1 << 20):
                out.write(rng.randbytes(min(1 << 20, size - at)))
    return path


def made_folder(path: Path, files: int, size: int) -> Path:
    """``files`` files of ``size`` bytes, a hundred to a folder; made once."""
    if not path.exists():
        rng = random.Random(files)
        part = path.with_suffix(".part")
        for number in range(files):
            file = part / f"{number // 100:03}" / f"{number % 100:02}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(rng.randbytes(size))
        part.rename(path)
    return path


def progress(words: str) -> None:
    """A line for whoever waits: the time, and what is being done."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def size_of(course: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(path.stat().st_size for path in ([course] if course.is_file() else course.rglob("*")) if path.is_file())


def room_of(*places: Path) -> int:
    """Bytes that files and folders take on the disk, each file once; shared blocks count for each that shares them."""
    kept = {}
    for place in places:
        for path in (place, *place.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # a node is at work there
                facts = path.lstat()
                kept[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(kept.values())


def file_system(place: Path) -> str:
    """Its type, as mount(8) calls it; "" where the system doesn't tell."""
    found = ("", "")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, at, kind, *_ = line.split()
            if place.resolve().is_relative_to(at) and len(at) >= len(found[0]):
                found = (at, kind)
    return found[1]


def alone() -> None:
    """Have the program begin anew in a network of nothing but loopback, where one can be had: nobody else is in it."""
    if os.geteuid() or not shutil.which("unshare") or os.environ.get("P2PLEARN_BENCH_ALONE"):
        return
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        return
    script = 'ip link set lo up; exec "$0" "$@"'
    command = ["unshare", "-n", "sh", "-c", script, sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, "P2PLEARN_BENCH_ALONE": "1"})


def in_memory(source: Path) -> None:
    """Read it all: whose turn it is must not find in memory what the one before didn't. Some hosts take unused pages
    back within seconds.
    """
    for path in [source] if source.is_file() else source.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def same(one: Path, other: Path) -> bool:
    """Both hold the same files with the same bytes."""
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    found = [path for path in other.rglob("*") if path.is_file()]
    return len(files) == len(found) and not any(filecmp.cmpfiles(one, other, files, shallow=False)[1:])


class Node:
    """A p2plearn node in a process of its own, driven through the command line as a user would."""

    def __init__(self, home: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.env = {"P2PLEARN_STORAGE_GIVE": "0"} | os.environ | (env or {})  # who has what is to be seen here
        began = time.perf_counter()
        self.run("node", "start", "--detach", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", *options)
        self.start_seconds = time.perf_counter() - began
        facts = self.run("node", "status")
        self.address = str(facts["addresses"][0])
        self.pid = int(facts["pid"])

    def run(self, *words: object) -> dict[str, Any]:
        """A command with ``--json``; its last object."""
        command = [sys.executable, "-P", "-m", "p2plearn", "--home", str(self.home), *map(str, words), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=self.env)
        last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return last

    def cpu(self) -> float:
        """CPU seconds so far, user and system."""
        return proc.cpu(self.pid)

    def memory(self, key: str = "VmHWM") -> float:
        """MiB: VmHWM is the peak, VmRSS what it holds now."""
        return proc.memory(self.pid, key)

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("node", "stop")


@contextlib.contextmanager
def nodes(room: Path, count: int) -> Iterator[list[Node]]:
    """Fresh nodes in fresh homes below ``room``, removed afterwards."""
    started: list[Node] = []
    try:
        while len(started) < count:
            started.append(Node(room / f"home{len(started)}"))
        yield started
    finally:
        for node in started:
            node.stop()
            shutil.rmtree(node.home, ignore_errors=True)
