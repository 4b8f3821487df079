"""A libp2p stream as a channel of chunk protocol messages: the thin I/O under both ends.

In: a stream. Out: checked messages, and PeerFault or StreamOver when there are no more.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio
from libp2p.exceptions import BaseLibp2pError

from p2plearn.errors import PeerFault
from p2plearn.net.rates import Floor
from p2plearn.transfer.protocol import FROM_FETCHER, Decoder, Kind, Message, encode

if TYPE_CHECKING:
    from p2plearn.transfer.courtesy import Line

STREAM_ERRORS: Final = (BaseLibp2pError, EOFError)
"""What libp2p's streams raise when they are over."""


AT_ONCE: Final = 1 << 20
"""Bytes that are here already are decoded in one go up to about so many: who receives has other things to look at."""


class StreamOver(Exception):
    """The stream ended: closed, reset, or its connection broke. Nobody's fault as such."""


class Channel:
    """Messages over one stream. One task receives; several may send, whole messages at a time.

    ``stream`` is a libp2p ``INetStream``; our own muxer's streams are used directly, which spares each chunk a copy
    and some locks.
    """

    def __init__(self, stream: Any, accepts: Mapping[Kind, int]) -> None:
        self._stream = stream
        muxed = getattr(stream, "muxed_stream", None)
        self._fast = muxed if hasattr(muxed, "receive") and hasattr(muxed, "send") else None
        self._decoder = Decoder(accepts)
        self._serves = accepts is FROM_FETCHER
        self._turn = trio.Lock()
        self._written = 0
        self._written_at = -math.inf
        self.heard = 0
        """Bytes received, whole messages or not."""
        self.rules: Line | None = None
        """Whom to ask before sending or asking for much; None as long as nothing is limited."""

    @property
    def brought(self) -> int:
        """Bytes of chunks received, whole ones or not."""
        return self._decoder.chunk_bytes

    @property
    def sent(self) -> int:
        """Bytes that went out so far: while it grows, the peer reads."""
        return self._written if self._fast is None else int(self._fast.sent)

    @property
    def sent_at(self) -> float:
        """When bytes last went out, in trio's time."""
        return self._written_at if self._fast is None else float(self._fast.sent_at)

    @property
    def remote(self) -> str | None:
        """IP address of the other end; None when that can't be told."""
        muxed = getattr(self._stream, "muxed_stream", self._stream)
        address = getattr(muxed, "get_remote_address", lambda: None)()
        return str(address[0]) if address else None

    async def receive(self) -> list[Message]:
        """The next messages, at least one; raises StreamOver, and PeerFault for a stream cut within a message.

        Raises trio.TooSlowError at the serving end when a message comes in drops (``net.limits.FLOOR_BYTES``). At the
        fetching end the scheduler knows better what to expect.
        """
        floor: Floor | None = None
        while True:
            try:
                data = await self._in_time(floor)
                messages = self._decoded(data)
                heard = len(data)
                while heard < AT_ONCE and self._fast is not None and (data := self._fast.receive_nowait()):
                    messages += self._decoded(data)
                    heard += len(data)
            except STREAM_ERRORS as error:
                raise StreamOver(str(error)) from error
            if messages:
                return messages
            if self._serves:
                floor = floor or Floor(trio.current_time())
                floor.came(heard, trio.current_time())

    async def _in_time(self, floor: Floor | None) -> memoryview:
        """The next bytes, none at the end of the stream; raises trio.TooSlowError."""
        if floor is None:
            return await self._bytes()
        with trio.fail_at(floor.deadline):
            return await self._bytes()

    async def _bytes(self) -> memoryview:
        if self._fast is not None:
            view: memoryview = await self._fast.receive()
            return view
        return memoryview(await self._stream.read(64 * 1024))

    def _decoded(self, data: memoryview) -> list[Message]:
        if not data:
            if not self._decoder.idle:
                raise PeerFault("chunk protocol: stream closed within a message")
            raise StreamOver("closed by the peer")
        self.heard += len(data)
        return list(self._decoder.feed(data))

    async def send(self, *messages: Message) -> None:
        """Send messages in one go; raises StreamOver."""
        await self.send_pieces([encode(message) for message in messages])

    async def send_pieces(
        self,
        pieces: Sequence[bytes | memoryview],
        size: int = 0,
        wait: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Send bytes that are whole messages when put together; raises StreamOver.

        With ``wait``: at most ``size`` bytes at a time, ``wait`` awaited with the number before each.
        """
        async with self._turn:
            try:
                if wait is None:
                    await self._write(pieces)
                    return
                for few in _slices(pieces, size):
                    await wait(sum(map(len, few)))
                    await self._write(few)
            except STREAM_ERRORS as error:
                raise StreamOver(str(error)) from error

    async def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        if self._fast is not None:
            await self._fast.send(pieces)
        else:
            for piece in pieces:
                await self._stream.write(bytes(piece))
                self._written += len(piece)
                self._written_at = trio.current_time()

    async def close(self) -> None:
        """Say that nothing more comes from here."""
        try:
            await self._stream.close()
        except STREAM_ERRORS:
            return

    async def reset(self) -> None:
        """End the stream at once, both ways."""
        try:
            await self._stream.reset()
        except STREAM_ERRORS:
            return


def _slices(pieces: Sequence[bytes | memoryview], size: int) -> Iterator[list[bytes | memoryview]]:
    """The same bytes, ``size`` of them (at the end fewer) at a time, nothing copied."""
    few: list[bytes | memoryview] = []
    room = size
    for piece in pieces:
        view = memoryview(piece)
        while len(view) >= room:
            few.append(view[:room])
            view = view[room:]
            yield few
            few, room = [], size
        if view:
            few.append(view)
            room -= len(view)
    if few:
        yield few
