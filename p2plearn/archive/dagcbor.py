"""⊙ DAG-CBOR, as far as CAR headers and our own nodes need it: numbers, text, bytes, lists, maps, links, booleans.

Source: ipld.io/specs/codecs/dag-cbor (RFC 8949's definite, shortest forms; map keys are text, shorter ones first, then
by bytes; a link is tag 42 over a byte string that begins with 0 and holds a binary CID). ``decode`` takes no other
spelling, so a value has one.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

MAX_DEPTH: Final = 8
"""Lists and maps within each other; ours have three."""

_LINK_TAG: Final = b"\xd8\x2a"
_SIMPLE: Final[dict[int, Any]] = {0xF4: False, 0xF5: True, 0xF6: None}
_UNSIGNED, _BYTES, _TEXT, _LIST, _MAP = 0, 2, 3, 4, 5
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}


class Link(NamedTuple):
    """A binary CID that is linked to."""

    cid: bytes


class BadCbor(ValueError):
    """Not DAG-CBOR of the kinds above; the message says why."""


def encode(value: Any) -> bytes:
    """The one spelling of a value; raises TypeError for what has none here."""
    if value is None or isinstance(value, bool):
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, Link):
        return _LINK_TAG + encode(b"\0" + value.cid)
    if isinstance(value, int) and 0 <= value < 1 << 64:
        return _head(_UNSIGNED, value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(_TEXT, len(raw)) + raw
    if isinstance(value, list):
        return _head(_LIST, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        keys = sorted(value, key=_key_order)
        return _head(_MAP, len(keys)) + b"".join(encode(key) + encode(value[key]) for key in keys)
    raise TypeError(f"{type(value).__name__} has no form in DAG-CBOR here")


def decode(raw: bytes) -> Any:
    """The value of ``raw``, all of it; raises BadCbor. Takes memory in proportion to ``raw``, whatever it claims."""
    value, end = _read(raw, 0, 0)
    if end != len(raw):
        raise BadCbor(f"{len(raw) - end} bytes follow the value")
    return value


def _key_order(key: str) -> tuple[int, bytes]:
    raw = key.encode()
    return len(raw), raw


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    for code, width in _WIDTHS.items():
        if value < 1 << 8 * width:
            return bytes((major << 5 | code,)) + value.to_bytes(width, "big")
    raise TypeError("a number beyond 64 bits")


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """The argument of the head at ``at``, and where it ends."""
    low = raw[at] & 0x1F
    at += 1
    if low < 24:
        return low, at
    width = _WIDTHS.get(low)
    if width is None:
        raise BadCbor("an indefinite or reserved length")
    if at + width > len(raw):
        raise BadCbor("it is cut short")
    value = int.from_bytes(raw[at : at + width], "big")
    if value < (24 if width == 1 else 1 << 4 * width):
        raise BadCbor("a number isn't in its shortest form")
    return value, at + width


def _run(raw: bytes, at: int, length: int) -> tuple[bytes, int]:
    if length > len(raw) - at:
        raise BadCbor("it is cut short")
    return raw[at : at + length], at + length


def _read(raw: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(raw):
        raise BadCbor("it is cut short")
    if depth > MAX_DEPTH:
        raise BadCbor("it is nested too deeply")
    first = raw[at]
    if first in _SIMPLE:
        return _SIMPLE[first], at + 1
    if raw[at : at + 2] == _LINK_TAG:
        inner, at = _read(raw, at + 2, depth + 1)
        if not isinstance(inner, bytes) or inner[:1] != b"\0" or len(inner) < 5:
            raise BadCbor("a link holds no CID")
        return Link(inner[1:]), at
    major = first >> 5
    if major not in {_UNSIGNED, _BYTES, _TEXT, _LIST, _MAP}:
        raise BadCbor(f"a kind that isn't used here ({first:#04x})")
    number, at = _number(raw, at)
    if major == _UNSIGNED:
        return number, at
    if major == _BYTES:
        return _run(raw, at, number)
    if major == _TEXT:
        text, at = _run(raw, at, number)
        try:
            return text.decode(), at
        except UnicodeDecodeError:
            raise BadCbor("a text isn't UTF-8") from None
    if number > len(raw) - at:
        raise BadCbor("it is cut short")  # each item takes a byte at least
    return _read_list(raw, at, depth, number) if major == _LIST else _read_map(raw, at, depth, number)


def _read_list(raw: bytes, at: int, depth: int, number: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(number):
        item, at = _read(raw, at, depth + 1)
        items.append(item)
    return items, at


def _read_map(raw: bytes, at: int, depth: int, number: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    last = (-1, b"")
    for _ in range(number):
        key, at = _read(raw, at, depth + 1)
        if not isinstance(key, str):
            raise BadCbor("a map's key is no text")
        order = _key_order(key)
        if order <= last:
            raise BadCbor("a map's keys aren't in order")
        last = order
        found[key], at = _read(raw, at, depth + 1)
    return found, at
