"""What is here of one course, for reading: serving peers, checking out.

Promise: what ``read`` returns has the slot's digest. It is hashed the first time in this process; after that the
operating system is trusted with it until the store is opened again or ``verify`` runs. Chunks that are part of a
user's own file (``--no-copy``) are read only while size, time and inode of that file are as recorded, and hashed again
whenever its change time has moved.
Bytes that turn out wrong leave the catalogue at once, so that nobody is served them and the next download fetches
them.

Blocking and thread-safe: any number of threads may read. Imports ``course`` and siblings.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.store.extents import ALIGNMENT, ExtentGone, ExternalChanged
from p2plearn.store.parts import StoreParts
from p2plearn.store.past_cache import LEAST
from p2plearn.store.placement import Placement, bit
from p2plearn.store.problems import ChunkMissing, StoreDamage, disk_problem

MAX_RUN = 4 * 1024 * 1024
"""Bytes read in one go for neighbouring slots: enough to amortise the call, small beside the memory limit."""
MAX_RUN_SLOTS = 1024
"""Slots of such a run: small chunks are many, and each costs a look."""


_TRIES = 3
"""Times a chunk is looked up again because a compaction moved it under a read."""


class Bad(NamedTuple):
    """A chunk that isn't what it should be, where it lies, and how it shows."""

    slot: int
    extent: int
    offset: int
    what: str


