"""Which chunk to ask of which peer next. ⊙

In: what is wanted, what each peer has, what arrived, what proved good or bad, the time. Out: slots to ask of a peer,
requests to take back, peers to give up. Peers are any hashable names; the clock and the dice are handed in.

What must hold:

- a slot that was verified is never asked for again; each is accepted once;
- what is asked of one peer and not answered stays within its window, whatever it does;
- a peer that sent a bad chunk, or said it is missing, is not asked for that slot again;
- as long as some peer that answers honestly holds a slot, that slot ends up verified, whatever the others do;
- the same slot is asked of at most two peers at once, and of a second only when the first keeps everybody waiting; of
  up to ``MOST_ASKED`` while none of those asked has brought anything at all.

Order: ``order.py`` says which of a peer's slots goes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, TypeVar

from p2plearn.errors import PeerFault
from p2plearn.transfer.order import Held, Order, is_partial

MIN_WINDOW: Final = 512 * 1024
MAX_WINDOW: Final = 16 << 20
FIRST_WINDOW: Final = 2 << 20
"""Bytes asked of a peer and not answered: one second of its rate, between these two; the third before it has one.
A second covers any round trip, and at its end a slow peer holds up a second's worth of its own rate at most."""

MAX_REQUESTS: Final = 4096
"""Slots asked of one peer at once, however small they are."""

SILENCE_SECONDS: Final = 8.0
"""A peer that owes chunks and sends nothing for so long has its requests given to others."""

DROP_SECONDS: Final = 30.0
"""A peer that owes chunks and sends nothing for so long is given up."""

LATE_SECONDS: Final = 15.0
"""A peer that completes no chunk for so long, all of whose chunks a second peer was asked for meanwhile, gives its
place to a third: two that drip a byte at a time hold up nobody for longer."""

UNPROVEN_SECONDS: Final = 2.0
MOST_ASKED: Final = 4
"""A slot that was asked of peers which never brought anything, and owe it for so long, is asked of one more, of so many
in all: two that promise and do nothing hold up nobody for longer."""

MOST_IN_ALL: Final = 8
"""Beyond these it is asked of one at a time that did bring something: otherwise four that drip keep it from honest
peers beside them for as long as it takes to be sure of them (``LATE_SECONDS``), since they are never silent."""

STUCK_SECONDS: Final = 120.0
"""A peer that owes chunks and completes none for so long is given up, however busily it sends: the largest chunk in
this time is 9 KB a second."""

JITTER_SECONDS: Final = 0.02
"""By so much more than twice our own time a peer must keep us waiting before another is asked for the same. (With 0.1
a peer ten times slower, whose pace had been taken for higher, cost 256 MiB up to a fifth more time, and more was asked
twice: the slow one had brought the first of what it owed by then.)"""

MAX_STRIKES: Final = 2
"""Bad chunks after which a peer is given up."""

P = TypeVar("P", bound=Hashable)

_DONE, _TODO, _ASKED, _CHECKING = range(4)


class Arrival(Enum):
    """What to do with a chunk that came in."""

    CHECK = "hold it against its hash"
    DROP = "it was wanted once, but isn't any more"
    UNASKED = "this peer was never asked for it"


@dataclass(slots=True)
class _Peer(Held):
    came_partial: bool = False
    asked: dict[int, None] = field(default_factory=dict)
    asked_bytes: int = 0
    taken_back: Counter[int] = field(default_factory=Counter)  # copies that may still come, by slot
    starved: bool = False
    strikes: int = 0
    rate: float = 0.0
    heard_at: float = 0.0  # the last byte
    moved_at: float = 0.0  # the last whole chunk, or the first request after a time without any
    gauge_from: float = 0.0
    gauge_bytes: int = 0
    silent: bool = False  # owed something for too long; asked again only once it delivers


