"""Trouble that stays where it is: a task that raises ends itself, a socket that can't be closed is let go.

libp2p's swarm ends with the first background task that raises; a peer must not be able to bring that about. Nor may one
turn of a task of ours end all its turns, and with it the network part: ``safely``.

Imports ``errors``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from p2plearn.errors import P2plearnError

T = TypeVar("T")

log = logging.getLogger("p2plearn.net")


class ContainedTasks:
    """The swarm's task runner, but a task that raises ends itself only. Everything else is passed through."""

    def __init__(self, manager: Any, report: Callable[[str, Exception], None]) -> None:
        self.manager = manager
        self._report = report

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manager, name)

    def run_task(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> None:
        owner = getattr(function, "__self__", None)

        async def contained() -> None:
            try:
                await function(*args)
            except Exception as error:
                self._report(getattr(function, "__qualname__", str(function)), error)
                close = getattr(owner, "close", None)
                if close is not None:
                    try:
                        await close()
                    except Exception as second:
                        self._report("close", second)

        self.manager.run_task(contained, **options)


async def quietly(close: Callable[[], Awaitable[Any]]) -> None:
    """``close``, whatever comes of it."""
    try:
        await close()
    except Exception as error:
        log.debug("closing failed: %s", error)


async def safely(room: logging.Logger, what: str, work: Callable[..., Awaitable[T]], *arguments: Any) -> T | None:
    """What ``work`` gives; None where it fails at this end, by a full disk or by a bug of ours that somebody's words
    found: ``room`` then logs that ``what`` failed, and the caller goes on. For one turn of many: the next may mend it.
    """
    try:
        return await work(*arguments)
    except P2plearnError as problem:  # in words already
        room.warning("%s failed: %s", what, problem.message)
    except Exception:
        room.exception("%s failed", what)
    return None


_seen: set[tuple[str, str]] = set()


def log_once(what: str, error: Exception) -> None:
    """Say that ``what`` ended with ``error``, once for each kind of error."""
    key = (what, type(error).__name__)
    if key not in _seen:
        _seen.add(key)
        log.warning("%s ended with %s: %s", what, type(error).__name__, error)
