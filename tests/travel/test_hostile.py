"""A real node and its `get` against hostile peers: the right bytes or the right exit code, never a wrong file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from adversary import peers
from courses import Course, MemoryShelf, make_course
from hosts import LOOPBACK, make_host
from nodes import RealNode

from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.protocol import FROM_FETCHER, PROTOCOL
from p2plearn.transfer.serve import ChunkService

COURSE = make_course(chunks=40, size=200_000)
FILES = {entry.path: b"".join(COURSE.chunks[entry.first : entry.first + entry.count]) for entry in COURSE.index.files}

Conversation = Callable[[Channel], Any]


class Honest:
    """Serves as a node does, from memory."""

    def __init__(self, course: Course) -> None:
        shelf = MemoryShelf.full(course)

        async def find(wanted: bytes) -> MemoryShelf | None:
            return shelf if wanted == course.hash else None

        self._service = ChunkService(find, max_streams=16)

    async def __call__(self, channel: Channel) -> None:
        await self._service.serve(channel)


@contextmanager
def providers(*conversations: Conversation) -> Iterator[list[str]]:
    """Hosts in a thread of their own, one for each conversation; their addresses."""
    ready, stop = threading.Event(), trio.Event()
    addresses: list[str] = []
    token: list[trio.lowlevel.TrioToken] = []

    async def run_one(conversation: Conversation, *, task_status: Any) -> None:
        host = make_host()

        async def answer(stream: Any) -> None:
            try:
                await conversation(Channel(stream, FROM_FETCHER))
            except StreamOver:
                return

        host.set_stream_handler(PROTOCOL, answer)
        async with host.run([LOOPBACK]):
            task_status.started(str(host.get_addrs()[0]))
            await stop.wait()

    async def run_all() -> None:
        token.append(trio.lowlevel.current_trio_token())
        async with trio.open_nursery() as nursery:
            for conversation in conversations:
                addresses.append(await nursery.start(run_one, conversation))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run_all,), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield addresses
    finally:
        token[0].run_sync_soon(stop.set)
        thread.join(30)


def get(node: RealNode, out: Path, sources: Sequence[str], *options: str, code: int = 0) -> dict[str, Any]:
    where = [part for address in sources for part in ("--from", address)]
    return node.run("get", COURSE.hash.hex(), "-o", out, *where, *options, code=code, timeout=90)


def assert_right(out: Path) -> None:
    for path, content in FILES.items():
        assert (out / path).read_bytes() == content
    assert (out / "empty").is_dir()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (peers.Liar, 6),  # wrong bytes
        (peers.WrongManifest, 6),
        (peers.WrongIndex, 6),
        (peers.Denier, 4),  # has it, and gives nothing
        (peers.HalfGiver, 4),  # gives half, and no more
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_alone_it_ends_with_the_right_exit_code_and_no_file(tmp_path: Path, kind: Any, code: int) -> None:
    with RealNode(tmp_path / "node") as node, providers(kind(COURSE)) as sources:
        problem = get(node, tmp_path / "out", sources, code=code)
        assert problem["exit"] == code
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))
        # The node stands, and what it kept is right: an honest provider completes it.
        with providers(Honest(COURSE)) as honest:
            get(node, tmp_path / "out", honest)
        assert_right(tmp_path / "out")
        assert node.run("verify")["damaged"] == []


def test_a_silent_one_alone_costs_no_more_than_the_time_given(tmp_path: Path) -> None:
    with RealNode(tmp_path / "node") as node, providers(peers.Silent(COURSE)) as sources:
        get(node, tmp_path / "out", sources, "--timeout", "2", code=5)
        assert not (tmp_path / "out").exists()


def test_all_of_them_beside_an_honest_one_change_nothing(tmp_path: Path) -> None:
    kinds = (peers.Liar, peers.WrongManifest, peers.WrongIndex, peers.Silent, peers.HalfGiver, peers.Garbler)
    with (
        RealNode(tmp_path / "node", env={"P2PLEARN_TRANSFER_STALL": "2"}) as node,
        providers(*(kind(COURSE) for kind in kinds), Honest(COURSE)) as sources,
    ):
        get(node, tmp_path / "out", sources)
        assert_right(tmp_path / "out")
        assert node.run("verify")["damaged"] == []
        assert node.run("node", "status")["faults"] >= 1


def test_one_that_poisons_is_banned_and_named(tmp_path: Path) -> None:
    with RealNode(tmp_path / "node") as node, providers(peers.Liar(COURSE)) as sources:
        get(node, tmp_path / "out", sources, code=6)
        banned = node.run("node", "status")["banned"]
        assert [row["peer"] in sources[0] for row in banned] == [True]
