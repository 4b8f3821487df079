"""The doctor on machines that really can't see each other: two network namespaces on one cable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2plearn.config import Home
from p2plearn.doctor.collect import key_problems
from p2plearn.identity import load_or_create
from p2plearn.membership import join as join_group
from p2plearn.membership import new_group
from tests.namespaces import ip, join, namespaces
from tests.nodes import command, environment, run_command
from tests.wires import needs_ipv6

SECONDS = 120.0

HOLD_4017 = """
import socket, sys
with socket.create_server(("", 4017)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.78.0.1 and 10.78.0.2, joined by a cable; no way to anywhere else."""
    with namespaces("a", "b") as (one, other):
        join(one, "10.78.0.1/24", other, "10.78.0.2/24")
        yield one, other


def run(where: str, home: Path, *words: object, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        ["ip", "netns", "exec", where, *command(*words, "--json", home=home)],
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
        env=environment(),
    )
    assert done.returncode == code, done.stdout + done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def graded(answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["check"]: (each["grade"], each["words"]) for each in answer["findings"]}


def test_two_machines_on_one_cable(tmp_path: Path, cable: tuple[str, str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    try:
        address = run(cable[1], there, "node", "start", "--detach")["addresses"][0]
        assert address.startswith("/ip4/10.78.0.2/tcp/")

        def doctor(target: str, code: int = 1) -> str:
            return str(graded(run(cable[0], here, "doctor", target, code=code))["reach"][1])

        # All is well, and the other is heard on the LAN.
        assert "can see each other" in doctor(address, 0)
        deadline = time.monotonic() + 60
        while (found := graded(run(cable[0], here, "doctor", code=1)))["lan"][0] != "good":
            assert time.monotonic() < deadline, found["lan"]
        assert found["lan"] == ("good", "1 other node answers on the LAN.")
        assert found["network"][0] == "note"
        assert "no way out" in found["network"][1]
        assert found["node"][0] == "bad"
        # A wrong port, a network there is no route to, and a machine that isn't there (or is kept from us).
        assert "nothing listens" in doctor("10.78.0.2:9")
        assert "no route" in doctor("/ip4/192.0.2.1/tcp/4017")
        assert "not even its network card" in doctor("10.78.0.77:4017")
        # What comes from here is dropped there, as a firewall drops it.
        ip("-n", cable[1], "route", "add", "blackhole", "10.78.0.1/32")
        assert "firewall drops" in doctor(address)
        # A clock that went back: what the node wrote before is in the future now.
        there_files = [each for each in there.iterdir() if each.is_file()]
        for file in there_files:
            os.utime(file, (file.stat().st_mtime + 7200,) * 2)
        assert graded(run(cable[1], there, "doctor", code=1))["clock"][0] == "bad"
    finally:
        run(cable[1], there, "node", "stop")


def test_a_node_that_others_cannot_find_is_told_why(tmp_path: Path, cable: tuple[str, str]) -> None:
    where, home = cable[0], tmp_path / "home"
    program = subprocess.Popen(
        ["ip", "netns", "exec", where, sys.executable, "-c", HOLD_4017], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"held\n"
        try:
            run(where, home, "node", "start", "--detach", "--no-mdns")
            found = graded(run(where, home, "doctor", code=1))
            # Its port went to another program before; and it was told not to look at the LAN.
            assert found["port"][0] == "note"
            assert "4017 was another program's" in found["port"][1]
            assert found["lan"][0] == "note"
            assert "switched off" in found["lan"][1]
            assert "listen" not in found
        finally:
            run(where, home, "node", "stop")
            program.communicate()
    # Where only this machine hears it, and with a key that others can read.
    run(where, home, "node", "start", "--detach", "--listen", "/ip4/127.0.0.1/tcp/4017")
    try:
        key = Home(home).author_key
        key.chmod(0o644)
        found = graded(run(where, home, "doctor", code=1))
        assert "Nobody else can call" in found["listen"][1]
        assert "port" not in found
        assert found["lan"][0] == "note"
        assert str(key) in found["home"][1]
    finally:
        run(where, home, "node", "stop")


@pytest.mark.parametrize("name", ["peer.key", "author.key", "network.key"])
def test_a_key_that_a_start_would_refuse_is_named(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    join_group(home, new_group("class"), replace=False)
    for key in (home.peer_key, home.author_key):
        load_or_create(key)
    assert key_problems(home) == ()
    key = home.keys / name
    key.chmod(0o640)
    [(words, todo)] = key_problems(home)
    assert "open to others" in words
    assert todo.endswith(f"chmod 600 {key}")
    # The node that would not start says the same.
    assert words in run_command("node", "start", home=home.path).stderr


@pytest.mark.parametrize("name", ["peer.key", "author.key"])
def test_a_key_that_rotted_is_named(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    load_or_create(home.peer_key)
    load_or_create(home.author_key)
    key = home.keys / name
    load_or_create(tmp_path / "other" / name)
    key.write_bytes((tmp_path / "other" / name).read_bytes())
    [(words, todo)] = key_problems(home)
    assert "one of the two is damaged" in words
    assert "backup" in todo
    assert words in run_command("node", "start", home=home.path).stderr


def test_no_network_at_all(tmp_path: Path, cable: tuple[str, str]) -> None:
    for name in cable:
        ip("-n", name, "addr", "flush", "scope", "global")
    found = graded(run(cable[0], tmp_path / "home", "doctor", code=1))
    assert found["network"][0] in {"bad", "note"}  # fe80:… stays on some kernels
    # Without any address there is nothing to be said of the LAN; by fe80:… it can be asked.
    deadline = time.monotonic() + 60
    while found.get("lan", ("note", ""))[0] != "note":  # (as long as the system tries whether fe80:… is free)
        assert time.monotonic() < deadline, found["lan"]
        found = graded(run(cable[0], tmp_path / "home", "doctor", code=1))


@needs_ipv6
def test_on_a_cable_with_ipv6_alone_the_other_is_heard(tmp_path: Path) -> None:
    with namespaces("a", "b") as (one, other):
        join(one, "fd00:66::1/64", other, "fd00:66::2/64")
        home = tmp_path / "there"
        run(other, home, "node", "start", "--detach")
        try:
            deadline = time.monotonic() + 60
            while (found := graded(run(one, tmp_path / "here", "doctor", code=1)))["lan"][0] != "good":
                assert time.monotonic() < deadline, found["lan"]
            assert found["lan"][1] == "1 other node answers on the LAN."
        finally:
            run(other, home, "node", "stop")
