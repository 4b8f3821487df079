"""Faults at the n-th system call of an operation, by strace: what test_crash and test_faults share.

moments(...)  every (call, n) that a run makes: n counts per thread and call, as strace does
run(...)      one run with options for strace; its exit code and what it said
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import p2plearn

CALLS = (
    "pwrite64,pwritev,pwritev2,write,fsync,fdatasync,syncfs,ftruncate,link,linkat,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,fchmod"
)
EVERY = bool(os.environ.get("P2PLEARN_ALL_CRASHES"))
SAMPLE = 5
"""Moments of each operation that are tried every time."""


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-f", "-e", "trace=none", "true"], capture_output=True, check=False)
    return tried.returncode == 0


needs_strace = pytest.mark.skipif(
    not _strace_works(), reason="strace is missing here or may not trace: no way to meddle with a call"
)


def run(options: list[str], operation: str, home: Path, extra: Path) -> tuple[int, list[str]]:
    """Run an operation of ``crash_child`` under strace: exit code, and what it said."""
    here = Path(__file__).parent
    child = [sys.executable, str(here / "store" / "crash_child.py"), operation, str(home), str(extra)]
    paths = os.pathsep.join([str(here), str(Path(p2plearn.__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        ["strace", "-f", "-qq", *options, *child],
        capture_output=True, text=True, env=environment, check=False, timeout=100,
    )  # fmt: skip
    return ended.returncode, ended.stdout.splitlines()


def moments(operation: str, home: Path, work: Path, extra: Path, calls: str = CALLS) -> list[tuple[str, int]]:
    """Every (call, n) of an operation on a copy of ``home`` that is made in ``work``."""
    shutil.copytree(home, work / "home", symlinks=True)
    log = work / "log"
    code, said = run(["-e", f"trace={calls}", "-o", str(log)], operation, work / "home", extra)
    assert (code, said[-1:]) == (0, ["closed"])
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in log.read_text().splitlines():
        if found := re.match(r"(\d+) +(\w+)\(", line):
            counts[found[1], found[2]] += 1
    most: dict[str, int] = {}
    for (_, call), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return [(call, n) for call in sorted(most) for n in range(1, most[call] + 1)]


def chosen(all_moments: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """All of them when asked for, else a sample."""
    if EVERY or len(all_moments) <= SAMPLE:
        return all_moments
    step = len(all_moments) / SAMPLE
    return [all_moments[int(step * (n + 0.5))] for n in range(SAMPLE)]


def meddled(call: str, number: int, how: str) -> list[str]:
    """Options that do ``how`` (strace's words, as in ``signal=KILL``) to the n-th ``call``."""
    return ["-e", f"trace={call}", "-o", os.devnull, "-e", f"inject={call}:{how}:when={number}"]
