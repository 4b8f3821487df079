"""Yamux, fast: ``/yamux/1.0.0`` on the wire, as stock libp2p, go-libp2p and js-libp2p speak it.

Specification: https://github.com/hashicorp/yamux/blob/master/spec.md. libp2p's own class copies each slice, polls a
full window every 10 ms, over-credits windows without bound and answers each read with a window update. This one

- hands received bytes on as views of the memory they were decrypted into (no copy until somebody wants ``bytes``),
- wakes a writer when credit arrives, and gives credit back once half a window has been read,
- never blocks reading on writing: small control frames wait in a bounded buffer for their turn,
- holds a peer to its credit, and to caps on streams and on what it may leave unread.

What must hold: bytes of a stream arrive in order, once; a peer that breaks the protocol loses its connection and
nothing else; what one connection can make us hold is bounded by ``MAX_STREAMS`` windows (a few times their size, in
however small pieces it comes), and a window only grows while its reader keeps up.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from multiaddr import Multiaddr

from p2plearn.errors import PeerFault
from p2plearn.net.tls import TlsSession

logger = logging.getLogger(__name__)

PROTOCOL: Final = "/yamux/1.0.0"

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
_HEADER: Final = struct.Struct("!BBHII")  # version, type, flags, stream id, length

INITIAL_WINDOW: Final = 256 * 1024
"""Credit that both sides of a new stream have, by the specification."""

MAX_WINDOW: Final = 4 * 1024 * 1024
"""A stream's window grows to this while its reader keeps up: 100 ms of a 300 Mbit/s line."""

MAX_FRAME: Final = 64 * 1024
"""Payload of one data frame we send: another stream's turn comes after at most so much."""

MAX_WRITE: Final = 256 * 1024
"""Frames of one stream joined into one write to the session."""

MAX_STREAMS: Final = 256
"""Streams open at once in one connection, from each side; what is beyond is reset."""

MAX_CONTROL: Final = 64 * 1024
"""Control frames waiting to be written; a peer that makes us queue more isn't reading, and is cut."""

MAX_STRAY: Final = 16 * 1024 * 1024
"""Bytes that a peer may send to streams that are gone (it can't know yet) between two keepalives."""

SMALL: Final = 4 * 1024
"""Unread bytes that come in smaller pieces than this are joined: a piece of one byte costs 200 as an object."""

PINNED: Final = 4
"""Unread bytes are copied when the memory they came in is larger than so many times their size."""

KEEPALIVE_SECONDS: Final = 30.0
"""Between two pings; when nothing at all came from one to the next, the peer is gone."""

LINGER_SECONDS: Final = 60.0
"""A stream that we closed and the peer didn't is reset after this."""


class _Goodbye(Exception):
    """The peer ends the connection, in all friendship."""


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
        self._credit_given = INITIAL_WINDOW  # what the peer may still send
        self._consumed = 0  # read since the last window update
        self._window_since = trio.current_time()
        self._credit = INITIAL_WINDOW  # what we may still send
        self.sent = 0
        """Bytes given to the connection so far: who watches it sees whether the peer reads."""
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
        if now - self._window_since < 0.5 and self._window < MAX_WINDOW:
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
            parts: list[bytes | memoryview] = []
            room = min(self._credit, MAX_WRITE)
            while views and room > 0:
                frame, size = _take(views, min(room, MAX_FRAME))
                parts.append(_HEADER.pack(0, DATA, 0, self.stream_id, size))
                parts += frame
                room -= size
                self._credit -= size
                self.sent += size
            await self._conn.write(parts, self)

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


