"""Two machines, a cable, no route, no internet, no configuration: they find each other and a course travels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import command, environment
from tests.travel.course_folders import assert_same, odd_folder


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a veth pair, with no route to anywhere else."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("needs Linux and iproute2 to make network namespaces")
    tag = uuid.uuid4().hex[:6]
    names = (f"p2pl-{tag}-a", f"p2pl-{tag}-b")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"may not make network namespaces: {error.stderr.decode().strip()}")
        ip("link", "add", f"v{tag}a", "netns", names[0], "type", "veth", "peer", "name", f"v{tag}b", "netns", names[1])
        for at, name in enumerate(names):
            device = f"v{tag}{'ab'[at]}"
            ip("-n", name, "addr", "add", f"10.77.0.{at + 1}/24", "dev", device)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


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
