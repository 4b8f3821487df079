"""Publish: a folder or a file on the user's disk becomes a course in the store.

Three threads: the caller's reads files into large buffers and cuts them; two workers hash the chunks and append what
the store doesn't have yet to one extent. Each byte is read once, hashed once, written at most once. Memory is bounded
by the buffers and some 100 bytes a chunk.

Crash promise: the commit point is one transaction, made after the extent, its name and the course's file are on the
disk. Before it nothing of the course exists; what a crash leaves is deleted when the store opens next.

A file that vanishes, shrinks, grows or is touched between being found and being read to its end stops the publish
with its name: a course never holds a mixture of two states of a file. (Without copying, what changes later is
noticed when it is read.)

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from p2plearn.course.chunking import Chunker
from p2plearn.course.index import Index
from p2plearn.course.manifest import MAX_CHUNK
from p2plearn.errors import Interrupted, P2plearnError
from p2plearn.store import contents
from p2plearn.store.behind import Behind
from p2plearn.store.durable import sync_directory, sync_file
from p2plearn.store.extents import create_extent, finish_extent, is_extent, remove_extent, start_of_file
from p2plearn.store.parts import StoreParts
from p2plearn.store.past_cache import BLOCK, LEAST, aligned
from p2plearn.store.problems import disk_problem
from p2plearn.store.scan import Scan, SourceFile

_BUFFER = 4 * 1024 * 1024
_BUFFERS = 5
"""Buffers in flight: one being filled, two at the workers, two between. 20 MiB in all."""
_WORKERS = 2
KNOWN = -1
_SPACE_STEP = 64 * 1024 * 1024
"""How much is written between two looks at quota and disk."""

Report = Callable[[int, int, int, int], None]
"""Called with bytes done, bytes in all, files done, files in all."""


_IN_MEMORY = 256 * 1024 * 1024
"""What of a published course stays in the page cache: somebody may fetch it soon."""


class SourceChanged(P2plearnError):
    """A file wasn't what it was when it was found; nothing was stored."""

    code = "source-changed"


@dataclass(slots=True)
class _Batch:
    """A filled buffer, cut: chunk i begins at ``starts[i]`` and belongs to file ``files[i]`` at ``offsets[i]``."""

    number: int
    buffer: memoryview
    starts: list[int]
    lengths: list[int]
    files: list[int]
    offsets: list[int]


