"""A real node in the background: started, refused, relayed, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nodes import LOOPBACK, RealNode, run_command

from p2plearn import background
from p2plearn.config import Home
from p2plearn.identity import load_or_create
from p2plearn.lock import holder
from p2plearn.store.durable import TEMPORARY
from p2plearn.store.rebuild import CATALOGUE

START = ("node", "start", "--detach", "--no-mdns", "--listen", LOOPBACK)


def _is_gone(pid: int) -> bool:
    """Whether no such process runs any more; it may wait to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_detached_from_start_to_stop(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ran = run_command(*START, "--json", home=home, cwd=tmp_path)
    pid = holder(Home(home).lock)
    try:
        assert ran.code == 0, ran.stderr
        assert ran.last["event"] == "ready"
        assert ran.last["pid"] == pid
        assert all(address.endswith(f"/p2p/{ran.last['peer_id']}") for address in ran.last["addresses"])
        status = run_command("node", "status", "--json", home=home).last
        assert status["peer_id"] == ran.last["peer_id"]
        again = run_command(*START, home=home)
        assert again.code == 1
        assert f"process {pid} holds it" in again.stderr
        in_front = run_command("node", "start", "--no-mdns", "--listen", LOOPBACK, home=home)
        assert in_front.code == 1
        assert f"process {pid} holds it" in in_front.stderr
    finally:
        stopped = run_command("node", "stop", "--json", home=home)
    assert stopped.code == 0
    assert stopped.last["pid"] == pid
    assert not stopped.last["signalled"]
    assert holder(Home(home).lock) is None
    assert _is_gone(pid or 0)  # not only done: its disk may be taken away
    assert not Home(home).socket.exists()
    assert "is ready" in Home(home).log.read_text()
    databases = sorted(home.rglob("*.sqlite*"))
    assert len(databases) >= 2
    for private in (home, home / "keys", Home(home).peer_key, Home(home).author_key, Home(home).log, *databases):
        assert private.stat().st_mode & 0o077 == 0, private
    again = run_command(*START, "--json", home=home)
    assert again.last["peer_id"] == ran.last["peer_id"]
    assert run_command("node", "stop", home=home).code == 0


def test_a_suspended_node_is_woken_to_be_stopped(tmp_path: Path) -> None:
    with RealNode(tmp_path / "home") as node:
        os.kill(node.pid, signal.SIGSTOP)
        ran = run_command("node", "stop", "--json", home=node.home.path)
        assert ran.code == 0, ran.stderr
        assert f"process {node.pid}) is suspended" in ran.stderr
        assert not ran.last["signalled"]  # it stopped as it does when it is told to
        assert node.stop() == 0


def test_what_stops_it_from_starting_comes_back_with_its_exit_code(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ran = run_command("node", "start", "--detach", "--no-mdns", "--listen", "nonsense", home=home.path)
    assert ran.code == 2
    assert "nonsense" in ran.stderr
    assert not home.peer_key.exists()  # refused before anything is made
    load_or_create(home.peer_key)
    home.peer_key.chmod(0o644)
    ran = run_command(*START, home=home.path)
    assert ran.code == 8
    assert f"chmod 600 {home.peer_key}" in ran.stderr
    home.peer_key.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run_command(
            "node", "start", "--detach", "--no-mdns", "--listen", f"/ip4/127.0.0.1/tcp/{port}", home=home.path
        )
        assert ran.code == 2
        assert str(port) in ran.stderr
    assert holder(home.lock) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_front_it_ends_at_a_signal(tmp_path: Path, number: int) -> None:
    with RealNode(tmp_path / "home") as node:
        assert node.process is not None
        os.kill(node.pid, number)
        assert node.process.wait(10) == 0
        assert holder(node.home.lock) is None


def test_a_killed_node_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    node = RealNode(tmp_path / "home")
    with node:
        first = node.peer_id
        node.kill()
        assert node.home.socket.exists()
        assert run_command("node", "status", home=node.home.path).code == 3
        node.start()
        assert node.peer_id == first
        assert node.run("node", "status")["peer_id"] == first


def test_a_start_waits_for_a_catalogue_that_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.store.mkdir()
    monkeypatch.setattr(background, "READY_SECONDS", 0.05)
    reading, writing = os.pipe()
    child = subprocess.Popen(["sleep", "600"])
    try:
        assert background._await_message(reading, child, home) == {}
        home.rebuilding.touch()
        waits = iter(range(5))

        def after_five_rounds(descriptor: int, deadline: float) -> dict[str, Any]:
            if next(waits, None) is None:
                return {"ready": {}}
            return {}

        monkeypatch.setattr(background, "_read_message", after_five_rounds)
        assert background._await_message(reading, child, home) == {"ready": {}}
    finally:
        child.kill()
        child.wait()
        os.close(reading)
        os.close(writing)


def test_that_file_is_the_stores(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.rebuilding == home.store / (CATALOGUE + TEMPORARY)
