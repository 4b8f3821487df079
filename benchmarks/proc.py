"""What the kernel says of a process (proc(5)): CPU time, memory, open files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def modes(pid: int, *, children: bool = False) -> tuple[float, float]:
    """CPU seconds so far in user and in system mode; with those of children that have ended, if asked for.

    Raises OSError when there is no such process; so do the others.
    """
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    user, system, user_below, system_below = (int(field) / _TICK for field in fields[11:15])
    return (user + user_below, system + system_below) if children else (user, system)


def cpu(pid: int, *, children: bool = False) -> float:
    """CPU seconds so far, in both modes."""
    return sum(modes(pid, children=children))


def memory(pid: int, key: str = "VmRSS") -> float:
    """Resident MiB: VmRSS what it holds now, VmHWM its peak; 0 for a process that has ended and waits to be reaped."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return 0.0


def sleeps(pid: int) -> dict[int, int]:
    """By thread, how often it has gone to sleep so far, and so was or will be woken."""
    counts = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            text = Path(f"/proc/{pid}/task/{thread}/status").read_text("ascii", errors="replace")
            counts[int(thread)] = int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return counts


def files(pid: int) -> int:
    """Open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))
