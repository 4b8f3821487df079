"""The two Ed25519 keys of a node: made once, kept private, used to sign.

The *peer key* is what the node is on the network; the *author key* is what its owner signs courses with. They are
apart, so that an author can move to another machine without two machines claiming one place in the network.

Beside each key ``NAME.key`` lies its public half in ``NAME.pub`` (64 hex digits and a line feed): any 32 bytes are an
Ed25519 key, so without it a key that rotted on the disk would be taken for another, and its owner for a stranger. Keys
from before there were such files get theirs at the next start.

Invariants: a key file appears complete and 0600 or not at all, whatever is killed when, and is never written again;
a key that others can read is refused, not used; private bytes are in no message, log record or ``repr``.

Imports only ``errors``, ``private_files`` and cryptography.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2plearn.errors import P2plearnError
from p2plearn.private_files import create_private, make_private_folder, read_private, remove_left_overs

logger = logging.getLogger(__name__)

_MOST_KEY_BYTES = 4096  # a PKCS8 PEM of Ed25519 has 119
_PUBLIC_HALF_BYTES = 65


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


def public_half(path: Path) -> Path:
    """Where the public half of the key ``path`` is kept."""
    return path.with_suffix(".pub")


def load_or_create(path: Path) -> SigningKey:
    """The key of the file ``path``, made first when there was none.

    Of several processes that make it at once all end with the same key. Raises Refused when others could read it,
    with the command that mends it; P2plearnError when it is damaged, gone, or can't be read or written.
    """
    try:
        make_private_folder(path.parent)
        key = _load(path)
        if key is None:
            create_private(path, SigningKey.generate()._pem())
            key = _load(path)
        if key is not None:
            remove_left_overs(path)
            _keep_public_half(path, key)
    except OSError as problem:
        raise P2plearnError(f"The key {path} can't be used: {problem.strerror}.") from None
    if key is None:
        raise P2plearnError(f"The key {path} went away while it was being made.")
    return key


def refuse_if_rotten(path: Path) -> None:
    """Raise what ``load_or_create`` would of a key that is damaged or gone; OSError. Makes nothing."""
    _load(path)


def _keep_public_half(path: Path, key: SigningKey) -> None:
    """Have the public half beside the key; without room for it the key is used all the same."""
    beside = public_half(path)
    try:
        if not beside.exists():
            create_private(beside, f"{key.public.hex()}\n".encode())
        remove_left_overs(beside)
    except OSError as problem:
        logger.warning("%s can't be written, so damage to the key would go unseen: %s", beside, problem.strerror)


def _load(path: Path) -> SigningKey | None:
    """The key, or None when there is none yet."""
    beside = public_half(path)
    noted = read_private(beside, _PUBLIC_HALF_BYTES)  # first: who makes a key writes this last
    pem = read_private(path, _MOST_KEY_BYTES)
    if pem is None:
        if noted is None:
            return None
        raise P2plearnError(
            f"The key {path} is gone; {beside} is still there.", f"Put a backup of it back. {_anew(beside)}"
        )
    key = _parse(pem)
    if key is None:
        raise P2plearnError(
            f"The key {path} is damaged: it holds no Ed25519 private key.",
            f"Put a backup of it in its place. {_anew(path, beside)}",
        )
    if noted is not None and noted != f"{key.public.hex()}\n".encode():
        raise P2plearnError(
            f"The key {path} isn't the one that {beside} belongs to: one of the two is damaged, or was put there from "
            "elsewhere.",
            f"Put a backup of both in their place. If you put this key there yourself: rm {shlex.quote(str(beside))}. "
            f"{_anew(path, beside)}",
        )
    return key


def _anew(*files: Path) -> str:
    """How to go on with another key."""
    what = "a new author" if files[0].stem == "author" else "a new node"
    names = " ".join(shlex.quote(str(file)) for file in files)
    return f"To begin anew, as {what} to everybody else: mkdir -p old-keys && mv {names} old-keys"


def _parse(pem: bytes) -> SigningKey | None:
    """The key in ``pem``; None when there is none in it."""
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        return None
    except Exception as problem:  # cryptography's own kinds, for keys of algorithms it doesn't know
        if type(problem).__module__.partition(".")[0] != "cryptography":
            raise
        return None
    return SigningKey(private) if isinstance(private, Ed25519PrivateKey) else None
