"""The two Ed25519 keys of a node: made once, kept private, used to sign.

The *peer key* is what the node is on the network; the *author key* is what its owner signs courses with. They are
apart, so that an author can move to another machine without two machines claiming one place in the network.

Invariants: a key file appears complete and 0600 or not at all, whatever is killed when, and is never written again;
a key that others can read is refused, not used; private bytes are in no message, log record or ``repr``.

Imports only ``errors``, ``private_files`` and cryptography.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2plearn.errors import P2plearnError
from p2plearn.private_files import create_private, make_private_folder, read_private, remove_left_overs

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
        make_private_folder(path.parent)
        key = _load(path)
        if key is None:
            create_private(path, SigningKey.generate()._pem())
            key = _load(path)
        if key is not None:
            remove_left_overs(path)
    except OSError as problem:
        raise P2plearnError(f"The key {path} can't be used: {problem.strerror}.") from None
    if key is None:
        raise P2plearnError(f"The key {path} went away while it was being made.")
    return key


def _load(path: Path) -> SigningKey | None:
    """The key, or None when there is no file."""
    pem = read_private(path, _MOST_KEY_BYTES)
    if pem is None:
        return None
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
