"""Two machines, a cable, no route, no internet, no configuration: they find each other and a course travels."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import join, namespaces
from tests.nodes import command, environment
from tests.travel.course_folders import assert_same, odd_folder


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a veth pair, with no route to anywhere else."""
    with namespaces("a", "b") as (one, other):
        join(one, "10.77.0.1/24", other, "10.77.0.2/24")
        yield one, other


def test_two_nodes_find_each_other_by_mdns_and_a_course_travels(tmp_path: Path, cable: tuple[str, str]) -> None:
    folder = odd_folder(tmp_path / "odd")

    def run(at: int, *words: object) -> dict[str, object]:
        done = subprocess.run(
            ["ip", "netns", "exec", cable[at], *command(*words, "--json", home=tmp_path / f"home{at}")],
            capture_output=True,
            encoding="utf-8",
            timeout=90,
            check=False,
            env=environment(),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        last: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return last

    try:
        for at in (0, 1):
            run(at, "node", "start", "--detach")
        course = run(0, "publish", folder)["course"]
        deadline = time.monotonic() + 30
        while not run(1, "node", "status")["peers"]:
            assert time.monotonic() < deadline, "the two did not find each other"
            time.sleep(0.2)
        run(1, "get", course, "-o", tmp_path / "out")
        assert_same(folder, tmp_path / "out")
    finally:
        for at in (0, 1):
            run(at, "node", "stop")
