"""How a course is named: 32 bytes, 64 hex digits, a CID, or a link that also says who has it.

A course hash is the SHA-256 of the raw bytes of the course's manifest. Its CID is the one of that manifest as a raw
IPFS block (CIDv1, codec raw, sha2-256), so the two forms carry the same 32 bytes. A link is
``p2plearn:HEX?from=MULTIADDR`` with any number of ``from``.

Sans-IO. Imports only ``errors``; errors here are the user's, written for whoever pasted the wrong thing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

from p2plearn.errors import UsageProblem

HASH_BYTES = 32
RAW_CID = bytes((1, 0x55, 0x12, HASH_BYTES))
"""What a CIDv1 of a raw block begins with: version 1, codec raw, sha2-256, 32 bytes. The digest follows."""
DAG_PB_CID = bytes((1, 0x70, 0x12, HASH_BYTES))
"""The same for a dag-pb node: a UnixFS folder, or a file of more than one chunk."""
CID_BYTES = len(RAW_CID) + HASH_BYTES

SCHEME = "p2plearn:"
MAX_PROVIDERS = 16
"""Providers a link may name. More would make a dialler of whoever opens it; fewer than two would be fragile."""
MAX_LINK = 16 * 1024
"""Characters of a link: 16 long addresses and room to spare, and still nothing to parse for long."""
MAX_ADDRESS = 512
"""Characters of a provider's address: a relayed address with two peer ids has some 250."""

_HINT = "A course is named by 64 hex digits, by a CID that begins with 'bafkrei', or by a p2plearn: link."
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_CODECS = {0x70: "dag-pb", 0x71: "dag-cbor", 0x72: "libp2p-key", 0x0129: "dag-json", 0x0200: "json", 0x51: "cbor"}
_HEX = frozenset("0123456789abcdefABCDEF")
_ALNUM = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class CourseLink:
    """A course (32 bytes) and, when the link says so, who has it (multiaddrs, in the link's order)."""

    course: bytes
    providers: tuple[str, ...] = ()


def cid_text(cid: bytes) -> str:
    """A binary CIDv1 as text: base32, lower case, without padding, after multibase's ``b``."""
    return "b" + base64.b32encode(cid).decode("ascii").rstrip("=").lower()


def course_cid(course: bytes) -> str:
    """The CID of a course: its manifest as a raw block."""
    return cid_text(RAW_CID + course)


def format_link(course: bytes, providers: Sequence[str] = ()) -> str:
    """The link of ``course``; at most ``MAX_PROVIDERS`` of the providers go in, the first ones."""
    query = urlencode([("from", each) for each in providers[:MAX_PROVIDERS]], quote_via=quote, safe="/:")
    return f"{SCHEME}{course.hex()}" + (f"?{query}" if query else "")


def parse_link(text: str) -> CourseLink:
    """The course that ``text`` names, as hex digits, CID or link; spaces around it don't matter.

    Raises UsageProblem that says what is wrong with it.
    """
    name = text.strip()
    if not name:
        raise UsageProblem("The course's name is empty.", _HINT)
    if len(name) > MAX_LINK:
        raise UsageProblem(f"This link has {len(name)} characters, more than the {MAX_LINK} a link may have.", _HINT)
    providers: tuple[str, ...] = ()
    if name[: len(SCHEME)].lower() == SCHEME:
        name, _, rest = name[len(SCHEME) :].partition("?")
        query, _, _fragment = rest.partition("#")
        name = unquote(name.partition("#")[0]).removeprefix("//").strip().strip("/")
        providers = _parse_providers(query)
        if not name:
            raise UsageProblem("This link names no course: the hash after 'p2plearn:' is missing.", _HINT)
    return CourseLink(_parse_course(name), providers)


def _parse_providers(query: str) -> tuple[str, ...]:
    """The ``from`` addresses of a link's query, without repetitions; other parameters are for later versions."""
    found: dict[str, None] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key != "from":
            continue
        # "+" is left alone: it is no space in a multiaddr, and format_link writes spaces as %20.
        address = unquote(value).strip()
        if len(address) > MAX_ADDRESS:
            raise UsageProblem(
                f"An address in this link has {len(address)} characters, at most {MAX_ADDRESS} make sense."
            )
        if not address.startswith("/") or not address.isprintable() or " " in address:
            raise UsageProblem(
                f"The link's 'from={_shown(address)}' is no address.",
                "An address looks like /ip4/192.0.2.7/tcp/4017/p2p/12D3Koo…",
            )
        found[address] = None
    if len(found) > MAX_PROVIDERS:
        raise UsageProblem(f"This link names {len(found)} providers, at most {MAX_PROVIDERS} are allowed.")
    return tuple(found)


