"""A get that is interrupted in any way goes on where it was."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.nodes import RealNode
from tests.travel.course_folders import assert_same, made_file

SIZE = 256 << 20
IN_FLIGHT = 24 << 20
"""What may be fetched twice: a peer's window of 16 MiB and what waits to be written."""


def _get_until(node: RealNode, course: str, source: str, out: Path, least: int) -> tuple[int, int]:
    """Begin a get and kill the node once ``least`` bytes are here; what was here at its start and at its end."""
    getting = node.begin("get", course, "--from", source, "-o", out)
    assert getting.stdout is not None
    seen: list[int] = []
    for line in getting.stdout:
        event = json.loads(line)
        if event["event"] != "progress" or event["stage"] not in ("finding", "reserving", "fetching"):
            break
        if event["stage"] == "fetching":
            seen.append(event["bytes"])
            if event["bytes"] >= least:
                break
    node.kill()
    getting.communicate(timeout=30)
    return (seen[0], seen[-1]) if seen else (SIZE, SIZE)  # too quick to be caught: all of it was here


@pytest.mark.timeout(300)
def test_killed_at_each_tenth_it_ends_byte_identical_and_fetches_little_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    made_file(source / "course.bin", SIZE)
    with RealNode(tmp_path / "a") as a:
        course = a.run("publish", source, timeout=120)["course"]
        b = RealNode(tmp_path / "b")
        before = 0
        for tenth in range(1, 10):
            b.start()
            kept, reached = _get_until(b, course, a.address, tmp_path / "out", SIZE * tenth // 10)
            again = max(before - kept, 0)
            with capsys.disabled():
                print(f"killed at {before >> 20:4d} MiB; {kept >> 20:4d} MiB kept, {again >> 10:6d} KiB come again")
            assert again <= IN_FLIGHT
            before = reached
        b.start()
        try:
            b.run("get", course, "--from", a.address, "-o", tmp_path / "out", timeout=120)
            assert_same(source, tmp_path / "out")
            assert not list(tmp_path.glob(".out*")), "a stale part directory was left behind"
        finally:
            b.stop()


def test_ctrl_c_keeps_what_was_fetched(tmp_path: Path) -> None:
    source = tmp_path / "source"
    made_file(source / "course.bin", 64 << 20)
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b") as b:
        course = a.run("publish", source)["course"]
        getting = b.begin("get", course, "--from", a.address, "-o", tmp_path / "out")
        assert getting.stdout is not None
        for line in getting.stdout:
            event = json.loads(line)
            if event["event"] != "progress" or event["bytes"] > 4 << 20:
                break
        getting.send_signal(signal.SIGINT)
        _, said = getting.communicate(timeout=30)
        if event["event"] == "progress":  # it had not finished first
            assert getting.returncode == 130
            assert "goes on" in said
            assert not (tmp_path / "out").exists()
        deadline = time.monotonic() + 10
        while b.run("node", "status")["fetching"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        got = b.run("get", course, "--from", a.address, "-o", tmp_path / "out")
        assert got["fetched_bytes"] < 64 << 20
        assert_same(source, tmp_path / "out")
