"""A node that fits in a pocket: the local API over courses kept in memory, with no network.

A true implementation of ``NodeOperations`` for tests of HTTP, client and command line: it reads the folders it is
told to publish and writes the folders it is told to fetch. ``running`` puts it on a real socket in a real home.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from p2plearn.config import Home
from p2plearn.errors import LastCopy, NobodyHasIt, OutOfTime, Refused, UsageProblem
from p2plearn.lock import NodeLock
from p2plearn.operations import (
    ArchiveOperations,
    ExportRequest,
    ExportResult,
    GetRequest,
    GetResult,
    ImportRequest,
    ImportResult,
    LeaveRequest,
    LeaveResult,
    NodeOperations,
    Progress,
    PublishRequest,
    PublishResult,
    Report,
    VerifyRequest,
    VerifyResult,
)
from p2plearn.web.server import serve

PEER_ID = "12D3KooWPocket"
ADDRESS = f"/ip4/127.0.0.1/tcp/4017/p2p/{PEER_ID}"


@dataclasses.dataclass
class Kept:
    """A course in memory."""

    title: str
    files: dict[str, bytes]

    @property
    def bytes(self) -> int:
        return sum(map(len, self.files.values()))


class PocketArchives(ArchiveOperations):
    """Remembers what was exported where; writes no file."""

    async def export(self, request: ExportRequest, report: Report) -> ExportResult:
        report(Progress("exporting"))
        courses = tuple({"course": course, "title": "t"} for course in request.courses)
        return ExportResult(request.path, 100, 0, 3, 0, 0.1, courses)

    async def take_in(self, request: ImportRequest, report: Report) -> ImportResult:
        report(Progress("importing"))
        return ImportResult(request.path, 100, 0, "", 0, 0, 0, True, 0.1)


class PocketNode(NodeOperations):
    """Courses in a dictionary. ``slowly`` makes long operations take that many seconds, in steps of 10 ms.

    ``last_copy``: nobody else has what is here. ``left``: what can't be freed.
    """

    archives = PocketArchives()

    def __init__(self, slowly: float = 0.0) -> None:
        self.kept: dict[str, Kept] = {}
        self.damaged: list[dict[str, Any]] = []
        self.slowly = slowly
        self.last_copy = False
        self.left: tuple[str, ...] = ()
        self.cancelled = threading.Event()
        self.stopping = trio.Event()
        self._begun = time.monotonic()
        self.paused: dict[str, Any] = {"paused": False, "paused_until": None}

    async def status(self) -> dict[str, Any]:
        return {
            "peer_id": PEER_ID,
            "addresses": [ADDRESS],
            "peers": 1,
            "courses": len(self.kept),
            "uptime": time.monotonic() - self._begun,
            "storage": {"bytes": sum(kept.bytes for kept in self.kept.values()), "quota": None},
        }

    async def peers(self) -> list[dict[str, Any]]:
        return [
            {"peer_id": "12D3KooWOther", "addresses": [ADDRESS], "direction": "out", "agent": "x\x1b[31m", "seconds": 5}
        ]

    async def publish(self, request: PublishRequest, report: Report) -> PublishResult:
        root = Path(request.path)
        if root.is_symlink() or not root.exists():
            raise UsageProblem(f"{root} is a symlink or is not there.")
        files = {}
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file():
                files[root.name if path == root else str(path.relative_to(root))] = path.read_bytes()
        title = request.title or root.name
        kept = Kept(title, files)
        digest = hashlib.sha256(repr((title, sorted(files.items()))).encode("utf-8", "surrogateescape")).hexdigest()
        await self._work(report, Progress("storing", 0, kept.bytes, files_total=len(files), title=title))
        new = digest not in self.kept
        self.kept[digest] = kept
        return PublishResult(
            digest, "bafypocket", title, kept.bytes, len(files), len(files), 1, new, 1, 0.5, f"p2plearn:{digest}"
        )

    async def get(self, request: GetRequest, report: Report) -> GetResult:
        kept = await self._find(request)
        dest = Path(request.dest)
        if dest.exists() and any(dest.iterdir()):
            raise Refused(f"{dest} has other things in it.", "Choose another place with -o DIR.")
        with trio.move_on_after(request.timeout or 1e9) as scope:
            await self._work(report, Progress("fetching", 0, kept.bytes, peers=2, title=kept.title))
        if scope.cancelled_caught:
            raise OutOfTime("It took too long.", "The same command goes on from there.")
        for name, content in kept.files.items():
            path = dest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        dest.mkdir(parents=True, exist_ok=True)
        return GetResult(
            request.course, kept.title, str(dest), kept.bytes, len(kept.files), kept.bytes, 0.5, 2, len(kept.files)
        )

    async def contents(self, request: GetRequest, report: Report) -> dict[str, Any]:
        kept = await self._find(request)
        entries = [{"path": path, "bytes": len(content)} for path, content in kept.files.items()]
        return self._row(request.course) | {"files": len(entries), "entries": entries}

    async def courses(self) -> list[dict[str, Any]]:
        return [self._row(course) for course in self.kept]

    async def info(self, course: str) -> dict[str, Any]:
        if course not in self.kept:
            raise UsageProblem("This course is not kept here.")
        return self._row(course)

    async def verify(self, request: VerifyRequest, report: Report) -> VerifyResult:
        await self._work(report, Progress("hashing"))
        return VerifyResult(len(self.kept), 10, 0.1, tuple(self.damaged))

    async def remove(self, course: str, *, last_copy: bool) -> dict[str, Any]:
        kept = self.kept.get(course)
        if kept is None:
            raise UsageProblem("This course is not kept here.")
        if self.last_copy and not last_copy:
            raise LastCopy("Nobody else has it.", "To remove it all the same: --yes")
        del self.kept[course]
        return {"course": course, "title": kept.title, "freed": 0 if self.left else kept.bytes, "left": list(self.left)}

    async def pause(self, seconds: float) -> dict[str, Any]:
        self.paused = {"paused": True, "paused_until": time.time() + seconds if seconds else None}
        return self.paused

    async def resume(self) -> dict[str, Any]:
        self.paused = {"paused": False, "paused_until": None}
        return self.paused

    async def gc(self, dry_run: bool) -> dict[str, Any]:
        return {"dry_run": dry_run, "courses": [], "freed": 0, "left": list(self.left)}

    async def leave(self, request: LeaveRequest, report: Report) -> LeaveResult:
        left = [{"course": name, "segment": 0, "title": kept.title} for name, kept in self.kept.items()]
        return LeaveResult(len(left), 0, 0.0, (), tuple({**one, "copies": 0, "copies_wanted": 3} for one in left))

    async def stop(self) -> dict[str, Any]:
        self.stopping.set()
        return {"fewer_copies": [], "unconfirmed": []}

    def _row(self, course: str) -> dict[str, Any]:
        kept = self.kept[course]
        return {"course": course, "title": kept.title, "bytes": kept.bytes, "complete": True, "why": "published"}

    async def _find(self, request: GetRequest) -> Kept:
        if request.course == "00" * 32:
            raise ZeroDivisionError("a secret of the inside")
        if request.course not in self.kept:
            raise NobodyHasIt("Nobody has it: 0 providers found.")
        return self.kept[request.course]

    async def _work(self, report: Report, start: Progress) -> None:
        steps = int(self.slowly * 100) or 1
        try:
            for step in range(steps + 1):
                report(dataclasses.replace(start, bytes=start.bytes_total * step // steps, rate=1e6, eta=1.0))
                await trio.sleep(0.01 if self.slowly else 0)
        except trio.Cancelled:
            self.cancelled.set()
            raise


async def run_pocket_node(node: PocketNode, home: Home, ready: Any = None) -> None:
    """Serve ``node`` on the home's socket until it is told to stop."""
    with NodeLock(home.lock) as lock:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, node, home.socket, lock)
            if ready is not None:
                ready()
            await node.stopping.wait()
            nursery.cancel_scope.cancel()


@contextmanager
def running(
    folder: Path, slowly: float = 0.0, kind: type[PocketNode] = PocketNode
) -> Iterator[tuple[PocketNode, Home]]:
    """A pocket node in a thread, answering in the home ``folder``; ended on the way out."""
    home = Home(folder)
    home.prepare()
    ready = threading.Event()
    made: list[Any] = []
    failed: list[BaseException] = []

    async def main() -> None:
        node = kind(slowly)
        made.extend((node, trio.lowlevel.current_trio_token()))
        await run_pocket_node(node, home, ready.set)

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as problem:
            failed.append(problem)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(30)
    if failed:
        raise failed[0]
    try:
        yield made[0], home
    finally:
        if thread.is_alive():
            with suppress(trio.RunFinishedError):
                made[1].run_sync_soon(made[0].stopping.set)
        thread.join(30)
        assert not thread.is_alive()
        if failed:
            raise failed[0]


if __name__ == "__main__":  # a process of its own: python tests/pocket_node.py HOME
    import sys

    the_home = Home(Path(sys.argv[1]))
    the_home.prepare()
    trio.run(run_pocket_node, PocketNode(float(os.environ.get("SLOWLY", "0"))), the_home)
