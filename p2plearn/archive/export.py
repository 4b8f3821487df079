"""Courses of this store, and what people said, as one CAR file.

Order: header (each course's UnixFS root, then the bundle), bundle; for each course manifest, index parts, the nodes
of its UnixFS tree, its chunks; then bundle, manifests and index parts once more, so that damage to one of them costs
nothing; then pages and envelopes. Other blocks that stand in the file already are left out. A reader has all it needs
of a course before its chunks come, and needs one course's index at a time. The part with the courses is the same
whenever it is written, so an export that was cut goes on; people go on talking meanwhile, so theirs comes last and is
always written anew.

Memory: one course's index, and 32 bytes and some for each chunk written when there are several courses. Blocking.
Imports ``course``, ``errors``, ``store``, ``gossip`` and siblings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from p2plearn.archive.car import encode_header, raw_cid
from p2plearn.archive.layout import PAGE_LINKS, Packed, Page, block_cid, encode_bundle, encode_page
from p2plearn.archive.sinks import Sink
from p2plearn.course import unixfs
from p2plearn.errors import IntegrityProblem, Interrupted, Refused, UsageProblem
from p2plearn.gossip.envelope import CATALOGUE
from p2plearn.gossip.feed import Feed
from p2plearn.store.catalogue import CourseRow
from p2plearn.store.holding import MAX_RUN, Holding
from p2plearn.store.problems import ChunkMissing
from p2plearn.store.store import Store

Whose = Literal["all", "courses", "none"]
"""What people said: the whole catalogue and the courses' discussions, only what is about these courses, nothing."""

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Envelopes held in memory at once."""
_BATCH_SLOTS: Final = 256


@dataclass(slots=True)
class Exported:
    """What went into the file. ``people``: envelopes; ``roots``: each course's UnixFS root."""

    rows: list[CourseRow] = field(default_factory=list)
    roots: dict[bytes, bytes] = field(default_factory=dict)
    blocks: int = 0
    people: int = 0


def choose(
    store: Store,
    named: Sequence[bytes],
    *,
    everything: bool,
    versions: bool,
    refusal: Callable[[bytes, bytes | None], str] = lambda _course, _author: "",
) -> tuple[list[CourseRow], str]:
    """The courses to export, a series' versions in order; and words about what is left out, or "".

    ``everything``: all that are complete here; ``versions``: of each named one all complete versions; ``refusal`` says
    why a course of an author is blocked here. Raises UsageProblem for one that isn't here, or not all of it, Refused
    for one that is blocked.
    """
    rows = [row for row in store.courses() if row.course in named or not refusal(row.course, row.author)]
    by_name = {row.course: row for row in rows}
    chosen: dict[bytes, CourseRow] = {}
    left_out: list[CourseRow] = []
    for course in named:
        row = by_name.get(course)
        if row is None:
            raise UsageProblem(
                f"Course {course.hex()[:12]} isn't kept on this node.", "`p2plearn list` shows those that are."
            )
        if blocked := refusal(course, row.author):
            raise Refused(
                f"Course {course.hex()[:12]} is {blocked}.", "`p2plearn block --list` shows what is, and why."
            )
        if not row.complete:
            raise UsageProblem(
                f"Only {row.have_bytes} of {row.bytes} bytes of {row.title!r} are here.",
                f"Fetch the rest first: p2plearn get {course.hex()}",
            )
        chosen[course] = row
    series = {(row.author, row.series) for row in chosen.values()}
    for row in rows:
        if everything or (versions and (row.author, row.series) in series):
            if row.complete:
                chosen[row.course] = row
            elif row.course not in chosen:
                left_out.append(row)
    if not chosen:
        raise UsageProblem("No complete course is here to export.", "`p2plearn list` shows what is.")
    words = ", ".join(f"{row.title!r} version {row.seq}" for row in left_out)
    ordered = sorted(chosen.values(), key=lambda row: (row.author, row.series, row.seq, row.course))
    return ordered, f"Left out, since not all of it is here: {words}." if words else ""


