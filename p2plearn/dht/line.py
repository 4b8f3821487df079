"""A libp2p stream as a line of heartbeat and custody messages: the thin I/O under both ends.

Imports ``errors``, ``dht.messages``, ``net.rates``, ``transfer.channel`` (for what a stream raises when it is over).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import trio

from p2plearn.dht.messages import Decoder, Kind, Message, encode
from p2plearn.errors import PeerFault
from p2plearn.net.rates import Floor
from p2plearn.transfer.channel import STREAM_ERRORS, StreamOver

_READ = 16 * 1024


class Line:
    """Messages over one stream; one task at a time receives, one sends."""

    def __init__(self, stream: Any, accepts: Mapping[Kind, int]) -> None:
        self._stream = stream
        self._decoder = Decoder(accepts)
        self._inbox: deque[Message] = deque()

    async def receive(self, seconds: float) -> Message:
        """The next message, begun within ``seconds``; raises StreamOver, PeerFault, trio.TooSlowError.

        One that has begun may take as long as it takes, but not come in drops (``net.limits.FLOOR_BYTES``).
        """
        floor: Floor | None = None
        deadline = trio.current_time() + seconds
        while not self._inbox:
            try:
                with trio.fail_at(floor.deadline if floor else deadline):
                    arrived = await self._stream.read(_READ)
            except STREAM_ERRORS as error:
                raise StreamOver(str(error)) from error
            if not arrived:
                if not self._decoder.idle:
                    raise PeerFault("custody: stream closed within a message")
                raise StreamOver("closed by the peer")
            self._inbox.extend(self._decoder.feed(arrived))
            if floor is None:
                floor = Floor(trio.current_time())
            else:
                floor.came(len(arrived), trio.current_time())
        return self._inbox.popleft()

    async def send(self, message: Message, seconds: float = 10.0) -> None:
        """Send a message; raises StreamOver, trio.TooSlowError."""
        with trio.fail_after(seconds):
            try:
                await self._stream.write(encode(message))
            except STREAM_ERRORS as error:
                raise StreamOver(str(error)) from error

    async def close(self) -> None:
        """Say that nothing more comes, and forget the stream."""
        with trio.CancelScope(shield=True), trio.move_on_after(1.0):
            try:
                await self._stream.close()
            except STREAM_ERRORS:
                return

    async def reset(self) -> None:
        """End the stream at once, both ways."""
        with trio.CancelScope(shield=True), trio.move_on_after(1.0):
            try:
                await self._stream.reset()
            except STREAM_ERRORS:
                return
