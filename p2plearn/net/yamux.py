"""Yamux, fast: ``/yamux/1.0.0`` on the wire, as stock libp2p, go-libp2p and js-libp2p speak it.

Specification: https://github.com/hashicorp/yamux/blob/master/spec.md. libp2p's own class copies each slice, polls a
full window every 10 ms, over-credits windows without bound and answers each read with a window update. This one

- hands received bytes on as views of the memory they were decrypted into (no copy until somebody wants ``bytes``),
- wakes a writer when credit arrives, and gives credit back once half a window has been read,
- never blocks reading on writing: small control frames wait in a bounded buffer for their turn,
- holds a peer to its credit, and to caps on streams and on what it may leave unread.

What must hold: bytes of a stream arrive in order, once; a peer that breaks the protocol loses its connection and
nothing else, and is told on (``on_fault``). What one connection can make us hold is bounded by ``MAX_STREAMS`` windows
(a few times their size, in however small pieces it comes); a window only grows while its reader keeps up, on streams
that we opened. Frames that carry nothing are counted, and a frame that has begun goes on (``net.limits`` has figures).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError, MuxedStreamReset
from multiaddr import Multiaddr

from p2plearn.errors import PeerFault
from p2plearn.net.limits import (
    KEEPALIVE_SECONDS,
    LINGER_SECONDS,
    MAX_CONTROL,
    MAX_STRAY,
    MAX_STREAMS,
    SYN_FRAMES,
)
from p2plearn.net.rates import Floor, FrameAllowance
from p2plearn.net.tls import TlsSession
from p2plearn.net.yamux_input import Batches
from p2plearn.net.yamux_stream import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    MAX_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    YamuxStream,
)

logger = logging.getLogger(__name__)

PROTOCOL: Final = "/yamux/1.0.0"


class _Goodbye(Exception):
    """The peer ends the connection, in all friendship."""


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
        self.on_fault: Callable[[Exception], None] | None = None
        """Told what it did, when the peer breaks the protocol or is too slow."""
        self._allowance = FrameAllowance(self.opened_at)
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
                except (PeerFault, trio.TooSlowError) as fault:
                    reason = str(fault)
                    if self.on_fault is not None:
                        self.on_fault(fault)
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
        """The next stream that the peer opened; raises MuxedConnUnavailable once the connection is over.

        One that was reset meanwhile is passed over: a storm of them would cost libp2p's part of a stream each.
        """
        try:
            while (stream := await self._offered.receive()).was_reset:
                pass
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            raise MuxedConnUnavailable("connection is closed") from error
        return stream

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
        self._control += HEADER.pack(0, kind, flags, stream_id, length)
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
            if isinstance(self.secured_conn, TlsSession):
                await self.secured_conn.send(*parts)
            else:
                await self.secured_conn.write(b"".join(parts))
            self._allowance.bytes += sum(map(len, parts))
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
        floor: Floor | None = None  # while a frame is unfinished
        batches = Batches(self.secured_conn)
        while not self._closed:
            batch = await batches.next(floor)
            if not batch:
                return
            self._heard = True
            at, end = 0, len(batch)
            self._allowance.bytes += end
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
                    stream, left, fin = self._frame(*HEADER.unpack_from(batch, at))
                    at += 12
                else:
                    missing = batch[at : at + 12 - len(header)]
                    header += missing
                    at += len(missing)
                    if len(header) < 12:
                        continue
                    stream, left, fin = self._frame(*HEADER.unpack(header))
                    header.clear()
                if fin and not left:
                    fin = False
                    if stream is not None:
                        stream.peer_finished()
            if not (left or header):
                floor = None
            elif floor is None:
                floor = Floor(trio.current_time())
            else:
                floor.came(end, trio.current_time())
            if not self._allowance.settle(trio.current_time()):
                raise PeerFault("yamux: frames without end that carry nothing")

    def _frame(
        self, version: int, kind: int, flags: int, stream_id: int, length: int
    ) -> tuple[YamuxStream | None, int, bool]:
        """Act on a header: the stream whose payload follows, its length, and whether the peer is done with it."""
        if version != 0:
            raise PeerFault(f"yamux: version {version}")
        self._allowance.frames += 1
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
        if stream_id == 0 or self.is_ours(stream_id) or stream_id in self._streams:
            raise PeerFault(f"yamux: stream {stream_id} can't be opened")
        if self._count(ours=False) >= MAX_STREAMS:
            self.control(WINDOW_UPDATE, RST, stream_id, 0)
            return
        self._allowance.frames += SYN_FRAMES
        stream = YamuxStream(self, stream_id)
        try:
            self._offer.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.control(WINDOW_UPDATE, RST, stream_id, 0)
            return
        self._streams[stream_id] = stream
        self.control(WINDOW_UPDATE, ACK, stream_id, 0)

    def is_ours(self, stream_id: int) -> bool:
        """Whether this side opened, or will open, the stream of that number."""
        return stream_id % 2 == self._next_id % 2

    def _count(self, *, ours: bool) -> int:
        return sum(self.is_ours(stream_id) is ours for stream_id in self._streams)

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
