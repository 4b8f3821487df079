"""How a turn of an exchange goes over a stream: its length in 4 bytes, big-endian, then the turn.

In: a libp2p stream, a turn's bytes. Out: the peer's next turn's bytes; PeerFault for one that is too long or cut short,
TooSlowError for one that comes too slowly.

What must hold: no peer makes this node hold more than MAX_TURN, or wait for longer than it was told to for the first
bytes and at the pace of ``net.rates.Floor`` for the rest.

Imports ``errors``, ``net`` and ``turns``.
"""

from __future__ import annotations

import math
from typing import Any, Final

import trio
from libp2p.abc import INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.stream.exceptions import StreamEOF

from p2plearn.errors import PeerFault
from p2plearn.gossip.turns import MAX_TURN
from p2plearn.net.rates import Floor

HEAD: Final = 4
"""Bytes of a turn's length."""
TURN_SECONDS: Final = 30.0
"""For a peer to think, and for a turn to go out."""

OVER: Final = (BaseLibp2pError, EOFError, OSError, trio.TooSlowError, trio.BrokenResourceError)
"""What ends an exchange without anybody's fault."""


async def send(stream: INetStream, raw: bytes) -> None:
    """Send a turn's bytes, length included (``turns.encode``). Raises TooSlowError."""
    with trio.fail_after(TURN_SECONDS):
        await stream.write(raw)


async def receive(stream: INetStream, patience: float) -> bytes | None:
    """The peer's next turn; None when it has closed. ``patience``: seconds for its first bytes.

    Raises PeerFault, TooSlowError.
    """
    with trio.fail_after(patience):
        head = await read_exactly(stream, HEAD)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if not 0 < length <= MAX_TURN:
        raise PeerFault(f"sync: a turn of {length} bytes")
    return await read_exactly(stream, length)


async def read_exactly(stream: Any, count: int) -> bytes:
    """``count`` bytes, or none at all at the end of the stream; raises PeerFault for an end in the middle.

    Raises TooSlowError when they come in drops (``net.limits.FLOOR_BYTES``).
    """
    pieces: list[bytes] = []
    left = count
    floor = Floor(trio.current_time())
    while left:
        try:
            with trio.fail_at(floor.deadline if pieces or count > HEAD else math.inf):
                piece = await stream.read(left)
        except (EOFError, StreamEOF):
            piece = b""
        if not piece:
            break
        floor.came(len(piece), trio.current_time())
        pieces.append(piece)
        left -= len(piece)
    if left and pieces:
        raise PeerFault("sync: the stream ended within a turn")
    return b"".join(pieces)


async def reset(stream: INetStream) -> None:
    """Cut the stream; a peer that is gone already makes no difference."""
    try:
        await stream.reset()
    except OVER:
        return
