"""How much may be kept, and whether something more fits: asked before the first byte is written.

Two limits: the quota (what the store may hold, counted as the lengths of its extents, planned downloads in full) and
the floor (what must stay free on the disk). ``Budget`` also knows what running downloads and publishes have promised
to write but haven't yet, so that two of them can't both count on the same free bytes.

Imports only ``errors`` and siblings.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from p2plearn.errors import NoSpace
from p2plearn.store.problems import size_text


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """``quota``: bytes the store may hold (None: no limit). ``min_free``: bytes to leave free on the disk."""

    quota: int | None = None
    min_free: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes held (planned ones included), the quota, and what the disk has left."""

    bytes: int
    quota: int | None
    free_disk: int
    min_free: int


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the file system of ``path``, in bytes."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


class Budget:
    """What running operations have promised to write and not written yet, by token; thread-safe."""

    def __init__(self, limits: StoreLimits, directory: Path) -> None:
        self.limits = limits
        self._directory = directory
        self._lock = threading.Lock()
        self._promised: dict[object, tuple[int, int]] = {}

    def promise(self, token: object, *, counted: int, disk: int) -> None:
        """Set what ``token`` still has to write: ``disk`` bytes, ``counted`` of them unknown to the catalogue."""
        with self._lock:
            self._promised[token] = (counted, disk)

    def release(self, token: object) -> None:
        """Forget what ``token`` promised."""
        with self._lock:
            self._promised.pop(token, None)

    def check(self, token: object, *, held: int, more: int, beside: int = 0, what: str) -> None:
        """Raise NoSpace with the figures unless ``more`` bytes fit in the store, with ``beside`` on the same disk.

        ``held`` is what the catalogue says the store holds; what ``token`` itself promised isn't counted against it.
        """
        with self._lock:
            others = [promised for key, promised in self._promised.items() if key is not token]
        counted = held + sum(one[0] for one in others)
        quota = self.limits.quota
        if quota is not None and counted + more > quota:
            raise NoSpace(
                f"{what} needs {size_text(more)} more in the store, but its quota of {size_text(quota)} has "
                f"{size_text(max(quota - counted, 0))} left ({size_text(counted)} used or reserved).",
                "Make room with p2plearn remove HASH (p2plearn list shows what is kept), or raise storage.quota.",
            )
        check_disk(self._directory, more + beside, self.limits.min_free + sum(one[1] for one in others), what)


def check_disk(directory: Path, needed: int, keep: int, what: str) -> None:
    """Raise NoSpace with the figures unless ``directory``'s disk has ``needed`` bytes above the ``keep`` to be left."""
    free = free_bytes(directory)
    if needed and free - keep < needed:
        raise NoSpace(
            f"{what} needs {size_text(needed)} on the disk of {directory}, which has {size_text(free)} free"
            + (f"; {size_text(keep)} are reserved or to be left free." if keep else "."),
            "Free some space there, choose another place (-o DIR, --home DIR), or lower storage.min_free.",
        )
