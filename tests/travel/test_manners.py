"""Manners of real nodes: limits, the LAN left alone, a pause, the monthly cap."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import ip, join, namespaces
from tests.nodes import RealNode, command, environment, run_command

MIB = 1 << 20
SIZE = 4 * MIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "course"
    made.mkdir()
    for at in range(4):
        (made / f"{at}.bin").write_bytes(random.Random(at).randbytes(SIZE // 4))
    return made


def seconds_of_get(learner: RealNode, course: str, teacher: RealNode, out: Path) -> float:
    begun = time.monotonic()
    learner.run("get", course, "--from", teacher.address, "-o", out)
    return time.monotonic() - begun


@pytest.mark.parametrize("end", ["upload", "download"])
def test_a_limit_holds_where_the_lan_is_not_exempt(tmp_path: Path, folder: Path, end: str) -> None:
    env = {f"P2PLEARN_TRANSFER_{end.upper()}_LIMIT": "1 MiB", "P2PLEARN_TRANSFER_LIMIT_LAN": "true"}
    upload, download = (env, {}) if end == "upload" else ({}, env)
    with RealNode(tmp_path / "t", env=upload) as teacher, RealNode(tmp_path / "l", env=download) as learner:
        course = teacher.run("publish", folder)["course"]
        seconds = seconds_of_get(learner, course, teacher, tmp_path / "out")
        assert seconds >= 0.75 * SIZE / MIB
        assert (tmp_path / "out" / "3.bin").read_bytes() == (folder / "3.bin").read_bytes()
        limited = teacher if end == "upload" else learner
        status = limited.run("node", "status")
        assert status["limits"][end] == MIB
        assert "/s" in run_command("node", "status", home=limited.home.path).stdout
        moved = status["month"]
        assert moved["lan_sent"] + moved["lan_received"] > SIZE
        assert moved["wan_sent"] == moved["wan_received"] == 0


def test_by_default_the_lan_is_left_alone(tmp_path: Path, folder: Path) -> None:
    env = {
        "P2PLEARN_TRANSFER_UPLOAD_LIMIT": "16 KiB",
        "P2PLEARN_TRANSFER_DOWNLOAD_LIMIT": "16 KiB",
        "P2PLEARN_TRANSFER_MONTHLY_CAP": "1 KiB",
        "P2PLEARN_TRANSFER_METERED": "yes",
        "P2PLEARN_TRANSFER_ON_BATTERY": "yes",
    }
    with RealNode(tmp_path / "t", env=env) as teacher, RealNode(tmp_path / "l", env=env) as learner:
        course = teacher.run("publish", folder)["course"]
        assert seconds_of_get(learner, course, teacher, tmp_path / "out") < 60  # by the limits, over four minutes
        status = teacher.run("node", "status")
        assert status["power"] == {"on_battery": True, "metered": True}
        assert len(status["manners"]) == 2
        assert status["limits"]["cap_left"] == 1024


def test_pause_and_resume(tmp_path: Path, folder: Path) -> None:
    with RealNode(tmp_path / "t") as teacher, RealNode(tmp_path / "l") as learner:
        course = teacher.run("publish", folder)["course"]
        told = learner.run("node", "pause")
        assert (told["paused"], told["paused_until"]) == (True, None)
        learner.stop()
        learner.start()  # a restart ends no pause
        assert learner.run("node", "status")["paused"] is True
        assert "paused" in run_command("node", "status", home=learner.home.path).stdout
        get = learner.begin("get", course, "--from", teacher.address, "-o", tmp_path / "out")
        assert get.stdout is not None
        waited = next(line for line in get.stdout if "waiting_for" in line and "paused" in line)
        assert json.loads(waited)["waiting_for"].startswith("paused")
        assert learner.run("node", "resume")["paused"] is False
        said, problems = get.communicate(timeout=60)
        assert get.returncode == 0, said + problems
        assert (tmp_path / "out" / "0.bin").stat().st_size == SIZE // 4

        until = teacher.run("node", "pause", "--for", "1h")["paused_until"]
        assert 3500 < until - time.time() < 3700
        learner.run("remove", course)
        refused = learner.run(
            "get", course, "--from", teacher.address, "-o", tmp_path / "again", "--timeout", "3", code=5
        )
        assert "timed-out" in str(refused)
        teacher.run("node", "resume")
        seconds_of_get(learner, course, teacher, tmp_path / "again")


@pytest.mark.parametrize("end", ["keeper", "publisher"])
def test_a_pause_at_either_end_keeps_no_publish_waiting(tmp_path: Path, folder: Path, end: str) -> None:
    env = {"P2PLEARN_STORAGE_GIVE": "1 GiB"}
    with (
        RealNode(tmp_path / "t", env=env) as teacher,
        RealNode(tmp_path / "k", bootstrap=[teacher.address], env=env) as keeper,
    ):
        keeper.wait_until("peers", 1)
        (keeper if end == "keeper" else teacher).run("node", "pause")
        assert teacher.run("publish", folder, timeout=30)["copies"] == 1


def test_a_used_up_cap_is_told_in_words(tmp_path: Path, folder: Path) -> None:
    env = {"P2PLEARN_TRANSFER_MONTHLY_CAP": "1 MiB", "P2PLEARN_TRANSFER_LIMIT_LAN": "true"}
    with RealNode(tmp_path / "t") as teacher, RealNode(tmp_path / "l", env=env) as learner:
        course = teacher.run("publish", folder)["course"]
        told = learner.run("get", course, "--from", teacher.address, "-o", tmp_path / "out", code=8)
        assert "monthly data cap of 1 MiB is used up" in str(told)
        learner.stop()
        learner.start()  # what was counted outlives the node
        assert learner.run("node", "status")["limits"]["cap_left"] == 0
        learner.env = {}
        learner.stop()
        learner.start()
        seconds_of_get(learner, course, teacher, tmp_path / "out")


@pytest.fixture
def street() -> Iterator[tuple[str, str, str]]:
    """Three network namespaces: a home with two machines (10.77.0.1 and .2), and one a router away (10.99.0.9)."""
    with namespaces("h", "r", "a") as (home, room, away):
        join(home, "10.77.0.1/24", room, "10.77.0.2/24")
        near, far = join(home, "10.98.0.1/32", away, "10.99.0.9/32")
        ip("-n", home, "route", "add", "10.99.0.9/32", "dev", near, "src", "10.98.0.1")
        ip("-n", away, "route", "add", "10.98.0.1/32", "dev", far)
        yield home, room, away


def test_at_the_cap_only_the_lan_goes_on(tmp_path: Path, folder: Path, street: tuple[str, str, str]) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "0.bin").write_bytes(random.Random(99).randbytes(SIZE // 4))

    def run(at: int, *words: object, code: int = 0, **env: str) -> dict[str, object]:
        done = subprocess.run(
            ["ip", "netns", "exec", street[at], *command(*words, "--json", home=tmp_path / f"home{at}")],
            capture_output=True,
            encoding="utf-8",
            timeout=90,
            check=False,
            env=environment(**env),
        )
        assert done.returncode == code, done.stdout + done.stderr
        last: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return last

    def start(at: int, address: str, **env: str) -> str:
        facts = run(at, "node", "start", "--detach", "--no-mdns", "--listen", f"/ip4/{address}/tcp/4017", **env)
        return str(facts["addresses"][0])

    try:
        mine = start(0, "0.0.0.0", P2PLEARN_TRANSFER_MONTHLY_CAP="3 MiB")
        near, far = start(1, "10.77.0.2"), start(2, "10.99.0.9")
        first, second = run(2, "publish", folder)["course"], run(1, "publish", other)["course"]
        told = run(0, "get", first, "--from", far, "-o", tmp_path / "first", code=8)
        assert "monthly data cap of 3 MiB is used up" in str(told)
        run(0, "get", second, "--from", near, "-o", tmp_path / "second")
        assert (tmp_path / "second" / "0.bin").read_bytes() == (other / "0.bin").read_bytes()
        moved = run(0, "node", "status")["month"]
        assert 3 * MIB <= moved["wan_received"] < SIZE * 1.1
        assert moved["lan_received"] > 0
        # And the other way: the neighbour is served, the one far away is put off.
        who = mine.rpartition("/")[2]
        for at in (1, 2):
            run(at, "node", "stop")
            shutil.rmtree(tmp_path / f"home{at}")
        start(1, "10.77.0.2"), start(2, "10.99.0.9")
        run(1, "get", second, "--from", f"/ip4/10.77.0.1/tcp/4017/p2p/{who}", "-o", tmp_path / "third")
        there = f"/ip4/10.98.0.1/tcp/4017/p2p/{who}"
        put_off = run(2, "get", second, "--from", there, "-o", tmp_path / "fourth", "--timeout", "4", code=5)
        assert "timed-out" in str(put_off)
    finally:
        for at in (0, 1, 2):
            subprocess.run(
                ["ip", "netns", "exec", street[at], *command("node", "stop", home=tmp_path / f"home{at}")],
                check=False,
                capture_output=True,
                env=environment(),
            )
