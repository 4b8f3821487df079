"""Which chunk to ask of which peer next. ⊙

In: what is wanted, what each peer has, what arrived, what proved good or bad, the time. Out: slots to ask of a peer,
requests to take back, peers to give up. Peers are any hashable names; the clock and the dice are handed in.

What must hold:

- a slot that was verified is never asked for again; each is accepted once;
- what is asked of one peer and not answered stays within its window, whatever it does;
- a peer that sent a bad chunk, or said it is missing, is not asked for that slot again;
- as long as some peer that answers honestly holds a slot, that slot ends up verified, whatever the others do;
- the same slot is asked of at most two peers at once, and of a second only when the first keeps everybody waiting; of
  up to ``MOST_ASKED`` while nothing is to be hoped for from any of those asked, and of up to ``MOST_IN_ALL`` when the
  next one has brought something and nobody's pace among those asked is known (``patience.py``).

Order: ``order.py`` says which of a peer's slots goes first, ``patience.py`` for how long one is waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Final, Generic, TypeVar

from p2plearn.errors import PeerFault
from p2plearn.transfer.order import Order, is_partial
from p2plearn.transfer.patience import (
    DROP_SECONDS,
    SILENCE_SECONDS,
    STUCK_SECONDS,
    UNPROVEN_SECONDS,
    Flow,
    Partner,
    keeps_waiting,
    patience_with,
)

MIN_WINDOW: Final = 512 * 1024
MAX_WINDOW: Final = 16 << 20
FIRST_WINDOW: Final = 2 << 20
"""Bytes asked of a peer and not answered: one second of its rate, between these two; the third before it has one.
A second covers any round trip, and at its end a slow peer holds up a second's worth of its own rate at most."""

STRANGERS_WINDOW: Final = 256 * 1024
"""The first of several peers that take part isn't asked for all of ``FIRST_WINDOW``, but its share, and this at least,
until it brought something: the course may be no larger, and the first one nobody who means to give it."""

MAX_REQUESTS: Final = 4096
"""Slots asked of one peer at once, however small they are."""

MAX_STRIKES: Final = 2
"""Bad chunks after which a peer is given up."""

P = TypeVar("P", bound=Hashable)

_DONE, _TODO, _ASKED, _CHECKING = range(4)


