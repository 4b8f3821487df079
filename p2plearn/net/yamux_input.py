"""What a secured connection brings, a batch at a time, with a turn for every other task in between.

In: a connection. Out: views of what came, each in memory of its own, empty at the end. Imports ``net`` siblings.
"""

from __future__ import annotations

from typing import Final

import trio
from libp2p.abc import ISecureConn

from p2plearn.net.rates import Floor
from p2plearn.net.tls import TlsSession

BATCHES: Final = 4
"""Batches (of 256 KiB) read in one turn of the event loop: a turn of every other task costs as much as two of them."""


class Batches:
    """Read by one task."""

    def __init__(self, conn: ISecureConn) -> None:
        self._conn = conn
        self._tls = conn if isinstance(conn, TlsSession) else None
        self._taken = 0  # since other tasks had their turn

    async def next(self, floor: Floor | None) -> memoryview:
        """The next batch; raises trio.TooSlowError when a message has begun and too little of it comes.

        Raises what the connection does when it breaks.
        """
        batch: memoryview | None = None
        if self._tls is not None and 0 < self._taken < BATCHES:
            batch = self._tls.receive_nowait()
        if batch is None:
            if self._taken:
                await trio.lowlevel.checkpoint()
            self._taken = 0
            batch = await self._in_time(floor)
        self._taken += 1
        return batch

    async def _in_time(self, floor: Floor | None) -> memoryview:
        if floor is None:
            return await self._receive()
        with trio.move_on_at(floor.deadline):
            return await self._receive()
        raise trio.TooSlowError("yamux: a frame that comes in drops")

    async def _receive(self) -> memoryview:
        return await self._tls.receive() if self._tls is not None else memoryview(await self._conn.read(None))
