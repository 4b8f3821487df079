"""HTTP over the Unix socket of the local API, by whoever waits for a node that may fall silent.

One call a connection, asked in HTTP/1.0: then an answer is what comes until the end, with no pieces to be put together,
and ``http.client``, whose imports (email, ssl) were a sixth of a command's CPU time, isn't needed.

Imports ``local_socket`` and the standard library.
"""

from __future__ import annotations

import io
import re
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2plearn.local_socket import short_address

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECTING_SECONDS: Final = 5.0
"""For the system to take a connection to the socket."""

MOST_HEADERS: Final = 100
MOST_HEADER_BYTES: Final = 65536
"""A node sends five short ones; whatever sends more than that is none."""

_LENGTH: Final = re.compile(rb"content-length:[ \t]*([0-9]{1,15})[ \t]*\r?\n", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])( [^\r\n]*)?\r?\n")


class Answer:
    """What a node answers: its ``status``, and a body that is read as it comes."""

    def __init__(self, file: io.BufferedReader) -> None:
        """Read the head of an answer. Raises OSError, also when it is none."""
        self._file = file
        begun = _STATUS.fullmatch(file.readline(MOST_HEADER_BYTES))
        if begun is None:
            raise ConnectionError("what came is no answer")
        self.status = int(begun[1])
        self._length: int | None = None
        for _ in range(MOST_HEADERS):
            line = file.readline(MOST_HEADER_BYTES)
            if line in {b"\r\n", b"\n"}:
                return
            if not line.endswith(b"\n"):
                break
            if length := _LENGTH.fullmatch(line):
                self._length = int(length[1])
        raise ConnectionError("the answer ended in its head, or has none")

    def read(self) -> bytes:
        """The whole body. Raises OSError, also when it ends before its length."""
        body = self._file.read() if self._length is None else self._file.read(self._length)
        if self._length is not None and len(body) < self._length:
            raise ConnectionError("the answer ended before its end")
        return body

    def lines(self) -> Iterator[bytes]:
        """The body's lines, each when it is here. Raises OSError, also when the last one is cut."""
        while line := self._file.readline():
            if not line.endswith(b"\n"):
                raise ConnectionError("the answer ended in a line")
            yield line


class Connection:
    """One call over the socket at ``path``; ``seconds`` that a read may take, None for as long as it takes."""

    def __init__(self, path: Path, seconds: float | None) -> None:
        self._path = path
        self._seconds = seconds
        self._sock: socket.socket | None = None
        self._file: io.BufferedReader | None = None

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
        self._sock = sock

    def request(self, method: str, target: str, body: bytes | None = None) -> None:
        """Send the call, with ``body`` as JSON. Raises OSError."""
        head = f"{method} {target} HTTP/1.0\r\nHost: p2plearn.local\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._connected.sendall(f"{head}\r\n".encode("ascii") + (body or b""))

    def answers_within(self, seconds: float) -> bool:
        """Whether there is something to read, or the other end has gone, before ``seconds`` are over."""
        return _readable(self._connected.fileno(), seconds)

    def answer(self) -> Answer:
        """The answer. Raises OSError, TimeoutError among them."""
        self._file = self._connected.makefile("rb")
        return Answer(self._file)

    def answer_in_pieces(self, look_after: float, look: Callable[[], None]) -> Answer:
        """The answer, whose reads wait as long as it takes; ``look`` is called after every ``look_after`` seconds in
        which nothing came. Raises OSError.
        """
        raw = self._connected.makefile("rb", buffering=0)
        self._file = io.BufferedReader(_Patiently(raw, look_after, look))
        return Answer(self._file)

    def close(self) -> None:
        """Hang up."""
        if self._file is not None:
            self._file.close()
        if self._sock is not None:
            self._sock.close()

    @property
    def _connected(self) -> socket.socket:
        if self._sock is None:
            raise ConnectionError("not connected")
        return self._sock


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
