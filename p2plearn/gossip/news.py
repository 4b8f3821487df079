"""What is new here and not told yet: gathered for a moment, for longer while there is much of it.

What this node's own person says waits only a moment, unless they say a great deal.

Imports siblings.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio
from libp2p.peer.id import ID

from p2plearn.gossip.allowance import Allowance
from p2plearn.gossip.envelope import Envelope

GATHER_SECONDS: Final = 0.15
"""What is new within this time is told together."""
BUSY_NEWS: Final = 8
BUSY_SECONDS: Final = 0.75
"""After this much news at a time it is gathered for longer: each hint costs both ends some 10 ms."""
HURRIES: Final = 8
HURRIES_PER_SECOND: Final = 2.0
"""What this node's person says doesn't wait for that, so many times at once, and a second."""
MAX_FRESH: Final = 2_000
"""News not told yet; what is beyond that travels with the periodic exchanges."""

Fresh = dict[bytes, bytes]
"""Ids to the feeds they are in."""


class News:
    """Filled by ``announce``, emptied by ``gather``, both in trio's thread."""

    def __init__(self) -> None:
        self._fresh: OrderedDict[bytes, bytes] = OrderedDict()
        self._from: dict[bytes, ID] = {}
        self._some = trio.Event()
        self._hurry = trio.Event()
        self._hurries = Allowance(burst=HURRIES, rate=HURRIES_PER_SECOND, capacity=1)
        self._busy = False

    def announce(self, envelope: Envelope, heard_from: ID | None = None) -> None:
        """Something is new here; ``heard_from``: who told it, None for this node's person."""
        if len(self._fresh) < MAX_FRESH:
            self._fresh[envelope.id] = envelope.content.feed
            if heard_from is not None:
                self._from[envelope.id] = heard_from
        if heard_from is None and self._hurries.admit("", trio.current_time()):
            self._hurry.set()
        self._some.set()

    async def gather(self) -> tuple[Fresh, dict[bytes, ID]]:
        """Wait for news and a moment more: what is new, and from whom those that were heard."""
        await self._some.wait()
        with trio.move_on_after(BUSY_SECONDS if self._busy else GATHER_SECONDS):
            await self._hurry.wait()
            await trio.sleep(GATHER_SECONDS)
        self._some, self._hurry = trio.Event(), trio.Event()
        fresh, self._fresh = self._fresh, OrderedDict()
        heard, self._from = self._from, {}
        self._busy = len(fresh) >= BUSY_NEWS
        return fresh, heard
