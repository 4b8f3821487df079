"""TLS 1.3 for libp2p, fast: ``/tls/1.0.0`` on the wire, as stock libp2p and js-libp2p speak it.

libp2p's own transport moves 4 KiB a read, builds two contexts and two temporary key files a connection, and logs
each record. This one shares its contexts, reads the socket 256 KiB at a time into one buffer for the whole process,
decrypts straight into the memory that the muxer hands on, and writes once a flush.

What must hold: the peer's identity is the key in its certificate's libp2p extension, checked before a byte of
plaintext is handed out (https://github.com/libp2p/specs/blob/master/tls/tls.md); plaintext leaves in order, once.

The certificate carries no extension but libp2p's: js-libp2p reads only the first one.
"""

from __future__ import annotations

import datetime
import os
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final, cast

import trio
from cryptography import x509
from cryptography.x509.oid import NameOID
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.crypto.keys import KeyPair, PublicKey
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.base_session import BaseSession
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.tls.certificate import verify_certificate_chain
from libp2p.security.tls.transport import PROTOCOL_ID, IdentityConfig, TLSTransport
from multiaddr import Multiaddr

PROTOCOL: Final[TProtocol] = PROTOCOL_ID

READ_SIZE: Final = 256 * 1024
"""Bytes asked of the socket at once: some 16 TLS records, so that one wake-up serves many."""

BATCH_SIZE: Final = 256 * 1024
"""Plaintext handed on at once, at most."""

RECORD: Final = 16 * 1024
"""Plaintext of a TLS record, at most (RFC 8446, 5.1)."""

HANDSHAKE_SECONDS: Final = 10.0
"""A handshake is three small messages; who needs longer is stalling (threat: exhaustion)."""

MAX_OWED: Final = 16 * 1024
"""TLS's own answers (to key updates) that wait for the next write, before reading waits for them to be sent."""


class _Scratch(threading.local):
    """Ciphertext lands here and is copied on before anything is awaited, so one buffer serves every connection.

    One a thread: the read itself runs without the interpreter's lock, and a test or a demo may run two nodes.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


_scratch = _Scratch()


BACKDATED_SECONDS: Final = 86_400.0
"""Clocks differ: a certificate is valid from a day ago. Machines whose clocks are further apart can't connect."""

VALID_SECONDS: Final = 36_525 * 86_400.0
"""A century: identity is the key, not the date."""


def _bare_certificate(valid_from: float | None) -> x509.CertificateBuilder:
    """A template without extensions; ``valid_from``: seconds since 1970, else as above."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "libp2p")])
    begin = time.time() - BACKDATED_SECONDS if valid_from is None else valid_from
    start = datetime.datetime.fromtimestamp(begin, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(seconds=VALID_SECONDS))
        .subject_name(name)
        .issuer_name(name)
    )


class TlsTransport(TLSTransport):
    """Turns raw connections into :class:`TlsSession`; both contexts are made once, when the node starts.

    ``valid_from``: when its certificate begins to be valid, for who wants to find out about clocks.
    """

    def __init__(self, key_pair: KeyPair, *, valid_from: float | None = None) -> None:
        super().__init__(key_pair, identity_config=IdentityConfig(cert_template=_bare_certificate(valid_from)))
        self._accepting = self.create_ssl_context(server_side=True)
        self._dialling = self.create_ssl_context(server_side=False)

    async def secure_inbound(self, conn: IRawConnection) -> TlsSession:
        """Answer a handshake; raises HandshakeFailure when it fails, stalls or names no peer."""
        return await self._secure(conn, None)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> TlsSession:
        """Open a handshake with ``peer_id``; raises HandshakeFailure also when another peer answers."""
        return await self._secure(conn, peer_id)

    async def _secure(self, conn: IRawConnection, expected: ID | None) -> TlsSession:
        context = self._accepting if expected is None else self._dialling
        pipe = TlsPipe(conn, context, server_side=expected is None)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                certificate = await pipe.handshake()
        except (ssl.SSLError, OSError, IOException, RawConnError, trio.TooSlowError, ValueError) as error:
            raise HandshakeFailure(f"TLS handshake: {str(error) or type(error).__name__}") from error
        remote, remote_key = identify(certificate)
        if expected is not None and remote != expected:
            raise HandshakeFailure(f"expected peer {expected}, but {remote} answered")
        return TlsSession(self, conn, pipe, remote, remote_key, is_initiator=expected is not None)


def identify(certificate: bytes) -> tuple[ID, PublicKey]:
    """Who a certificate (DER) belongs to, and that peer's key; raises HandshakeFailure, whatever the bytes are."""
    try:
        key = verify_certificate_chain([x509.load_der_x509_certificate(certificate)])
        return ID.from_pubkey(key), key
    except Exception as error:  # whatever the parsers of X.509, DER, protobuf and keys make of the peer's bytes
        raise HandshakeFailure(f"TLS certificate: {str(error) or type(error).__name__}") from error


