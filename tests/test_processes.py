"""Why a node is silent: told from its process within seconds, with what to do, by every short call and the doctor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from p2plearn.client import NodeClient
from p2plearn.config import Home
from p2plearn.errors import P2plearnError
from p2plearn.local_socket import short_address
from p2plearn.lock import NodeLock
from p2plearn.operations import ExportRequest, ExportResult, VerifyRequest
from p2plearn.processes import state_of, why_silent
from tests.nodes import RealNode
from tests.pocket_node import PocketNode, running


@pytest.fixture
def suspended() -> Iterator[int]:
    """A process that was stopped by a signal."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 60
            while state_of(process.pid) != "T":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def test_a_suspended_process_is_told_from_one_that_runs(suspended: int) -> None:
    assert state_of(suspended) == "T"
    assert state_of(os.getpid()) in {"R", "S"}
    assert state_of(0) == ""


@pytest.mark.parametrize(
    ("state", "words", "todo"),
    [("T", "is suspended", "kill -CONT 7"), ("D", "waits for the disk", "disk"), ("S", "hangs", "node stop"),
     ("", "hangs", "node stop")],
)  # fmt: skip
def test_each_silence_has_words(state: str, words: str, todo: str) -> None:
    why, do = why_silent(7, state)
    assert words in why
    assert todo in do


def test_a_node_that_is_suspended_is_not_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    with RealNode(tmp_path / "home") as node:
        os.kill(node.pid, signal.SIGSTOP)
        try:
            # The whole minute that a call may take is not spent: what raises says so, not that the time was over.
            with pytest.raises(P2plearnError, match=r"doesn't answer: its process .* is suspended") as failed:
                NodeClient(node.home.path, on_silence=told.append).status()
            assert f"kill -CONT {node.pid}" in failed.value.hint
            # Nor by a call that may take for ever once it is begun.
            with pytest.raises(P2plearnError, match=r"doesn't answer: its process .* is suspended"):
                NodeClient(node.home.path, on_silence=told.append).verify(VerifyRequest(), lambda _: None)
            assert not told
            node_found = {each["check"]: each for each in node.run("doctor", code=1)["findings"]}
            assert "is suspended" in node_found["node"]["words"]
            assert "port" not in node_found  # it may be that very node that has it
        finally:
            os.kill(node.pid, signal.SIGCONT)
        assert node.run("node", "status")["peers"] == 0


def test_a_node_suspended_in_the_middle_of_a_long_call_is_told_of_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2plearn.client._SILENT_SECONDS", 0.05)
    (tmp_path / "course").write_bytes(os.urandom(8 << 20))
    pipe, told, spoken, begun = tmp_path / "pipe", list[str](), threading.Event(), threading.Event()
    os.mkfifo(pipe)

    def on_silence(words: str) -> None:
        told.append(words)
        if "is suspended" in words:
            spoken.set()

    with RealNode(tmp_path / "home") as node:
        course = node.run("publish", tmp_path / "course")["course"]
        client, results = NodeClient(node.home.path, on_silence=on_silence), list[ExportResult]()
        request = ExportRequest(str(pipe), (course,))
        asking = threading.Thread(
            target=lambda: results.append(client.export(request, lambda _: begun.set())), daemon=True
        )
        # Open before it is written to, and not read so far: it can't end.
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
            asking.start()
            assert begun.wait(60)
            os.kill(node.pid, signal.SIGSTOP)
            try:
                assert spoken.wait(60), told
            finally:
                os.kill(node.pid, signal.SIGCONT)
            assert f"kill -CONT {node.pid}" in told[-1]
            assert sum("is suspended" in words for words in told) == 1
            os.set_blocking(reader.fileno(), True)
            assert len(reader.read()) > 8 << 20
        asking.join(60)
        assert [each.path for each in results] == [str(pipe)]


def test_who_waits_for_a_busy_node_is_told_and_gets_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2plearn.client._SILENT_SECONDS", 0.05)
    home, told, spoken = Home(tmp_path / "home"), list[str](), threading.Event()
    home.prepare()

    def on_silence(words: str) -> None:
        told.append(words)
        spoken.set()

    def answer_late(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            assert spoken.wait(60)  # the node is busy until then
            connection.recv(4096)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"peers":3}')

    with NodeLock(home.lock), socket.socket(socket.AF_UNIX) as listener:
        with short_address(home.socket) as address:
            listener.bind(address)
        listener.listen()
        node = threading.Thread(target=answer_late, args=[listener])
        node.start()
        assert NodeClient(home.path, on_silence=on_silence).status() == {"peers": 3}
        node.join(60)
    assert len(told) == 1
    assert "busy or hangs" in told[0]


def test_a_node_that_is_well_and_waits_for_others_is_not_called_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2plearn.client._SILENT_SECONDS", 0.05)
    monkeypatch.setattr("p2plearn.client._WELL_SECONDS", 60.0)
    spoken, told = threading.Event(), list[str]()

    class Waiting(PocketNode):
        async def gc(self, dry_run: bool) -> dict[str, Any]:
            await trio.to_thread.run_sync(spoken.wait, 60)
            return await super().gc(dry_run)

    def on_silence(words: str) -> None:
        told.append(words)
        spoken.set()

    with running(tmp_path / "home", kind=Waiting) as (_, home):
        assert NodeClient(home.path, on_silence=on_silence).gc(dry_run=True)["freed"] == 0
    assert len(told) == 1
    assert "may wait for other nodes" in told[0]
