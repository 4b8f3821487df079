"""Our TLS: who is let in, who is not, and that bytes arrive whole."""

from __future__ import annotations

import contextlib
import datetime
import random
import socket
import ssl
import threading
from collections.abc import Awaitable

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.tls.certificate import LIBP2P_CERT_PREFIX, LIBP2P_EXTENSION_OID, encode_signed_key
from wires import raw, secured, tcp_pair

from p2plearn.net import tls
from p2plearn.net.tls import RECORD, TlsPipe, TlsSession, TlsTransport, records
from p2plearn.net.yamux_input import BATCHES, Batches


def certificate(
    keys: KeyPair,
    *,
    extension: bytes | None = None,
    with_extension: bool = True,
    twice: bool = False,
    from_days: int = -1,
    to_days: int = 10,
    signed_by: ec.EllipticCurvePrivateKey | None = None,
) -> tuple[bytes, bytes]:
    """A certificate and its key in PEM, sound unless said otherwise."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if extension is None:
        extension = encode_signed_key(keys.public_key.serialize(), keys.private_key.sign(LIBP2P_CERT_PREFIX + public))
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(1)
        .public_key(key.public_key())
        .not_valid_before(now + datetime.timedelta(days=from_days))
        .not_valid_after(now + datetime.timedelta(days=to_days))
    )
    if with_extension:
        builder = builder.add_extension(x509.UnrecognizedExtension(LIBP2P_EXTENSION_OID, extension), critical=False)
    made = builder.sign(signed_by or key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def context(tmp_path, cert: tuple[bytes, bytes] | None, *, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["libp2p"])
    if cert is not None:
        path = tmp_path / "pair.pem"
        path.write_bytes(b"".join(cert))
        made.load_cert_chain(path)
    return made


async def met(ours: Awaitable[TlsSession], theirs: trio.SSLStream[trio.SocketStream]) -> TlsSession:
    """A session of ours with a plain TLS endpoint; raises what ours raises."""
    outcomes: list[TlsSession | HandshakeFailure] = []

    async def shake() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await theirs.do_handshake()
            await theirs.receive_some(1)
        await trio.aclose_forcefully(theirs)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake)
            try:
                outcomes.append(await ours)
            except HandshakeFailure as error:
                outcomes.append(error)
            nursery.cancel_scope.cancel()
    (outcome,) = outcomes
    if isinstance(outcome, HandshakeFailure):
        raise outcome
    return outcome


async def let_in(stream: tuple[trio.SocketStream, trio.SocketStream], made: ssl.SSLContext) -> TlsSession:
    """Our listener answers a plain TLS client."""
    dialled, accepted = stream
    transport = TlsTransport(create_new_key_pair())
    client = trio.SSLStream(dialled, made, server_hostname="x", https_compatible=True)
    return await met(transport.secure_inbound(raw(accepted, dialler=False)), client)


async def reach(stream: tuple[trio.SocketStream, trio.SocketStream], made: ssl.SSLContext, expected: ID) -> TlsSession:
    """Our dialler reaches a plain TLS server."""
    dialled, accepted = stream
    transport = TlsTransport(create_new_key_pair())
    server = trio.SSLStream(accepted, made, server_side=True, https_compatible=True)
    return await met(transport.secure_outbound(raw(dialled, dialler=True), expected), server)


BAD = {
    "no extension": lambda keys: certificate(keys, with_extension=False),
    "empty extension": lambda keys: certificate(keys, extension=b""),
    "garbage in the extension": lambda keys: certificate(keys, extension=b"\xff" * 50),
    "a length that lies": lambda keys: certificate(keys, extension=b"\x30\x84\xff\xff\xff\xff\x04\x01a"),
    "garbage for a key": lambda keys: certificate(keys, extension=encode_signed_key(b"\xff" * 40, b"s" * 64)),
    "a key of no known kind": lambda keys: certificate(keys, extension=encode_signed_key(b"\x08\x63\x12\x01a", b"s")),
    "a short key": lambda keys: certificate(keys, extension=encode_signed_key(b"\x08\x01\x12\x01a", b"s" * 64)),
    "another certificate's signature": lambda keys: certificate(
        keys, extension=encode_signed_key(keys.public_key.serialize(), keys.private_key.sign(b"something else"))
    ),
    "expired": lambda keys: certificate(keys, from_days=-9, to_days=-2),
    "not valid yet": lambda keys: certificate(keys, from_days=5),
    "not signed by itself": lambda keys: certificate(keys, signed_by=ec.generate_private_key(ec.SECP256R1())),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_dialler_without_a_sound_certificate_is_refused(what, tmp_path):
    async with tcp_pair() as stream:
        with pytest.raises(HandshakeFailure):
            await let_in(stream, context(tmp_path, BAD[what](create_new_key_pair()), server=False))


@pytest.mark.parametrize("what", BAD)
async def test_a_listener_without_a_sound_certificate_is_refused(what, tmp_path):
    keys = create_new_key_pair()
    async with tcp_pair() as stream:
        with pytest.raises(HandshakeFailure):
            await reach(stream, context(tmp_path, BAD[what](keys), server=True), ID.from_pubkey(keys.public_key))


async def test_a_dialler_without_any_certificate_is_refused(tmp_path):
    async with tcp_pair() as stream:
        with pytest.raises(HandshakeFailure, match="no certificate"):
            await let_in(stream, context(tmp_path, None, server=False))


async def test_the_measure_of_these_tests_a_sound_certificate_is_let_in(tmp_path):
    keys = create_new_key_pair()
    async with tcp_pair() as stream:
        session = await let_in(stream, context(tmp_path, certificate(keys), server=False))
        assert session.get_remote_peer() == ID.from_pubkey(keys.public_key)
    async with tcp_pair() as stream:
        peer = ID.from_pubkey(keys.public_key)
        session = await reach(stream, context(tmp_path, certificate(keys), server=True), peer)
        assert session.get_remote_peer() == peer


async def test_another_peer_at_the_address_is_refused(tmp_path):
    keys = create_new_key_pair()
    someone_else = ID.from_pubkey(create_new_key_pair().public_key)
    async with tcp_pair() as stream:
        with pytest.raises(HandshakeFailure, match="answered"):
            await reach(stream, context(tmp_path, certificate(keys), server=True), someone_else)


async def test_tls_1_2_is_refused(tmp_path):
    keys = create_new_key_pair()
    server, client = (context(tmp_path, certificate(keys), server=server) for server in (True, False))
    server.maximum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tcp_pair() as stream:
        with pytest.raises(HandshakeFailure):
            await reach(stream, server, ID.from_pubkey(keys.public_key))
    async with tcp_pair() as stream:
        with pytest.raises(HandshakeFailure):
            await let_in(stream, client)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(70_000), b"\x16\x03\x01\x00\x05abcde"],
)
async def test_garbage_instead_of_a_handshake_is_refused(garbage):
    transport = TlsTransport(create_new_key_pair())
    async with tcp_pair() as (dialled, accepted):
        await dialled.send_all(garbage)
        await dialled.send_eof()
        with pytest.raises(HandshakeFailure), trio.fail_after(5):
            await transport.secure_inbound(raw(accepted, dialler=False))


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
async def test_a_handshake_that_stalls_is_cut(said, monkeypatch):
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.1)
    transport = TlsTransport(create_new_key_pair())
    async with tcp_pair() as (dialled, accepted):
        if said:
            await dialled.send_all(said)
        with pytest.raises(HandshakeFailure, match="TooSlow"):
            await transport.secure_inbound(raw(accepted, dialler=False))


async def test_both_ends_know_each_other():
    async with secured() as (out, into):
        assert out.get_remote_peer() == into.get_local_peer()
        assert into.get_remote_peer() == out.get_local_peer()
        assert out.get_remote_public_key().to_bytes() == into.get_local_private_key().get_public_key().to_bytes()
        assert (out.is_initiator, into.is_initiator) == (True, False)
        assert out.get_remote_address() is not None


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_sent_in_as_few_records_as_the_same_bytes_in_one_piece(seed):
    dice = random.Random(seed)
    pieces = [dice.randbytes(dice.choice([0, 1, 9, 12, RECORD - 1, RECORD, RECORD + 1, 200_000])) for _ in range(40)]
    whole = b"".join(pieces)
    sent = list(records(pieces))
    assert b"".join(sent) == whole
    assert sum(-(-len(piece) // RECORD) for piece in sent) == -(-len(whole) // RECORD)
    assert all(len(piece) for piece in sent)
    large = sum(len(piece) for piece in sent if isinstance(piece, memoryview))
    assert large >= sum(max(len(piece) - 2 * RECORD, 0) for piece in pieces)
    assert list(records([])) == []


async def test_reading_in_any_portions_gives_the_bytes_in_order():
    dice = random.Random(11)
    content = dice.randbytes(3_000_000)
    async with secured() as (out, into), trio.open_nursery() as nursery:

        async def send() -> None:
            at = 0
            while at < len(content):
                size = dice.choice([1, 100, 16_384, 16_385, 70_000, 400_000])
                await out.write(content[at : at + size])
                at += size

        nursery.start_soon(send)
        got = bytearray()
        while len(got) < len(content):
            got += await into.read(dice.choice([1, 7, 5000, 100_000, None]))
        assert got == content
        assert await into.read(0) == b""


async def test_reading_what_is_there_gives_the_bytes_in_order_and_never_waits():
    data = random.Random(13).randbytes(3 << 20)
    async with secured() as (one, other):
        assert other.receive_nowait() is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write, data)
            got = bytearray()
            while len(got) < len(data):
                view = other.receive_nowait()
                got += await other.receive() if view is None else view
        assert got == data
        assert other.receive_nowait() is None


async def test_other_tasks_have_their_turn_while_a_peer_sends_without_end():
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with secured() as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.write, bytes(16 << 20))
        nursery.start_soon(count)
        batches, got, taken = Batches(other), 0, 0
        while got < 16 << 20:
            got += len(await batches.next(None))
            taken += 1
        assert turns >= taken // BATCHES - 1
        nursery.cancel_scope.cancel()


async def test_reading_that_is_cancelled_loses_nothing():
    content = random.Random(12).randbytes(2_000_000)
    async with secured() as (out, into), trio.open_nursery() as nursery:

        async def send() -> None:
            for at in range(0, len(content), 50_000):
                await out.write(content[at : at + 50_000])
                await trio.sleep(0.001)

        nursery.start_soon(send)
        got = bytearray()
        while len(got) < len(content):
            with trio.move_on_after(0.0007):
                while len(got) < len(content):
                    got += await into.read(30_000)
        assert got == content


async def test_a_write_that_is_cancelled_goes_out_with_the_next():
    content = random.Random(13).randbytes(16 << 20)
    async with secured() as (out, into):
        with trio.move_on_after(0.2) as scope:
            await out.write(content)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.write, b"and this")
            got = bytearray()
            while len(got) < len(content) + 8:
                got += await into.read(None)
        assert got == content + b"and this"


async def test_an_end_without_goodbye_is_an_error_not_an_end():
    async with secured() as (out, into):
        await out.write(b"x")
        await out.close()
        assert await into.read(1) == b"x"
        with pytest.raises(ConnectionClosedError):
            await into.read(1)
        with pytest.raises(ConnectionClosedError):
            await into.receive()


async def test_closing_wakes_who_reads():
    async with secured() as (out, _), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(ConnectionClosedError):
                await out.read(1)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await out.close()


async def test_a_bit_flipped_on_the_way_breaks_the_connection():
    keys = create_new_key_pair()
    async with tcp_pair() as (out, in_middle), tcp_pair() as (out_middle, into):
        flip = False

        async def forward(source, sink) -> None:
            try:
                while data := await source.receive_some(65536):
                    await sink.send_all(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if flip else data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, in_middle, out_middle)
            nursery.start_soon(forward, out_middle, in_middle)
            sessions = {}

            async def answer() -> None:
                sessions["in"] = await TlsTransport(keys).secure_inbound(raw(into, dialler=False))

            async with trio.open_nursery() as shaking:
                shaking.start_soon(answer)
                sessions["out"] = await TlsTransport(create_new_key_pair()).secure_outbound(
                    raw(out, dialler=True), ID.from_pubkey(keys.public_key)
                )
            await sessions["out"].write(b"sound")
            assert await sessions["in"].read(5) == b"sound"
            flip = True
            await sessions["out"].write(b"spoilt")
            with pytest.raises(ConnectionClosedError):
                await sessions["in"].read(6)
            nursery.cancel_scope.cancel()


class Relayed:
    """A raw connection that isn't a TCP socket: what a relay or a pre-shared key would hand us."""

    def __init__(self, stream, *, is_initiator: bool) -> None:
        self.stream = stream
        self.is_initiator = is_initiator
        self.open = trio.Event()
        self.open.set()

    async def read(self, n: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(n))

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        await self.stream.send_all(data)

    async def close(self) -> None:
        await self.stream.aclose()


