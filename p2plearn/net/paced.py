"""A libp2p stream under a floor, for handlers of libp2p's own that wait for a slow peer for ever.

Imports ``net.rates``.
"""

from __future__ import annotations

from typing import Any

import trio

from p2plearn.net.rates import Floor


class Paced:
    """``stream``, but a read raises trio.TooSlowError when the peer brings fewer than ``FLOOR_BYTES`` in
    ``FLOOR_SECONDS`` (``net.limits``). Everything else is passed on.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._floor = Floor(trio.current_time())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int | None = None) -> bytes:
        """As the stream's."""
        with trio.fail_at(self._floor.deadline):
            data: bytes = await self._stream.read(n)
        self._floor.came(len(data), trio.current_time())
        return data
