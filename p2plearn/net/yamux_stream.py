"""One stream of a yamux connection: bytes in order, once, within the credit that each side gave the other.

``yamux.py`` has the connection, the specification and what must hold. Received bytes are views of the memory they were
decrypted into; credit is given back once half a window has been read; a writer wakes when credit arrives.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from p2plearn.errors import PeerFault

if TYPE_CHECKING:
    from p2plearn.net.yamux import YamuxConn

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
HEADER: Final = struct.Struct("!BBHII")  # version, type, flags, stream id, length
"""A frame's header; big-endian."""

INITIAL_WINDOW: Final = 256 * 1024
"""Credit that both sides of a new stream have, by the specification."""

MAX_WINDOW: Final = 4 * 1024 * 1024
"""The window of a stream that we opened grows to this while its reader keeps up: 100 ms of a 300 Mbit/s line. Those
that peers open stay as they are: questions are small, and a peer must not choose how much we hold for it."""

MAX_FRAME: Final = 256 * 1024
"""Payload of one data frame we send, and of all that are joined into one write to the session: another stream's turn
comes after at most so much."""

SMALL: Final = 4 * 1024
"""Unread bytes that come in smaller pieces than this are joined: a piece of one byte costs 200 as an object."""

PINNED: Final = 4
"""Unread bytes are copied when the memory they came in is larger than so many times their size."""


