"""Verify: read every stored chunk of a course again and say what isn't what its hash says.

What is damaged leaves the catalogue at once: it is never served, and the next download of the course fetches it, and
nothing else. Chunks that lie in a user's own file are checked against the file as it is; if that was changed or is
gone, this is said, but what the catalogue knows of it stays: it may be a drive that isn't plugged in.

Imports ``course`` and siblings.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from p2plearn.errors import Interrupted, StoreProblem
from p2plearn.store.catalogue import CourseRow, Location
from p2plearn.store.extents import is_extent
from p2plearn.store.holding import Bad, Holding
from p2plearn.store.letting_go import let_go
from p2plearn.store.parts import StoreParts
from p2plearn.store.placement import bit

log = logging.getLogger("p2plearn.store")

_THREADS = 2
_BATCH = 64
"""Slots one task reads: some 16 MiB, so that both threads stay busy to the end and progress moves."""

Report = Callable[[int, int], None]
"""Called with bytes checked and bytes to check in all."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One finding. ``path`` is the file in the course (empty: the course's own index); ``bytes`` how much is harmed."""

    course: bytes
    title: str
    path: str
    what: str
    bytes: int = 0


def verify(parts: StoreParts, courses: list[bytes], report: Report, cancelled: Callable[[], bool]) -> list[Damage]:
    """Check the courses; returns the findings, course by course. Raises Interrupted, StoreProblem."""
    drop_gone(parts)
    rows = [row for row in map(parts.catalogue.course, courses) if row is not None]
    total = sum(row.have_bytes for row in rows)
    findings: list[Damage] = []
    done = 0
    for row in rows:
        parts.check_index(row.course)
        placement = parts.placement(row.course)
        if placement is None:
            if row.indexed or row.whole:
                findings.append(Damage(row.course, row.title, "", "its index file is damaged or gone", row.bytes))
                parts.recount(row.course)
            continue
        holding = Holding(parts, placement)
        bad: list[Bad] = []
        with ThreadPoolExecutor(_THREADS, "verify") as threads:
            for read, worse in threads.map(partial(_check_slots, holding), _batches(holding)):
                done += read
                bad += worse
                report(min(done, total), total)
                if cancelled():
                    threads.shutdown(cancel_futures=True)
                    raise Interrupted("Verifying was interrupted.")
        # A changed file of the user's was taken note of when it was read, and is reported below.
        wrong = [one for one in bad if holding.has(one.slot)]
        if wrong:
            parts.quarantine((placement.index.digest(one.slot), one.extent, one.offset) for one in wrong)
        sizes: dict[tuple[str, str], int] = {}
        for one in wrong:
            key = (placement.file_of(one.slot).path, one.what)
            sizes[key] = sizes.get(key, 0) + placement.index.lengths[one.slot]
        findings += [Damage(row.course, row.title, path, what, size) for (path, what), size in sizes.items()]
        named = {path for path, _ in sizes}
        findings += [one for one in _absent(parts, holding, row) if one.path not in named]
        parts.recount(row.course)
    return findings


def _batches(holding: Holding) -> Iterator[list[int]]:
    placement = holding.placement
    batch: list[int] = []
    for slot in range(len(holding.index)):
        if bit(placement.have, slot) and placement.twins.get(slot, (slot,))[0] == slot:
            batch.append(slot)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    yield batch


def _check_slots(holding: Holding, slots: list[int]) -> tuple[int, list[Bad]]:
    return sum(holding.index.lengths[slot] for slot in slots), holding.check_many(slots)


def _absent(parts: StoreParts, holding: Holding, row: CourseRow) -> list[Damage]:
    """Files with parts that should be here and aren't: of courses that were complete, or of the user's own files."""
    found = []
    for entry in holding.index.files:
        lacking = [slot for slot in range(entry.first, entry.first + entry.count) if not holding.has(slot)]
        if not lacking:
            continue
        recorded = parts.catalogue.locate([holding.index.digest(slot) for slot in lacking])
        moved = sum(holding.index.lengths[slot] for slot in lacking if holding.index.digest(slot) in recorded)
        if moved:
            what = f"{_where(parts, recorded)} is gone or was changed"
            found.append(Damage(holding.course, row.title, entry.path, what, moved))
        elif row.whole:
            size = sum(holding.index.lengths[slot] for slot in lacking)
            found.append(Damage(holding.course, row.title, entry.path, "part of it is gone from this store", size))
    return found


def _where(parts: StoreParts, recorded: Mapping[bytes, Location]) -> str:
    """The file of the user's that chunks are said to lie in; where they lie in several, one of them."""
    for extent, _, _ in recorded.values():
        row = parts.catalogue.extent(extent)
        if row is not None and row.path is not None:
            return f"the file that is served, {os.fsdecode(row.path)},"
    return "the file that is served"


def drop_gone(parts: StoreParts) -> None:
    """Forget the chunks of extents whose files are gone. Those of downloads are left: who goes on with one looks.

    Gone is also what is no file any more, or can't be read; what stands there now stays. Raises StoreProblem when all
    of the folder is away: that is a disk being changed, and nothing to be forgotten.
    """
    if not parts.extents.is_dir():
        raise StoreProblem(
            f"The store's folder {parts.extents} is gone.",
            "Is its disk plugged in? Bring it back, then stop the node and start it again.",
        )
    with parts.gate:
        with parts.catalogue.reading() as db:
            planned = {row[0] for row in db.execute("SELECT extent FROM downloads")}
        gone = {
            extent.id
            for extent in parts.catalogue.extents()
            if extent.id not in planned and not is_extent(parts.extents / extent.file_name)
        }
        if gone:
            forget_gone(parts, gone)


def forget_gone(parts: StoreParts, gone: set[int]) -> None:
    """Forget the chunks of these extents, and the downloads that were filling them; count the courses anew."""
    with parts.gate:
        digests = parts.catalogue.digests_in(gone)
        for path in (parts.extents / row.file_name for row in parts.catalogue.extents() if row.id in gone):
            if os.path.lexists(path):
                log.warning("%s is no file of the store that can be read; it stays, and no longer counts", path)
        let_go(parts, gone, used=True)
        for course in parts.courses_with(digests):
            parts.recount(course)


def still_damaged(parts: StoreParts, findings: Sequence[Damage]) -> list[Damage]:
    """Those of ``findings`` of which something is still not here, without hashing anything again.

    What is here of their courses is counted anew: a download of another course may have brought it.
    """
    left = []
    for course in {one.course for one in findings}:
        parts.recount(course)
    for one in findings:
        if parts.catalogue.course(one.course) is None:
            continue
        placement = parts.placement(one.course)
        if placement is None:
            left.append(one)
        elif one.path:
            entries = [entry for entry in placement.index.files if entry.path == one.path]
            slots = [slot for entry in entries for slot in range(entry.first, entry.first + entry.count)]
            lacking = [slot for slot in slots if not bit(placement.have, slot)]
            if lacking:
                size = sum(placement.index.lengths[slot] for slot in lacking)
                left.append(replace(one, bytes=min(one.bytes, size)))
    return left
