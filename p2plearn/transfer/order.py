"""Which block of a course is asked for next. ⊙

In: what is wanted, what each peer has, dice. Out: blocks of about 1 MiB, so that disks read and write in runs, and from
them one slot after the other.

While every peer has everything, blocks go in the course's order, from a place that the dice choose: fetchers that
begin at the same moment and don't know of each other yet would else all ask for the same. As soon as some peer has only
a part (it is fetching too), the rarest of a sample goes first, so that fetchers have something to give each other
(rarest first: Cohen 2003, "Incentives Build Robustness in BitTorrent"; by sample, because a full sort costs more than
it brings at 16 GiB). Of equally rare ones a fetcher prefers *its own*: each stretch of blocks belongs to the fetcher
whose name hashes highest with it (Thaler and Ravishankar 1998, "Using Name-Based Mappings to Increase Hit Rates"), so
fetchers that know of each other share out a provider's upload without a word.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Generic, TypeVar

BLOCK_BYTES: Final = 1 << 20
BLOCK_SLOTS: Final = 256
"""A block ends at whichever comes first."""

STRETCH: Final = 4
"""Blocks next to each other that go to one fetcher: runs on the disk of as much as one write takes."""

SAMPLE: Final = 16
"""Blocks looked at to find a rare one: the rarest of 16 is among the rarest 6 %, and each costs a look at each peer."""

P = TypeVar("P", bound=Hashable)


@dataclass(slots=True)
class Held:
    """What one peer has, a bit a slot, and which block of it is being asked for (-1: none yet)."""

    have: bytearray
    partial: bool
    refused: set[int] = field(default_factory=set)
    block: int = -1
    rarity: int = 0

    def has(self, slot: int) -> bool:
        """Whether it is worth asking for ``slot``."""
        return bool(self.have[slot >> 3] & (0x80 >> (slot & 7))) and slot not in self.refused

    def grow(self, ranges: Iterable[tuple[int, int]], slots: int) -> bool:
        """It has got more; whether that is news. ``slots`` are those of the course."""
        before = bytes(self.have)
        for first, count in ranges:
            set_bits(self.have, first, first + count)
        self.partial = is_partial(self.have, slots)
        return self.have != before


def is_partial(bitmap: bytes | bytearray, slots: int) -> bool:
    """Whether any of the first ``slots`` bits is off."""
    whole, rest = divmod(slots, 8)
    return bitmap.count(0xFF, 0, whole) < whole or (rest > 0 and bitmap[whole] >> (8 - rest) != (1 << rest) - 1)


def set_bits(bitmap: bytearray, first: int, end: int) -> None:
    """Set the bits from ``first`` up to ``end``; runs cost next to nothing, however long."""
    head, tail = min(-(-first // 8) * 8, end), max(end // 8 * 8, first)
    for bit in (*range(first, head), *range(max(tail, head), end)):
        bitmap[bit >> 3] |= 0x80 >> (bit & 7)
    if tail > head:
        bitmap[head >> 3 : tail >> 3] = b"\xff" * ((tail - head) >> 3)


class Order(Generic[P]):
    """The slots of one course that nobody has been asked for. ``roll(n)`` returns a number below ``n``.

    ``me`` is this node's name among its peers, None where it has none.
    """

    def __init__(
        self,
        wanted: Sequence[int],
        slots: int,
        length: Callable[[int], int],
        roll: Callable[[int], int],
        *,
        in_order: bool,
        me: P | None,
    ) -> None:
        self._roll = roll
        self._in_order = in_order
        self._me = me
        self._block_of = array("i", bytes(4 * slots))
        self._blocks = _cut(wanted, length)
        # Turned by whole stretches, so that their blocks stay neighbours; the last stretch may then be shorter.
        stretches = len(self._blocks) // STRETCH
        turn = 0 if in_order or stretches < 2 else roll(stretches) * STRETCH
        self._numbers = [(at + turn) % len(self._blocks) // STRETCH for at in range(len(self._blocks))]
        self._blocks = self._blocks[turn:] + self._blocks[:turn]
        for at, block in enumerate(self._blocks):
            for slot in block:
                self._block_of[slot] = at
        self._front = 0
        self._open = list(range(len(self._blocks)))  # blocks that may have something left, for the sample
        self._listed = bytearray(b"\1") * len(self._blocks)
        self._fetchers: frozenset[P] = frozenset()
        self._own: dict[int, bool] = {}

    @property
    def empty(self) -> bool:
        """All of it has been taken."""
        while self._front < len(self._blocks) and not self._blocks[self._front]:
            self._front += 1
        return self._front == len(self._blocks)

    def take(self, who: Held, block: int) -> int | None:
        """A slot of ``block`` that ``who`` has, no longer here; None when there is none."""
        if block < 0:
            return None
        todo = self._blocks[block]
        if todo and not who.partial and not who.refused:
            return todo.pop()
        for at in range(len(todo) - 1, -1, -1):
            if who.has(todo[at]):
                return todo.pop(at)
        return None

    def put_back(self, slot: int) -> None:
        """Nobody is asked for ``slot`` after all."""
        block = self._block_of[slot]
        self._blocks[block].append(slot)
        self._front = min(self._front, block)
        if not self._listed[block]:
            self._listed[block] = 1
            self._open.append(block)

    def remove(self, slot: int) -> None:
        """``slot`` came though nobody is being asked for it."""
        self._blocks[self._block_of[slot]].remove(slot)

    def choose(self, who: Held, peers: Mapping[P, Held]) -> int:
        """The block to ask of ``who`` next, -1 when it has nothing that is left; ``peers`` are all that take part."""
        blocks = self._blocks
        if self.empty:
            return -1
        if not self._in_order and any(peer.partial for peer in peers.values()):
            rarest = self._rarest(who, peers)
            if rarest >= 0:
                return rarest
        for at in range(self._front, len(blocks)):
            if blocks[at] and self._offers(who, blocks[at]):
                return at
        return -1

    def _rarest(self, who: Held, peers: Mapping[P, Held]) -> int:
        """A rare block that ``who`` has, as the sample tells; -1 when it has none of the sample."""
        beside = who.block + 1
        if who.block >= 0 and self._goes_on(who, beside, peers):
            return beside
        blocks = self._blocks
        offered = [
            (self._rarity(blocks[at][-1], peers), not self._is_own(self._numbers[at], peers), at)
            for at in self._sample()
            if self._offers(who, blocks[at])
        ]
        if not offered:
            return -1
        *best, _ = min(offered)
        ties = [at for *key, at in offered if key == best]
        at = ties[self._roll(len(ties))]
        who.rarity = int(best[0])
        while at and self._goes_on(who, at - 1, peers) and self._numbers[at - 1] == self._numbers[at]:
            at -= 1  # from the head of its stretch
        return at

    def _goes_on(self, who: Held, at: int, peers: Mapping[P, Held]) -> bool:
        """Whether a block beside one that was chosen is as good, and in the same stretch when it is the next."""
        if at >= len(self._blocks) or not self._blocks[at]:
            return False
        if at == who.block + 1 and self._numbers[at] != self._numbers[who.block]:
            return False
        todo = self._blocks[at]
        return self._offers(who, todo) and self._rarity(todo[-1], peers) <= who.rarity

    def _sample(self) -> list[int]:
        """Some blocks that have something left."""
        found: dict[int, None] = {}
        rolls = 0
        while self._open and rolls < SAMPLE:
            at = self._roll(len(self._open))
            block = self._open[at]
            if self._blocks[block]:
                found[block] = None
                rolls += 1
            else:
                self._open[at] = self._open[-1]
                self._open.pop()
                self._listed[block] = 0
        return list(found)

    @staticmethod
    def _offers(who: Held, todo: array[int]) -> bool:
        return any(who.has(slot) for slot in todo)

    @staticmethod
    def _rarity(slot: int, peers: Mapping[P, Held]) -> int:
        return sum(peer.has(slot) for peer in peers.values())

    def _is_own(self, stretch: int, peers: Mapping[P, Held]) -> bool:
        """Whether a stretch is this node's to bring in, among all that fetch."""
        if self._me is None:
            return True
        fetchers = frozenset(name for name, peer in peers.items() if peer.partial)
        if fetchers != self._fetchers:
            self._fetchers = fetchers
            self._own.clear()
        own = self._own.get(stretch)
        if own is None:
            mine = _claim(self._me, stretch)
            own = self._own[stretch] = all(_claim(name, stretch) <= mine for name in fetchers)
        return own


def _cut(wanted: Sequence[int], length: Callable[[int], int]) -> list[array[int]]:
    """Blocks of neighbouring slots, each to be taken from its end."""
    blocks: list[array[int]] = []
    block = array("I")
    size = 0
    for slot in wanted:
        block.append(slot)
        size += length(slot)
        if size >= BLOCK_BYTES or len(block) == BLOCK_SLOTS:
            blocks.append(block[::-1])
            block, size = array("I"), 0
    if block:
        blocks.append(block[::-1])
    return blocks


def _claim(name: object, stretch: int) -> bytes:
    return blake2b(f"{name} {stretch}".encode(), digest_size=8).digest()
