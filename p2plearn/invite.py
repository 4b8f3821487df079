"""⊙ An invite: all that a home needs to be in a closed group, as one short text.

    P2PLEARN-GROUP-041ZK…

The digits are Crockford's base32 (no I, L, O, U; read in either case, I and L as 1, O as 0, spaces and hyphens passed
over) of: version (1), key (32 bytes), name (length, UTF-8), number of peers, for each its Ed25519 key (32) and its
addresses, and a checksum: the first 5 bytes of the SHA-256 of ``p2plearn invite`` and all before. So a slip of the
hand is told from a stranger's invite before anything is dialled, and the text fits the small alphabet of QR codes.

Sans-IO. Imports only ``errors``.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from p2plearn.errors import UsageProblem

PREFIX: Final = "P2PLEARN-GROUP-"
KEY_BYTES: Final = 32
MAX_NAME: Final = 60
"""Characters of a group's name."""
MAX_PEERS: Final = 8
"""Peers that an invite may name ..."""
TOLD_PEERS: Final = 4
"""... and that ours do: enough to join through, and the QR code fits a terminal of 80 columns."""
MAX_ADDRESSES: Final = 3
"""Addresses of each."""
MAX_TEXT: Final = 8192

_VERSION: Final = 1
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {digit: value for value, digit in enumerate(_ALPHABET)} | {"I": 1, "L": 1, "O": 0}
_CHECKSUM_BYTES: Final = 5
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEER_ID_HEAD: Final = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
"""An identity multihash over libp2p's protobuf of an Ed25519 key: the 32 bytes follow."""
_TCP: Final = re.compile(r"/(ip4|ip6)/([0-9a-fA-F.:]{2,45})/tcp/([0-9]{1,5})")
_TEXT, _IP4, _IP6 = 0, 1, 2
_HINT: Final = "Copy all of it, or scan the QR code; `p2plearn invite` prints it again for who is in the group."


@dataclass(frozen=True, slots=True)
class Invite:
    """A group's name and key, and addresses (multiaddrs with ``/p2p/``) to join through."""

    name: str
    key: bytes = field(repr=False)
    addresses: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """What a group may be told apart by without telling anything of it: 12 hex digits of a hash of its key."""
        return hmac.digest(self.key, b"p2plearn group tag v1", "sha256")[:6].hex()


def tidy_name(text: str) -> str:
    """A group's name as it is kept; raises UsageProblem for what is none."""
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not name or len(name) > MAX_NAME or not name.isprintable() or len(name.encode("utf-8", "replace")) > 255:
        raise UsageProblem(f"A group's name has 1 to {MAX_NAME} characters that can be printed.")
    return name


def format_invite(invite: Invite) -> str:
    """The text. Addresses of peers whose id is no Ed25519 key, and beyond the caps, are left out."""
    name = invite.name.encode()
    peers = _by_peer(invite.addresses)
    raw = bytes((_VERSION,)) + invite.key + bytes((len(name),)) + name + bytes((len(peers),))
    for key, addresses in peers.items():
        raw += key + bytes((len(addresses),)) + b"".join(map(_pack_address, addresses))
    return PREFIX + _encode(raw + _checksum(raw))


def parse_invite(text: str) -> Invite:
    """The invite in ``text``; raises UsageProblem that says what is wrong with it."""
    if len(text) > MAX_TEXT:
        raise UsageProblem("This is far too long for an invite.", _HINT)
    squeezed = "".join(text.split()).upper()
    if not squeezed:
        raise UsageProblem("There is no invite.", "Paste the text that `p2plearn invite` printed.")
    if not squeezed.startswith(PREFIX):
        if squeezed.startswith("P2PLEARN:"):
            raise UsageProblem("This is a course's link, not an invite.", "p2plearn get fetches a course.")
        raise UsageProblem(f"This is no invite: it doesn't begin with {PREFIX}.", _HINT)
    raw = _decode(squeezed[len(PREFIX) :].replace("-", ""))
    if len(raw) <= _CHECKSUM_BYTES or _checksum(raw[:-_CHECKSUM_BYTES]) != raw[-_CHECKSUM_BYTES:]:
        raise UsageProblem("This invite has a slip in it: a character is wrong, missing or too many.", _HINT)
    reader = _Reader(raw[:-_CHECKSUM_BYTES])
    try:
        version = reader.byte()
        if version != _VERSION:
            raise UsageProblem(
                f"This invite is of version {version}; this p2plearn reads version {_VERSION}.",
                "It was made by another version of p2plearn: install that one.",
            )
        return _read(reader)
    except _Bad as wrong:
        raise UsageProblem(f"This invite can't be used: {wrong}.", "Ask for a new one.") from None


class _Bad(ValueError):
    """The bytes break a rule although the checksum holds: a program wrote it wrong."""


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, count: int) -> bytes:
        part = self._raw[self._at : self._at + count]
        if len(part) != count:
            raise _Bad("it ends too early")
        self._at += count
        return part

    def byte(self) -> int:
        return self.take(1)[0]

    def text(self) -> str:
        try:
            return self.take(self.byte()).decode()
        except UnicodeDecodeError:
            raise _Bad("a text in it isn't UTF-8") from None

    @property
    def done(self) -> bool:
        return self._at == len(self._raw)