class Scheduler(Generic[P]):
    """One course's download. ``wanted`` are the slots to fetch, ``length`` gives the bytes of a slot.

    ``roll(n)`` returns a number below ``n``; seeded, it makes a run repeatable. ``me`` is this node's name among its
    peers.
    """

    def __init__(
        self,
        wanted: Sequence[int],
        slots: int,
        length: Callable[[int], int],
        roll: Callable[[int], int],
        *,
        in_order: bool = False,
        silence: float = SILENCE_SECONDS,
        me: P | None = None,
    ) -> None:
        self._length = length
        self._silence = silence
        self._slots = slots
        self._state = bytearray(slots)
        self._holders: dict[int, list[P]] = {}
        self._peers: dict[P, _Peer] = {}
        for slot in wanted:
            self._state[slot] = _TODO
        self._order = Order(wanted, slots, length, roll, in_order=in_order, me=me)
        self.remaining = len(wanted)
        self.remaining_bytes = sum(map(length, wanted))

    # -- peers ---------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> list[P]:
        """Everybody who takes part."""
        return list(self._peers)

    def joined(self, peer: P, bitmap: bytes, now: float) -> None:
        """``peer`` has the slots of ``bitmap`` (one bit a slot, first slot in the highest bit)."""
        if len(bitmap) != (self._slots + 7) // 8:
            raise ValueError("a bitmap of another course")
        partial = is_partial(bitmap, self._slots)
        self._peers[peer] = _Peer(
            bytearray(bitmap), partial, came_partial=partial, heard_at=now, moved_at=now, gauge_from=now
        )

    def has_more(self, peer: P, ranges: Iterable[tuple[int, int]]) -> bool:
        """``peer`` has got more slots, which lie within the course; whether that is news."""
        who, ranges = self._peers[peer], list(ranges)
        for first, count in ranges:
            if first + count > self._slots:
                raise PeerFault(f"chunk protocol: has slot {first + count - 1} of a course with {self._slots}")
        if not who.grow(ranges, self._slots):
            return False
        who.starved = False
        return True

    def idle_for(self, peer: P, now: float) -> float:
        """Seconds since ``peer`` owed anything, 0 while it does or when it doesn't take part."""
        who = self._peers.get(peer)
        return 0.0 if who is None or who.asked else now - who.moved_at

    def owes_for(self, peer: P, now: float) -> float:
        """Seconds in which ``peer`` owed chunks, or had them taken back for silence, and completed none; 0 for none.

        One that never brought any still owes what others brought in its stead.
        """
        who = self._peers.get(peer)
        if who is None:
            return 0.0
        barren = not who.rate and not who.gauge_bytes
        return now - who.moved_at if who.asked or who.silent or (barren and who.taken_back) else 0.0

    def silent_for(self, peer: P, now: float) -> float:
        """Seconds in which ``peer`` owed chunks, or had them taken back, and sent nothing; 0 when it owes none."""
        who = self._peers.get(peer)
        return now - who.heard_at if who is not None and (who.asked or who.silent) else 0.0

    def left(self, peer: P) -> None:
        """``peer`` is gone; what it owed goes to others."""
        who = self._peers.pop(peer, None)
        if who is not None:
            for slot in list(who.asked):
                self._release(peer, who, slot)

    # -- asking --------------------------------------------------------------------------------------------------

    def next_wants(self, peer: P, now: float, room: float | None = None) -> list[int]:
        """Slots to ask of ``peer`` now; empty when its window is full or it has nothing that is wanted.

        With ``room`` no more than so many bytes and one chunk.
        """
        who = self._peers[peer]
        if who.silent:
            return []
        window = self._window(who)
        # Not before a quarter of the window is free: one message for many chunks.
        if who.asked and (who.asked_bytes > window * 3 // 4 or len(who.asked) > MAX_REQUESTS * 3 // 4):
            return []
        if room is not None:
            window = min(window, who.asked_bytes + int(room))
        wants: list[int] = []
        while who.asked_bytes < window and len(who.asked) < MAX_REQUESTS:
            slot = self._pick(who)
            if slot is None:
                break
            self._state[slot] = _ASKED
            self._ask(peer, who, slot)
            wants.append(slot)
        if not who.asked:
            for slot in self._late_slots(peer, who, now):
                self._ask(peer, who, slot)
                wants.append(slot)
        if wants and len(wants) == len(who.asked):
            who.gauge_from += now - who.heard_at  # it owed nothing until now: that time says nothing of its rate
            who.heard_at = who.moved_at = now
        return wants

    def _window(self, who: _Peer) -> int:
        if who.rate == 0:
            return FIRST_WINDOW
        window = min(max(int(who.rate), MIN_WINDOW), MAX_WINDOW)
        # Towards the end no more than its share of what is left, so that all come to their ends together.
        together = sum(peer.rate for peer in self._peers.values() if not peer.silent)
        return max(1, min(window, int(self.remaining_bytes * who.rate / together))) if together else window

    def _ask(self, peer: P, who: _Peer, slot: int) -> None:
        who.asked[slot] = None
        who.asked_bytes += self._length(slot)
        self._holders.setdefault(slot, []).append(peer)

    def _pick(self, who: _Peer) -> int | None:
        slot = self._order.take(who, who.block)
        if slot is None and not who.starved:
            who.block = self._order.choose(who, self._peers)
            slot = self._order.take(who, who.block)
            who.starved = slot is None
        return slot

    def _late_slots(self, peer: P, who: _Peer, now: float) -> list[int]:
        """Endgame: slots that others owe, and that this idle peer would bring much sooner."""
        late: list[tuple[float, int]] = []
        for slot, holders in reversed(self._holders.items()):  # what was asked for last would also come last
            if self._state[slot] != _ASKED or peer in holders or not who.has(slot):
                continue
            others = [self._peers[holder] for holder in holders]
            if len(others) > 1 and not _may_ask_another(who, others, now):
                continue
            waited = now - max(other.moved_at for other in others)
            theirs = min(max(waited, other.asked_bytes / other.rate if other.rate else waited) for other in others)
            ours = self._length(slot) / who.rate if who.rate else 0.5
            if theirs > 2 * ours + JITTER_SECONDS:
                late.append((-theirs, slot))
        late.sort(key=lambda row: row[0])
        budget = self._window(who) // 4
        chosen: list[int] = []
        for _, slot in late[:MAX_REQUESTS]:
            chosen.append(slot)
            budget -= self._length(slot)
            if budget <= 0:
                break
        return chosen

    # -- answers -------------------------------------------------------------------------------------------------

    def heard(self, peer: P, now: float) -> None:
        """Bytes came from ``peer``, if only part of a chunk."""
        who = self._peers[peer]
        who.heard_at = now

    def held_up(self, peer: P, now: float) -> None:
        """We don't read what ``peer`` sends: neither silence nor slowness of these moments is its own."""
        who = self._peers[peer]
        who.heard_at = who.moved_at = now

    def arrived(self, peer: P, slot: int, now: float) -> Arrival:
        """A whole chunk came from ``peer``, its hash not looked at yet."""
        who = self._peers[peer]
        who.heard_at = who.moved_at = now
        who.silent = False
        if slot in who.asked:
            self._settle(peer, who, slot)
        elif who.taken_back[slot]:
            _drop_one(who.taken_back, slot)
        else:
            return Arrival.UNASKED
        self._gauge(who, self._length(slot), now)
        if self._state[slot] in (_DONE, _CHECKING):
            return Arrival.DROP
        if self._state[slot] == _TODO:  # taken back from this peer, and not given to another yet
            self._order.remove(slot)
        self._state[slot] = _CHECKING
        return Arrival.CHECK

    def _gauge(self, who: _Peer, size: int, now: float) -> None:
        who.gauge_bytes += size
        passed = now - who.gauge_from
        if passed >= 0.2:
            newest = who.gauge_bytes / passed
            who.rate = newest if who.rate == 0 else 0.6 * who.rate + 0.4 * newest
            who.gauge_from, who.gauge_bytes = now, 0

    def verified(self, slot: int) -> list[P]:
        """``slot`` is safe in the store; the peers that still owe it, to be told that it is no longer wanted."""
        if self._state[slot] == _DONE:
            return []
        self._state[slot] = _DONE
        self.remaining -= 1
        self.remaining_bytes -= self._length(slot)
        owing = list(self._holders.get(slot, ()))
        for peer in owing:
            who = self._peers[peer]
            self._settle(peer, who, slot)
            who.taken_back[slot] += 1
        return owing

    def rejected(self, peer: P, slot: int) -> bool:
        """``peer``'s chunk was bad; it goes to others. True when the peer is to be given up."""
        if self._state[slot] == _CHECKING:
            self._state[slot] = _ASKED if slot in self._holders else _TODO
            if self._state[slot] == _TODO:
                self._put_back(slot)
        who = self._peers.get(peer)
        if who is None:
            return True
        who.refused.add(slot)
        who.strikes += 1
        return who.strikes >= MAX_STRIKES

    def missing(self, peer: P, ranges: Iterable[tuple[int, int]]) -> None:
        """``peer`` hasn't got these slots after all; raises PeerFault for more of them than it was asked for."""
        who = self._peers[peer]
        ranges = list(ranges)
        if sum(count for _, count in ranges) > len(who.asked) + who.taken_back.total():
            raise PeerFault("chunk protocol: more slots are missing than were asked for")
        for first, count in ranges:
            for slot in range(first, first + count):
                if slot in who.asked:
                    self._release(peer, who, slot)
                if who.taken_back[slot]:
                    _drop_one(who.taken_back, slot)
                    who.refused.add(slot)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[P]:
        """Take back what silent or stuck peers owe; those who have been so for so long that they are given up."""
        given_up = []
        for peer, who in self._peers.items():
            silence, stuck = now - who.heard_at, now - who.moved_at > STUCK_SECONDS
            if who.asked and (silence > self._silence or stuck or self._replaced(who, now)):
                who.silent = True
                for slot in list(who.asked):
                    self._release(peer, who, slot)
            if who.silent and (silence > max(DROP_SECONDS, 2 * self._silence) or stuck):
                given_up.append(peer)
        return given_up

    def _replaced(self, who: _Peer, now: float) -> bool:
        late = now - who.moved_at > max(LATE_SECONDS, 2 * self._silence)
        return late and all(len(self._holders[slot]) > 1 for slot in who.asked)

    @property
    def finished(self) -> bool:
        """Everything wanted is verified."""
        return self.remaining == 0

    @property
    def starved(self) -> bool:
        """Something is wanted, nobody owes it, nobody who takes part has it."""
        return (
            not self.finished
            and not self._holders
            and _CHECKING not in self._state
            and all(self._order.choose(who, self._peers) < 0 for who in self._peers.values())
        )

    @property
    def may_grow(self) -> bool:
        """Somebody who takes part came with a part only, and may be fetching the rest; who lost some won't find it."""
        return any(who.came_partial for who in self._peers.values())

    def rate(self, peer: P) -> float:
        """Bytes a second that ``peer`` brings, 0 when not known."""
        return self._peers[peer].rate

    # -- inside --------------------------------------------------------------------------------------------------

    def _settle(self, peer: P, who: _Peer, slot: int) -> None:
        """``peer`` no longer owes ``slot``."""
        del who.asked[slot]
        who.asked_bytes -= self._length(slot)
        holders = self._holders[slot]
        holders.remove(peer)
        if not holders:
            del self._holders[slot]

    def _release(self, peer: P, who: _Peer, slot: int) -> None:
        """Take a request back; the slot goes to others unless somebody else owes it too."""
        self._settle(peer, who, slot)
        who.taken_back[slot] += 1
        if self._state[slot] == _ASKED and slot not in self._holders:
            self._state[slot] = _TODO
            self._put_back(slot)

    def _put_back(self, slot: int) -> None:
        self._order.put_back(slot)
        for who in self._peers.values():
            who.starved = False


def _may_ask_another(asked: _Peer, owing: Sequence[_Peer], now: float) -> bool:
    """Whether a slot may be asked of ``asked``, too, beside those that owe it: nothing else is to be hoped for."""
    if any(who.rate for who in owing):
        return False
    hopeless = [now - who.moved_at > UNPROVEN_SECONDS for who in owing]
    if asked.rate or asked.gauge_bytes:
        return any(hopeless) and len(owing) < MOST_IN_ALL
    return all(hopeless) and len(owing) < MOST_ASKED


def _drop_one(counter: Counter[int], slot: int) -> None:
    counter[slot] -= 1
    if not counter[slot]:
        del counter[slot]
