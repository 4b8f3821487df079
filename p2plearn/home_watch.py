"""Whether a node's home is still where it was: deleted, moved or on a disk that was unplugged, it keeps nothing.

Then the lock keeps no other node out of that place either, and no command finds this one. So it ends, says why, and
makes nothing anew there: what was in the home may be somewhere still.

Imports ``errors`` and ``lock``.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from p2plearn.errors import HomeGone
from p2plearn.lock import NodeLock

log = logging.getLogger("p2plearn.node")

LOOK_SECONDS: Final = 5.0
"""Between two looks, each one ``lstat``: nobody's disk is kept awake by that, and no more is lost than what comes in
meanwhile."""

SILENT_LOOKS: Final = 3
"""Looks in a row to which the disk has no answer; a network disk may miss one."""


def _has_keys(lock: Path) -> bool:
    """Whether there is a home beside a lock: not an empty folder that a disk is to be mounted on, nor a dead disk."""
    with contextlib.suppress(OSError):
        return any(lock.parent.glob("keys/*"))
    return False


def _exists(lock: Path) -> bool:
    with contextlib.suppress(OSError):
        return lock.exists()
    return True  # as far as the disk tells


class HomeWatch:
    """Around all of a node: ``with HomeWatch(lock) as watch``, and ``watch.run`` as a task of it. Once the home is gone
    that raises HomeGone, and so does the ``with``, whatever else fails for the same reason while the node ends.
    """

    def __init__(self, lock: NodeLock, seconds: float = LOOK_SECONDS) -> None:
        self._lock = lock
        self._seconds = seconds
        self._gone: HomeGone | None = None

    async def run(self) -> None:
        """Look now and then; never returns. Raises HomeGone."""
        told, silent = False, 0
        while True:
            try:
                there, silent = await self._is_there(), 0
                told, why = told or there, "it was deleted or moved, or its disk is not plugged in any more"
            except OSError as error:
                silent += 1
                there, why = silent < SILENT_LOOKS, f"its disk doesn't answer ({error.strerror})"
            # On a file system that never told that this is the same file, it being there has to be enough.
            if not there and (told or silent or not _exists(self._lock.path)):
                self._gone = self._lock_gone() if _has_keys(self._lock.path) else self._home_gone(why)
                log.critical("%s %s", self._gone.message, self._gone.hint)
                raise self._gone
            await trio.sleep(self._seconds)

    def _home_gone(self, why: str) -> HomeGone:
        return HomeGone(
            f"The home of this node, {self._lock.path.parent}, is gone: {why}. Without it nothing can be kept, "
            "so the node has ended.",
            "Bring it back (plug in the disk, undo the move), then start the node again. A start without it "
            "makes a new node, with new keys.",
        )

    def _lock_gone(self) -> HomeGone:
        return HomeGone(
            f"The lock of this node, {self._lock.path}, was deleted, or another home is in its place. "
            "Nothing keeps a second node out any more, so the node has ended.",
            "If it is the same home still, start the node again: nothing was lost. Else bring that one back.",
        )

    async def _is_there(self) -> bool:
        # In a thread that may be left behind: a disk that is gone may never answer.
        return await trio.to_thread.run_sync(self._lock.in_place, abandon_on_cancel=True)  # type: ignore[call-arg]

    def __enter__(self) -> Self:
        """This."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise HomeGone if that is why all ends."""
        if self._gone is not None and problem is not self._gone:
            log.debug("without its home the node ended with %r", problem)
            raise self._gone from None