class YamuxConn(IMuxedConn):
    """Streams over one secured connection. libp2p's swarm runs ``start`` and takes streams from ``accept_stream``."""

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self._streams: dict[int, YamuxStream] = {}
        self._next_id = 1 if conn.is_initiator else 2
        self._offer, self._offered = trio.open_memory_channel[YamuxStream](MAX_STREAMS)
        self._write_lock = trio.Lock()
        self._control = bytearray()
        self._unfinished = False  # a cancelled write left bytes behind in the session
        self._wake_control = trio.lowlevel.ParkingLot()
        self._stray = 0
        self._pinged_at: float | None = None
        self._heard = False  # anything, since the last ping
        self._ping_id = 0
        self.rtt = 0.0
        """Seconds of the last ping's round trip, 0 before there was one."""
        self.opened_at = trio.current_time()
        self._closed = False
        self._scope: trio.CancelScope | None = None

    # -- what the swarm calls ------------------------------------------------------------------------------------

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and not self._closed

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self._closed

    async def start(self) -> None:
        """Read frames until the connection ends, for whatever reason; returns, never raises for a peer's doing."""
        reason = "closed by the peer"
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._write_control)
                nursery.start_soon(self._keep_alive)
                self.event_started.set()
                try:
                    await self._read_frames()
                except _Goodbye as goodbye:
                    reason = str(goodbye)
                except PeerFault as fault:
                    reason = str(fault)
                    self.control(GO_AWAY, 0, 0, 1)
                    with trio.move_on_after(1):
                        await self._flush_control()
                except (IOException, RawConnError) as error:
                    reason = str(error) or reason
                nursery.cancel_scope.cancel()
        finally:
            self.event_started.set()
            self._end()
            logger.debug("connection with %s ended: %s", self.peer_id, reason)
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await self.secured_conn.close()

    async def close(self) -> None:
        """Say goodbye, end every stream and the connection."""
        if not self._closed:
            self.control(GO_AWAY, 0, 0, 0)
            with trio.move_on_after(1):
                await self._flush_control()
        self._end()
        with trio.move_on_after(1):
            await self.secured_conn.close()

    async def open_stream(self) -> YamuxStream:
        """A new stream to the peer; raises MuxedConnUnavailable when the connection is over or full of ours."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise MuxedConnUnavailable("connection is closed")
        if self._count(ours=True) >= MAX_STREAMS:
            raise MuxedConnUnavailable(f"{MAX_STREAMS} streams are open already")
        stream = YamuxStream(self, self._next_id)
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self.control(WINDOW_UPDATE, SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
        """The next stream that the peer opened; raises MuxedConnUnavailable once the connection is over."""
        try:
            return await self._offered.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            raise MuxedConnUnavailable("connection is closed") from error

    def get_remote_address(self) -> tuple[str, int] | None:
        """The peer's address and port."""
        return self.secured_conn.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The addresses this connection really uses."""
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Direct or relayed."""
        return self.secured_conn.get_connection_type()

    # -- writing -------------------------------------------------------------------------------------------------

    def control(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Queue a frame without payload; it goes out with the next write. Never waits."""
        if self._closed:
            return
        if len(self._control) >= MAX_CONTROL:
            logger.debug("cutting %s: it makes us answer, but doesn't read", self.peer_id)
            self._end()
            return
        self._control += _HEADER.pack(0, kind, flags, stream_id, length)
        self._wake_control.unpark()

    async def write(self, parts: list[bytes | memoryview], stream: YamuxStream | None = None) -> None:
        """Send whole frames (of ``stream``), what waits of control first.

        Raises MuxedStreamError when the connection breaks, or ``stream`` was reset before its turn came: the peer
        must not get data after a reset.
        """
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            if self._closed:
                raise MuxedStreamReset("connection is closed")
            if stream is not None and stream.was_reset:
                raise MuxedStreamReset("stream was reset")
            self._unfinished = False
            if self._control:
                parts.insert(0, bytes(self._control))
                self._control.clear()
            await self.secured_conn.write(b"".join(parts))
        except (IOException, RawConnError) as error:
            self._end()
            raise MuxedStreamReset(f"connection broke: {error}") from error
        except trio.Cancelled:
            # A TLS session keeps the rest of the frame and sends it first; others may have sent half of it,
            # and nothing sensible can follow that.
            if isinstance(self.secured_conn, TlsSession):
                self._unfinished = True
                self._wake_control.unpark()
            else:
                self._end()
            raise
        finally:
            self._write_lock.release()

    async def _write_control(self) -> None:
        while not self._closed:
            if not (self._control or self._unfinished):
                await self._wake_control.park()
            await self._flush_control()

    async def _flush_control(self) -> None:
        if self._control or self._unfinished:
            try:
                await self.write([])
            except MuxedStreamError:
                self._end()

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep(KEEPALIVE_SECONDS)
            # Anything counts as a sign of life: on a slow line the answer to a ping waits behind other bytes.
            if self._pinged_at is not None and not self._heard:
                logger.debug("cutting %s: no answer to a ping in %s s", self.peer_id, KEEPALIVE_SECONDS)
                self._end()
                return
            self._stray, self._heard = 0, False
            self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
            self._pinged_at = trio.current_time()
            self.control(PING, SYN, 0, self._ping_id)
            for stream in list(self._streams.values()):
                if trio.current_time() - stream.closed_at > LINGER_SECONDS:
                    stream.reset_now()

    # -- reading -------------------------------------------------------------------------------------------------

    async def _read_frames(self) -> None:
        """Split what comes into frames and hand their payload on, whatever the pieces it comes in."""
        header = bytearray()
        stream: YamuxStream | None = None
        left = 0  # payload of the current frame still to come
        fin = False
        while not self._closed:
            batch = await self._next_batch()
            if not batch:
                return
            self._heard = True
            at, end = 0, len(batch)
            while at < end:
                if left:
                    piece = batch[at : at + left]
                    at += len(piece)
                    left -= len(piece)
                    if stream is not None and not stream.was_reset:
                        stream.arrived(piece)
                    else:
                        self._count_stray(len(piece))
                elif not header and end - at >= 12:
                    stream, left, fin = self._frame(*_HEADER.unpack_from(batch, at))
                    at += 12
                else:
                    missing = batch[at : at + 12 - len(header)]
                    header += missing
                    at += len(missing)
                    if len(header) < 12:
                        continue
                    stream, left, fin = self._frame(*_HEADER.unpack(header))
                    header.clear()
                if fin and not left:
                    fin = False
                    if stream is not None:
                        stream.peer_finished()
            # Other tasks have their turn after each batch, however fast the peer is.
            await trio.lowlevel.checkpoint()

    async def _next_batch(self) -> memoryview:
        if isinstance(self.secured_conn, TlsSession):
            return await self.secured_conn.receive()
        return memoryview(await self.secured_conn.read(None))

    def _frame(
        self, version: int, kind: int, flags: int, stream_id: int, length: int
    ) -> tuple[YamuxStream | None, int, bool]:
        """Act on a header: the stream whose payload follows, its length, and whether the peer is done with it."""
        if version != 0:
            raise PeerFault(f"yamux: version {version}")
        if kind == PING:
            self._ping(flags, length)
            return None, 0, False
        if kind == GO_AWAY:
            raise _Goodbye(f"peer said goodbye ({length})")
        if kind not in (DATA, WINDOW_UPDATE):
            raise PeerFault(f"yamux: frame type {kind}")
        if flags & SYN:
            self._opened_by_peer(stream_id)
        stream = self._streams.get(stream_id)
        if flags & RST:
            if stream is not None:
                stream.ended()
            stream = None
        if kind == WINDOW_UPDATE:
            if stream is not None:
                stream.credit(length)
            length = 0
        elif stream is not None:
            stream.spend(length)
        elif length > MAX_WINDOW:
            raise PeerFault("yamux: a frame larger than any window")
        return stream, length, bool(flags & FIN)

    def _ping(self, flags: int, value: int) -> None:
        if flags & SYN:
            self.control(PING, ACK, 0, value)
        elif self._pinged_at is not None and value == self._ping_id:
            self.rtt = trio.current_time() - self._pinged_at
            self._pinged_at = None

    def _opened_by_peer(self, stream_id: int) -> None:
        if stream_id == 0 or stream_id % 2 == self._next_id % 2 or stream_id in self._streams:
            raise PeerFault(f"yamux: stream {stream_id} can't be opened")
        if self._count(ours=False) >= MAX_STREAMS:
            self.control(WINDOW_UPDATE, RST, stream_id, 0)
            return
        stream = YamuxStream(self, stream_id)
        try:
            self._offer.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.control(WINDOW_UPDATE, RST, stream_id, 0)
            return
        self._streams[stream_id] = stream
        self.control(WINDOW_UPDATE, ACK, stream_id, 0)

    def _count(self, *, ours: bool) -> int:
        parity = self._next_id % 2
        return sum((stream_id % 2 == parity) is ours for stream_id in self._streams)

    def _count_stray(self, n: int) -> None:
        self._stray += n
        if self._stray > MAX_STRAY:
            raise PeerFault("yamux: data for streams that are gone")

    # -- ending --------------------------------------------------------------------------------------------------

    def forget(self, stream: YamuxStream) -> None:
        """Drop a stream from the table; its unread bytes stay with it."""
        self._streams.pop(stream.stream_id, None)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        for stream in list(self._streams.values()):
            stream.connection_ended()
        self._offer.close()
        self._wake_control.unpark_all()
        if self._scope is not None:
            self._scope.cancel()


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
