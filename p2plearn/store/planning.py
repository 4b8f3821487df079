"""What a download wants, and where in which extent it will lie.

In: files that are wanted, the room there is. Out: a place on the disk for every chunk of theirs that isn't here to
stay, each extent's contents written into it, on record before the first byte of a chunk comes: so a crash leaves
nothing that the next download doesn't find again.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress

from p2plearn.course.file_table import FileEntry
from p2plearn.database import CommitInDoubt
from p2plearn.store import contents
from p2plearn.store.alone import extent_of, layout_alone
from p2plearn.store.catalogue import PlanRow, add_extent
from p2plearn.store.check import forget_gone
from p2plearn.store.durable import sync_directory
from p2plearn.store.extents import Layout, create_extent, finish_extent, is_extent, plan_layout, remove_extent
from p2plearn.store.parts import StoreParts
from p2plearn.store.placement import NOWHERE, Placement, bit
from p2plearn.store.problems import disk_problem, size_text

Record = Callable[[sqlite3.Connection], None]
"""What is to be on record in the same transaction."""


class Plan:
    """The places of one download; public to it. ``shape`` is held while the plan grows."""

    def __init__(self, parts: StoreParts, placement: Placement) -> None:
        self._parts = parts
        self._placement = placement
        self._index = placement.index
        self.shape = threading.RLock()
        count = len(self._index)
        self._wanted = bytearray(count)
        """One byte a slot, 1 where the first slot of a wanted digest is."""
        self.extents: array[int] = array("q", [NOWHERE]) * count
        """By slot, the extent it is planned in, or ``NOWHERE``; of a repeated digest at its first slot."""
        self.offsets: array[int] = array("Q", bytes(8 * count))
        self.fds: dict[int, int] = {}
        """The extents written to, open."""
        self.unreliable: set[int] = set()
        """Wanted slots that are here, but where they may not be relied on."""
        self._awaited: dict[int, int] = {}
        """By extent, about how many planned slots are still to come: a cheap hint, checked before it is relied on."""

    # Wanting --------------------------------------------------------------------------------------------------------

    def want(self, files: Iterable[FileEntry] | None) -> None:
        """Ask for these files too (None: all of them); room is planned for by ``plan_missing``."""
        wanted, twins = self._wanted, self._placement.twins
        with self.shape:
            if files is None:
                wanted[:] = b"\1" * len(wanted)
                for slot in twins:
                    wanted[slot] = slot == self.leader(slot)
                return
            for entry in files:
                for slot in range(entry.first, entry.first + entry.count):
                    wanted[self.leader(slot)] = 1

    def leader(self, slot: int) -> int:
        """The first slot of a slot's digest."""
        twins = self._placement.twins
        return twins[slot][0] if slot in twins else slot

    def wanted(self) -> Iterator[int]:
        """The first slots of the wanted digests, in course order."""
        return compress(range(len(self._wanted)), self._wanted)

    def missing(self) -> list[int]:
        """Wanted slots that aren't here, in course order."""
        have = self._placement.have
        return [slot for slot in self.wanted() if not have[slot >> 3] & 0x80 >> (slot & 7)]  # ``bit``, a million times

    @property
    def missing_bytes(self) -> int:
        """Bytes of the chunks still to come."""
        return self._bytes(self.missing())

    @property
    def coming_bytes(self) -> int:
        """Bytes still to be written into the plan: what is missing, and what must be copied."""
        return self.missing_bytes + self._bytes(self.unreliable)

    def _bytes(self, slots: Iterable[int]) -> int:
        return sum(map(self._index.lengths.__getitem__, slots))

    # Planning -------------------------------------------------------------------------------------------------------

    def place(self, slot: int) -> tuple[int, int]:
        """Extent and offset planned for a slot's chunk. Raises ValueError for one that was never wanted."""
        leader = self.leader(slot)
        if self.extents[leader] == NOWHERE:
            raise ValueError(f"slot {slot} was never wanted")
        return self.extents[leader], self.offsets[leader]

    def of_extent(self, extent: int) -> Iterator[int]:
        """The slots planned in an extent, in course order."""
        return (slot for slot, planned in enumerate(self.extents) if planned == extent)

    def adopt(self, plan: PlanRow) -> None:
        """Take over what an earlier download planned."""
        path = self._parts.extents / plan.extent.file_name
        if not is_extent(path):
            # A power cut between the row and the file's name reaching the disk: nothing is lost but the plan.
            # Where the file went later, the chunks that were committed in it go, too: they are fetched again.
            forget_gone(self._parts, {plan.extent.id})
            return
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.fds[plan.extent.id] = fd
        slots, offsets = array("I", plan.slots), array("Q", plan.offsets)
        self._note(plan.extent.id, slots, offsets)
        # One of an older format has none; without room for it the download itself will say so.
        with contextlib.suppress(OSError):
            if contents.read(fd) is None:
                contents.write(fd, self._listed(slots, offsets), os.fstat(fd).st_size)

    def _listed(self, slots: array[int], offsets: array[int]) -> Iterator[contents.Entry]:
        for slot, offset in zip(slots, offsets, strict=True):
            yield self._index.digest(slot), offset, self._index.lengths[slot]

    def _note(self, extent: int, slots: array[int], offsets: array[int]) -> None:
        awaited = 0
        for slot, offset in zip(slots, offsets, strict=True):
            self.extents[slot] = extent
            self.offsets[slot] = offset
            awaited += not bit(self._placement.have, slot)
        self._awaited[extent] = awaited

    def unplanned(self) -> tuple[bytearray, int]:
        """Wanted slots that are neither planned nor here to stay (one byte a slot), and their bytes."""
        need, have = bytearray(len(self._index)), self._placement.have
        for slot in self.wanted():
            if self.extents[slot] == NOWHERE and (slot in self.unreliable or not bit(have, slot)):
                need[slot] = 1
        return need, self._bytes(compress(range(len(need)), need))

    def plan_missing(
        self,
        promised: object,
        record: Record = lambda db: None,
        *,
        before: Callable[[], None] = lambda: None,
        beside: int = 0,
        apart: Sequence[FileEntry] = (),
    ) -> None:
        """See ``Download.plan_missing``; the room is promised to ``promised``."""
        with self.shape:
            need, total = self.unplanned()
            layouts = self._layouts(need, apart)
            length = sum(end + contents.size_for(len(slots)) for slots, _, end in layouts)
            title = self._placement.signed.manifest.title
            self._parts.budget.check(
                promised,
                held=self._parts.catalogue.held_bytes(),
                more=length,
                # What was planned earlier and isn't fetched yet takes disk, too, though it is in ``held`` already.
                beside=beside + self.coming_bytes - total,
                what=f"The course {title!r}" if length else f"Checking out the course {title!r}",
            )
            before()
            try:
                self._add_extents(record, layouts)
            except OSError as error:
                raise disk_problem(error, f"making room for {size_text(length)} of the course {title!r}") from error
            self._parts.budget.promise(promised, counted=0, disk=self.coming_bytes)

    def alone(self, files: Iterable[FileEntry]) -> list[FileEntry]:
        """Those of ``files`` that each lie in an extent of their own, or can be planned so (see ``alone``)."""
        have, placement = self._placement.have, self._placement

        def place(slot: int) -> tuple[int, int]:
            if bit(have, slot):
                return placement.extents[slot], placement.offsets[slot]
            return self.extents[slot], self.offsets[slot]

        need, _ = self.unplanned()
        return [
            entry
            for entry in files
            if need.find(0, entry.first, entry.first + entry.count) < 0
            or extent_of(self._parts.catalogue, entry, self._index.lengths, place) is not None
        ]

    def _layouts(self, need: bytearray, apart: Sequence[FileEntry]) -> list[Layout]:
        layouts = []
        for entry in apart:
            end = entry.first + entry.count
            if need.find(0, entry.first, end) < 0:
                layouts.append(layout_alone(self._index, entry))
                need[entry.first : end] = bytes(entry.count)
        together = plan_layout(self._index, need)
        return [*layouts, together] if together[0] else layouts

    def _add_extents(self, record: Record, layouts: Sequence[Layout]) -> None:
        made: list[tuple[str, int]] = []
        numbers: list[int] = []
        try:
            for slots, offsets, end in layouts:
                name, fd = create_extent(self._parts.extents)
                made.append((name, fd))
                contents.write(fd, self._listed(slots, offsets), end)
                made[-1] = finish_extent(self._parts.extents, name), fd
            if made:
                sync_directory(self._parts.extents)
                self._parts.check_in_place()
            with self._parts.catalogue.writing() as db:
                record(db)
                for (name, _), (slots, offsets, end) in zip(made, layouts, strict=True):
                    extent = add_extent(db, name, end + contents.size_for(len(slots)))
                    plan = (extent, self._placement.course, slots.tobytes(), offsets.tobytes())
                    db.execute("INSERT INTO downloads VALUES (?, ?, ?, ?)", plan)
                    numbers.append(extent)
        except BaseException as error:
            for name, fd in made:
                os.close(fd)
                if not isinstance(error, CommitInDoubt):
                    with contextlib.suppress(OSError):
                        remove_extent(self._parts.extents, name)
            raise
        for extent, (_, fd), (slots, offsets, _) in zip(numbers, made, layouts, strict=True):
            self.fds[extent] = fd
            self._note(extent, slots, offsets)

    # Filling --------------------------------------------------------------------------------------------------------

    def came(self, slots: Iterable[int]) -> None:
        """These are here now, for the first time."""
        for slot in slots:
            self._awaited[self.extents[slot]] -= 1

    def filled(self, extent: int, uncommitted: Sequence[int]) -> bool:
        """Whether every slot planned in an extent is here, and none of them ``uncommitted``."""
        if self._awaited.get(extent, 0) > 0:
            return False
        have = self._placement.have
        return all(bit(have, slot) for slot in self.of_extent(extent)) and not any(
            self.extents[slot] == extent for slot in uncommitted
        )

    def close(self) -> None:
        """Let go of the descriptors."""
        with self.shape:
            for fd in self.fds.values():
                os.close(fd)
            self.fds.clear()
