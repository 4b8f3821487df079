"""Notations that no library reads without their scheme, as plain values and back: frames, and protobuf.

For ``shapes.py``: what was changed in between is written by no rule but the notation's, so that lengths are right and
what they are lengths of is tried. Raises anything for what can't be read or written.
"""

from __future__ import annotations

import struct

from p2plearn.course.varint import varint

MOST = 2**64 - 1
_HEAD = struct.Struct(">BI")

Field = list[object]
"""[Number, value]: an int, bytes, or a list of fields."""


def read_frames(raw: bytes) -> list[Field]:
    """[Type, body] of each message of our stream protocols; the last may be cut short."""
    frames: list[Field] = []
    at = 0
    while at < len(raw):
        kind, length = _HEAD.unpack_from(raw, at)
        frames.append([kind, raw[at + 5 : at + 5 + length]])
        at += 5 + length
    return frames


def write_frames(frames: list[tuple[int, bytes]]) -> bytes:
    """The other way round."""
    return b"".join(_HEAD.pack(kind, len(body)) + body for kind, body in frames)


def read_protobuf(raw: bytes) -> list[Field]:
    """The fields of a message; what has bytes that read as a message is taken for one."""
    fields: list[Field] = []
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if not tag >> 3:
            raise ValueError("field 0")
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            fields.append([tag >> 3, value])
        elif tag & 7 == 2:
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise ValueError("cut short")
            fields.append([tag >> 3, _message_or_bytes(raw[at : at + length])])
            at += length
        else:
            raise ValueError("a type that nobody uses here")
    return fields


def _message_or_bytes(raw: bytes) -> object:
    try:
        return read_protobuf(raw) or raw
    except (ValueError, IndexError):
        return raw


def write_protobuf(fields: list[tuple[int, object]]) -> bytes:
    """The other way round; a text is written as UTF-8."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value & MOST)
        else:
            if isinstance(value, str):
                body = value.encode()
            else:
                body = write_protobuf(value) if isinstance(value, list) else bytes(value)  # type: ignore[call-overload]
            out += varint(number << 3 | 2) + varint(len(body)) + body
    return bytes(out)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