def _parse_course(name: str) -> bytes:
    """32 bytes from hex digits or a CID."""
    if len(name) == 2 * HASH_BYTES and _HEX.issuperset(name):
        return bytes.fromhex(name)
    if len(name) <= _LONGEST_NAME and _ALNUM.issuperset(name):
        if len(name) == 46 and name.startswith("Qm"):
            raise _not_a_course(0x70)
        if _looks_like_cid(name):
            return _parse_cid(name)
    raise _wrong_hex(name)


def _looks_like_cid(name: str) -> bool:
    """Whether someone who pasted this meant a CID: hex digits of a wrong length may also begin with b or f."""
    if _HEX.issuperset(name):
        # Hex with multibase's f: "f01551220" and 64 digits. A cut-off CID in base32 almost never is all hex.
        return name[:3].lower() == "f01"
    return (name[0] in "bB" and name[1:2] in "aA") or (name[0] in "zk" and len(name) > 40)


def _parse_cid(name: str) -> bytes:
    try:
        cid = _multibase(name)
    except ValueError as wrong:
        raise UsageProblem(f"'{_shown(name)}' looks like a CID but can't be read: {wrong}.", _HINT) from None
    try:
        version, at = _varint(cid, 0)
        codec, at = _varint(cid, at)
        function, at = _varint(cid, at)
        length, at = _varint(cid, at)
    except ValueError:
        raise UsageProblem(f"The CID '{_shown(name)}' is cut short.", _HINT) from None
    if version != 1:
        raise UsageProblem(f"'{_shown(name)}' is a CID of version {version}; only version 1 is known.", _HINT)
    if codec != 0x55:
        raise _not_a_course(codec)
    if function != 0x12 or length != HASH_BYTES:
        raise UsageProblem(
            f"This CID's hash is of kind {function:#x} with {length} bytes, a course's is a SHA-256 (0x12, 32 bytes).",
            _HINT,
        )
    digest = cid[at:]
    if len(digest) != HASH_BYTES:
        few = "cut short" if len(digest) < HASH_BYTES else "too long"
        raise UsageProblem(f"This CID is {few}: its hash has {len(digest)} bytes instead of {HASH_BYTES}.", _HINT)
    return digest


def _not_a_course(codec: int) -> UsageProblem:
    if codec == 0x70:
        return UsageProblem(
            "This CID (codec dag-pb) is the root of a folder or file in IPFS, not a course hash.",
            "'p2plearn publish' prints the course hash; its 'ipfs' field is the root that other IPFS programs use.",
        )
    named = _CODECS.get(codec, "unknown")
    return UsageProblem(f"This CID's codec is {codec:#x} ({named}); a course's is 0x55 (raw).", _HINT)


def _wrong_hex(name: str) -> UsageProblem:
    """What is wrong with something that should have been 64 hex digits."""
    for position, char in enumerate(name, 1):
        if char not in _HEX:
            return UsageProblem(
                f"'{_shown(name)}' is no course hash: its character {position}, '{_shown(char)}', is no hex digit.",
                _HINT,
            )
    return UsageProblem(f"'{_shown(name)}' is no course hash: it has {len(name)} hex digits instead of 64.", _HINT)


def _shown(text: str, limit: int = 80) -> str:
    """``text`` fit for a message: no control characters, not too long."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text[:limit])
    return clean + "…" if len(text) > limit else clean


def _multibase(text: str) -> bytes:
    """The bytes of a multibase string in base32, base16, base58btc or base36; raises ValueError with the reason."""
    base, digits = text[0], text[1:]
    if base in "bB":
        upper = digits.upper()
        wrong = re.search("[^A-Z2-7]", upper)
        if wrong:
            raise ValueError(f"{digits[wrong.start()]!r} is not in base32's alphabet")
        try:
            return base64.b32decode(upper + "=" * (-len(upper) % 8))
        except binascii.Error:
            raise ValueError("characters are missing or too many") from None
    if base in "fF":
        if len(digits) % 2:
            raise ValueError("a hex digit is missing")
        return bytes.fromhex(digits)
    alphabet = _BASE58 if base == "z" else _BASE36
    value = 0
    for char in digits if base == "z" else digits.lower():
        value = value * len(alphabet) + _digit(alphabet, char)
    # No leading zero bytes to restore: a CIDv1 begins with 0x01.
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _digit(alphabet: str, char: str) -> int:
    found = alphabet.find(char)
    if found < 0:
        raise ValueError(f"{char!r} is not in its alphabet")
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The unsigned LEB128 number at ``at`` and where the next one begins; raises ValueError past the end."""
    value = 0
    for place, byte in enumerate(raw[at : at + 9]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("cut short")
