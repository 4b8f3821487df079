"""Signs of life for the service manager: systemd's notification protocol, sd_notify(3), over its datagram socket.

In: the environment of a service (``NOTIFY_SOCKET``, ``WATCHDOG_USEC``, ``WATCHDOG_PID``). Out: READY=1 once the node
can be used, WATCHDOG=1 from the event loop as long as that turns, STOPPING=1. Without a service manager nothing is
said. No send raises, and none blocks for more than a second at the start and the end: a manager that doesn't read must
not hold up the node.

Imports trio and the standard library.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from types import TracebackType
from typing import Final, Self

import trio

PINGS: Final = 3
"""Signs of life within the time after which the manager takes the node for hung: sd_watchdog_enabled(3) advises two;
with three, one may come late on a busy machine."""

WAIT_SECONDS: Final = 1.0
"""For a manager whose queue is full (ten messages), with what it has to hear; a sign of life is left out instead."""


class Notifier:
    """Speaks to the service manager, if there is one. Close it, or use it in a ``with``."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = address
        self.interval = None if watchdog is None else watchdog / PINGS
        """Seconds between two signs of life; None when nobody waits for them."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """As the service manager asks for it. The variables are taken out, for no child process is to speak for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        period, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return cls()  # vsock and the like: for virtual machines
        watched = period.isdecimal() and int(period) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(period) / 1e6 if watched else None)

    def ready(self, words: str) -> None:
        """The node can be used; ``words`` are shown by ``systemctl status``."""
        self._say(f"READY=1\nSTATUS={_one_line(words)}", WAIT_SECONDS)

    def stopping(self, words: str = "", *, seconds: float = 0.0) -> None:
        """The node is being stopped, which may take ``seconds`` longer than the manager would wait."""
        more = f"\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}" if seconds else ""
        self._say(f"STOPPING=1\nSTATUS={_one_line(words)}{more}", WAIT_SECONDS)

    def alive(self) -> None:
        """One sign of life."""
        self._say("WATCHDOG=1")

    async def keep_alive(self) -> None:
        """Signs of life from the event loop, until cancelled: when it hangs, they stop. Returns when nobody waits."""
        while self.interval is not None:
            self.alive()
            await trio.sleep(self.interval)

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, message: str, seconds: float = 0.0) -> None:
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        self._socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            self._socket.sendto(message.encode("utf-8", "replace"), address)

    def __enter__(self) -> Self:
        """This."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _one_line(words: str) -> str:
    """A line of the protocol ends at a newline: words must not begin another."""
    return " ".join(words.split())
