"""What this Python can do at most: 1 GiB over TLS 1.3 on loopback, every byte hashed as it comes, then discarded."""

from __future__ import annotations

import datetime
import hashlib
import os
import socket
import ssl
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BYTES = 1 << 30
BLOCK = 1 << 20


def _identity(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "identity.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


def _send(listener: socket.socket, identity: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity)
    block = memoryview(os.urandom(BLOCK))
    with context.wrap_socket(listener.accept()[0], server_side=True) as line:
        for _ in range(BYTES // BLOCK):
            line.sendall(block)


def _receive(address: tuple[str, int]) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    digest, view, got = hashlib.sha256(), memoryview(bytearray(BLOCK)), 0
    with context.wrap_socket(socket.create_connection(address)) as line:
        began = time.perf_counter()
        while count := line.recv_into(view):
            digest.update(view[:count])
            got += count
    if got != BYTES:
        raise RuntimeError("cut short")
    return got / 1e6 / (time.perf_counter() - began)


def tls_and_sha256(runs: int) -> list[float]:
    """MB/s, one value a run; sender and receiver are processes of their own."""
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        identity = _identity(Path(folder))
        for _ in range(runs):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                child = os.fork()
                if not child:
                    _send(listener, identity)
                    os._exit(0)
                rates.append(_receive(listener.getsockname()))
                os.waitpid(child, 0)
    return rates
