"""Where the chunks of one course lie, slot by slot, in flat arrays.

One ``Placement`` a course and process, shared by every Holding and Download of it, so that what one of them stores
the others can serve at once. 18 bytes a slot: 65,536 slots (16 GiB) take 1.2 MB.

Invariants: a slot's ``have`` bit is set only once its bytes were hashed and written, or stand in the catalogue; its
``good`` bit only once this process has hashed them, and until there is reason to do it again. The extent of a slot
without a ``have`` bit is ``NOWHERE``.

Imports ``course`` and siblings.
"""

from __future__ import annotations

import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from p2plearn.course.digests import DIGEST, repeated
from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.store.catalogue import Catalogue

Usable = Callable[[int], bool]
"""Whether an extent's chunks count; those of the user's own files do only while these are as recorded."""

NOWHERE = -1
_BATCH = 4096


def bit(bits: bytes | bytearray, slot: int) -> bool:
    """Bit ``slot`` of a bitmap, most significant first."""
    return bool(bits[slot >> 3] & (0x80 >> (slot & 7)))


def set_bit(bits: bytearray, slot: int) -> None:
    """Set bit ``slot`` of a bitmap, most significant first."""
    bits[slot >> 3] |= 0x80 >> (slot & 7)


def clear_bit(bits: bytearray, slot: int) -> None:
    """Clear bit ``slot`` of a bitmap, most significant first."""
    bits[slot >> 3] &= ~(0x80 >> (slot & 7)) & 0xFF


def file_extent(entry: FileEntry, lengths: Sequence[int], place: Callable[[int], tuple[int, int]]) -> int:
    """The extent in which the chunks of a file lie back to back from its beginning on; ``NOWHERE`` if there is none.

    ``place`` gives extent and offset of a slot, ``NOWHERE`` for one that has none.
    """
    extent, at = place(entry.first)[0] if entry.count else NOWHERE, 0
    if extent == NOWHERE:
        return NOWHERE
    for slot in range(entry.first, entry.first + entry.count):
        if place(slot) != (extent, at):
            return NOWHERE
        at += lengths[slot]
    return extent


