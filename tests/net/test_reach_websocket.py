"""WebSockets as the wire under a connection: they carry what TCP does, and put up with as little."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request

from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.reach import websocket
from p2plearn.net.standing import Standing
from tests.hosts import LOOPBACK, make_host

ECHO = TProtocol("/test/echo/1")
GREETING = (
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@asynccontextmanager
async def hosts(listen: str = "/ip4/127.0.0.1/tcp/0/ws") -> AsyncIterator[tuple[BasicHost, BasicHost]]:
    """One that listens for WebSockets, and another one."""
    one, other = make_host(), make_host()

    async def echo(stream: INetStream) -> None:
        while True:
            await stream.write(await stream.read(65536))

    for host in (one, other):
        guard_streams(host, Standing())
        host.set_stream_handler(ECHO, echo)
    async with one.run([Multiaddr(listen)]), other.run([LOOPBACK]):
        yield one, other


@pytest.mark.parametrize("listen", ["/ip4/127.0.0.1/tcp/0/ws", "/ip6/::1/tcp/0/ws"])
async def test_a_connection_inside_a_websocket_carries_what_one_over_tcp_does(listen: str) -> None:
    async with hosts(listen) as (one, other):
        addresses = one.get_transport_addrs()
        assert [str(a).rpartition("/")[2] for a in addresses] == ["ws"]
        await connect(other, PeerInfo(one.get_id(), addresses), 20.0)
        [connection] = other.get_network().get_connections(one.get_id())
        assert connection.get_transport_addresses() == addresses
        stream = await other.new_stream(one.get_id(), [ECHO])
        sent, got = bytes(range(256)) * 8192, bytearray()

        async def write() -> None:
            for at in range(0, len(sent), 100_000):
                await stream.write(sent[at : at + 100_000])

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                while len(got) < len(sent):
                    got += await stream.read(65536)
        assert got == sent
        await stream.reset()


@asynccontextmanager
async def web_server(folder: Path, name: str, behind: Multiaddr) -> AsyncIterator[int]:
    """A reverse proxy on loopback with a certificate that nobody vouches for, ending TLS; its port."""
    private = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder(own, own, private.public_key(), 1, now, now + datetime.timedelta(days=1))
    pem = built.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)
    pem += private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "web.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "web.pem")
    port = int(str(behind.value_for_protocol("tcp")))

    async def pour(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for part in source:
                await sink.send_all(part)
        scope.cancel()

    async def serve(caller: trio.SSLStream[trio.SocketStream]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as onward, trio.open_nursery() as pipes:
            pipes.start_soon(pour, caller, onward, pipes.cancel_scope)
            pipes.start_soon(pour, onward, caller, pipes.cancel_scope)
        await trio.aclose_forcefully(caller)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1", https_compatible=True)
        )
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("spelling", ["tls/ws", "wss", "tls/sni/courses.example/ws"])
async def test_a_node_behind_a_web_server_that_ends_tls_is_reached_through_it(tmp_path: Path, spelling: str) -> None:
    async with (
        hosts() as (one, other),
        web_server(tmp_path, "courses.example", one.get_transport_addrs()[0]) as port,
    ):
        address = Multiaddr(f"/ip4/127.0.0.1/tcp/{port}/{spelling}")
        await connect(other, PeerInfo(one.get_id(), [address]), 20.0)
        stream = await other.new_stream(one.get_id(), [ECHO])
        sent, got = bytes(range(256)) * 1024, bytearray()
        with trio.fail_after(60):
            await stream.write(sent)
            while len(got) < len(sent):
                got += await stream.read(65536)
        assert got == sent
        await stream.reset()
        # Whoever runs the web server is not thereby the peer.
        with pytest.raises(ConnectFailed) as failed:
            await connect(other, PeerInfo(ID(b"\x00\x24\x08\x01\x12\x20" + bytes(32)), [address]), 20.0)
        assert failed.value.reason == "wrong-peer"


async def test_tls_for_the_web_is_not_listened_on_and_a_plain_port_is_told_from_it() -> None:
    async with hosts() as (one, other):
        swarm = one.get_network()
        await swarm.listen(Multiaddr("/ip4/127.0.0.1/tcp/0/tls/ws"))
        assert len(swarm.listeners) == 1
        inside = Multiaddr(str(one.get_transport_addrs()[0]).removesuffix("/ws") + "/wss")
        with pytest.raises(ConnectFailed):
            await connect(other, PeerInfo(one.get_id(), [inside]), 20.0)


async def answer_to(one: BasicHost, request: bytes) -> bytes:
    """What the listener answers to ``request`` before it hangs up, or to nothing within ten seconds."""
    port = int(str(one.get_transport_addrs()[0].value_for_protocol("tcp")))
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        answer = bytearray()
        with trio.move_on_after(10), contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(request)
            async for part in stream:
                answer += part
        return bytes(answer)


async def test_web_pages_and_others_that_are_no_peers_are_turned_away() -> None:
    async with hosts() as (one, _):
        answer = await answer_to(one, f"{GREETING}Origin: http://evil.example\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403")
        assert not (await answer_to(one, bytes(100_000))).startswith(b"HTTP/1.1 101")
        answer = await answer_to(one, f"{GREETING}\r\n".encode() + b"\x81\x85\0\0\0\0hello")  # a text message
        assert answer.startswith(b"HTTP/1.1 101")
        plain = Multiaddr(str(one.get_transport_addrs()[0]).removesuffix("/ws"))
        other = make_host()
        async with other.run([LOOPBACK]):
            with pytest.raises(ConnectFailed):
                await connect(other, PeerInfo(one.get_id(), [plain]), 20.0)


async def test_who_stalls_within_the_handshake_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HANDSHAKE_SECONDS", 0.2)
    async with hosts() as (one, _):
        with trio.fail_after(60):
            assert await answer_to(one, b"GET / HTTP/1.1\r\n") == b""


async def test_what_is_said_together_with_the_consent_to_a_websocket_is_not_lost() -> None:
    """The one dialled speaks first inside; a dialler that is slow to read gets that in one piece with the consent."""
    greeting = b"/multistream/1.0.0"

    async def answer(stream: trio.SocketStream) -> None:
        socket = WSConnection(ConnectionType.SERVER)
        socket.receive_data(await stream.receive_some(4096))
        assert [type(event) for event in socket.events()] == [Request]
        await stream.send_all(socket.send(AcceptConnection()) + socket.send(BytesMessage(data=greeting)))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        raw = await websocket.WebSocketTransport().dial(Multiaddr(f"/ip4/127.0.0.1/tcp/{port}/ws"))
        with trio.fail_after(20):
            assert await raw.read(100) == greeting
        await raw.close()
        nursery.cancel_scope.cancel()