class Holding:
    """See the head of this file. Use as a context manager, or ``close`` it."""

    def __init__(self, parts: StoreParts, placement: Placement) -> None:
        self._parts = parts
        self.placement = placement
        self.extent_files = parts.files
        self.course: bytes = placement.course
        self.signed: SignedManifest = placement.signed
        self.index: Index = placement.index

    @property
    def have(self) -> bytes:
        """Bitmap of what is here: slot i is bit 7 - i % 8 of byte i // 8. A snapshot; grows while a download runs."""
        return bytes(self.placement.have)

    def has(self, slot: int) -> bool:
        """Whether a slot is here now."""
        return bit(self.placement.have, slot)

    @property
    def have_bytes(self) -> int:
        """Bytes of the course's files that are here."""
        return self.placement.have_bytes

    @property
    def complete(self) -> bool:
        """All of the course is here."""
        return self.placement.complete

    @property
    def slots(self) -> int:
        """Number of slots of the course."""
        return len(self.index)

    def length(self, slot: int) -> int:
        """Bytes of a slot's chunk. Raises IndexError."""
        return self.index.length(slot)

    def signed_manifest(self) -> tuple[bytes, bytes]:
        """The manifest's bytes and its signature."""
        return self.signed.raw, self.signed.signature

    def index_part(self, part: int) -> bytes | None:
        """A part of the index, as the manifest lists them; None beyond the last, or if the index was damaged."""
        return self._parts.course_files.index_part(self.course, self.signed.manifest, part)

    def read(self, slot: int, *, afresh: bool = False) -> bytes:
        """The chunk in ``slot``; with ``afresh`` read from the file that is there now, and hashed, whatever was known.

        Raises ChunkMissing, StoreDamage, IndexError; StoreProblem when the disk fails.
        """
        length = self.index.length(slot)
        for _ in range(_TRIES):
            extent, offset = self._place(slot)
            raw = self._pread(slot, extent, offset, length, named=afresh)
            trusted = not afresh and bit(self.placement.good, slot)
            if raw is not None and (trusted or self._is_right(slot, raw)):
                return raw
            if raw is not None and self._place(slot) == (extent, offset):
                raise self._quarantined(slot, extent, offset, raw)
            # Else it was moved meanwhile (compaction): read it where it is now.
        raise self._missing_chunk(slot)

    def read_many(self, slots: Sequence[int]) -> list[bytes | memoryview | None]:
        """The chunks in ``slots``, in that order; None for each that isn't here or turns out damaged.

        For serving: one call for a batch. As long as one peer alone is served, long runs are read past the page cache,
        which is for what is asked for again. Raises IndexError; StoreProblem when the disk fails.
        """
        chunks: list[bytes | memoryview | None] = []
        # Of a course that is still being fetched the cache holds what a direct read would have to see written first.
        once = self.placement.complete and self.placement.only_reader(self)
        try:
            chunks += self._read_runs(slots, once=once)
        except (ChunkMissing, StoreDamage):
            chunks.clear()
            for slot in slots:
                try:
                    chunks.append(self.read(slot))
                except (ChunkMissing, StoreDamage):
                    chunks.append(None)
        return chunks

    def read_all(self, slots: Sequence[int]) -> list[bytes | memoryview]:
        """The chunks in ``slots``, in that order; neighbours on the disk are read with one call, not copied after.

        Raises like ``read`` for the first slot that can't be read.
        """
        return self._read_runs(slots, once=False)

    def _read_runs(self, slots: Sequence[int], *, once: bool) -> list[bytes | memoryview]:
        chunks: list[bytes | memoryview] = []
        position = 0
        while position < len(slots):
            extent, offsets, length = self._run(slots, position)
            raw: bytes | memoryview | None = None
            if once and length >= LEAST:
                raw = self._read_past(extent, offsets[0], length)
            if raw is None and len(offsets) > 1:
                raw = self._pread(slots[position], extent, offsets[0], length)
            run = memoryview(raw or b"")
            for slot, offset in zip(slots[position : position + len(offsets)], offsets, strict=True):
                at = offset - offsets[0]
                chunk = run[at : at + self.index.lengths[slot]]
                # What isn't right at first sight is looked at again alone, with everything that may then be done.
                trusted = raw is not None and (bit(self.placement.good, slot) or self._is_right(slot, chunk))
                chunks.append(chunk if trusted else self.read(slot))
            position += len(offsets)
        return chunks

    def check_many(self, slots: Sequence[int]) -> list[Bad]:
        """Those of ``slots`` that are said to be here but aren't right, hashed whatever was known of them.

        Takes nothing out of the catalogue; that is for the caller, all at once.
        """
        bad = []
        position = 0
        while position < len(slots):
            try:
                extent, offsets, _ = self._run(slots, position)
            except ChunkMissing:
                position += 1
                continue
            for slot, offset in zip(slots[position : position + len(offsets)], offsets, strict=True):
                bad += self._check_one(slot, extent, offset)
            position += len(offsets)
        return bad

    def _check_one(self, slot: int, extent: int, offset: int) -> list[Bad]:
        try:
            raw = self._pread(slot, extent, offset, self.index.lengths[slot])
        except StoreDamage as damage:
            return [Bad(slot, extent, offset, damage.what)]
        if raw is None or self._is_right(slot, raw):
            return []
        return [Bad(slot, extent, offset, self._how(slot, raw))]

    def _place(self, slot: int) -> tuple[int, int]:
        placement = self.placement
        with placement.lock:
            if bit(placement.have, slot):
                return placement.extents[slot], placement.offsets[slot]
        raise self._missing_chunk(slot)

    def _missing_chunk(self, slot: int) -> ChunkMissing:
        return ChunkMissing(f"slot {slot} of course {self.course.hex()[:12]} is not in this store")

    def _run(self, slots: Sequence[int], position: int) -> tuple[int, list[int], int]:
        """How far slots from ``position`` on follow each other on the disk: (extent, their offsets, bytes)."""
        placement = self.placement
        extents, offsets, lengths, have = placement.extents, placement.offsets, self.index.lengths, placement.have
        extent, base = self._place(slots[position])
        stop = base + lengths[slots[position]]
        found = [base]
        with placement.lock:
            for slot in slots[position + 1 : position + MAX_RUN_SLOTS]:
                offset = offsets[slot]
                following = offset + lengths[slot]
                # What alignment leaves between two files is read and thrown away.
                near = stop <= offset < stop + ALIGNMENT and following - base <= MAX_RUN
                if not near or extents[slot] != extent or not bit(have, slot):
                    break
                found.append(offset)
                stop = following
        return extent, found, stop - base

    def _pread(self, slot: int, extent: int, offset: int, length: int, *, named: bool = False) -> bytes | None:
        """Bytes from where a slot begins on, unchecked; None if its extent is gone, and then it was looked up anew.

        ``named``: of the file that has the extent's name now (see ``ExtentFiles.pin``).
        """
        files, placement = self._parts.files, self.placement
        try:
            entry = files.pin(extent, named=named)
        except ExtentGone:
            with self._parts.gate:
                placement.locate_again(self._parts.catalogue, self._parts.usable(), placement.twins.get(slot, (slot,)))
            return None
        except ExternalChanged as changed:
            if self._lies_elsewhere_now(slot, extent):
                return None
            # What the catalogue knows stays: it may be a drive that isn't plugged in.
            placement.lost([slot])
            raise StoreDamage(self.course, slot, placement.file_of(slot).path, str(changed)) from None
        except OSError as error:
            raise disk_problem(error, "reading from the store") from error
        # Of a course that is still being fetched what follows may not be written yet: its pages would be made, filled
        # with nothing, and thrown away when it is (6 % of all the CPU that five nodes took for a course together).
        files.read_ahead(entry, ahead=placement.complete)
        try:
            return os.pread(entry.fd, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise disk_problem(error, "reading from the store") from error
            return b""  # a sector that can't be read is damage like any other
        finally:
            files.unpin(entry)

    def _lies_elsewhere_now(self, slot: int, extent: int) -> bool:
        """Look a slot up anew that lay in a file of the user's; whether the catalogue has another place for it."""
        with self._parts.gate:
            slots = self.placement.twins.get(slot, (slot,))
            self.placement.locate_again(self._parts.catalogue, self._parts.usable(), slots)
            return bit(self.placement.have, slot) and self.placement.extents[slot] != extent

    def _read_past(self, extent: int, offset: int, length: int) -> bytes | memoryview | None:
        """Bytes of an extent, unchecked, read past the page cache; None when they are better read through it."""
        try:
            entry = self.extent_files.pin(extent)
        except (ExtentGone, ExternalChanged, OSError):
            return None
        try:
            if entry.originals is not None and (raw := entry.originals.read(offset, length)) is not None:
                return raw
            past = self.extent_files.past_cache(entry)
            return None if past is None else past.read(offset, length)
        finally:
            self.extent_files.unpin(entry)

    def _is_right(self, slot: int, chunk: bytes | memoryview) -> bool:
        if hashlib.sha256(chunk).digest() != self.index.digest(slot):
            return False
        self.placement.known_good(slot)
        return True

    def _how(self, slot: int, chunk: bytes) -> str:
        if not chunk:
            return "the disk can't read it, or its file was cut short"
        return "its file was cut short" if len(chunk) < self.index.lengths[slot] else "its bytes don't have their hash"

    def _quarantined(self, slot: int, extent: int, offset: int, chunk: bytes) -> StoreDamage:
        self._parts.quarantine([(self.index.digest(slot), extent, offset)])
        return StoreDamage(self.course, slot, self.placement.file_of(slot).path, self._how(slot, chunk))

    def close(self) -> None:
        """Give it back. Reading from it afterwards is an error of the caller's."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
