"""Files that carry courses, for the local API: ``operations.ArchiveOperations`` over ``archive``.

In: requests. Out: what was written or taken in, or a ``P2plearnError`` with words for a person. The work is done in a
thread; whoever hangs up stops it, and what was done is kept.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from p2plearn.archive.arrivals import Arrival, Arrived, House
from p2plearn.archive.export import Export, Exported, Whose, choose
from p2plearn.archive.intake import Intake
from p2plearn.archive.sinks import FileSink, PipeSink
from p2plearn.archive.sources import Source
from p2plearn.course.names import cid_text
from p2plearn.errors import Refused
from p2plearn.gossip.service import People
from p2plearn.operations import ExportRequest, ExportResult, ImportRequest, ImportResult, Report
from p2plearn.store.store import Store
from p2plearn.telling import Counting, in_thread, telling

logger = logging.getLogger(__name__)

NAMED: Final = 10
"""Missing files of a course that are named; the rest is counted."""


class Archives:
    """See ``operations.ArchiveOperations``. ``announce`` tells others of a course that has come."""

    def __init__(self, store: Store, people: People, announce: Callable[[bytes], None]) -> None:
        self._store = store
        self._people = people
        self._announce = announce

    async def export(self, request: ExportRequest, report: Report) -> ExportResult:
        """See ``ArchiveOperations.export``."""
        began = time.perf_counter()
        count = Counting("exporting")
        async with telling(report, count.progress):
            exported, size, kept, left_out = await in_thread(lambda stop: self._export(request, count, stop))
        return ExportResult(
            path=request.path,
            size=size,
            kept=kept,
            blocks=exported.blocks,
            people=exported.people,
            seconds=time.perf_counter() - began,
            courses=tuple(
                {
                    "course": row.course.hex(),
                    "title": row.title,
                    "version": row.seq,
                    "bytes": row.bytes,
                    "ipfs": cid_text(exported.roots[row.course]),
                }
                for row in exported.rows
            ),
            warnings=(left_out,) if left_out else (),
        )

    def _export(
        self, request: ExportRequest, report: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> tuple[Exported, int, int, str]:
        """Blocking."""
        path = Path(request.path)
        self._refuse_own_home(path)
        named = [bytes.fromhex(course) for course in request.courses]
        rows, left_out = choose(
            self._store,
            named,
            everything=request.everything,
            versions=request.versions,
            refusal=self._people.refusal,
        )
        whose: Whose = "all" if request.people == "all" else "courses" if request.people == "courses" else "none"
        export = Export(self._store, self._people.feed, rows, whose, report=report, cancelled=cancelled)
        with PipeSink(path, cancelled) if _is_pipe(path) else FileSink(path, replace=request.replace) as sink:
            sink.expect(export.measure())
            export.write(sink)
        return export.result, sink.size, sink.kept, left_out

    def _refuse_own_home(self, path: Path) -> None:
        home, folder = self._store.home.resolve(), path.parent.resolve()
        if not _is_pipe(path) and (folder == home or home in folder.parents):
            raise Refused("An export doesn't go into this node's own home.", "Choose another place with -o FILE.")

    async def take_in(self, request: ImportRequest, report: Report) -> ImportResult:
        """See ``ArchiveOperations.take_in``."""
        began = time.perf_counter()
        count = Counting("importing")
        token = trio.lowlevel.current_trio_token()
        house = House(
            refusal=self._people.refusal,
            follows=self._people.follows,
            refuses=self._people.refuses,
            clock=time.time,
            began=lambda course: token.run_sync_soon(self._tell_of, course),
        )
        async with telling(report, count.progress):
            result, courses = await in_thread(lambda stop: self._take_in(request, house, count, stop))
        return ImportResult(
            path=request.path,
            read=result.read,
            damaged=result.damaged,
            problem=result.problem,
            people_new=result.people_new,
            people_known=result.people_known,
            people_refused=result.people_refused,
            people_whole=result.people_whole,
            seconds=time.perf_counter() - began,
            courses=tuple(courses),
            warnings=(_goes_on(result.beyond),) if result.beyond else (),
        )

    def _tell_of(self, course: bytes) -> None:
        """Announce a course, in trio, which ends for what is raised here."""
        try:
            self._announce(course)
        except Exception:
            logger.exception("could not announce course %s", course.hex())

    def _take_in(
        self, request: ImportRequest, house: House, report: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> tuple[Arrived, list[dict[str, Any]]]:
        """Blocking."""
        with Source(Path(request.path), cancelled) as source:
            intake = Intake(self._store, self._people.feed, house, source, report)
            result = intake.run()
            if not intake.nothing_lacks:
                result.beyond = 0
            if intake.unread:
                result.problem = (
                    "a course's beginning was damaged, or is in another order than p2plearn's, and a pipe can't be "
                    "read twice: save it to a file, and import that"
                )
            elif intake.nothing_lacks:
                result.problem = ""
            elif result.cut and not result.problem:
                result.problem = f"it ends in the middle, after {result.read} bytes"
        return result, [self._facts(arrival) for arrival in result.courses]

    def _facts(self, arrival: Arrival) -> dict[str, Any]:
        course = arrival.packed.course
        left_out = arrival.state in {"refused", "no-room"}
        row = None if left_out else self._store.course(course)
        facts = {
            "course": course.hex(),
            "title": "" if arrival.signed is None else arrival.signed.manifest.title,
            "version": 0 if arrival.signed is None else arrival.signed.manifest.series.seq,
            "state": arrival.state if left_out else "absent" if row is None else "incomplete",
            "bytes": 0 if arrival.signed is None else arrival.signed.manifest.bytes,
            "have_bytes": 0 if row is None else row.have_bytes,
            "stored": arrival.stored,
            "was_here": arrival.was_here,
            "problem": arrival.problem,
            "folder": arrival.folder,
            "missing_files": 0,
            "missing": [],
        }
        if row is not None and row.complete:
            return facts | {"state": "complete"}
        holding = None if row is None else self._store.holding(course)
        if holding is not None:
            with holding:
                files = [
                    file.path
                    for file in holding.index.files
                    if not all(map(holding.has, range(file.first, file.first + file.count)))
                ]
            facts |= {"missing_files": len(files), "missing": files[:NAMED]}
        return facts


def _goes_on(at: int) -> str:
    return (
        f"Everything in the file came in, but it goes on behind its end, from byte {at} on. What stands there "
        "belongs to nothing in it and was passed over. There is nothing to do; a new export has no such bytes."
    )


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path, follow_symlinks=False).st_mode)
    except OSError:
        return False
