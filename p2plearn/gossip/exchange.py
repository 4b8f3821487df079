"""One end of an exchange between two nodes: what to answer to a turn, from what the record has.

In: the peer's turns. Out: ours, and what was new. Both ends run the same code; who began goes on until a turn of its
own would be empty after an answer that promised no more. It blocks (SQLite, signatures): use a thread.

What a peer can cost: a bounded list of ids, one turn's worth of checking at a time, and no more than IDLE_ENVELOPES
that were of no use before it is at fault.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2plearn.errors import PeerFault
from p2plearn.gossip.admission import Reason
from p2plearn.gossip.envelope import Content, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.turns import ENVELOPE_BYTES, MAX_FEEDS, MAX_IDS, Turn

MAX_OUTBOX: Final = 400_000
"""Ids that a peer may have asked for and not been sent: two feeds at their budget."""
IDLE_ENVELOPES: Final = 2_000
"""Envelopes of one exchange that we had, or that something newer stands against. Two peers that tell us the same
news at once make some; who sends that many isn't listening."""


@dataclass(slots=True)
class Counts:
    """What one exchange came to. ``new`` waits to be passed on; ``fresh`` counts what was passed on already.

    ``dropped``: what was not kept, by reason.
    """

    sent: int = 0
    new: list[Envelope] = field(default_factory=list)
    fresh: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)


class Exchange:
    """``follows``: the feeds that this node keeps; only those are spoken about. See ``Feed.take`` for the hooks."""

    def __init__(
        self,
        feed: Feed,
        follows: Collection[bytes],
        now: Callable[[], float],
        refuse: Callable[[Content], bool],
        admit: Callable[[Content], bool] = lambda _: True,
    ) -> None:
        self._feed = feed
        self._follows = frozenset(follows)
        self._now = now
        self._refuse = refuse
        self._admit = admit
        self._outbox: deque[bytes] = deque()
        self._queued: set[bytes] = set()
        self._wanted: deque[bytes] = deque()
        self._asked: set[bytes] = set()
        self.counts = Counts()

    def begin(self, feeds: Iterable[bytes]) -> Turn:
        """The first turn of an exchange about all of ``feeds`` (the first MAX_FEEDS of those that are kept)."""
        chosen = [feed for feed in feeds if feed in self._follows][:MAX_FEEDS]
        return Turn(ranges={feed: self._feed.opening(feed) for feed in chosen})

    def hint(self, fresh: dict[bytes, list[bytes]]) -> Turn:
        """The first turn of an exchange that only tells what is new here, by feed."""
        return Turn(have={feed: ids[:MAX_IDS] for feed, ids in list(fresh.items())[:MAX_FEEDS]})

    def take(self, turn: Turn) -> Turn:
        """Our turn after the peer's. Raises PeerFault."""
        self.receive(turn.envelopes)
        self._feed.ripen(self._now())
        answer = Turn()
        for feed, ranges in turn.ranges.items():
            if feed not in self._follows:
                continue
            found = self._feed.answer(feed, ranges)
            if found.ranges:
                answer.ranges[feed] = found.ranges
            self._want(found.we_lack)
            self._queue(key[8:] for key in found.they_lack)
        for feed, ids in turn.have.items():
            if feed in self._follows:
                self._want(self._feed.lacking(ids))
        self._queue(turn.want)
        answer.want = [self._wanted.popleft() for _ in range(min(len(self._wanted), MAX_IDS))]
        answer.envelopes = self._fill()
        answer.more = bool(self._outbox or self._wanted)
        return answer

    def receive(self, raws: Sequence[bytes]) -> None:
        """Check and keep envelopes, those of a turn or a part of them. Raises PeerFault."""
        if not raws:
            return
        counts = self.counts
        taken = self._feed.take(raws, self._follows, self._now(), self._refuse, self._admit)
        counts.new += taken.new
        counts.dropped.update(taken.dropped)
        if taken.faults:
            raise PeerFault(f"sync: {len(taken.faults)} bad envelopes, the first: {taken.faults[0]}")
        if elsewhere := taken.dropped["elsewhere"]:
            # An honest peer sends what we asked for and what belongs to feeds that we named.
            raise PeerFault(f"sync: {elsewhere} envelopes of feeds that nobody spoke about")
        if counts.dropped["known"] + counts.dropped["stale"] > IDLE_ENVELOPES + counts.fresh + len(counts.new):
            raise PeerFault("sync: envelopes of no use, again and again")

    def _want(self, ids: Iterable[bytes]) -> None:
        for name in ids:
            if name not in self._asked and len(self._asked) < MAX_OUTBOX:
                self._asked.add(name)
                self._wanted.append(name)

    def _queue(self, ids: Iterable[bytes]) -> None:
        for name in ids:
            if name not in self._queued:
                self._queued.add(name)
                self._outbox.append(name)
        if len(self._queued) > MAX_OUTBOX:
            raise PeerFault("sync: wants without end")

    def _fill(self) -> list[bytes]:
        sent: list[bytes] = []
        while self._outbox:
            head = [self._outbox[at] for at in range(min(len(self._outbox), 1024))]
            room = ENVELOPE_BYTES - sum(map(len, sent))
            if room <= 0:
                break
            found = self._feed.raws(head, self._follows, room)
            for _ in found:
                self._outbox.popleft()
            sent += [raw for raw in found if raw]
            if len(found) < len(head):
                break
        self.counts.sent += len(sent)
        return sent
