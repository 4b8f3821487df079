"""TCP as libp2p dials and listens on it, with three faults of the stock transport mended.

- A listener has its port to itself: libp2p's sets SO_REUSEPORT, so a second node on the machine would silently
  share the port, and each would get half of the other's callers. Here it fails, as a person expects.
- An IPv6 wildcard means IPv6 only, so that it can stand beside IPv4's on the same port.
- IPv6 connections know their remote address (libp2p's looks for pairs, IPv6 has four fields).
- A link-local IPv6 address is dialled by every interface that has one: which cable it was heard on isn't in it, and two
  machines on one cable without a router have no other. TLS says whether the right one answered.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

import ifaddr
import trio
from libp2p.abc import IListener, IRawConnection
from libp2p.custom_types import THandler
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP, TCPListener
from multiaddr import Multiaddr
from multiaddr.exceptions import ProtocolLookupError

BACKLOG: Final = 64
"""Connections that the kernel holds until they are accepted."""


MAX_CABLES: Final = 8
"""Interfaces by which one link-local address is dialled: a laptop with containers has a handful."""


class TcpStream(TrioTCPStream):
    """A TCP connection that knows its peer's address, IPv6 included."""

    _remote: tuple[str, int] | None = None

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address and port of the other end; None once the socket is gone and nobody asked before."""
        if self._remote is None:
            try:
                name = self.stream.socket.getpeername()
            except OSError:
                return None
            self._remote = (str(name[0]).partition("%")[0], int(name[1]))
        return self._remote


class TcpListener(TCPListener):
    """Listens on one address, alone."""

    async def listen(self, maddr: Multiaddr) -> None:
        """Start accepting on ``maddr``; raises OpenConnectionError with the system's reason."""
        try:
            host = maddr.value_for_protocol("ip6" if "/ip6/" in str(maddr) else "ip4")
            port = maddr.value_for_protocol("tcp")
        except ProtocolLookupError:
            host = port = None
        if host is None or port is None:
            raise OpenConnectionError(f"{maddr} is no TCP address")
        try:
            sock = _listening_socket(host, int(port))
        except OSError as error:
            raise OpenConnectionError(f"can't listen on {maddr}: {error.strerror}") from error
        async with self._lifecycle_lock:
            if self._closed:
                sock.close()
                raise OpenConnectionError(f"can't listen on {maddr}: the listener is closed")
            if self._nursery is None:
                await self._spawn_background_task()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            self.listeners.append(listener)
            nursery = self._nursery
            if nursery is None:
                raise OpenConnectionError(f"can't listen on {maddr}: the node is stopping")
            nursery.start_soon(trio.serve_listeners, self._accepted, [listener])

    async def _accepted(self, stream: trio.SocketStream) -> None:
        try:
            await self.handler(TcpStream(stream))
        except Exception:  # one caller's misfortune is no other's
            await trio.aclose_forcefully(stream)


class TcpTransport(TCP):
    """Dials and listens with the classes of this module."""

    def create_listener(self, handler_function: THandler) -> IListener:
        """A listener that hands each connection to ``handler_function``."""
        return TcpListener(handler_function)

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """A connection to ``maddr``; raises OpenConnectionError."""
        host, port = _link_local(maddr)
        if host:
            return RawConnection(TcpStream(await _open_on_any_cable(host, port)), initiator=True)
        conn = await super().dial(maddr)
        if isinstance(conn, RawConnection) and isinstance(conn.stream, TrioTCPStream):
            conn.stream = TcpStream(conn.stream.stream)
        return conn


def _link_local(maddr: Multiaddr) -> tuple[str, int]:
    """IP address and port of a link-local IPv6 address; empty and 0 for any other."""
    parts = str(maddr).split("/")
    if len(parts) < 5 or parts[1] != "ip6" or parts[3] != "tcp" or not parts[2].lower().startswith("fe80:"):
        return "", 0
    return parts[2], int(parts[4])


async def _open_on_any_cable(host: str, port: int) -> trio.SocketStream:
    """A TCP connection to a link-local address by the first interface it answers on; raises OpenConnectionError."""
    found: list[trio.SocketStream] = []
    problems: list[OSError] = []
    zones = cables()
    if not zones:  # the system's words for it, which tell it from somebody who answers badly
        nowhere = OSError(errno.ENETUNREACH, "no interface has a link-local address")
        raise OpenConnectionError(f"no cable leads to {host}") from nowhere

    async def attempt(zone: int) -> None:
        sock = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            await sock.connect((host, port, 0, zone))
        except OSError as error:
            problems.append(error)
        else:
            found.append(trio.SocketStream(sock))
            nursery.cancel_scope.cancel()
        finally:
            if not found or found[-1].socket is not sock:
                sock.close()

    async with trio.open_nursery() as nursery:
        for zone in zones:
            nursery.start_soon(attempt, zone)
    for extra in found[1:]:
        extra.socket.close()
    if not found:
        raise OpenConnectionError(f"{host} answers on no cable") from (problems[0] if problems else None)
    return found[0]


def cables() -> list[int]:
    """Numbers of the interfaces with a link-local IPv6 address of their own, at most ``MAX_CABLES``."""
    zones: list[int] = []
    try:
        for adapter in ifaddr.get_adapters():
            own = [entry.ip[0] for entry in adapter.ips if not isinstance(entry.ip, str)]
            if adapter.index is not None and any(text.lower().startswith("fe80:") for text in own):
                zones.append(int(adapter.index))
    except OSError:
        return []
    return zones[:MAX_CABLES]


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
