"""The demo shows what it claims to, with real nodes, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from nodes import command, environment, run_command

from p2plearn import demo
from p2plearn.errors import IntegrityProblem


def alive(marker: str) -> list[int]:
    """Processes with ``marker`` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry.name))
    return found


def gone(marker: str, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(marker)


def test_the_sample_course_travels(tmp_path: Path) -> None:
    ran = run_command("demo", "--json", TMPDIR=str(tmp_path), timeout=110)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.last["identical"] is True
    assert ran.last["nodes"] == 3
    assert ran.last["title"] == "Sharing a course with p2plearn"
    assert ran.last["compared_bytes"] == 2 * ran.last["bytes"]
    assert sum("process" in event.get("words", "") for event in ran.events) == 3
    assert list(tmp_path.iterdir()) == []
    assert gone(str(tmp_path))


def test_a_course_of_ones_own_travels(tmp_path: Path) -> None:
    course = tmp_path / "课程"
    (course / "leer").mkdir(parents=True)
    (course / "empty").touch()
    (course / "big").write_bytes(os.urandom(3_000_000))
    (tmp_path / "t").mkdir()
    ran = run_command("demo", course, TMPDIR=str(tmp_path / "t"), timeout=110)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "all the same" in ran.stdout
    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_interrupted_it_leaves_no_process(tmp_path: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        command("demo"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(TMPDIR=str(tmp_path)),
        encoding="utf-8",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while "Node 2 is" not in process.stdout.readline():
            assert process.poll() is None
        assert alive(str(tmp_path))
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == code
    assert gone(str(tmp_path))
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def test_a_single_wrong_byte_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "a").mkdir(parents=True)
        (root / "a" / "b").write_bytes(b"x" * 100)
    assert demo._compare(one, other) == 100
    (other / "a" / "b").write_bytes(b"x" * 99 + b"y")
    with pytest.raises(IntegrityProblem):
        demo._compare(one, other)
    (other / "a" / "b").write_bytes(b"x" * 100)
    (other / "c").mkdir()
    with pytest.raises(IntegrityProblem):
        demo._compare(one, other)


def test_the_sample_course_is_whole_and_says_what_it_is() -> None:
    files = [path for path in demo.SAMPLE_COURSE.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".md", ".csv", ".svg", ".txt"}
    assert sum(path.stat().st_size for path in files) < 100_000
    readme = (demo.SAMPLE_COURSE / "README.md").read_text(encoding="utf-8")
    for path in files:
        if path.suffix in {".md", ".csv", ".svg"} and path.name != "README.md":
            assert path.relative_to(demo.SAMPLE_COURSE).as_posix() in readme