def records(pieces: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytearray | memoryview]:
    """The same bytes in as few TLS records: whole ones where they lie, only what is left between them is copied."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        if held or len(view) < RECORD:
            step = RECORD - len(held)
            held += view[:step]
            view = view[step:]
            if len(held) < RECORD:
                continue
            yield held
            held = bytearray()
        whole = len(view) - len(view) % RECORD
        if whole:
            yield view[:whole]
        held += view[whole:]
    if held:
        yield held


class TlsPipe:
    """One TLS connection over a raw one: plaintext in and out, no identity.

    TCP sockets are read and written through their descriptor; anything else (a relayed connection, one under a
    pre-shared key) through its own ``read`` and ``write``.
    """

    def __init__(self, conn: IRawConnection, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._conn = conn
        self._socket = _tcp_socket(conn)
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side)
        self._cut_short = True
        self._unsent = memoryview(b"")  # ciphertext that the socket has not taken yet
        self._write_lock = trio.Lock()
        self._broken = False  # a write that can't be taken up again was cut

    async def handshake(self) -> bytes:
        """Shake hands; the peer's certificate (DER).

        Raises ssl.SSLError, ConnectionClosedError, and ValueError for a peer that speaks TLS, but not libp2p's.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
        await self._flush()
        if self._tls.version() != "TLSv1.3":
            raise ValueError(f"peer speaks {self._tls.version()}, not TLS 1.3")
        certificate = self._tls.getpeercert(binary_form=True)
        if certificate is None:
            raise ValueError("peer sent no certificate")
        return certificate

    async def receive(self, at_most: int = BATCH_SIZE) -> memoryview:
        """The next plaintext, 1 to ``at_most`` bytes in memory of its own; empty at the end of the stream.

        Raises ConnectionClosedError when the connection breaks, also when it ends without TLS's goodbye.
        Safe to cancel: nothing read is lost.
        """
        while True:
            plain = self._decrypt(at_most)
            # An answer to a key update goes with the next write: reading doesn't wait for writing, lest two
            # peers that both send wait for each other.
            if self._out.pending > MAX_OWED:
                await self._flush_locked()
            if plain is not None:
                return plain
            await self._fill()

    def receive_nowait(self) -> memoryview | None:
        """What ``receive`` would return, if that is here already; None when it would wait. Raises as it does."""
        while self._out.pending <= MAX_OWED:
            plain = self._decrypt(BATCH_SIZE)
            if plain is not None:
                return plain
            if self._socket is None or not self._fill_nowait():
                return None
        return None

    def _decrypt(self, at_most: int) -> memoryview | None:
        """Plaintext of the ciphertext that came, empty at the end of the stream; None when there is none yet."""
        tls = self._tls
        # What is pending bounds the plaintext: no more memory is made than can be filled.
        size = min(at_most, self._in.pending + (tls.pending() if self._cut_short else 0))
        if not size:
            return None
        plain = memoryview(bytearray(size))
        got = 0
        self._cut_short = True  # there may be more in the last record than was asked for
        try:
            while got < size:
                got += cast(int, tls.read(size - got, plain[got:]))
        except ssl.SSLWantReadError:
            self._cut_short = False
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return plain[:got]
        except ssl.SSLError as error:
            raise ConnectionClosedError(f"TLS: {error.reason}", transport="tls") from error
        return plain[:got] if got else None

    async def send(self, *data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send all of ``data``, back to back. Raises ConnectionClosedError.

        Once begun, ``data`` counts as sent: when cancelled, what the socket didn't take yet waits here, in order,
        for the next ``send`` (of nothing, if there is nothing else to say).
        """
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            for record in records(data):
                self._tls.write(record)
            await self._flush()
        except ssl.SSLError as error:
            raise ConnectionClosedError(f"TLS: {error.reason}", transport="tls") from error
        finally:
            self._write_lock.release()

    async def close(self) -> None:
        """Close the raw connection. No TLS goodbye: the muxer above has its own, and a peer may not be reading."""
        await self._conn.close()

    async def _flush_locked(self) -> None:
        async with self._write_lock:
            await self._flush()

    async def _flush(self) -> None:
        while self._unsent or self._out.pending:
            if not self._unsent:
                self._unsent = memoryview(self._out.read())
            if self._socket is None:
                await self._write_through()
                continue
            while self._unsent:
                try:
                    self._unsent = self._unsent[os.write(self._descriptor(), self._unsent) :]
                except BlockingIOError:
                    await _wait(trio.lowlevel.wait_writable, self._socket)
                except InterruptedError:
                    continue
                except OSError as error:
                    raise ConnectionClosedError(f"connection broke: {error.strerror}", transport="tcp") from error

    async def _write_through(self) -> None:
        """Write by the raw connection, which doesn't say how far it came when it is cancelled."""
        if self._broken:
            raise ConnectionClosedError("an earlier write was cut", transport="raw")
        data, self._unsent = self._unsent, memoryview(b"")
        self._broken = True
        await self._conn.write(bytes(data))
        self._broken = False

    async def _fill(self) -> None:
        """Move what the socket has into TLS; waits for at least one byte."""
        if self._socket is None:
            data = await self._conn.read(READ_SIZE)
            if not data:
                raise ConnectionClosedError("peer hung up", transport="raw")
            self._in.write(data)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._fill_nowait():
            await _wait(trio.lowlevel.wait_readable, self._socket)

    def _fill_nowait(self) -> bool:
        """Move what the socket has into TLS; False when it has nothing."""
        scratch = _scratch.view
        while True:
            try:
                n = os.readv(self._descriptor(), [scratch])
            except BlockingIOError:
                return False
            except InterruptedError:
                continue
            except OSError as error:
                raise ConnectionClosedError(f"connection broke: {error.strerror}", transport="tcp") from error
            if n == 0:
                raise ConnectionClosedError("peer hung up", transport="tcp")
            self._in.write(scratch[:n])
            return True

    def _descriptor(self) -> int:
        fd = -1 if self._socket is None else self._socket.fileno()
        if fd < 0:
            raise ConnectionClosedError("connection is closed", transport="tcp")
        return fd


class TlsSession(BaseSession):
    """A secured connection with a known peer at its other end; what libp2p's upgrader hands to a muxer."""

    def __init__(
        self,
        transport: TlsTransport,
        conn: IRawConnection,
        pipe: TlsPipe,
        remote: ID,
        remote_key: PublicKey,
        *,
        is_initiator: bool,
    ) -> None:
        super().__init__(
            local_peer=transport.local_peer,
            local_private_key=transport.libp2p_privkey,
            remote_peer=remote,
            remote_permanent_pubkey=remote_key,
            is_initiator=is_initiator,
        )
        self.conn = conn
        self._pipe = pipe
        self._left = memoryview(b"")

    async def receive(self) -> memoryview:
        """The next plaintext in memory of its own, empty at the end; see :meth:`TlsPipe.receive`."""
        if self._left:
            left, self._left = self._left, memoryview(b"")
            return left
        return await self._pipe.receive()

    def receive_nowait(self) -> memoryview | None:
        """What ``receive`` would return, if that is here already; None when it would wait."""
        return None if self._left else self._pipe.receive_nowait()

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes; raises ConnectionClosedError at the end of the stream."""
        if n == 0:
            return b""
        view = await self.receive()
        if not view:
            raise ConnectionClosedError("peer hung up", transport="tls")
        if n is not None and len(view) > n:
            view, self._left = view[:n], view[n:]
        return bytes(view)

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        await self._pipe.send(data)

    async def send(self, *data: bytes | bytearray | memoryview) -> None:
        """Send the pieces back to back; see :meth:`TlsPipe.send`."""
        await self._pipe.send(*data)

    async def close(self) -> None:
        """Close the connection at once."""
        await self._pipe.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """The peer's address and port."""
        return self.conn.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The addresses this connection really uses."""
        return self.conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Direct or relayed."""
        return self.conn.get_connection_type()


def _tcp_socket(conn: IRawConnection) -> trio.socket.SocketType | None:
    """The socket under a plain TCP connection; None for any other kind, whose bytes it would bypass."""
    if type(conn) is RawConnection and isinstance(conn.stream, TrioTCPStream) and hasattr(os, "readv"):
        return conn.stream.stream.socket
    return None


async def _wait(wait: object, sock: trio.socket.SocketType) -> None:
    try:
        await wait(sock)  # type: ignore[operator]
    except trio.ClosedResourceError as error:
        raise ConnectionClosedError("connection is closed", transport="tcp") from error
