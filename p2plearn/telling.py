"""How a long operation is carried out and told: blocking work in a thread, progress while it goes on.

Imports ``operations`` and ``progress``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import trio

from p2plearn.operations import Progress, Report
from p2plearn.progress import Gauge

T = TypeVar("T")

REPORT_SECONDS = 0.1
"""How often progress is told."""


class Counting:
    """Counts that a thread reports and the event loop reads."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._counts = (0, 0, 0, 0)

    def __call__(self, done: int, total: int, files: int = 0, files_total: int = 0) -> None:
        self._counts = (done, total, files, files_total)

    @property
    def done(self) -> int:
        """Bytes so far."""
        return self._counts[0]

    def progress(self, gauge: Gauge) -> Progress:
        """Where it stands."""
        done, total, files, files_total = self._counts
        gauge.update(trio.current_time(), done)
        return Progress(self._stage, done, total, files, files_total, gauge.rate, eta=gauge.eta(total - done))


@contextlib.asynccontextmanager
async def telling(report: Report, now: Callable[[Gauge], Progress]) -> AsyncIterator[None]:
    """Report progress while the body runs, and once at its end."""
    gauge = Gauge()
    error: BaseException | None = None

    async def tell() -> None:
        while True:
            report(now(gauge))
            await trio.sleep(REPORT_SECONDS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        try:
            yield
        except Exception as caught:  # taken out of the nursery, which would wrap it
            error = caught
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    report(now(gauge))


async def in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """Run blocking ``work`` in a thread; when cancelled, tell it to stop and wait until it has."""
    stopped = threading.Event()
    result: list[T] = []
    error: BaseException | None = None

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            result.append(await trio.to_thread.run_sync(work, stopped.is_set))
        except Exception as caught:
            error = caught
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    return result[0]
