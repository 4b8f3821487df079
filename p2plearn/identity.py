"""The two Ed25519 keys of a node: made once, kept private, used to sign.

The *peer key* is what the node is on the network; the *author key* is what its owner signs courses with. They are
apart, so that an author can move to another machine without two machines claiming one place in the network.

Invariants: a key file appears complete and 0600 or not at all, whatever is killed when, and is never written again;
a key that others can read is refused, not used; private bytes are in no message, log record or ``repr``.

Imports only ``errors`` and cryptography.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2plearn.errors import P2plearnError, Refused

_MOST_KEY_BYTES = 4096  # a PKCS8 PEM of Ed25519 has 119


class SigningKey:
    """An Ed25519 key pair (RFC 8032)."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()
        """32 bytes."""

    def __repr__(self) -> str:
        """Names the key by its public half."""
        return f"SigningKey(public={self.public.hex()})"

    def __reduce__(self) -> tuple[object, ...]:
        """Keys are not copied about: pickling is refused."""
        raise TypeError("a signing key can't be pickled")

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key, in memory only."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, message: bytes) -> bytes:
        """The signature (64 bytes) of ``message``."""
        return self._private.sign(message)

    def secret_seed(self) -> bytes:
        """The private half (32 bytes), for libp2p, which wants the key itself. Never to be logged or sent."""
        return self._private.private_bytes_raw()

    def _pem(self) -> bytes:
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is that of ``message`` by the key ``public``; False for malformed ones too."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_or_create(path: Path) -> SigningKey:
    """The key of the file ``path``, made first when there is none.

    Of several processes that make it at once all end with the same key. Raises Refused when others could read it,
    with the command that mends it; P2plearnError when it is damaged or can't be read or written.
    """
    try:
        _make_private_folder(path.parent)
        key = _load(path)
        if key is None:
            _create(path, SigningKey.generate())
            key = _load(path)
    except OSError as problem:
        raise P2plearnError(f"The key {path} can't be used: {problem.strerror}.") from None
    if key is None:
        raise P2plearnError(f"The key {path} went away while it was being made.")
    return key


def _make_private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_if_open(folder, folder.stat(), 0o700)


def _refuse_if_open(path: Path, facts: os.stat_result, wanted: int) -> None:
    quoted = shlex.quote(str(path))
    if facts.st_uid != os.getuid():
        raise Refused(f"{path} belongs to another user.", f"Make it yours: sudo chown {os.getuid()} {quoted}")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & ~wanted:
        raise Refused(
            f"{path} is open to others (mode {mode:04o}); a key that others can read is not safe to use.",
            f"Close it: chmod {wanted:o} {quoted}",
        )


def _load(path: Path) -> SigningKey | None:
    """The key, or None when there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise P2plearnError(f"The key {path} is not a regular file.")
        _refuse_if_open(path, facts, 0o600)
        pem = file.read(_MOST_KEY_BYTES + 1)
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        private = None
    except Exception as problem:  # cryptography's own kinds, for keys of algorithms it doesn't know
        if type(problem).__module__.partition(".")[0] != "cryptography":
            raise
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise P2plearnError(
            f"The key {path} is damaged: it holds no Ed25519 private key.",
            "Put a backup of it in its place; or move it away, and a new key is made at the next start "
            "(others will see a new node, or a new author).",
        )
    return SigningKey(private)


def _create(path: Path, key: SigningKey) -> None:
    """Write ``key`` to ``path`` unless a file is there already; durable when it returns."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(key._pem())
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link never replaces the key that another process made in the meantime.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)