class YamuxStream(IMuxedStream):
    """One stream of a connection.

    ``receive`` and ``send`` are the fast way; ``read`` and ``write`` are the same for libp2p's own protocols.
    One reader and one writer at a time.
    """

    def __init__(self, conn: YamuxConn, stream_id: int) -> None:
        self.muxed_conn = conn
        self.stream_id = stream_id
        self._conn = conn
        self._inbox: deque[memoryview | bytearray] = deque()  # views as they came; small ones joined in a bytearray
        self._unread = 0
        self._window = INITIAL_WINDOW
        self._most = MAX_WINDOW if conn.is_ours(stream_id) else INITIAL_WINDOW
        self._credit_given = INITIAL_WINDOW  # what the peer may still send
        self._consumed = 0  # read since the last window update
        self._window_since = trio.current_time()
        self._credit = INITIAL_WINDOW  # what we may still send
        self.sent = 0
        """Bytes given to the connection so far: who watches it sees whether the peer reads."""
        self.sent_at = -math.inf
        """When the last of them were, in trio's time."""
        self._wake_reader = trio.lowlevel.ParkingLot()
        self._wake_writer = trio.lowlevel.ParkingLot()
        self._read_deadline = float("inf")
        self.peer_closed = False
        self.closed = False  # our side
        self.was_reset = False
        self.closed_at = float("inf")

    # -- reading -------------------------------------------------------------------------------------------------

    async def receive(self) -> memoryview:
        """The next bytes as they came, at least one; an empty view at the end of the stream.

        Raises MuxedStreamReset when either side or the connection ended the stream the hard way. Safe to cancel.
        """
        while not self._inbox:
            if self.was_reset:
                raise MuxedStreamReset("stream was reset")
            if self.peer_closed:
                return memoryview(b"")
            await self._wake_reader.park()
        return self._next()

    def receive_nowait(self) -> memoryview | None:
        """What ``receive`` would return, if some bytes are here already; None when it would do anything else."""
        return self._next() if self._inbox else None

    def _next(self) -> memoryview:
        view = memoryview(self._inbox.popleft())
        self._took(len(view))
        return view

    def push_back(self, view: memoryview) -> None:
        """Put bytes that were received but not wanted yet back to the front; they are not credited twice."""
        if view:
            self._inbox.appendleft(view)
            self._unread += len(view)
            self._consumed -= len(view)

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes (all that is there when None or negative); raises MuxedStreamEOF at the end."""
        if n == 0:
            return b""
        with trio.fail_at(self._read_deadline):
            view = await self.receive()
        if not view:
            raise MuxedStreamEOF("stream is closed by the peer")
        if n is None or n < 0:
            return bytes(view)
        if len(view) > n:
            self.push_back(view[n:])
            view = view[:n]
        return bytes(view)

    def _took(self, n: int) -> None:
        self._unread -= n
        self._consumed += n
        if self._consumed * 2 < self._window or self.peer_closed or self.was_reset:
            return
        now = trio.current_time()
        # More than half a window a half second: the window is what holds this stream back, on any line
        # whose round trip is not tiny; doubling it costs memory only while the reader falls behind.
        if now - self._window_since < 0.5 and self._window < self._most:
            self._window *= 2
        self._window_since = now
        grant = self._window - self._credit_given - self._unread
        if grant > 0:
            self._credit_given += grant
            self._consumed = 0
            self._conn.control(WINDOW_UPDATE, 0, self.stream_id, grant)

    def arrived(self, view: memoryview) -> None:
        """Bytes came in for this stream (the connection has checked the credit)."""
        self._unread += len(view)
        if len(view) >= SMALL and len(view) * PINNED >= len(view.obj):  # type: ignore[arg-type]
            self._inbox.append(view)
        elif self._inbox and isinstance(last := self._inbox[-1], bytearray) and len(last) < MAX_FRAME:
            last += view
        else:
            self._inbox.append(bytearray(view))
        if self._wake_reader:
            self._wake_reader.unpark_all()

    def spend(self, n: int) -> None:
        """The peer announced ``n`` bytes; raises PeerFault when it had no credit for them."""
        if n > self._credit_given:
            raise PeerFault("yamux: more data than the window allows")
        self._credit_given -= n

    # -- writing -------------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; waits while the peer's window is full."""
        await self.send((data,))

    async def send(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send the pieces back to back, in as few frames and writes as the window allows.

        Raises MuxedStreamClosed after our close, MuxedStreamReset after a reset. Cancelled half-way, an unknown
        part has been sent: reset the stream then.
        """
        views = deque(memoryview(piece) for piece in pieces if len(piece))
        while views:
            while self._credit <= 0:
                self._check_writable()
                await self._wake_writer.park()
            self._check_writable()
            frame, size = _take(views, min(self._credit, MAX_FRAME))
            self._credit -= size
            self.sent += size
            self.sent_at = trio.current_time()
            await self._conn.write([HEADER.pack(0, DATA, 0, self.stream_id, size), *frame], self)

    def _check_writable(self) -> None:
        if self.was_reset:
            raise MuxedStreamReset("stream was reset")
        if self.closed:
            raise MuxedStreamClosed("stream is closed")

    def credit(self, n: int) -> None:
        """The peer lets us send ``n`` bytes more; raises PeerFault when that makes no sense."""
        self._credit += n
        if self._credit > 0xFFFFFFFF:
            raise PeerFault("yamux: window overflow")
        self._wake_writer.unpark_all()

    # -- ending --------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Say that we send no more; reading goes on until the peer closes too."""
        if not self.closed and not self.was_reset:
            self.closed = True
            self.closed_at = trio.current_time()
            self._wake_writer.unpark_all()
            self._conn.control(WINDOW_UPDATE, FIN, self.stream_id, 0)
            if self.peer_closed:
                self._conn.forget(self)
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """End both directions at once; unread bytes are dropped."""
        self.reset_now()
        await trio.lowlevel.checkpoint()

    def reset_now(self) -> None:
        """:meth:`reset` for code that can't wait."""
        if not self.was_reset and not (self.closed and self.peer_closed):
            self._conn.control(WINDOW_UPDATE, RST, self.stream_id, 0)
        self.ended()

    def connection_ended(self) -> None:
        """The connection is gone; a stream that the peer had finished can still be read to its end."""
        if self.peer_closed:
            self.closed = True
            self._conn.forget(self)
            self._wake_writer.unpark_all()
        else:
            self.ended()

    def ended(self) -> None:
        """The stream is over the hard way: wake everybody, hold nothing."""
        self.was_reset = True
        self._inbox.clear()
        self._unread = 0
        self._conn.forget(self)
        self._wake_reader.unpark_all()
        self._wake_writer.unpark_all()

    def peer_finished(self) -> None:
        """The peer sends no more."""
        self.peer_closed = True
        self._wake_reader.unpark_all()
        if self.closed:
            self._conn.forget(self)

    def set_deadline(self, ttl: int) -> None:
        """Later reads fail with trio.TooSlowError ``ttl`` seconds from now."""
        if ttl < 0:
            raise ValueError("a deadline lies in the future")
        self._read_deadline = trio.current_time() + ttl

    def get_remote_address(self) -> tuple[str, int] | None:
        """The peer's address and port."""
        return self._conn.get_remote_address()

    @property
    def is_closed(self) -> bool:
        """Nothing more can be read or written."""
        return self.was_reset or (self.closed and self.peer_closed)

    async def __aenter__(self) -> YamuxStream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


def _take(views: deque[memoryview], size: int) -> tuple[list[memoryview], int]:
    """Up to ``size`` bytes from the front of ``views``, which loses them."""
    taken: list[memoryview] = []
    got = 0
    while views and got < size:
        view = views.popleft()
        if len(view) > size - got:
            views.appendleft(view[size - got :])
            view = view[: size - got]
        taken.append(view)
        got += len(view)
    return taken, got
