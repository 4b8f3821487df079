"""Agreeing on a protocol (multistream-select 1.0.0) with who answers a knock, such that what goes wrong has a name.

Imports ``errors`` of libp2p only.
"""

from __future__ import annotations

from typing import Any, Final

from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError

MULTISTREAM: Final = "/multistream/1.0.0"
_MOST_LINE: Final = 1024


class StepFailed(Exception):
    """A step that came to nothing. ``fault``: a stable word; ``words``: what was seen."""

    def __init__(self, fault: str, words: str) -> None:
        super().__init__(words)
        self.fault = fault
        self.words = words


async def agree(conn: Any, protocol: str) -> None:
    """Agree on ``protocol``; raises StepFailed."""
    for word in (MULTISTREAM, protocol):
        line = word.encode() + b"\n"
        await conn.write(bytes([len(line)]) + line)
    await _greeted(conn)
    answer = await _line(conn)
    if answer != protocol:
        raise StepFailed("protocol", f"it doesn't speak {protocol}")


async def _greeted(conn: Any) -> None:
    """The other's greeting, which is always the same: the first byte that differs tells a stranger."""
    greeting = bytes([len(MULTISTREAM) + 1]) + MULTISTREAM.encode() + b"\n"
    at = 0
    while at < len(greeting):
        part = await _read_some(conn, len(greeting) - at)
        if part != greeting[at : at + len(part)] or (at and not part):
            raise StepFailed("stranger", "what answers there is another program, not p2plearn")
        if not part:
            raise StepFailed("hung-up", "it took the connection and hung up without a word")
        at += len(part)


async def _read_some(conn: Any, most: int) -> bytes:
    """Up to ``most`` bytes; empty when the other hung up, in whatever way."""
    try:
        return bytes(await conn.read(most))
    except (IOException, RawConnError, EOFError):
        return b""


async def _line(conn: Any) -> str:
    """A line of multistream-select: a length, the text, a newline."""
    length = shift = 0
    while True:
        byte = await _read_some(conn, 1)
        if not byte:
            raise StepFailed("hung-up", "it hung up in the middle of agreeing on a protocol")
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
        if shift > 14:
            raise StepFailed("protocol", "its answer breaks the rules of multistream-select")
    raw = b""
    while len(raw) < min(length, _MOST_LINE):
        part = await _read_some(conn, min(length, _MOST_LINE) - len(raw))
        if not part:
            raise StepFailed("hung-up", "it hung up in the middle of a line")
        raw += part
    if length > _MOST_LINE or not raw.endswith(b"\n"):
        raise StepFailed("protocol", "its answer breaks the rules of multistream-select")
    return raw[:-1].decode("utf-8", "replace")
