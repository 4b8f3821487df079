"""Connections inside WebSockets (``/ip4/…/tcp/80/ws``), for networks that let only the web's ports through.

What runs inside is what runs over TCP: TLS with the peer's identity, then yamux. The WebSocket hides nothing and
proves nothing; it only looks like the web to a firewall. wsproto does the framing, here is the I/O with its limits.
A request with an ``Origin`` is refused: that is a web page in somebody's browser, which is no peer.

Dialled, not listened on, are WebSockets inside a web server's TLS too (``/tls/ws``, ``/tls/sni/NAME/ws``, ``/wss``): a
reverse proxy with a certificate ends it and hands on the rest. That certificate is not judged. It would prove who runs
the proxy; who the peer is, and that nobody reads along, the TLS inside proves.
Specification: RFC 6455; https://github.com/libp2p/specs/blob/master/websockets/README.md
"""

from __future__ import annotations

import re
import ssl
from functools import cache
from typing import Final

import trio
from libp2p.abc import IListener, ITransport
from libp2p.custom_types import THandler
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from p2plearn.net.addresses import bare, is_inside_tls, is_relayed, is_websocket
from p2plearn.net.tcp import TcpListener, TcpStream, TcpTransport

HANDSHAKE_SECONDS: Final = 10.0
"""For the request and its answer; who needs longer is stalling."""

HANDSHAKES: Final = 32
"""Under way at once on one listener: each holds a few KiB and a descriptor."""

READ_SIZE: Final = 64 * 1024
"""Bytes asked of the socket at once."""

MAX_PINGS: Final = 64
"""Pings in one read that are answered; more is a flood."""


_SPELLINGS: Final = re.compile(
    r"(?P<tcp>/(?P<kind>[a-z0-9]+)/(?P<host>[^/]+)/tcp/(?P<port>[0-9]+))"
    r"/(?:ws|(?P<tls>wss|tls(?:/sni/(?P<name>[^/]+))?/ws))"
)


class WebServerTls(ReadWriteCloser):
    """The bytes inside a web server's TLS over ``wire``; ``name`` is told to it, that it may choose its certificate."""

    def __init__(self, wire: TcpStream, name: str | None) -> None:
        self._wire = wire
        self._tls = trio.SSLStream(wire.stream, _context(), server_hostname=name, https_compatible=True)

    async def handshake(self) -> None:
        """Shake hands with the web server now, rather than at the first word; raises ConnectionClosedError."""
        try:
            await self._tls.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"TLS ended: {error.__cause__ or error}", transport="wss") from error

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes, empty at the end; raises ConnectionClosedError."""
        try:
            return bytes(await self._tls.receive_some(n))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"TLS ended: {error.__cause__ or error}", transport="wss") from error

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, after the handshake if that is still to be done; raises ConnectionClosedError."""
        try:
            await self._tls.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"TLS ended: {error.__cause__ or error}", transport="wss") from error

    async def close(self) -> None:
        """Close the connection at once."""
        await self._wire.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """The web server's."""
        return self._wire.get_remote_address()


@cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # see the head of this file
    context.set_alpn_protocols(["http/1.1"])
    return context


