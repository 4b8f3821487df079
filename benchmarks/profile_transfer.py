"""Where a transfer's time goes: one side of a get is sampled while it runs.

    python benchmarks/profile_transfer.py [--side getter|provider] [--mib 1024] [--work DIR] [--top 25]

Needs py-spy (``pip install '.[bench]'``). Prints, for the side that is sampled: seconds, CPU in user and system mode,
samples by thread, the functions that were running, and those that were on the stack. Idle waits are left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from proc import modes
from work import made_file, nodes, same

RATE = 250
"""Samples a second."""
WAITING = ("get_events", "WorkerThread._work (trio/_core/_thread_cache.py", "wait (threading.py")


def report(raw: Path, top: int) -> None:
    """Sum stacks up."""
    running, on_stack, threads = Counter[str](), Counter[str](), Counter[str]()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if any(frames[-1].startswith(one) or one in frames[-1] for one in WAITING):
            continue
        threads[frames[0]] += int(count)
        running[frames[-1]] += int(count)
        for frame in set(frames[1:]):
            on_stack[frame] += int(count)
    total = sum(threads.values()) or 1
    for title, counted in (("threads", threads), ("running", running), ("on the stack", on_stack)):
        print(f"\n{title}")
        for name, count in counted.most_common(top):
            print(f"  {count / total:6.1%}  {name}")


def main() -> None:
    """Run one transfer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=["getter", "provider"], default="getter")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    spy = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if spy is None:
        sys.exit("py-spy is not installed: pip install py-spy")
    with tempfile.TemporaryDirectory(prefix="p2plearn-profile-", dir=given.work) as place:
        room = Path(place)
        source, raw = made_file(room / "course.bin", given.mib << 20), room / "stacks"
        with nodes(room, 2) as (a, b):
            course = a.run("publish", source)["course"]
            os.sync()
            pid = (b if given.side == "getter" else a).pid
            before = modes(pid)
            command = [spy, "record", "-r", str(RATE), "-d", "600", "-t", "-f", "raw", "-o", raw, "--pid", str(pid)]
            sampler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1)
            got = b.run("get", course, "--from", a.address, "-o", room / "out")
            sampler.send_signal(2)
            sampler.wait()
            user, system = (now - was for now, was in zip(modes(pid), before, strict=True))
            if not same(source, room / "out" / source.name):
                sys.exit("the bytes differ")
        print(f"{given.mib} MiB in {got['seconds']:.2f} s; {given.side}: {user:.2f} s user, {system:.2f} s system")
        report(raw, given.top)


if __name__ == "__main__":
    main()
