"""Messages over libp2p streams, and a stream as the raw connection under another one: a thin I/O layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio
from libp2p.abc import INetStream
from libp2p.connection_types import ConnectionType
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from p2plearn.course.varint import varint
from p2plearn.net.reach.wire import MAX_MESSAGE

OVER: Final = (IOException, MuxedStreamError, MuxedConnError, EOFError)
"""What libp2p's streams raise when they are over."""


async def until(holds: Callable[[], object], every: float) -> None:
    """Wait until ``holds()``, asked every so many seconds: libp2p tells of connections, not of what they make true."""
    while not holds():  # noqa: ASYNC110 - see above
        await trio.sleep(every)


async def send(stream: INetStream, message: bytes) -> None:
    """Send ``message`` with its length before it."""
    await stream.write(varint(len(message)) + message)


async def receive(stream: INetStream) -> bytes:
    """The next message; raises what streams raise, and MessageTooLarge or ParseError for one beyond the limit."""
    return await read_varint_prefixed_bytes_limited(stream, MAX_MESSAGE)


class CircuitStream(ReadWriteCloser):
    """A stream through a relay, as the wire under a connection with the peer at its other end."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._wire: Any = getattr(stream, "muxed_stream", stream)

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes, as they come; raises ConnectionClosedError at the end."""
        try:
            data: bytes = await self._wire.read(n)
        except OVER as error:
            raise ConnectionClosedError(f"the relayed connection ended: {error}", transport="relay") from error
        return data

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; raises ConnectionClosedError."""
        try:
            await self._wire.write(data)
        except OVER as error:
            raise ConnectionClosedError(f"the relayed connection ended: {error}", transport="relay") from error

    async def close(self) -> None:
        """End both directions: what is above has said its goodbye already."""
        with trio.move_on_after(1.0):
            await self._stream.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        """The relay's: the peer's own is not to be known here."""
        return self._stream.get_remote_address()


def relayed(stream: INetStream, address: Multiaddr, *, initiator: bool) -> RawConnection:
    """``stream`` as the raw connection under a relayed one; ``address`` is where the peer is (with ``p2p-circuit``)."""
    return RawConnection(CircuitStream(stream), initiator, ConnectionType.RELAYED, [address])
