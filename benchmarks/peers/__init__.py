"""The systems that p2plearn is set beside: each as a process (tree) that imports, offers and fetches the same files.

A peer is used so: make it (it starts), ``publish`` a file or folder and get a name, ``fetch`` that name on another one,
``stop``. ``cpu`` and ``memory`` count everything that belongs to it.
"""

from __future__ import annotations

import abc
import contextlib
from pathlib import Path

import proc


class Peer(abc.ABC):
    """One node of some system, in ``room``. ``begin_fetch`` returns at once, ``finish_fetch`` when all is in place."""

    name = ""
    room: Path
    address: str

    @abc.abstractmethod
    def pids(self) -> list[int]:
        """Its processes, without what only drives it."""

    @abc.abstractmethod
    def publish(self, source: Path) -> str:
        """Offer a file or folder; returns what others fetch it by."""

    @abc.abstractmethod
    def begin_fetch(self, name: str, dest: Path, others: list[str]) -> None:
        """Start fetching what another peer published to ``dest``/NAME; ``others`` are the addresses of all others."""

    @abc.abstractmethod
    def finish_fetch(self) -> None:
        """Wait until it is there, whole and written."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it."""

    def sent(self) -> int:
        """Bytes of the course that it has given to others; 0 where it doesn't tell."""
        return 0

    def cpu(self) -> float:
        """CPU seconds so far."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += proc.cpu(pid, children=True)
        return total

    def memory(self) -> float:
        """Peak resident memory, MiB, of its largest process."""
        peak = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                peak = max(peak, proc.memory(pid, "VmHWM"))
        return peak
