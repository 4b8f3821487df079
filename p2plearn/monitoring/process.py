"""What this process takes of the machine, from ``/proc`` where there is one.

Imports ``metrics`` for the plain values.
"""

from __future__ import annotations

import os
import resource
import time
from functools import cache
from pathlib import Path

from p2plearn.monitoring.metrics import ProcessFacts


def read_process() -> ProcessFacts:
    """This process as it stands. Never raises: what can't be told is None. Doesn't block (``/proc`` is memory)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = None if limit == resource.RLIM_INFINITY else limit
    cpu = usage.ru_utime + usage.ru_stime
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        virtual, resident = (int(word) * page for word in Path("/proc/self/statm").read_text("ascii").split()[:2])
        files = len(os.listdir("/proc/self/fd")) - 1  # the one that is reading it
    except (OSError, ValueError):
        return ProcessFacts(cpu, most_files=most)
    return ProcessFacts(cpu, resident, virtual, files, most, _started())


@cache
def _started() -> float | None:
    """When this process began, since 1970; told once, so that a clock that is set right doesn't move it."""
    try:
        # Field 22 of proc(5)'s stat: ticks after boot; the name in brackets may hold anything.
        ticks = int(Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # macOS has no such clock
        return None
    return time.time() - age