class Export:
    """One export: ``measure``, then ``write``."""

    def __init__(
        self,
        store: Store,
        feed: Feed,
        rows: Sequence[CourseRow],
        whose: Whose,
        *,
        report: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._store = store
        self._feed = feed
        self._rows = rows
        self._whose = whose
        self._report = report
        self._cancelled = cancelled
        self._seen: set[bytes] = set()
        """CIDs of nodes that are in the file, and when there are several courses digests of chunks."""
        self._done = 0
        self._total = sum(row.bytes for row in rows)
        self.result = Exported(list(rows))

    def measure(self) -> int:
        """About how many bytes the file will have, people not counted."""
        if len(self._rows) == 1:
            holding = self._holding(self._rows[0])
            twins = sum(
                holding.index.lengths[slot] for slot, same in holding.placement.twins.items() if slot != same[0]
            )
            return self._total - twins + 60 * len(holding.index)
        met: set[bytes] = set()
        size = 0
        for row in self._rows:
            self._heed()
            index = self._holding(row).index
            for slot, length in enumerate(index.lengths):
                digest = index.digest(slot)
                if digest not in met:
                    met.add(digest)
                    size += length + 60
        return size

    def write(self, sink: Sink) -> None:
        """Write all of it; raises IntegrityProblem, NoSpace, Interrupted and what ``Sink`` raises."""
        packed = [self._packed(row) for row in self._rows]
        self.result.roots = {one.course: one.root for one in packed}
        bundle = encode_bundle(packed)
        roots = [*dict.fromkeys(one.root for one in packed), block_cid(bundle)]
        sink.header(encode_header(roots))
        self._put(sink, block_cid(bundle), bundle)
        for row in self._rows:
            self._course(sink, row)
        self._put(sink, block_cid(bundle), bundle)
        for row in self._rows:
            with self._holding(row) as holding:
                self._needed_first(sink, row, holding)
        if self._whose != "none":
            self._people(sink)
        sink.finish()

    def _packed(self, row: CourseRow) -> Packed:
        signed = self._store.signed_manifest(row.course)
        if signed is None:
            raise _gone(row)
        parts = tuple(part.digest for part in signed.manifest.index)
        return Packed(row.course, signed.signature, parts, signed.manifest.root)

    def _holding(self, row: CourseRow) -> Holding:
        holding = self._store.holding(row.course)
        if holding is None:
            raise _gone(row)
        return holding

    def _put(self, sink: Sink, cid: bytes, block: bytes) -> None:
        self._heed()
        if not sink.has(cid, len(block)):
            sink.block(cid, [block])
        self.result.blocks += 1

    def _course(self, sink: Sink, row: CourseRow) -> None:
        with self._holding(row) as holding:
            manifest = holding.signed.manifest
            self._needed_first(sink, row, holding)
            last = b""
            for cid, block in unixfs.blocks(holding.index, manifest.kind):
                # Equal files and folders have equal nodes; those of one file that come twice in a row are left out.
                if cid != last and self._is_new(cid):
                    self._put(sink, cid, block)
                last = cid
            for batch in self._batches(sink, holding):
                self._chunks(sink, row, holding, batch)
        self._report(self._done, self._total)

    def _needed_first(self, sink: Sink, row: CourseRow, holding: Holding) -> None:
        """What a reader must have of a course before it can use its chunks."""
        self._put(sink, raw_cid(row.course), holding.signed.raw)
        for number, part in enumerate(holding.signed.manifest.index):
            raw = holding.index_part(number)
            if raw is None:
                raise _gone(row)
            self._put(sink, raw_cid(part.digest), raw)

    def _is_new(self, name: bytes) -> bool:
        if name in self._seen:
            return False
        self._seen.add(name)
        return True

    def _batches(self, sink: Sink, holding: Holding) -> Iterator[list[int]]:
        """Slots that have to be read from the store and written, some at a time, in the course's order."""
        index, twins = holding.index, holding.placement.twins
        several = len(self._rows) > 1
        batch: list[int] = []
        size = 0
        for slot, length in enumerate(index.lengths):
            self._done += length
            if slot in twins and twins[slot][0] != slot:
                continue
            digest = index.digest(slot)
            if several and not self._is_new(digest):
                continue
            if not batch and sink.has(raw_cid(digest), length):
                self.result.blocks += 1
                if slot % 64 == 0:
                    self._tell()
                continue
            batch.append(slot)
            size += length
            if size >= MAX_RUN or len(batch) == _BATCH_SLOTS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _chunks(self, sink: Sink, row: CourseRow, holding: Holding, slots: Sequence[int]) -> None:
        self._tell()
        try:
            chunks = holding.read_all(slots)
        except ChunkMissing:
            raise _gone(row) from None
        for slot, chunk in zip(slots, chunks, strict=True):
            sink.block(raw_cid(holding.index.digest(slot)), [chunk])
        self.result.blocks += len(slots)

    def _tell(self) -> None:
        self._heed()
        self._report(self._done, self._total)

    def _heed(self) -> None:
        if self._cancelled():
            raise Interrupted("Interrupted.")

    # -- people ---------------------------------------------------------------------------------------------------

    def _people(self, sink: Sink) -> None:
        feeds = {CATALOGUE, *(row.course for row in self._rows)}
        ids = [name for feed in sorted(feeds) for name in self._ids(feed)]
        at = 0
        while True:
            found = self._feed.raws(ids[at : at + PAGE_LINKS], feeds, MAX_PAGE_BYTES)
            at += len(found)
            raws = [raw for raw in found if raw]  # what was withdrawn since has no bytes any more
            last = at >= len(ids)
            names = [hashlib.sha256(raw).digest() for raw in raws]
            page = encode_page(Page(tuple(names), last))
            self._put(sink, block_cid(page), page)
            for name, raw in zip(names, raws, strict=True):
                self._put(sink, raw_cid(name), raw)
            self.result.people += len(raws)
            if last:
                return

    def _ids(self, feed: bytes) -> list[bytes]:
        if feed != CATALOGUE or self._whose == "all":
            with self._feed.lock:
                return [key[8:] for key in self._feed.keys(feed)]
        courses = [row.course for row in self._rows]
        found: dict[bytes, None] = {}
        with self._feed.reading() as db:
            for course in courses:
                rows = db.execute("SELECT id FROM envelopes WHERE feed = ? AND course = ?", (feed, course))
                found.update(dict.fromkeys(row[0] for row in rows))
                rows = db.execute(
                    "SELECT id FROM envelopes WHERE kind = 'profile' AND author IN "
                    "(SELECT author FROM envelopes WHERE course = ? UNION SELECT author FROM entries WHERE course = ?)",
                    (course, course),
                )
                found.update(dict.fromkeys(row[0] for row in rows))
        return list(found)


def _gone(row: CourseRow) -> IntegrityProblem:
    return IntegrityProblem(
        f"Not all of {row.title!r} is here any more: some of it was found damaged, or removed meanwhile.",
        f"Fetch it again: p2plearn get {row.course.hex()}",
    )
