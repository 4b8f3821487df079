"""The doctor on machines that really can't see each other: two network namespaces on one cable."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces import ip, join, namespaces
from tests.nodes import command, environment

SECONDS = 120.0


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
        assert found["lan"] == ("good", "1 other nodes answer on the LAN.")
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


def test_no_network_at_all(tmp_path: Path, cable: tuple[str, str]) -> None:
    for name in cable:
        ip("-n", name, "addr", "flush", "scope", "global")
    found = graded(run(cable[0], tmp_path / "home", "doctor", code=1))
    assert found["network"][0] in {"bad", "note"}  # fe80:… stays on some kernels
    assert found["lan"][0] == "bad"