class Arrival(Enum):
    """What to do with a chunk that came in."""

    CHECK = "hold it against its hash"
    DROP = "it was wanted once, but isn't any more"
    UNASKED = "this peer was never asked for it"


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
        self._peers: dict[P, Partner] = {}
        for slot in wanted:
            self._state[slot] = _TODO
        self._order = Order(wanted, slots, length, roll, in_order=in_order, me=me)
        self._flow = Flow()
        self.company = 1
        """Peers that take part or are about to."""
        self.remaining = len(wanted)
        self.remaining_bytes = sum(map(length, wanted))

    # -- peers ---------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> list[P]:
        """Everybody who takes part."""
        return list(self._peers)

    def joined(self, peer: P, bitmap: bytes, now: float, answered: float = UNPROVEN_SECONDS) -> None:
        """``peer`` has the slots of ``bitmap`` (one bit a slot, first slot in the highest bit).

        ``answered``: seconds that it took to say so.
        """
        if len(bitmap) != (self._slots + 7) // 8:
            raise ValueError("a bitmap of another course")
        partial = is_partial(bitmap, self._slots)
        self._peers[peer] = Partner(
            bytearray(bitmap),
            partial,
            came_partial=partial,
            heard_at=now,
            moved_at=now,
            gauge_from=now,
            patience=patience_with(answered),
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
        owes = who.asked or who.silent or (not who.proven and who.taken_back)
        return now - who.moved_at if owes else 0.0

    def overtaken(self, peer: P) -> bool:
        """Whether ``peer`` brought nothing of what it was asked for, and others were asked in its place."""
        who = self._peers.get(peer)
        return who is not None and who.overtaken

    def silent_for(self, peer: P, now: float) -> float:
        """Seconds in which ``peer`` owed chunks, or had them taken back, and sent nothing; 0 when it owes none."""
        who = self._peers.get(peer)
        return now - who.heard_at if who is not None and (who.asked or who.silent) else 0.0

    def dry_for(self, now: float) -> float:
        """Seconds in which nobody brought anything of what is owed; 0 while bytes flow, or nobody owes any."""
        return self._flow.dry_for(now) if self.owed else 0.0

    @property
    def owed(self) -> bool:
        """Somebody was asked for something that didn't come yet."""
        return bool(self._holders)

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
        if wants and len(wants) == len(self._holders):
            self._flow.whole(now)
        if wants and len(wants) == len(who.asked):
            who.gauge_from += now - who.heard_at  # it owed nothing until now: that time says nothing of its rate
            who.heard_at = who.moved_at = now
        return wants

    def _window(self, who: Partner) -> int:
        if who.rate == 0:
            return FIRST_WINDOW if who.proven else max(FIRST_WINDOW // self.company, STRANGERS_WINDOW)
        window = min(max(int(who.rate), MIN_WINDOW), MAX_WINDOW)
        # Towards the end no more than its share of what is left, so that all come to their ends together.
        together = sum(peer.rate for peer in self._peers.values() if not peer.silent)
        return max(1, min(window, int(self.remaining_bytes * who.rate / together))) if together else window

    def _ask(self, peer: P, who: Partner, slot: int) -> None:
        who.asked[slot] = None
        who.asked_bytes += self._length(slot)
        self._holders.setdefault(slot, []).append(peer)

    def _pick(self, who: Partner) -> int | None:
        slot = self._order.take(who, who.block)
        if slot is None and not who.starved:
            who.block = self._order.choose(who, self._peers)
            slot = self._order.take(who, who.block)
            who.starved = slot is None
        return slot

    def _late_slots(self, peer: P, who: Partner, now: float) -> list[int]:
        """Endgame: slots that others owe, and that this idle peer would bring much sooner."""
        late: list[tuple[float, int]] = []
        dry = self.dry_for(now)
        for slot, holders in reversed(self._holders.items()):  # what was asked for last would also come last
            if self._state[slot] != _ASKED or peer in holders or not who.has(slot):
                continue
            others = [self._peers[holder] for holder in holders]
            late_by = keeps_waiting(who, others, self._length(slot), now, dry)
            if late_by:
                late.append((-late_by, slot))
        late.sort(key=lambda row: row[0])
        # A quarter, for what is late may be on its way; all where nothing is.
        budget = self._window(who) // (1 if dry > who.patience else 4)
        chosen: list[int] = []
        for _, slot in late[:MAX_REQUESTS]:
            chosen.append(slot)
            for holder in self._holders[slot]:
                other = self._peers[holder]
                other.overtaken = other.overtaken or other.is_hopeless(now, dry)
            budget -= self._length(slot)
            if budget <= 0:
                break
        return chosen

    # -- answers -------------------------------------------------------------------------------------------------

    def heard(self, peer: P, now: float, more: int = 0) -> None:
        """Something came from ``peer``; ``more`` bytes of it belong to a chunk, if only to part of one."""
        who = self._peers[peer]
        who.heard_at = now
        self._flow.came(more, now)

    def held_up(self, peer: P, now: float) -> None:
        """We don't read what ``peer`` sends: neither silence nor slowness of these moments is its own."""
        who = self._peers[peer]
        who.heard_at = who.moved_at = now
        self._flow.whole(now)

    def arrived(self, peer: P, slot: int, now: float) -> Arrival:
        """A whole chunk came from ``peer``, its hash not looked at yet."""
        who = self._peers[peer]
        who.heard_at = who.moved_at = now
        self._flow.whole(now)
        who.silent = who.overtaken = False
        if slot in who.asked:
            self._settle(peer, who, slot)
        elif who.taken_back[slot]:
            _drop_one(who.taken_back, slot)
        else:
            return Arrival.UNASKED
        who.gauge(self._length(slot), now)
        if self._state[slot] in (_DONE, _CHECKING):
            return Arrival.DROP
        if self._state[slot] == _TODO:  # taken back from this peer, and not given to another yet
            self._order.remove(slot)
        self._state[slot] = _CHECKING
        return Arrival.CHECK

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

    def _replaced(self, who: Partner, now: float) -> bool:
        """All that it owes is asked of others, too, and it had its time."""
        late = who.makes_way(now, self.dry_for(now), self._silence)
        return late and all(len(self._holders[slot]) > 1 for slot in who.asked)

    @property
    def finished(self) -> bool:
        """Everything wanted is verified."""
        return self.remaining == 0

    @property
    def covered(self) -> bool:
        """Nothing is wanted that somebody doesn't owe, or brought already."""
        return self._order.empty

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

    def _settle(self, peer: P, who: Partner, slot: int) -> None:
        """``peer`` no longer owes ``slot``."""
        del who.asked[slot]
        who.asked_bytes -= self._length(slot)
        holders = self._holders[slot]
        holders.remove(peer)
        if not holders:
            del self._holders[slot]

    def _release(self, peer: P, who: Partner, slot: int) -> None:
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


def _drop_one(counter: Counter[int], slot: int) -> None:
    counter[slot] -= 1
    if not counter[slot]:
        del counter[slot]
