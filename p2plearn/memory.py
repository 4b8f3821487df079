"""How the C library keeps memory for a node: one heap, its pages kept while they are used again and again.

A transfer makes and drops buffers of 256 KiB to a few MiB, thousands a second, in the event loop's thread and in those
that read and write. Left alone, glibc gives each thread an arena of its own, so that what one lets go of is of no use
to the next (some 16 MiB in a fetcher that serves three others), and gives pages back to the system as soon as it can,
which then clears and maps them anew: 7 % of the CPU of five nodes that fetched a course together. Whoever holds the
interpreter's lock allocates, so that one heap costs no waiting.

Imports only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""Parameters of mallopt(3)."""

KEPT: Final = 32 << 20
"""Free bytes at the heap's end that stay with the process; all the buffers of a busy transfer."""

LARGE: Final = 8 << 20
"""Blocks of at least so many bytes are mapped by themselves, and given back at once."""


def keep_one_heap() -> bool:
    """Set it, before the first thread is made; whether this C library took it. An environment that says how stays."""
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_ARENA_MAX, 1), mallopt(_TRIM_THRESHOLD, KEPT), mallopt(_MMAP_THRESHOLD, LARGE)])


def give_back() -> None:
    """Let the system have the pages that nobody uses: after a burst, when others may need them."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return
