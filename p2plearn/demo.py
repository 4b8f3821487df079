"""``p2plearn demo``: the whole journey of a course on one machine, with real nodes, told in plain words.

Three nodes run as processes of their own, in a temporary home, on loopback, and know nothing but one address: the
second node's. Whatever happens, Ctrl-C and SIGTERM included, the nodes end and the home goes away; should this
process be killed outright, the nodes notice that their stdin has ended.

Imports ``background``, ``client``, ``terminal``, ``errors``, ``operations`` and the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from p2plearn import background, terminal
from p2plearn.client import NodeClient
from p2plearn.errors import IntegrityProblem, NobodyHasIt, P2plearnError, UsageProblem
from p2plearn.operations import GetRequest, GetResult, PublishRequest

SAMPLE_COURSE = Path(__file__).parent / "sample_course"

_START_SECONDS = 60.0
_GET_SECONDS = 3600.0
_FIND_SECONDS = 60.0
_END_SECONDS = 10.0
_COMPARE_BYTES = 1024 * 1024


def run_demo(path: Path | None, *, as_json: bool, debug: bool = False) -> dict[str, Any]:
    """Send the folder or file ``path`` (None: the sample course) from node to node to node and compare it.

    Tells the story on stdout (``as_json``: steps and progress as JSON lines); with ``debug`` a failure leaves the
    temporary folder for a look at the nodes' logs. Returns what happened, JSON-ready.
    Raises UsageProblem when there is no such path, IntegrityProblem should the bytes differ, or what a node raised.
    """
    source = Path(os.path.abspath(path)) if path is not None else SAMPLE_COURSE
    if not source.exists():
        raise UsageProblem(f"There is no {path}.")
    tell = _tell_json if as_json else _tell
    begun = time.monotonic()
    with _signals_end_it(), _Stage(debug=debug) as stage:
        result = _play(stage, source, tell, as_json=as_json)
        tell("Stopping the other two nodes and removing the temporary home.")
    result["seconds"] = round(time.monotonic() - begun, 3)
    tell(f"Done in {terminal.span(result['seconds'])}: the course outlived the node that published it.")
    return result


def _play(stage: _Stage, source: Path, tell: Callable[[str], None], *, as_json: bool) -> dict[str, Any]:
    tell(f"Starting three nodes on this machine, in {stage.folder}.")
    second = stage.start("node-2", [])
    meeting_point = second.address()
    first = stage.start("node-1", [meeting_point])
    third = stage.start("node-3", [meeting_point])
    for number, node in enumerate((first, second, third), 1):
        tell(f"  Node {number} is {node.peer_id()}, process {node.child.pid}.")
    tell("  They know one address: node 2's. Everything else they find through the DHT.")

    tell(f"Node 1 publishes {terminal.plain(str(source)) if source != SAMPLE_COURSE else 'the sample course'}.")
    with terminal.display("Publishing", as_json=as_json) as display:
        published = first.client.publish(_request(source), display.show)
    what = f"{terminal.count(published.files, 'file')}, {terminal.size(published.bytes)}"
    tell(f"  “{terminal.plain(published.title)}”: {what}, {terminal.count(published.chunks, 'chunk')}.")
    tell(f"  Its course hash is {published.course}.")

    tell("Node 2 fetches it by that hash alone.")
    at_second = _fetch(second, published.course, stage.folder / "fetched-by-2", as_json=as_json)
    tell(_fetched(at_second))

    tell("Node 1, the publisher, stops.")
    first.stop()

    tell("Node 3 fetches it: only node 2 can have sent it now.")
    at_third = _fetch(third, published.course, stage.folder / "fetched-by-3", as_json=as_json)
    tell(_fetched(at_third))

    compared = sum(_compare(source, Path(result.path)) for result in (at_second, at_third))
    tell(f"Comparing every byte of both copies with the original: {terminal.size(compared)}, all the same.")
    return {
        "course": published.course,
        "ipfs": published.ipfs,
        "title": published.title,
        "bytes": published.bytes,
        "files": published.files,
        "chunks": published.chunks,
        "nodes": 3,
        "compared_bytes": compared,
        "identical": True,
    }


def _request(source: Path) -> PublishRequest:
    if source != SAMPLE_COURSE:
        return PublishRequest(path=str(source))
    return PublishRequest(path=str(source), tags=("p2plearn",), language="en", license="CC-BY-4.0")


def _fetch(node: _Node, course: str, dest: Path, *, as_json: bool) -> GetResult:
    """Fetch, and ask again for a while should the news of the course not have travelled yet."""
    request = GetRequest(course=course, dest=str(dest), timeout=_GET_SECONDS)
    deadline = time.monotonic() + _FIND_SECONDS
    with terminal.display("Fetching", as_json=as_json) as display:
        while True:
            try:
                return node.client.get(request, display.show)
            except NobodyHasIt:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


def _fetched(result: GetResult) -> str:
    rate = terminal.size(result.fetched_bytes / max(result.seconds, 0.001))
    providers = terminal.count(result.providers, "provider")
    return f"  {terminal.size(result.fetched_bytes)} from {providers} in {result.seconds:.1f} s, {rate}/s."


def _tell(words: str) -> None:
    print(words, flush=True)


def _tell_json(words: str) -> None:
    terminal.write_json({"event": "step", "words": words.strip()})


# -- the nodes --------------------------------------------------------------------------------------------------------


class _Node:
    """One node as a child process, in a home of its own."""

    def __init__(self, home: Path, bootstrap: list[str]) -> None:
        arguments = ["node", "start", "--json", "--no-mdns", "--stop-with-stdin", "--listen", "/ip4/127.0.0.1/tcp/0"]
        for address in bootstrap:
            arguments += ["--bootstrap", address]
        home.mkdir(mode=0o700)
        self.client = NodeClient(home, named=True)
        self._log = home / "node.log"
        with self._log.open("wb") as log:
            self.child = subprocess.Popen(
                background.command(home, arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for us; the nodes are stopped in order
                env=background.environment() | {"P2PLEARN_STORAGE_GIVE": "0"},  # who has what is to be seen here
            )
        self._facts: dict[str, Any] = {}

    def _ready(self) -> dict[str, Any]:
        """What the node said when it was ready; raises P2plearnError when it ended instead."""
        if not self._facts:
            assert self.child.stdout is not None  # noqa: S101
            line = background.read_line(self.child.stdout.fileno(), time.monotonic() + _START_SECONDS)
            said = json.loads(line) if line else {}
            if said.get("event") != "ready":
                with contextlib.suppress(OSError):
                    said.setdefault("message", self._log.read_text("utf-8", "replace")[-2000:].strip())
                raise P2plearnError(f"A node of the demo did not start: {said.get('message') or 'it said nothing'}")
            self._facts = said
        return self._facts

    def peer_id(self) -> str:
        """Who it is, once it is ready."""
        return str(self._ready()["peer_id"])

    def address(self) -> str:
        """Where others reach it, once it is ready."""
        return str(self._ready()["addresses"][0])

    def stop(self) -> None:
        """End it, gently first."""
        if self.child.stdin is not None:
            self.child.stdin.close()
        self.child.terminate()
        try:
            self.child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()


class _Stage:
    """The temporary folder and the nodes in it; leaving ends and removes both."""

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug
        self._nodes: list[_Node] = []
        self.folder = Path()

    def __enter__(self) -> _Stage:
        self.folder = Path(tempfile.mkdtemp(prefix="p2plearn-demo-"))
        return self

    def start(self, name: str, bootstrap: list[str]) -> _Node:
        """Start a node; it may take a second until it is ready."""
        node = _Node(self.folder / name, bootstrap)
        self._nodes.append(node)
        return node

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave nodes behind; ending them takes seconds at most.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for node in self._nodes:
                if node.child.stdin is not None:
                    node.child.stdin.close()
                node.child.terminate()  # all at once, then wait for each
            for node in self._nodes:
                node.stop()
            if self._debug and isinstance(problem, Exception):
                terminal.note(f"The nodes' homes and logs are left in {self.folder}")
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            for number, old in before.items():
                signal.signal(number, old)


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C does, so that everything is cleaned up."""

    def unwind(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


# -- comparing --------------------------------------------------------------------------------------------------------


def _compare(source: Path, copy: Path) -> int:
    """Compare a folder (or a file) with a copy of it; returns the bytes compared. Raises IntegrityProblem."""
    if source.is_file():
        inside = copy / source.name
        return _compare_files(source, inside if inside.exists() else copy)
    ours, theirs = _tree(source), _tree(copy)
    if ours != theirs:
        odd = min(ours ^ theirs)
        raise IntegrityProblem(f"{odd} is only in one of {source} and {copy}.")
    return sum(_compare_files(source / path, copy / path) for path in ours if not path.endswith("/"))


def _tree(root: Path) -> set[str]:
    """Relative paths of all files, and of all folders with a ``/`` behind."""
    found: set[str] = set()
    for folder, folders, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        found.update(os.path.normpath(os.path.join(relative, name)) for name in files)
        found.update(os.path.normpath(os.path.join(relative, name)) + "/" for name in folders)
    return found


def _compare_files(one: Path, other: Path) -> int:
    done = 0
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            ours, theirs = left.read(_COMPARE_BYTES), right.read(_COMPARE_BYTES)
            if ours != theirs:
                raise IntegrityProblem(f"{other} differs from {one}, within {_COMPARE_BYTES} bytes after byte {done}.")
            if not ours:
                return done
            done += len(ours)
