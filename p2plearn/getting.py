"""A get, from the request to the files in their place: fetched, stored, checked out.

In: a request of ``operations``. Out: its result, or a ``P2plearnError`` with words for a person. Store calls block and
run in threads; a get that is cancelled (its caller hung up) stops them and keeps what was fetched.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from p2plearn import memory
from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.course.names import cid_text
from p2plearn.custody_service import CustodyService
from p2plearn.errors import OutOfTime, Refused, UsageProblem
from p2plearn.gossip.service import People
from p2plearn.network import Network
from p2plearn.operations import GetRequest, GetResult, Progress, Report
from p2plearn.progress import Gauge
from p2plearn.store.checkout import refuse_below_file
from p2plearn.store.download import Download
from p2plearn.store.follow import Following
from p2plearn.store.growing import Growing
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.store import Store
from p2plearn.telling import Counting, in_thread, telling
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.fetch import Fetch, FetchLimits
from p2plearn.transfer.landed import landed
from p2plearn.transfer.reliance import Reliance

PATIENCE_SECONDS: Final = 2.0
"""How long somebody who asks for a course waits until its first bytes are here; two that ask each other for what nobody
has should learn that soon."""

GROW_SECONDS: Final = 1.0
"""How often a get in order looks for files that are complete; less often where writing them takes longer than that, so
that the fetch has the disk for half of the time at least."""


class Getting:
    """Gets under way. ``network`` and ``custody`` give those that run now: they are made anew after a fault."""

    def __init__(
        self,
        store: Store,
        people: People,
        limits: FetchLimits,
        courtesy: Courtesy,
        *,
        network: Callable[[], Network],
        custody: Callable[[], CustodyService],
    ) -> None:
        self._store = store
        self._people = people
        self._limits = limits
        self._courtesy = courtesy
        self._network = network
        self._custody = custody
        self._reliance = Reliance()
        self._turns: dict[bytes, trio.Lock] = {}
        self.fetching: dict[bytes, Fetch] = {}
        """By course, those whose bytes are coming."""

    async def get(self, request: GetRequest, report: Report) -> GetResult:
        """See ``NodeOperations.get``."""
        course = bytes.fromhex(request.course)
        result: GetResult | None = None
        with trio.move_on_after(request.timeout or math.inf):
            turn = self._turns.setdefault(course, trio.Lock())
            if turn.locked():
                report(Progress("waiting", waiting_for="another get of this course"))
            async with turn:
                result = await self._get(course, request, report)
        if not turn.locked():
            self._turns.pop(course, None)
        if result is None:
            raise OutOfTime(
                f"Not done within {request.timeout:g} s.",
                "What was fetched is kept; the same command goes on from there.",
            )
        return result

    async def _get(self, course: bytes, request: GetRequest, report: Report) -> GetResult:
        """A get whose turn it is: two at once would write the same bytes to the same place."""
        began = time.perf_counter()
        dest = Path(request.dest) if request.dest else None
        if dest is not None:
            await trio.to_thread.run_sync(refuse_below_file, dest)
        fetch, files, following, growing, found = await self._fetch(course, request, dest, report)
        signed, index = fetch.signed, fetch.index
        if signed is None or index is None:
            raise AssertionError("fetched")
        path = ""
        written = 0 if growing is None else growing.written
        replaced = [] if growing is None else growing.replaced
        replaced_into = None if growing is None else growing.replaced_into
        if dest is not None:
            count = Counting("checking out")
            async with telling(report, count.progress):
                try:
                    out = await in_thread(
                        lambda cancelled: self._store.checkout(
                            course,
                            dest,
                            files,
                            count,
                            cancelled,
                            following=following,
                            give=request.no_copy,
                            known=() if growing is None else growing.there,
                        )
                    )
                finally:
                    if following is not None:
                        await trio.to_thread.run_sync(following.abandon)
            written, path = written + out.written_files, str(out.path)
            if out.replaced_into is not None:
                replaced_into = out.replaced_into if growing is None else growing.into(out.replaced_into)
                replaced = [*replaced, *out.replaced]
            if request.no_copy:
                await in_thread(
                    lambda cancelled: self._store.keep_in_place(
                        course, out.path, files, cancelled, known=out.handed_over
                    )
                )
        await self._custody().fetched(course)
        if fetch.standing.verified_bytes > memory.KEPT:
            await trio.to_thread.run_sync(memory.give_back)
        row = await trio.to_thread.run_sync(self._store.course, course)
        warnings = await trio.to_thread.run_sync(self._people.warnings, course, signed.manifest.author)
        chosen: Sequence[FileEntry] = index.files if files is None else files
        return GetResult(
            course=request.course,
            title=signed.manifest.title,
            path=path,
            bytes=sum(file.size for file in chosen),
            files=len(chosen),
            fetched_bytes=fetch.standing.verified_bytes,
            seconds=time.perf_counter() - began,
            providers=len(fetch.tally.gave),
            written_files=written,
            replaced=tuple(replaced),
            replaced_into=str(replaced_into or ""),
            complete=row is not None and row.complete,
            warnings=tuple(warnings),
            found_bytes=found,
        )

    async def contents(self, request: GetRequest, report: Report) -> dict[str, Any]:
        """See ``NodeOperations.contents``."""
        course = bytes.fromhex(request.course)
        with trio.move_on_after(request.timeout or math.inf) as limit:
            fetch = await self.new_fetch(course, request)
            async with telling(report, lambda gauge: _progress(fetch, gauge)):
                if fetch.index is None:
                    await fetch.run(None)
        if limit.cancelled_caught:
            raise OutOfTime(f"Nobody told what is inside within {request.timeout:g} s.", "Try again with more time.")
        if fetch.signed is None:
            raise AssertionError("fetched")
        author = fetch.signed.manifest.author
        return course_facts(fetch.signed, fetch.index) | {
            "warnings": await trio.to_thread.run_sync(self._people.warnings, course, author)
        }

    def _refuse_blocked(self, course: bytes, author: bytes | None = None) -> None:
        why = self._people.refusal(course, author)
        if why:
            raise Refused(f"Course {course.hex()[:12]} is {why}.", "`p2plearn block --list` shows what is, and why.")

    async def new_fetch(self, course: bytes, request: GetRequest) -> Fetch:
        """A fetch of a course, knowing what is here of it already. Raises Refused for what is blocked."""
        self._refuse_blocked(course)
        signed = await trio.to_thread.run_sync(self._store.signed_manifest, course)
        holding = await trio.to_thread.run_sync(self._store.holding, course)
        fetch = Fetch(
            course,
            lambda offer: self._network().candidates(course, request.providers, offer, glance=fetch.flows),
            signed=signed,
            index=None if holding is None else holding.index,
            roll=random.randrange,
            in_order=request.in_order,
            limits=self._limits,
            courtesy=self._courtesy,
            reliance=self._reliance,
            me=self._network().peer_id,
        )
        return fetch

    async def begun(self, course: bytes) -> None:
        """Wait a little when a course is about to come: who asks for it now would else not ask again for long."""
        fetch = self.fetching.get(course)
        if fetch is not None and fetch.scheduler is None:
            with trio.move_on_after(PATIENCE_SECONDS):
                await fetch.begun.wait()

    async def _fetch(
        self, course: bytes, request: GetRequest, dest: Path | None, report: Report
    ) -> tuple[Fetch, tuple[FileEntry, ...] | None, Following | None, Growing | None, int]:
        """Bring everything wanted into the store; which files that is (None: all of them), what of the checkout was
        written on the way, beside its place or in it, and how many bytes lay there already.
        """
        files: tuple[FileEntry, ...] | None = None
        following: Following | None = None
        growing: Growing | None = None
        found = 0
        fetch = self.fetching[course] = await self.new_fetch(course, request)

        async def begin(signed: SignedManifest, index_raw: bytes, index: Index) -> Download:
            nonlocal files, growing
            self._refuse_blocked(course, signed.manifest.author)
            if request.only:
                files = index.select(request.only)
                if not files:
                    raise UsageProblem(
                        f"No file of {signed.manifest.title!r} matches {' '.join(request.only)}.",
                        "See what is inside with --manifest-only.",
                    )
            chosen = index.files if files is None else files
            fetch.standing.total_bytes = sum(file.size for file in chosen)
            fetch.standing.total_files = len(chosen)
            download = await trio.to_thread.run_sync(self._begin, signed, index_raw, index, files, request)
            if dest is not None and request.in_order:
                growing = Growing(self._store, download, dest, chosen)
            self._network().directory.announce(course)
            return download

        async def grow() -> None:
            await fetch.begun.wait()
            if growing is not None:
                await _grow(growing)

        try:
            async with (
                telling(report, lambda gauge: _progress(fetch, gauge, growing)),
                landed(fetch, begin, grow if request.in_order else None) as download,
            ):
                found = download.found_bytes
                if dest is not None:
                    following = download.take_following(dest)
        finally:
            self.fetching.pop(course, None)
        return fetch, files, following, growing, found

    def _begin(
        self,
        signed: SignedManifest,
        index_raw: bytes,
        index: Index,
        files: tuple[FileEntry, ...] | None,
        request: GetRequest,
    ) -> Download:
        """Blocking: refuse what can't end well before a byte is fetched, then reserve the room."""
        dest = Path(request.dest) if request.dest else None
        if dest is not None:
            self._store.check_destination(signed, index, dest)
        self._store.claim(signed.course, "fetched")
        return self._store.begin_download(
            signed,
            index_raw,
            index,
            files,
            "fetched",
            checkout=dest,
            # In order, files are copied into the folder as they come; what is kept is looked at when all are there.
            give=request.no_copy and not request.in_order,
            follow=not request.in_order,
        )