class Ingest:
    """One publish under way; ``run`` fills ``digests``, ``lengths`` and ``counts`` (chunks of each file)."""

    def __init__(self, parts: StoreParts, found: Scan, chunker: Chunker, *, no_copy: bool) -> None:
        self._parts = parts
        self._found = found
        self._chunker = chunker
        self._no_copy = no_copy
        self.digests = bytearray()
        self.lengths = array("I")
        self.counts = array("I", bytes(4 * len(found.files)))
        self.places = array("q")
        """By slot the offset, in the new extent or without copying in its file, of a chunk that the catalogue has to
        learn; ``KNOWN`` for one that is there already."""
        self.extent_name = ""
        self.extent_bytes = 0
        self._fd = -1
        self._pins: set[bytes] = set()
        """Every digest of this publish so far: already stored, or in the new extent."""
        self._there: dict[int, bool] = {}
        """Whether the file of an extent that this publish relies on was there when it was first met."""
        self._last_file = -1
        self._checked = 0
        self._turn = 0
        self._turns = threading.Condition()
        self._failed = False
        self._behind = Behind(keep=_IN_MEMORY)
        self._over = b""
        """The beginning of a block that the next batch goes on with, and ..."""
        self._over_at = 0
        """... where it lies in the extent."""

    # The caller's thread: read and cut ----------------------------------------------------------------------------

    def run(self, report: Report, cancelled: Callable[[], bool]) -> None:
        """Read everything. Raises SourceChanged, Interrupted, NoSpace, StoreProblem; then call ``abandon``."""
        with self._parts.gate:
            self._parts.pins[self] = self._pins
            self._parts.lent.clear()
        free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            free.put(aligned(_BUFFER))
        jobs: list[Future[None]] = []
        total, files = self._found.bytes, len(self._found.files)
        done = 0
        with ThreadPoolExecutor(_WORKERS, "publish") as threads:
            try:
                for batch in self._batches(free):
                    if cancelled():
                        raise Interrupted("Publishing was interrupted; nothing was stored.")
                    jobs = [job for job in jobs if not _settled(job)]
                    jobs.append(threads.submit(self._store, batch, free))
                    done += sum(batch.lengths)
                    report(done, total, batch.files[-1], files)
                wait(jobs, return_when=FIRST_EXCEPTION)
                for job in jobs:
                    _settled(job)
            except BaseException:
                self._fail()
                raise
        report(total, total, files, files)

    def _batches(self, free: queue.SimpleQueue[memoryview]) -> Iterator[_Batch]:
        batch = self._next_batch(0, free)
        view = batch.buffer
        fill = 0  # end of what was read
        for number, file in enumerate(self._found.files):
            if file.size == 0:
                continue
            start = fill  # of what isn't cut yet
            remaining, offset = file.size, 0
            fd = _open_source(file)
            try:
                _check_unchanged(file, fd)
                while remaining:
                    if fill == _BUFFER or (_BUFFER - fill < MAX_CHUNK and remaining > _BUFFER - fill):
                        # What isn't cut, less than a chunk, moves to the head of the next buffer: as far from a block's
                        # begin as it will be in the extent, so that it is written as it lies here.
                        following = self._next_batch(batch.number + 1, free)
                        head = offset % BLOCK
                        following.buffer[head : head + fill - start] = view[start:fill]
                        yield batch
                        batch, view = following, following.buffer
                        start, fill = head, head + fill - start
                    count = _read(file, fd, view[fill : fill + remaining])
                    fill += count
                    remaining -= count
                    for length in self._chunker.cut(view[start:fill], remaining == 0):
                        batch.starts.append(start)
                        batch.lengths.append(length)
                        batch.files.append(number)
                        batch.offsets.append(offset)
                        start += length
                        offset += length
                        self.counts[number] += 1
                _check_unchanged(file, fd)
            finally:
                os.close(fd)
        if batch.lengths:
            yield batch

    def _next_batch(self, number: int, free: queue.SimpleQueue[memoryview]) -> _Batch:
        while not self._failed:
            with contextlib.suppress(queue.Empty):
                return _Batch(number, free.get(timeout=1), [], [], [], [])
        return _Batch(number, aligned(_BUFFER), [], [], [], [])  # a worker's error is about to be raised

    # The workers: hash, look up, append -------------------------------------------------------------------------------

    def _store(self, batch: _Batch, free: queue.SimpleQueue[memoryview]) -> None:
        try:
            view = batch.buffer
            chunks = [view[start : start + length] for start, length in zip(batch.starts, batch.lengths, strict=True)]
            digests = [hashlib.sha256(chunk).digest() for chunk in chunks]
            # Places are given out in the order of the course, whichever worker is faster.
            with self._turns:
                while self._turn != batch.number and not self._failed:
                    self._turns.wait()
                if self._failed:
                    return
                runs = self._assign(batch, digests)
                self._turn += 1
                self._turns.notify_all()
            for offset, start, end in runs:
                self._behind.write(self._fd, [view[start:end]], offset)
            free.put(batch.buffer)
        except OSError as error:
            self._fail()
            raise disk_problem(error, "copying into the store") from error
        except BaseException:
            self._fail()
            raise

    def _fail(self) -> None:
        with self._turns:
            self._failed = True
            self._turns.notify_all()

    def _assign(self, batch: _Batch, digests: list[bytes]) -> list[tuple[int, int, int]]:
        """Note the batch's chunks and give those that are new their places; returns what to write.

        That is (offset in the extent, where it begins in the buffer, where it ends there).
        """
        unseen = {digest for digest in digests if digest not in self._pins}
        with self._parts.gate:
            # Pinned first, looked up then: a sweep either sees the pin or has been before the look.
            self._pins |= unseen
            known = self._parts.catalogue.locate(list(unseen))
        for number, digest in enumerate(digests):
            if digest in unseen and digest in known and self._acceptable(known[digest][0], batch.files[number]):
                unseen.discard(digest)
        runs: list[tuple[int, int, int]] = []
        cursor = self.extent_bytes
        for number, digest in enumerate(digests):
            length = batch.lengths[number]
            self.digests += digest
            self.lengths.append(length)
            if digest not in unseen:
                self.places.append(KNOWN)
                continue
            unseen.discard(digest)
            file = batch.files[number]
            if self._no_copy:
                self.places.append(batch.offsets[number])
                continue
            if file != self._last_file:
                self._last_file = file
                cursor = start_of_file(cursor, self._found.files[file].size)
            self.places.append(cursor)
            start = batch.starts[number]
            if runs and cursor == self.extent_bytes and runs[-1][2] == start:
                runs[-1] = (*runs[-1][:2], start + length)
            else:
                runs.append((cursor, start, start + length))
            cursor += length
            self.extent_bytes = cursor
        if runs:
            self._make_room()
            self._join(batch.buffer, runs)
        return runs

    def _join(self, buffer: memoryview, runs: list[tuple[int, int, int]]) -> None:
        """Make the batch's runs end where blocks do: what is over of the last waits for the next batch, which goes on
        there. A few bytes through the cache would wait for what the other worker is writing to the same file.
        """
        offset, start, end = runs[0]
        if self._over and offset == self._over_at + len(self._over) and (offset - start) % BLOCK == 0:
            # Before a run that lies like its place there is room for what its first block lacks.
            start -= len(self._over)
            buffer[start : start + len(self._over)] = self._over
            runs[0] = (self._over_at, start, end)
            self._over = b""
        else:
            self._write_over()
        offset, start, end = runs[-1]
        over = (offset + end - start) % BLOCK
        if over and (offset - start) % BLOCK == 0 and end - start - over >= LEAST:
            self._over, self._over_at = bytes(buffer[end - over : end]), offset + end - start - over
            runs[-1] = (offset, start, end - over)

    def _write_over(self) -> None:
        if self._over:
            self._behind.write(self._fd, [self._over], self._over_at)
            self._over = b""

    def _acceptable(self, extent: int, number: int) -> bool:
        """Whether a chunk of the file ``number`` that lies there needn't be stored.

        It does where the extent's file is gone. What lies in a file of the user's doesn't count, unless without copying
        and in this very one: any other may go with a course that has nothing to do with this one.
        """
        row = self._parts.catalogue.extent(extent)
        if row is None:
            return False
        if row.name is not None:
            if extent not in self._there:
                self._there[extent] = is_extent(self._parts.extents / row.name)
            return self._there[extent]
        file = self._found.files[number]
        found = (os.fsencode(file.source), file.size, file.mtime_ns, file.inode)
        return self._no_copy and found == (row.path, row.size, row.mtime_ns, row.inode)

    def _make_room(self) -> None:
        if self._fd < 0:
            self.extent_name, self._fd = create_extent(self._parts.extents)
        if self.extent_bytes > self._checked:
            self._checked = self.extent_bytes + _SPACE_STEP
            held = self._parts.catalogue.held_bytes()
            more = min(self._checked, max(self._found.bytes, self.extent_bytes))
            self._parts.budget.check(self, held=held, more=self.extent_bytes, what="This course")
            self._parts.budget.promise(self, counted=more, disk=more)

    def new(self) -> Iterator[int]:
        """The slots whose chunks the catalogue has to learn."""
        return (slot for slot, place in enumerate(self.places) if place != KNOWN)

    # The end --------------------------------------------------------------------------------------------------------

    def settle(self, index: Index) -> None:
        """Make the new extent durable; from here on ``index`` has the digests. Raises NoSpace, StoreProblem."""
        self.digests.clear()
        if self._fd < 0:
            return
        listed = ((index.digest(slot), self.places[slot], index.lengths[slot]) for slot in self.new())
        try:
            self._write_over()
            self.extent_bytes = contents.write(self._fd, listed, self.extent_bytes)
            sync_file(self._fd)
            self.extent_name = finish_extent(self._parts.extents, self.extent_name)
            sync_directory(self._parts.extents)
            self._parts.check_in_place()
        except OSError as error:
            raise disk_problem(error, "making the course durable") from error

    def release(self) -> None:
        """Let go of what this publish held back, once it is committed or abandoned."""
        with self._parts.gate:
            self._parts.pins.pop(self, None)
            self._parts.lent.clear()
        self._parts.budget.release(self)
        self._behind.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def abandon(self) -> None:
        """Delete what was written, and let go."""
        self.release()
        if self.extent_name:
            with contextlib.suppress(OSError):
                remove_extent(self._parts.extents, self.extent_name)


def _settled(job: Future[None]) -> bool:
    if not job.done():
        return False
    job.result()
    return True


def _open_source(file: SourceFile) -> int:
    try:
        return os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _changed(file, os.strerror(error.errno or 0).lower()) from None


def _read(file: SourceFile, fd: int, view: memoryview) -> int:
    try:
        count = os.readv(fd, [view])
    except OSError as error:
        raise _changed(file, os.strerror(error.errno or 0).lower()) from None
    if not count:
        raise _changed(file, "it became shorter")
    return count


def _check_unchanged(file: SourceFile, fd: int) -> None:
    facts = os.fstat(fd)
    if facts.st_ino != file.inode:
        raise _changed(file, "it was replaced by another file")
    if facts.st_size != file.size or facts.st_mtime_ns != file.mtime_ns:
        raise _changed(file, "it was written to")


def _changed(file: SourceFile, how: str) -> SourceChanged:
    return SourceChanged(
        f"{file.path} changed while it was being published: {how}. Nothing was stored.",
        "Publish again when nothing writes to it.",
    )