class Placement:
    """See the head of this file. The arrays are public to this package; change bits only under ``lock``."""

    __slots__ = (
        "__weakref__", "course", "extents", "good", "have", "have_bytes", "index", "lock", "offsets", "readers",
        "signed", "twins",
    )  # fmt: skip

    def __init__(self, signed: SignedManifest, index: Index) -> None:
        count = len(index)
        self.signed = signed
        self.course = signed.course
        self.index = index
        self.lock = threading.Lock()
        self.extents: array[int] = array("q", [NOWHERE]) * count
        self.offsets: array[int] = array("Q", bytes(8 * count))
        self.have = bytearray((count + 7) // 8)
        self.good = bytearray((count + 7) // 8)
        self.have_bytes = 0
        self.readers: weakref.WeakSet[object] = weakref.WeakSet()
        """Who reads the course for a peer."""
        self.twins = _find_twins(index)
        """Slot -> all slots with the same digest, for those that have such."""

    def locate(self, catalogue: Catalogue, usable: Usable) -> None:
        """Look every slot up that isn't here yet."""
        self._locate(catalogue, usable, (slot for slot in range(len(self.index)) if not bit(self.have, slot)))

    def drop_unusable(self, usable: Usable) -> None:
        """Forget the slots that lie in files of the user's that aren't as they were."""
        bad = {extent for extent in set(self.extents) if extent != NOWHERE and not usable(extent)}
        if bad:
            self.lost(slot for slot, extent in enumerate(self.extents) if extent in bad)

    def locate_again(self, catalogue: Catalogue, usable: Usable, slots: Sequence[int]) -> None:
        """Forget where ``slots`` lie and look them up again: after a compaction, a sweep, damage.

        In one step for whoever reads meanwhile: what only moved is never missing.
        """
        found = {slot: place for places in self._look_up(catalogue, usable, slots) for slot, *place in places}
        with self.lock:
            for slot in slots:
                self._drop(slot)
                if slot in found:
                    self._place(slot, *found[slot])

    def _locate(self, catalogue: Catalogue, usable: Usable, slots: Iterable[int]) -> None:
        for places in self._look_up(catalogue, usable, slots):
            with self.lock:
                for slot, extent, offset in places:
                    self._place(slot, extent, offset)

    def _look_up(
        self, catalogue: Catalogue, usable: Usable, slots: Iterable[int]
    ) -> Iterator[list[tuple[int, int, int]]]:
        """(slot, extent, offset) of those that are in the catalogue, a batch at a time."""
        digests = self.index.digests
        for batch in _batches(slots):
            by_digest: dict[bytes, list[int]] = {}
            for slot in batch:
                by_digest.setdefault(digests[DIGEST * slot : DIGEST * (slot + 1)], []).append(slot)
            for rows in catalogue.locate_each(list(by_digest)):
                yield [
                    (slot, extent, offset)
                    for digest, extent, offset, length in rows
                    if usable(extent)
                    for slot in by_digest[digest]
                    if self.index.lengths[slot] == length
                ]

    def _place(self, slot: int, extent: int, offset: int) -> None:
        if not bit(self.have, slot):
            self.have_bytes += self.index.lengths[slot]
            set_bit(self.have, slot)
        self.extents[slot] = extent
        self.offsets[slot] = offset

    def _drop(self, slot: int) -> None:
        if bit(self.have, slot):
            self.have_bytes -= self.index.lengths[slot]
            clear_bit(self.have, slot)
        clear_bit(self.good, slot)
        self.extents[slot] = NOWHERE

    def stored(self, places: Iterable[tuple[int, int, int]]) -> list[int]:
        """Mark (slot, extent, offset) and the slots' twins as hashed and written; returns slots that weren't before."""
        new = []
        with self.lock:
            for slot, extent, offset in places:
                if bit(self.have, slot):
                    continue
                new.append(slot)
                for one in self.twins.get(slot, (slot,)):
                    self._place(one, extent, offset)
                    set_bit(self.good, one)
        return new

    def moved(self, places: Iterable[tuple[int, int, int]]) -> None:
        """Note that the chunks of (slot, extent, offset) and their twins were hashed and written there, too."""
        with self.lock:
            for slot, extent, offset in places:
                for one in self.twins.get(slot, (slot,)):
                    self._place(one, extent, offset)
                    set_bit(self.good, one)

    def lost(self, slots: Iterable[int]) -> None:
        """Mark slots, and their twins, as not here."""
        with self.lock:
            for slot in slots:
                for one in self.twins.get(slot, (slot,)):
                    self._drop(one)

    def known_good(self, slot: int) -> None:
        """Note that this process has hashed a slot's bytes and found them right."""
        with self.lock:
            set_bit(self.good, slot)

    def doubt(self, extent: int) -> None:
        """Forget that the bytes of slots that lie in ``extent`` were hashed."""
        with self.lock:
            for slot, lies_in in enumerate(self.extents):
                if lies_in == extent:
                    clear_bit(self.good, slot)

    def only_reader(self, reader: object) -> bool:
        """Note who reads for a peer, for as long as he is there; whether nobody else does."""
        with self.lock:
            self.readers.add(reader)
            return len(self.readers) == 1

    def just_written(self, slots: Iterable[int]) -> None:
        """Note that this process has hashed and written the chunks of these slots."""
        with self.lock:
            for slot in slots:
                for one in self.twins.get(slot, (slot,)):
                    if bit(self.have, one):
                        set_bit(self.good, one)

    def slots_of(self, digest: bytes) -> list[int]:
        """The slots with that digest."""
        found = []
        position = self.index.digests.find(digest)
        while position >= 0:
            if position % DIGEST == 0:
                found.append(position // DIGEST)
            position = self.index.digests.find(digest, position + 1)
        return found

    @property
    def complete(self) -> bool:
        """Every slot is here."""
        return self.have_bytes == self.index.bytes

    def file_of(self, slot: int) -> FileEntry:
        """The file a slot belongs to."""
        return self.index.files[self.index.files.number_of(slot)]


def _find_twins(index: Index) -> dict[int, tuple[int, ...]]:
    return {slot: tuple(group) for group in repeated(index.digests) for slot in group}


def _batches(slots: Iterable[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for slot in slots:
        batch.append(slot)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