class WebSocketStream(ReadWriteCloser):
    """The bytes of the binary messages of a WebSocket, in order; text messages break the connection."""

    def __init__(self, wire: ReadWriteCloser, socket: WSConnection) -> None:
        self._wire = wire
        self._socket = socket
        self._left = bytearray()
        self._turn = trio.Lock()

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes, as they come; raises ConnectionClosedError at the end."""
        while not self._left:
            await self._hear()
        size = len(self._left) if n is None or n < 0 else min(n, len(self._left))
        data = bytes(self._left[:size])
        del self._left[:size]
        return data

    async def write(self, data: bytes) -> None:
        """Send ``data`` as one message; raises ConnectionClosedError."""
        await self._say(BytesMessage(data=data))

    async def close(self) -> None:
        """Close the connection at once."""
        await self._wire.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """IP address and port of the other end."""
        return self._wire.get_remote_address()

    async def open(self, request: Request | None) -> None:
        """Shake hands: as the one that dialled with ``request``, else as the one dialled.

        Raises OpenConnectionError.
        """
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                if request is not None:
                    await self._say(request)
                await self._agree()
        except (ConnectionClosedError, LocalProtocolError, trio.TooSlowError) as error:
            raise OpenConnectionError(f"no WebSocket: {error or 'no answer in time'}") from error

    async def _agree(self) -> None:
        while True:
            events = await self._events()
            for at, event in enumerate(events, 1):
                match event:
                    case AcceptConnection():
                        # The one dialled may speak at once: its first words come with its consent when we were slow.
                        await self._take(events[at:])
                        return
                    case Request():
                        if any(name.lower() == b"origin" for name, _ in event.extra_headers):
                            await self._say(RejectConnection(status_code=403))
                            raise OpenConnectionError("a web page's WebSocket")
                        await self._say(AcceptConnection())
                        await self._take(events[at:])
                        return
                    case RejectConnection():
                        raise OpenConnectionError(f"no WebSocket: it answers with status {event.status_code}")
                    case RejectData() | CloseConnection():
                        raise OpenConnectionError("no WebSocket: it hung up")

    async def _hear(self) -> None:
        await self._take(await self._events())

    async def _take(self, events: list[Event]) -> None:
        """Keep what messages carry, and answer pings; raises ConnectionClosedError."""
        pings = 0
        for event in events:
            match event:
                case BytesMessage():
                    self._left += event.data
                case Ping():
                    pings += 1
                    if pings > MAX_PINGS:
                        raise ConnectionClosedError("a flood of pings", transport="ws")
                    await self._say(event.response())
                case CloseConnection() | TextMessage():
                    raise ConnectionClosedError("the WebSocket was closed", transport="ws")

    async def _events(self) -> list[Event]:
        data = await self._wire.read(READ_SIZE)
        if not data:
            raise ConnectionClosedError("peer hung up", transport="ws")
        try:
            self._socket.receive_data(data)
            return list(self._socket.events())
        except (RemoteProtocolError, LocalProtocolError, UnicodeDecodeError) as error:
            raise ConnectionClosedError(f"no WebSocket: {error}", transport="ws") from error

    async def _say(self, event: Event) -> None:
        async with self._turn:
            try:
                data = self._socket.send(event)
            except LocalProtocolError as error:
                raise ConnectionClosedError("the WebSocket is closed", transport="ws") from error
            await self._wire.write(data)


async def shake_hands(wire: ReadWriteCloser, host: str) -> WebSocketStream:
    """A WebSocket over ``wire``, as the one that dialled ``host`` (with its port); raises OpenConnectionError."""
    socket = WebSocketStream(wire, WSConnection(ConnectionType.CLIENT))
    await socket.open(Request(host=host, target="/"))
    return socket


class WebSocketListener(TcpListener):
    """Listens on one address, for WebSockets alone, and those not inside TLS."""

    def __init__(self, handler_function: THandler) -> None:
        super().__init__(handler_function)
        self._handshakes = trio.CapacityLimiter(HANDSHAKES)

    async def listen(self, maddr: Multiaddr) -> None:
        """Start accepting on ``maddr``; raises OpenConnectionError with the reason."""
        if is_inside_tls(maddr):
            raise OpenConnectionError(f"can't listen on {maddr}: TLS takes a certificate, so a web server does that")
        await super().listen(maddr)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """What is listened on."""
        return tuple(Multiaddr(f"{address}/ws") for address in super().get_addrs())

    async def _accepted(self, stream: trio.SocketStream) -> None:
        wire = TcpStream(stream)
        socket = WebSocketStream(wire, WSConnection(ConnectionType.SERVER))
        try:
            self._handshakes.acquire_on_behalf_of_nowait(wire)
            try:
                await socket.open(None)
            finally:
                self._handshakes.release_on_behalf_of(wire)
            await self.handler(socket)
        except Exception:  # one caller's misfortune is no other's
            await trio.aclose_forcefully(stream)


class WebSocketTransport(ITransport):
    """Dials WebSockets' addresses, and listens on those that are not inside TLS."""

    def __init__(self) -> None:
        self._tcp = TcpTransport()

    def protocols(self) -> list[str]:
        """What marks an address of this transport."""
        return ["ws", "wss"]

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Whether ``maddr`` is a WebSocket's."""
        return is_websocket(maddr) and not is_relayed(maddr)

    def can_listen(self, maddr: Multiaddr) -> bool:
        """Whether ``maddr`` is a WebSocket's."""
        return self.can_dial(maddr)

    def create_listener(self, handler_function: THandler) -> IListener:
        """A listener that hands each connection to ``handler_function``."""
        return WebSocketListener(handler_function)

    async def dial(self, maddr: Multiaddr) -> RawConnection:
        """A connection to ``maddr``; raises OpenConnectionError."""
        address = bare(maddr)
        spelt = _SPELLINGS.fullmatch(str(address))
        if spelt is None:
            raise OpenConnectionError(f"{maddr} is no WebSocket's address")
        raw = await self._tcp.dial(Multiaddr(spelt["tcp"]))
        wire = getattr(raw, "stream", None)
        if not isinstance(wire, TcpStream):
            raise OpenConnectionError(f"{maddr} is no TCP address")
        name = spelt["name"] or (spelt["host"] if spelt["kind"].startswith("dns") else None)
        inside = wire if spelt["tls"] is None else WebServerTls(wire, name)
        host = f"[{spelt['host']}]" if spelt["kind"] == "ip6" else spelt["host"]
        done = False
        try:
            socket = await shake_hands(inside, f"{name or host}:{spelt['port']}")
            done = True
        finally:
            if not done:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await wire.close()
        return RawConnection(socket, initiator=True, addresses=[address])
