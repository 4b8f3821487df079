"""A part of the node that is run anew when a fault of ours ends it, so that the rest lives on.

The network part is where strangers' bytes go. Every door of it is guarded (``net.guard``), and what still gets past is
a bug of ours: it ends that part, is logged with its traceback, and the part is built afresh a moment later. At most
``most`` times in ``window`` seconds, so that a fault that comes back at once costs no more than a slow retry, and no
peer can keep a node busy with starting.

Only faults are caught: cancellation passes, and so does a first start that fails, for a person has to know.

Imports nothing of ours.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

log = logging.getLogger("p2plearn.node")

MOST: Final = 4
"""Restarts in ``WINDOW`` seconds ..."""

WINDOW: Final = 60.0

PAUSE: Final = 0.2
"""... and seconds before each: sockets close, and a fault that comes back at once doesn't spin."""


class Restarts:
    """⊙ When a part may be started again: at most ``most`` times in any ``window`` seconds."""

    def __init__(self, most: int = MOST, window: float = WINDOW) -> None:
        self._latest: deque[float] = deque(maxlen=most)
        self._window = window

    def next(self, now: float) -> float:
        """The moment of the next start, counted as one."""
        at = now + PAUSE
        if len(self._latest) == self._latest.maxlen:
            at = max(at, self._latest[0] + self._window)
        self._latest.append(at)
        return at


class Supervisor:
    """Runs one part: ``nursery.start(supervisor.run, part)`` counts as started once the part first does."""

    def __init__(self, name: str, restarts: Restarts | None = None) -> None:
        self._name = name
        self._restarts = restarts or Restarts()
        self.restarts = 0
        """How often the part was run anew."""
        self.last_fault = ""
        """What ended it last, in one line."""

    async def run(self, part: Callable[..., Awaitable[None]], *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Run ``part`` (which takes ``task_status``, as trio has it) until cancelled.

        Raises what the part raises before it was started for the first time.
        """
        started = False
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    value = await nursery.start(part)
                    if not started:
                        started = True
                        task_status.started(value)
                fault: Exception = RuntimeError("it ended by itself")
            except Exception as error:
                if not started:
                    raise
                fault = error
            self.last_fault = describe(fault)
            at = self._restarts.next(trio.current_time())
            log.error(
                "%s ended with a fault of ours and is started again in %.1f s: %s",
                self._name,
                at - trio.current_time(),
                self.last_fault,
                exc_info=fault,
            )
            await trio.sleep_until(at)
            self.restarts += 1


def describe(error: BaseException) -> str:
    """The first real error inside ``error`` in one line: its kind and words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error)[:200]}"