async def _grow(growing: Growing) -> None:
    """Write files as they get complete, until all are or the fetch ends. Raises what ``Store.checkout`` does."""
    while not growing.done:
        began = trio.current_time()
        try:
            await in_thread(growing.more)
        except (ChunkMissing, StoreDamage):
            return  # something of the store went bad meanwhile: the checkout at the end has it anew, or the words
        await trio.sleep(max(GROW_SECONDS, trio.current_time() - began))


def _progress(fetch: Fetch, gauge: Gauge, growing: Growing | None = None) -> Progress:
    standing = fetch.standing
    gauge.update(trio.current_time(), standing.verified_bytes)
    left = standing.wanted_bytes - standing.verified_bytes
    return Progress(
        standing.stage,
        # What was here before counts as done: a resumed get goes on where it was.
        max(standing.total_bytes - left, 0),
        standing.total_bytes,
        files=standing.total_files - standing.files.lacking if standing.stage == "fetching" else 0,
        files_total=standing.total_files or (fetch.signed.manifest.files if fetch.signed else 0),
        rate=gauge.rate,
        peers=standing.peers,
        eta=gauge.eta(left) if standing.stage == "fetching" else -1.0,
        waiting_for=standing.waiting_for,
        title=fetch.signed.manifest.title if fetch.signed else "",
        files_there=0 if growing is None else len(growing.there),
    )


def course_facts(signed: SignedManifest, index: Index | None) -> dict[str, Any]:
    """What a course says of itself, JSON-ready; with its files where the index is known."""
    manifest = signed.manifest
    return {
        "course": signed.course.hex(),
        "title": manifest.title,
        "description": manifest.description,
        "author": manifest.author.hex(),
        "tags": list(manifest.tags),
        "language": manifest.language,
        "license": manifest.license,
        "created": manifest.created,
        "version": manifest.series.seq if manifest.series else 1,
        "previous": manifest.series.prev.hex() if manifest.series and manifest.series.prev else "",
        "ipfs": cid_text(manifest.root),
        "chunker": manifest.chunker,
        "bytes": manifest.bytes,
        "files": manifest.files,
        "chunks": manifest.chunks,
        "entries": [{"path": file.path, "bytes": file.size} for file in index.files] if index else [],
        "empty_folders": list(index.folders) if index else [],
    }
