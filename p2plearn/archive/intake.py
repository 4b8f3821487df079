"""A CAR file of p2plearn's into the store and the record: only what its hash says, whatever the file says.

A course's manifest is held against its hash and signature, index parts against the manifest, chunks against the index
(``store.download`` does so), envelopes against their signatures. What doesn't fit is passed over and counted, and
so are places where the framing itself is lost. Everything that was right is kept, and the same file, or another copy
of it, goes on from there. Chunks that are here already, and all of a course that is, are not read at all; every other
block is held against its hash, whether it is of use here or not.

One course is open at a time. A file in another order than ours (another program's) is read again as long as that
brings something.

Blocking. Imports ``course``, ``errors``, ``store``, ``gossip`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from p2plearn.archive.arrivals import Arrival, Arrived, House
from p2plearn.archive.blocks import Blocks
from p2plearn.archive.car import DAG_CBOR, DAG_CBOR_CID, RAW, Head, Header
from p2plearn.archive.layout import NotOurs, Packed, decode_bundle, decode_page
from p2plearn.archive.sources import Source
from p2plearn.course.index import decode_index
from p2plearn.course.manifest import open_manifest
from p2plearn.course.names import cid_text
from p2plearn.errors import IntegrityProblem, NoSpace, PeerFault, UsageProblem
from p2plearn.gossip.envelope import MAX_ENTRY, open_envelope
from p2plearn.gossip.feed import Feed
from p2plearn.store.download import Download
from p2plearn.store.durable import Piece
from p2plearn.store.store import Store

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Chunks, or envelopes, handed on at once."""
BATCH_ENVELOPES: Final = 256
COMMIT_BYTES: Final = 256 * 1024 * 1024
"""Stored between two commits: what a power cut may cost."""
TELL_BLOCKS: Final = 64
_EMPTY: Final = hashlib.sha256(b"").digest()


