"""HTTP over the Unix socket of the local API, by whoever waits for a node that may fall silent.

Imports ``local_socket`` and the standard library.
"""

from __future__ import annotations

import http.client
import io
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from p2plearn.local_socket import short_address

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECTING_SECONDS: Final = 5.0
"""For the system to take a connection to the socket."""


class Connection(http.client.HTTPConnection):
    """HTTP over the socket at ``path``; ``seconds`` that a read may take, None for as long as it takes."""

    def __init__(self, path: Path, seconds: float | None) -> None:
        super().__init__("p2plearn.local")
        self._path = path
        self._seconds = seconds

    def connect(self) -> None:
        """Connect; raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECTING_SECONDS)
            with short_address(self._path) as address:
                sock.connect(address)
            sock.settimeout(self._seconds)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def answers_within(self, seconds: float) -> bool:
        """Whether there is something to read, or the other end has gone, before ``seconds`` are over."""
        return _readable(self.sock.fileno(), seconds)

    def answer_in_pieces(self, look_after: float, look: Callable[[], None]) -> http.client.HTTPResponse:
        """The answer, whose reads wait as long as it takes; ``look`` is called after every ``look_after`` seconds in
        which nothing came. Raises OSError, HTTPException.
        """

        class Patient(http.client.HTTPResponse):
            def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
                super().__init__(sock, *args, **named)
                self.fp.close()
                self.fp = io.BufferedReader(_Patiently(sock.makefile("rb", buffering=0), look_after, look))

        self.response_class = Patient
        return self.getresponse()


class _Patiently(io.RawIOBase):
    """Reads ``source``, which has a descriptor, and has somebody look while nothing comes."""

    def __init__(self, source: io.RawIOBase, seconds: float, look: Callable[[], None]) -> None:
        self._source, self._seconds, self._look = source, seconds, look

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        while not _readable(self._source.fileno(), self._seconds):
            self._look()
        return self._source.readinto(buffer)

    def close(self) -> None:
        self._source.close()
        super().close()


def _readable(descriptor: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(seconds))
