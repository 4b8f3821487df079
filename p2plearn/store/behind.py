"""Large files are written behind: on their way to the disk while more comes, and out of memory soon after.

So that the fsync at the end finds little left, and a course of 16 GiB doesn't push out of memory what the user's other
programs need. On a machine whose memory is lent by a host, fresh pages also cost more than everything else (measured
for a copy of 1 GiB: 3.3 s with them, 0.8 s when pages are used again).

Imports siblings and the standard library.
"""

from __future__ import annotations

import threading
from collections import Counter, deque

from p2plearn.store.durable import settle_behind, start_writeback

STRIPE = 16 * 1024 * 1024
"""Bytes written back at a time."""


class Behind:
    """Starts writing back each stripe of a file once it is full, and gives its memory back some stripes later.

    ``keep`` is how many bytes of full stripes stay in memory, for whoever reads them soon. Thread-safe; only hints.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep // STRIPE
        self._lock = threading.Lock()
        self._filled: Counter[tuple[int, int]] = Counter()
        self._full: deque[tuple[int, int]] = deque()

    def wrote(self, fd: int, offset: int, length: int) -> None:
        """``length`` bytes were written at ``offset`` of ``fd`` (each byte is told once)."""
        full: list[tuple[int, int]] = []
        old: list[tuple[int, int]] = []
        with self._lock:
            end = offset + length
            while offset < end:
                stripe = (fd, offset // STRIPE)
                step = min(end, (stripe[1] + 1) * STRIPE) - offset
                self._filled[stripe] += step
                offset += step
                if self._filled[stripe] >= STRIPE:
                    del self._filled[stripe]
                    full.append(stripe)
            self._full.extend(full)
            while len(self._full) > self._keep:
                old.append(self._full.popleft())
        for fd_, number in full:
            start_writeback(fd_, number * STRIPE, STRIPE)
        for fd_, number in old:
            settle_behind(fd_, number * STRIPE, STRIPE)