def _read(reader: _Reader) -> Invite:
    key = reader.take(KEY_BYTES)
    name = reader.text()
    try:
        if tidy_name(name) != name:
            raise _Bad("its name isn't as names are kept")
    except UsageProblem:
        raise _Bad("its name is none") from None
    addresses = []
    for _ in range(_counted(reader, MAX_PEERS, "peers")):
        peer = _base58(_PEER_ID_HEAD + reader.take(32))
        addresses += [
            f"{_unpack_address(reader)}/p2p/{peer}" for _ in range(_counted(reader, MAX_ADDRESSES, "addresses"))
        ]
    if not reader.done:
        raise _Bad("something follows its end")
    return Invite(name, key, tuple(addresses))


def _counted(reader: _Reader, most: int, what: str) -> int:
    count = reader.byte()
    if count > most:
        raise _Bad(f"it names {count} {what}, {most} are the most")
    return count


def _by_peer(addresses: Sequence[str]) -> dict[bytes, list[str]]:
    """Addresses without ``/p2p/``, by the key of the peer; what has no place in an invite is left out."""
    found: dict[bytes, list[str]] = {}
    for address in dict.fromkeys(addresses):
        place, _, peer = address.rpartition("/p2p/")
        key = _peer_key(peer)
        if key is None or not place.startswith("/") or len(place.encode()) > 255 or not place.isprintable():
            continue
        if key in found or len(found) < TOLD_PEERS:
            known = found.setdefault(key, [])
            if len(known) < MAX_ADDRESSES:
                known.append(place)
    return found


def _pack_address(address: str) -> bytes:
    match = _TCP.fullmatch(address)
    if match is not None and int(match[3]) < 65536:
        try:
            ip = ipaddress.ip_address(match[2])
        except ValueError:
            ip = None
        # Only what is written again just so: an address in an odd spelling travels as it is.
        if ip is not None and f"/{'ip4' if ip.version == 4 else 'ip6'}/{ip}/tcp/{int(match[3])}" == address:
            return bytes((_IP4 if ip.version == 4 else _IP6,)) + ip.packed + int(match[3]).to_bytes(2, "big")
    raw = address.encode()
    return bytes((_TEXT, len(raw))) + raw


def _unpack_address(reader: _Reader) -> str:
    kind = reader.byte()
    if kind == _TEXT:
        text = reader.text()
        if not text.startswith("/") or not text.isprintable() or " " in text:
            raise _Bad("an address in it is none")
        return text
    if kind not in (_IP4, _IP6):
        raise _Bad("an address in it is of an unknown kind")
    ip = ipaddress.ip_address(reader.take(4 if kind == _IP4 else 16))
    return f"/{'ip4' if kind == _IP4 else 'ip6'}/{ip}/tcp/{int.from_bytes(reader.take(2), 'big')}"


def _checksum(raw: bytes) -> bytes:
    return hashlib.sha256(b"p2plearn invite" + raw).digest()[:_CHECKSUM_BYTES]


def _encode(raw: bytes) -> str:
    padded = raw + bytes(-len(raw) % 5)
    value = int.from_bytes(padded, "big")
    digits = [_ALPHABET[value >> 5 * place & 31] for place in range(len(padded) * 8 // 5 - 1, -1, -1)]
    return "".join(digits)[: -(-len(raw) * 8 // 5)]


def _decode(digits: str) -> bytes:
    value = 0
    for position, digit in enumerate(digits, len(PREFIX) + 1):
        number = _VALUES.get(digit)
        if number is None:
            shown = digit if digit.isprintable() else f"U+{ord(digit):04X}"
            raise UsageProblem(f"No invite has the character {shown!r} in it (its character {position}).", _HINT)
        value = value << 5 | number
    length, spare = divmod(len(digits) * 5, 8)
    if spare > 4 or value & ((1 << spare) - 1):
        raise UsageProblem("This invite has a slip in it: a character is wrong, missing or too many.", _HINT)
    return (value >> spare).to_bytes(length, "big")


def _base58(raw: bytes) -> str:
    value, out = int.from_bytes(raw, "big"), ""
    while value:
        value, digit = divmod(value, 58)
        out = _BASE58[digit] + out
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + out


def _peer_key(peer: str) -> bytes | None:
    """The Ed25519 key that a peer id (base58) holds; None for any other text."""
    if not 40 <= len(peer) <= 60 or not set(peer) <= set(_BASE58):
        return None
    value = 0
    for char in peer:
        value = value * 58 + _BASE58.index(char)
    if value >= 1 << 8 * 38:
        return None
    raw = value.to_bytes(38, "big")
    return raw[6:] if raw[:6] == _PEER_ID_HEAD and _base58(raw) == peer else None