class Intake:
    """One import: ``run`` it."""

    def __init__(
        self, store: Store, feed: Feed, house: House, source: Source, report: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._feed = feed
        self._house = house
        self._source = source
        self._report = report
        self._blocks = Blocks(source)
        self._bundle_cids: frozenset[bytes] = frozenset()
        self._strange: UsageProblem | None = None
        """What to refuse the file with, whose header names no bundle, unless one comes all the same."""
        self._by_manifest: dict[bytes, Arrival] = {}
        self._open: Arrival | None = None
        self._download: Download | None = None
        self._slots: dict[bytes, int] = {}
        self._offers: list[tuple[int, list[Piece]]] = []
        self._offered = 0
        self._uncommitted = 0
        self._expected: set[bytes] = set()
        self._due: set[bytes] = set()
        """Envelopes that the last page named and that haven't come yet."""
        self._people_lost = False
        """Whether another page, or the end, came before what a page named."""
        self._focus: Arrival | None = None
        self._passing = False
        """Whether what comes belongs to a course that is here already, or isn't wanted."""
        self._torn = False
        """Whether a page may have been lost, so that envelopes come that none named."""
        self._envelopes: list[bytes] = []
        self.result = Arrived()

    def run(self) -> Arrived:
        """Read the file and keep what is right. Raises UsageProblem for what is no such file, Interrupted, and NoSpace
        for a disk that fills up on the way (a course that doesn't fit is left out instead).
        """
        result = self.result
        self._pass(None)
        if not result.courses:
            raise IntegrityProblem(
                "The file ends, or is damaged, before it says which courses are in it.", "Copy it anew."
            )
        if result.unknown and self._source.seekable:
            # Another order than ours: once more for manifests and people, then for each course once for its index and
            # once for its chunks.
            if any(arrival.state == "waiting" and arrival.signed is None for arrival in result.courses):
                result.damaged = result.unknown = result.people_refused = 0
                result.people_known = -result.people_new  # they are met again, and known by now
                self._source.rewind()
                self._pass(None)
                result.people_known = max(result.people_known, 0)
            for arrival in result.courses * 2:
                if arrival.state == "waiting" and arrival.signed is not None:
                    self._source.rewind()
                    self._pass(arrival)
        return result

    @property
    def unread(self) -> bool:
        """Whether blocks came before it was known what they are good for, and the source can't be read again."""
        waiting = any(one.state == "waiting" for one in self.result.courses)
        return bool(self.result.unknown) and waiting and not self._source.seekable

    @property
    def nothing_lacks(self) -> bool:
        """Whether everything that the file names was in it, so that what may follow behind is none of it."""
        result = self.result
        return (
            result.beyond > 0
            and not (result.damaged or self._people_lost or self._due)
            and result.people_whole
            and all(one.state not in {"waiting", "open"} for one in result.courses)
        )

    # -- reading --------------------------------------------------------------------------------------------------

    def _pass(self, focus: Arrival | None) -> None:
        """Read the file once, for everything or for one course."""
        self._focus = focus
        self._blocks = Blocks(self._source)
        try:
            if focus is not None:
                self._reopen(focus)
            self._read()
            self._take_envelopes()
        finally:
            self._leave_course()
        self._tell()

    def _read(self) -> None:
        blocks, result = self._blocks, self.result
        count = 0
        while (head := blocks.head()) is not None:
            if isinstance(head, Header):
                self._bundle_cids = frozenset(root for root in head.roots if root[:4] == DAG_CBOR_CID)
                self._strange = None if self._bundle_cids else _strange(head)
                continue
            if not result.courses:
                self._refuse_others(head)
            self._block(head)
            count += 1
            if count % TELL_BLOCKS == 0:
                self._tell()
        result.cut, result.beyond = blocks.cut, blocks.beyond
        result.problem = result.problem or blocks.problem
        result.read = max(result.read, blocks.offset)
        if not result.courses:
            self._refuse_others(None)

    def _refuse_others(self, head: Head | None) -> None:
        """Raise UsageProblem for a file that isn't ours, by the first block that comes while no bundle has."""
        headless = self._blocks.headless
        if headless is not None and head is None:
            raise UsageProblem(f"This is no CAR file: {headless}.", _HINT)
        if self._strange is not None and (head is None or head.codec != DAG_CBOR):
            raise self._strange

    def _tell(self) -> None:
        self._report(self._blocks.offset, self._source.size)

    def _block(self, head: Head) -> None:
        """Deal with the next block."""
        if head.codec == RAW and head.digest in self._slots:
            self._chunk(head, self._slots[head.digest])
            return
        act = self._use_for(head)
        if act is None:
            self._blocks.skip()
            return
        raw = self._blocks.body()
        if raw is None:
            return
        if hashlib.sha256(raw).digest() == head.digest:
            act(raw)
            return
        self._damage(1)
        self._torn = self._torn or head.codec != RAW

    def _use_for(self, head: Head) -> Callable[[bytes], None] | None:
        """What a block that is no chunk is good for; None for nothing."""
        digest = head.digest
        if not head.digest:
            self._torn = True  # by another hash, or what says by which is damaged
            return None
        if head.codec == DAG_CBOR and self._focus is None:
            if head.cid in self._bundle_cids:
                return _nothing if self.result.courses else self._bundle
            return self._page
        if head.codec != RAW:
            # Nodes of the UnixFS tree are made of the index; whoever is handed this file may need its own.
            return None if self._focus else _nothing
        if digest in self._expected and head.length <= MAX_ENTRY:
            return lambda raw: self._named(digest, raw)
        arrival = self._by_manifest.get(digest)
        if arrival is not None:
            if self._focus is None and arrival.state in {"done", "refused", "no-room"}:
                self._passing = True
            return None if self._focus or arrival.state != "waiting" else lambda raw: self._manifest(arrival, raw)
        waiting = self._open
        if waiting is not None and waiting.state == "open" and digest in waiting.packed.parts:
            return (lambda raw: self._part(waiting, digest, raw)) if self._download is None else None
        if self._focus is not None or digest == _EMPTY:
            return None
        if (self._torn or self._blocks.gaps) and head.length <= MAX_ENTRY:
            return self._stray
        if self._passing:
            return None
        self.result.unknown += 1
        return _nothing

    def _damage(self, blocks: int) -> None:
        if self._focus is None:  # else they were counted before
            self.result.damaged += blocks

    # -- courses --------------------------------------------------------------------------------------------------

    def _bundle(self, raw: bytes) -> None:
        try:
            packed = decode_bundle(raw)
        except NotOurs as wrong:
            raise UsageProblem(f"No p2plearn wrote this file, or a newer one: {wrong}.", _HINT) from None
        self._know(packed)

    def _know(self, packed: Sequence[Packed]) -> None:
        self.result.courses = [Arrival(one) for one in packed]
        self._by_manifest = {one.packed.course: one for one in self.result.courses}

    def _manifest(self, arrival: Arrival, raw: bytes) -> None:
        self._leave_course()
        self._passing = True
        course = arrival.packed.course
        try:
            signed = open_manifest(raw, arrival.packed.signature, course)
            if tuple(part.digest for part in signed.manifest.index) != arrival.packed.parts:
                raise PeerFault("the file names another index than the manifest")
        except PeerFault as fault:
            arrival.state, arrival.problem = "refused", f"not what its author signed: {fault}"
            return
        arrival.signed = signed
        blocked = self._house.refusal(course, signed.manifest.author)
        if blocked:
            arrival.state, arrival.problem = "refused", blocked
            return
        holding = self._store.holding(course)
        if holding is not None:
            with holding:
                whole, arrival.folder = holding.complete, self._store.folder_of(holding)
            if whole and self._store.claim(course, "imported"):
                # Also where it lies in the user's own folder, as they chose: they are told, and can have a copy made.
                arrival.state, arrival.was_here = "done", True
                return
        self._passing = False
        self._reopen(arrival)

    def _reopen(self, arrival: Arrival) -> None:
        arrival.state = "open"
        self._open = arrival
        index_raw = self._store.index_bytes(arrival.packed.course)
        if index_raw is not None:
            self._begin(arrival, index_raw)

    def _part(self, arrival: Arrival, digest: bytes, raw: bytes) -> None:
        arrival.parts[digest] = raw
        if all(part in arrival.parts for part in arrival.packed.parts):
            self._begin(arrival, b"".join(arrival.parts[part] for part in arrival.packed.parts))

    def _begin(self, arrival: Arrival, index_raw: bytes) -> None:
        signed = arrival.signed
        if signed is None:
            raise AssertionError("a manifest came before its index")
        arrival.parts.clear()
        try:
            index = decode_index(index_raw, signed.manifest)
        except PeerFault as fault:
            arrival.state, arrival.problem = "refused", f"its index breaks the rules: {fault}"
            self._open = None
            return
        arrival.folder = ""  # what was right there is copied first
        self._store.claim(signed.course, "imported")
        try:
            self._download = self._store.begin_download(signed, index_raw, index, None, "imported")
        except NoSpace as full:
            # Another course of the file may fit, and what people said does.
            arrival.state, arrival.problem = "no-room", f"{full.message} {full.hint}"
            self._open, self._passing = None, True
            return
        self._slots = {}
        for slot in range(len(index)):
            self._slots.setdefault(index.digest(slot), slot)
        self._house.began(signed.course)

    def _chunk(self, head: Head, slot: int) -> None:
        download = self._download
        if download is None:
            raise AssertionError("slots belong to a download")
        if download.has(slot) or head.length != download.length(slot):
            self._damage(0 if download.has(slot) else 1)
            self._blocks.skip()
            return
        raw = self._blocks.body()
        if raw is None:
            return
        self._offers.append((slot, [raw]))
        self._offered += len(raw)
        if self._offered >= BATCH_BYTES:
            self._take_chunks()

    def _take_chunks(self) -> None:
        if self._download is None or not self._offers:
            return
        verdicts = self._download.put_many(self._offers)
        right = sum(len(pieces[0]) for (_, pieces), good in zip(self._offers, verdicts, strict=True) if good)
        self._damage(verdicts.count(False))
        if self._open is not None:
            self._open.stored += right
        self._uncommitted += right
        self._offers, self._offered = [], 0
        if self._uncommitted >= COMMIT_BYTES:
            self._download.commit()
            self._uncommitted = 0

    def _leave_course(self) -> None:
        """Keep what came of the open course, and see how it stands."""
        arrival, download = self._open, self._download
        try:
            self._take_chunks()
        finally:
            self._open = self._download = None
            self._slots, self._offers, self._offered, self._uncommitted = {}, [], 0, 0
            if download is not None:
                download.close()
        if arrival is not None and arrival.state == "open":
            row = self._store.course(arrival.packed.course)
            # What isn't complete waits for a second look at the file, or for another copy of it.
            arrival.state = "done" if row is not None and row.complete else "waiting"

    # -- people ---------------------------------------------------------------------------------------------------

    def _page(self, raw: bytes) -> None:
        try:
            page = decode_page(raw)
        except NotOurs:
            self.result.unknown += 1
            if not self.result.courses:  # the bundle, where the root that names it was damaged
                with contextlib.suppress(NotOurs):
                    self._know(decode_bundle(raw))
            return
        self._leave_course()
        self._take_envelopes()
        self._people_lost = self._people_lost or bool(self._due)
        self._expected, self._due = set(page.ids), set(page.ids)
        self.result.people_whole = self.result.people_whole or page.last

    def _stray(self, raw: bytes) -> None:
        """What may be an envelope whose page was lost: each is signed."""
        try:
            open_envelope(raw)
        except PeerFault:
            self.result.unknown += not self._passing
        else:
            self._envelope(raw)

    def _named(self, digest: bytes, raw: bytes) -> None:
        self._due.discard(digest)
        self._envelope(raw)

    def _envelope(self, raw: bytes) -> None:
        self._envelopes.append(raw)
        if len(self._envelopes) >= BATCH_ENVELOPES:
            self._take_envelopes()

    def _take_envelopes(self) -> None:
        if not self._envelopes:
            return
        raws, self._envelopes = self._envelopes, []
        taken = self._feed.take(raws, self._house.follows(), self._house.clock(), self._house.refuses)
        result = self.result
        result.people_new += len(taken.new)
        if self._focus is not None:
            return  # those that were met before were counted then
        known = taken.dropped["known"] + taken.dropped["stale"]
        result.people_known += known
        result.people_refused += taken.dropped.total() - known


def _nothing(raw: bytes) -> None:
    """For a block that is of no use here, but is held against its hash: a wrong one says that the file is damaged."""


_HINT: Final = "A file for `p2plearn import` is one that `p2plearn export` wrote."


def _strange(header: Header) -> UsageProblem:
    shown = ", ".join(_shown(root) for root in header.roots[:3]) or "none"
    return UsageProblem(f"This CAR file has no p2plearn course in it (its roots: {shown}).", _HINT)


def _shown(cid: bytes) -> str:
    return cid_text(cid[:128])