async def relayed():
    left, right = trio.testing.memory_stream_pair()
    keys = create_new_key_pair()
    ends = {}

    async def answer() -> None:
        ends["in"] = await TlsTransport(keys).secure_inbound(Relayed(right, is_initiator=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        transport = TlsTransport(create_new_key_pair())
        ends["out"] = await transport.secure_outbound(Relayed(left, is_initiator=True), ID.from_pubkey(keys.public_key))
    return ends["out"], ends["in"]


async def test_it_runs_over_what_is_no_socket():
    out, into = await relayed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.write, b"x" * 100_000)
        got = b""
        while len(got) < 100_000:
            got += await into.read(None)
    await out.close()
    with pytest.raises((IOException, RawConnError)):
        await into.read(1)


async def test_a_cut_write_over_what_is_no_socket_ends_the_connection():
    out, _ = await relayed()
    out.conn.open = trio.Event()
    with trio.move_on_after(0.05):
        await out.write(bytes(10_000))
    with pytest.raises(ConnectionClosedError):
        await out.write(b"more")


async def test_reading_is_not_held_up_by_a_peer_that_takes_no_answers():
    """A flood of key updates asks for answers that nobody reads; plaintext between them still comes through."""
    async with secured() as (out, into):
        pipe: TlsPipe = into._pipe
        held = trio.Event()

        async def hold() -> None:
            async with pipe._write_lock:
                held.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await held.wait()
            pipe._out.write(b"an answer of TLS's own")
            await out.write(b"still here")
            with trio.fail_after(5):
                assert await into.read(10) == b"still here"
            nursery.cancel_scope.cancel()


def test_two_nodes_in_two_threads_do_not_share_a_buffer():
    failures = []

    def node(seed: int) -> None:
        async def main() -> None:
            content = random.Random(seed).randbytes(4_000_000)
            async with secured() as (out, into), trio.open_nursery() as nursery:
                nursery.start_soon(out.write, content)
                got = bytearray()
                while len(got) < len(content):
                    got += await into.read(None)
                assert got == content

        try:
            trio.run(main)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=node, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


async def test_a_descriptor_is_never_used_after_its_socket_was_closed():
    """Another file may have got its number by then."""
    async with secured() as (out, _):
        await out.close()
        left, right = socket.socketpair()
        with left, right, pytest.raises(ConnectionClosedError):
            await out.write(b"secret")
