"""What peers bring, taken in fairly: checked in one thread, a slice at a time, each peer's turns one after the other.

So a flood waits behind itself: an honest peer's turn waits for one slice of each other peer at most. Who brings more
than its bucket has (``allowance``) is not listened to, unread, and is at fault when it goes on.

Imports siblings, and ``net.standing`` for kinds of faults.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio
from libp2p.peer.id import ID

from p2plearn.gossip.admission import REASONS, Reason
from p2plearn.gossip.allowance import (
    BROUGHT,
    FETCHED,
    MAX_AUTHORS,
    MAX_PEERS,
    PER_SECOND,
    SAID,
    SAID_PER_SECOND,
    SLACK,
    Allowance,
)
from p2plearn.gossip.envelope import Content
from p2plearn.gossip.exchange import Exchange
from p2plearn.gossip.turns import Turn
from p2plearn.net.standing import Fault

SLICE: Final = 64
"""Envelopes checked and kept at once, some 20 ms: what an honest peer waits for in the worst case."""
COST_BYTES: Final = 2_048
"""An envelope costs a token, and another one for each of these that it has: most have 400 bytes."""

Blame = Callable[[ID, str, Fault], None]


@dataclass(slots=True)
class _Lane:
    lock: trio.Lock = field(default_factory=trio.Lock)
    users: int = 0


class Intake:
    """``blame`` is told of faults that are no broken rule of the format. ``dropped`` counts envelopes by reason."""

    def __init__(self, blame: Blame, clock: Callable[[], float] = time.monotonic) -> None:
        self._blame = blame
        self._clock = clock
        self._threads = trio.CapacityLimiter(1)
        self._brought = Allowance(burst=BROUGHT, rate=PER_SECOND, capacity=MAX_PEERS)
        self._fetched = Allowance(burst=FETCHED, rate=PER_SECOND, capacity=MAX_PEERS)
        self._authors = Allowance(burst=SAID, rate=SAID_PER_SECOND, capacity=MAX_AUTHORS)
        self._lanes: dict[ID, _Lane] = {}
        self.dropped: Counter[Reason] = Counter(dict.fromkeys(REASONS, 0))

    def admit(self, content: Content) -> bool:
        """Whether its author may say that now; asked in the one thread, once the signature was found good."""
        return self._authors.admit(content.author, self._clock())

    def may_fetch(self, peer: ID) -> bool:
        """Whether an exchange of ours with ``peer`` could bring anything now."""
        return self._fetched.spend(peer, 0, self._clock())

    async def think(self, exchange: Exchange, turn: Turn, peer: ID, *, brought: bool) -> tuple[Turn | None, bool]:
        """Our turn after the peer's, and whether it may go on; no turn for one that wasn't listened to.

        ``brought``: the peer began the exchange. Raises PeerFault.
        """
        bucket = self._brought if brought else self._fetched
        if self._floods(turn, peer, bucket):
            return None, False
        tokens = 1.0 + _cost(turn) if brought else 0.0
        before, early = len(exchange.counts.new), exchange.counts.dropped["early"]
        lane = self._lanes.setdefault(peer, _Lane())
        lane.users += 1
        try:
            async with lane.lock:
                answer = await self._take(exchange, turn)
        finally:
            lane.users -= 1
            if not lane.users:
                self._lanes.pop(peer, None)
            if not brought:
                tokens = float(len(exchange.counts.new) - before)
            goes_on = bucket.spend(peer, tokens, self._clock())
        if exchange.counts.dropped["early"] > early:
            # A clock may be wrong; what was offered once too early isn't counted again.
            self._blame(peer, "sync: envelopes from the future", Fault.CLOCK)
        return answer, goes_on

    async def begin(self, exchange: Exchange, feeds: list[bytes]) -> Turn:
        """The first turn of an exchange of ours; it reads fingerprints, so it waits its turn as well."""
        return await trio.to_thread.run_sync(exchange.begin, feeds, limiter=self._threads)

    def _floods(self, turn: Turn, peer: ID, bucket: Allowance) -> bool:
        now = self._clock()
        if not bucket.overdrawn(peer, now):
            return False
        self.dropped["flood"] += len(turn.envelopes)
        bucket.spend(peer, 1 + _cost(turn), now)
        if bucket.overdrawn(peer, now) > SLACK:
            self._blame(peer, "sync: more than anybody takes in", Fault.FLOOD)
        return True

    async def _take(self, exchange: Exchange, turn: Turn) -> Turn:
        raws, turn.envelopes = turn.envelopes, []
        for start in range(0, len(raws), SLICE):
            part = raws[start : start + SLICE]
            await trio.to_thread.run_sync(exchange.receive, part, limiter=self._threads)
        return await trio.to_thread.run_sync(exchange.take, turn, limiter=self._threads)


def _cost(turn: Turn) -> float:
    return float(sum(1 + len(raw) // COST_BYTES for raw in turn.envelopes))
