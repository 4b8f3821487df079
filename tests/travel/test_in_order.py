"""``get --in-order`` between real nodes: one learns with the first file while the last is still with the teacher."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import RealNode
from tests.travel.course_folders import assert_same

FILES = 24
SIZE = 192 << 10
SLOW = {"P2PLEARN_TRANSFER_UPLOAD_LIMIT": "64 KiB", "P2PLEARN_TRANSFER_LIMIT_LAN": "true"}
"""The first file takes three seconds and the last comes after 70: whoever watches may be late by a minute."""


def _first_files(node: RealNode, course: str, source: str, out: Path, *more: str) -> dict[str, Any]:
    """Begin a get and kill the node as soon as it says that files can be opened; what it said."""
    getting = node.begin("get", course, "--in-order", "--from", source, "-o", out, *more)
    assert getting.stdout is not None
    told: dict[str, Any] = {}
    for line in getting.stdout:
        told = json.loads(line)
        if told["event"] != "progress" or told["files_there"]:
            break
    node.kill()
    getting.communicate(timeout=60)
    return told


@pytest.mark.timeout(300)
@pytest.mark.parametrize("more", [(), ("--no-copy",)])
def test_the_first_file_can_be_opened_while_the_last_is_not_here(tmp_path: Path, more: tuple[str, ...]) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number:02}.bin").write_bytes(random.Random(number).randbytes(SIZE))
    with RealNode(tmp_path / "a", env=SLOW) as a:
        course = a.run("publish", source)["course"]
        b = RealNode(tmp_path / "b")
        b.start()
        try:
            told = _first_files(b, course, a.address, out, *more)
            assert told["event"] == "progress", told
            assert 0 < told["files_there"] < FILES
            there = sorted(path.name for path in out.glob("*.bin"))
            assert there[: told["files_there"]] == [f"{number:02}.bin" for number in range(told["files_there"])]
            assert all((out / name).read_bytes() == (source / name).read_bytes() for name in there)
            assert f"{FILES - 1:02}.bin" not in there
            kept = {name: (out / name).stat().st_ino for name in there}
            a.stop()
            a.env = {name: value for name, value in a.env.items() if name not in SLOW}
            a.start()
            b.start()
            got = b.run("get", course, "--in-order", "--from", a.address, "-o", out, *more, timeout=120)
            assert got["complete"]
            assert got["files"] == FILES
            assert got["written_files"] == FILES - len(there)
            assert {name: (out / name).stat().st_ino for name in there} == kept
            assert_same(source, out)
            assert b.run("verify", course)["damaged"] == []
            assert not list(tmp_path.glob(".out*"))
        finally:
            b.stop()
