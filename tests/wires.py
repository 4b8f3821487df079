"""Two ends of a wire on loopback, each built from our parts or from libp2p's own."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.yamux.yamux import Yamux

from p2plearn.net.muting import mute_libp2p
from p2plearn.net.tls import TlsTransport
from p2plearn.net.yamux import YamuxConn

HEADER = struct.Struct("!BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

SECURITY: dict[str, Callable[[Any], Any]] = {
    "ours": TlsTransport,
    "stock": TLSTransport,
    "noise": lambda keys: NoiseTransport(keys, noise_privkey=new_x25519_key_pair().private_key),
}
MUXER: dict[str, Callable[[Any, ID], Any]] = {"ours": YamuxConn, "stock": Yamux}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Both ends of a TCP connection on loopback: the dialler's and the listener's."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        dialled = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with dialled, await listener.accept() as accepted:
            yield dialled, accepted


def raw(stream: trio.SocketStream, *, dialler: bool) -> RawConnection:
    return RawConnection(TrioTCPStream(stream), dialler)


@asynccontextmanager
async def secured(dialler: str = "ours", listener: str = "ours") -> AsyncIterator[tuple[Any, Any]]:
    """Two secured connections that have shaken hands."""
    mute_libp2p()
    async with tcp_pair() as (out, into):
        ends: dict[str, Any] = {}
        keys = create_new_key_pair()

        async def answer() -> None:
            ends["listener"] = await SECURITY[listener](keys).secure_inbound(raw(into, dialler=False))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                transport = SECURITY[dialler](create_new_key_pair())
                ends["dialler"] = await transport.secure_outbound(
                    raw(out, dialler=True), ID.from_pubkey(keys.public_key)
                )
        yield ends["dialler"], ends["listener"]


@asynccontextmanager
async def muxed(
    dialler: tuple[str, str] = ("ours", "ours"), listener: tuple[str, str] = ("ours", "ours")
) -> AsyncIterator[tuple[Any, Any]]:
    """Two running yamux connections; each end is (security, muxer)."""
    async with (
        secured(dialler[0], listener[0]) as (out, into),
        running(MUXER[dialler[1]](out, out.get_remote_peer())) as a,
        running(MUXER[listener[1]](into, into.get_remote_peer())) as b,
    ):
        yield a, b


@asynccontextmanager
async def running(conn: Any) -> AsyncIterator[Any]:
    """A muxed connection that is started, and closed at the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conn.start)
        with trio.fail_after(5):
            await conn.event_started.wait()
        try:
            yield conn
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(3):
                await conn.close()
            nursery.cancel_scope.cancel()


class MemorySession:
    """A secured connection in memory, for tests that speak frames themselves, on any clock."""

    def __init__(self, stream: trio.StapledStream, *, is_initiator: bool) -> None:
        self.stream = stream
        self.is_initiator = is_initiator

    async def read(self, n: int | None = None) -> bytes:
        try:
            data = await self.stream.receive_some(n)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise ConnectionClosedError("broken", transport="memory") from error
        if not data:
            raise ConnectionClosedError("peer hung up", transport="memory")
        return bytes(data)

    async def write(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise ConnectionClosedError("broken", transport="memory") from error

    async def close(self) -> None:
        await self.stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


class Speaker:
    """The other end of a connection, which says frames as it likes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.buffer = bytearray()

    async def say(self, kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> None:
        await self.stream.send_all(HEADER.pack(0, kind, flags, stream_id, length) + payload)

    async def shout(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hear(self) -> tuple[int, int, int, int, bytes] | None:
        """The next frame (type, flags, stream, length, payload); None when the connection is over."""
        if not await self._fill(12):
            return None
        _, kind, flags, stream_id, length = HEADER.unpack(self.buffer[:12])
        size = length if kind == DATA else 0
        if not await self._fill(12 + size):
            return None
        payload = bytes(self.buffer[12 : 12 + size])
        del self.buffer[: 12 + size]
        return kind, flags, stream_id, length, payload

    async def hear_until(self, kind: int, flags: int = 0) -> tuple[int, int, int, int, bytes] | None:
        """The next frame of this type that has these flags."""
        while (frame := await self.hear()) is not None:
            if frame[0] == kind and frame[1] & flags == flags:
                return frame
        return None

    async def _fill(self, size: int) -> bool:
        while len(self.buffer) < size:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            if not data:
                return False
            self.buffer += data
        return True


@asynccontextmanager
async def spoken_to(*, we_dialled: bool = False) -> AsyncIterator[tuple[YamuxConn, Speaker]]:
    """Our connection in memory, and somebody who says frames to it."""
    ours, theirs = trio.testing.memory_stream_pair()
    conn = YamuxConn(MemorySession(ours, is_initiator=we_dialled), ID(b"peer"))  # type: ignore[arg-type]
    async with running(conn):
        yield conn, Speaker(theirs)


async def read_all(stream: Any) -> bytes:
    """What a stream has to its end."""
    got = bytearray()
    if hasattr(stream, "receive"):
        while view := await stream.receive():
            got += view
        return bytes(got)
    while True:
        try:
            data = await stream.read(64 * 1024)
        except Exception as error:
            if type(error).__name__ != "MuxedStreamEOF":
                raise
            return bytes(got)
        if not data:
            return bytes(got)
        got += data
