"""Courses on a stick: two nodes of the real kind that never meet, and a file that is carried between them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.nodes import RealNode, command, environment
from tests.travel.course_folders import assert_same, made_file, odd_folder


def test_two_nodes_that_never_met_converge_by_stick(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "course")
    stick = tmp_path / "stick.car"
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b") as b:
        first = a.run("publish", folder, "--title", "Odd", "--copies", 1)["course"]
        (folder / "more.txt").write_text("more", "utf-8")
        second = a.run("publish", folder, "--title", "Odd", "--copies", 1)["course"]
        question = a.run("ask", second, "Why?")["id"]
        a.run("rate", second, 5, "--review", "good")
        exported = a.run("export", second, "-o", stick)
        assert [row["course"] for row in exported["courses"]] == [first, second]
        assert a.run("export", second, "-o", stick, code=8)["code"] == "refused"

        imported = b.run("import", stick)
        assert [row["state"] for row in imported["courses"]] == ["complete", "complete"]
        b.run("get", second, "-o", tmp_path / "out")
        assert_same(folder, tmp_path / "out")
        b.run("answer", question, "Because.")
        b.run("rate", second, 4)
        b.run("profile", "--name", "B")
        assert b.run("search", "Odd")["courses"][0]["ratings"]["everyone"]["count"] == 2

        # Back, this time by pipes: standard output into standard input.
        out = subprocess.Popen(
            command("export", second[:10], "-o", "-", home=b.home.path), stdout=subprocess.PIPE, env=environment()
        )
        back = subprocess.run(
            command("import", "-", "--json", home=a.home.path),
            stdin=out.stdout, stdout=subprocess.PIPE, env=environment(), timeout=120, check=False,
        )  # fmt: skip
        assert out.stdout is not None
        out.stdout.close()
        assert (out.wait(60), back.returncode) == (0, 0)
        for what in (lambda node: node.run("node", "status")["people"]["digest"],
                     lambda node: node.run("discussion", second)["digest"]):  # fmt: skip
            assert what(a) == what(b)
        assert [t["text"] for t in a.run("discussion", second)["threads"][0]["replies"]] == ["Because."]
        assert not list(a.home.path.glob(".pipe-*"))


def test_named_pipes_and_those_of_a_shell_carry_it_too(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "course")
    stick, pipe = tmp_path / "stick.car", tmp_path / "pipe"
    os.mkfifo(pipe)
    with RealNode(tmp_path / "a") as a:
        course = a.run("publish", folder, "--copies", 1)["course"]
        a.run("export", course, "-o", stick)
        # Into a named pipe that nobody reads yet.
        out = a.begin("export", course, "-o", pipe)
        assert pipe.read_bytes()[:64] == stick.read_bytes()[:64]
        _, complaint = out.communicate(timeout=60)
        assert out.returncode == 0, complaint
    with RealNode(tmp_path / "b") as b:
        whole = shlex.join(map(str, command("import", "--json", home=b.home.path)))
        for words in (f"{whole} <(cat {stick})", f"{whole} /dev/fd/5 5< {stick}"):
            done = subprocess.run(
                ["bash", "-c", words], capture_output=True, env=environment(), timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout.splitlines()[-1])["courses"][0]["state"] == "complete"
        # From a named pipe into which nobody has written yet.
        back = b.begin("import", pipe)
        with contextlib.suppress(BrokenPipeError):
            pipe.write_bytes(stick.read_bytes())
        _, complaint = back.communicate(timeout=60)
        assert back.returncode == 0, complaint
        # What is no such file is refused, and its writer is let go.
        back = b.begin("import", pipe)
        with pytest.raises(BrokenPipeError):
            _write_without_end(pipe)
        back.communicate(timeout=60)
        assert back.returncode == 2
        assert not list(b.home.path.glob(".pipe-*"))


def test_a_killed_export_and_a_killed_import_go_on(tmp_path: Path) -> None:
    source = made_file(tmp_path / "large.bin", 48 << 20)
    stick = tmp_path / "stick.car"
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b") as b:
        course = a.run("publish", source, "--copies", 1)["course"]
        part = stick.with_name("stick.car.p2plearn-part")
        process = a.begin("export", course, "-o", stick)
        _wait(lambda: stick.exists() or (part.exists() and part.stat().st_size > 1 << 20))
        a.kill()
        process.communicate(timeout=60)
        a.start()
        a.run("export", course, "-o", stick, *(("--force",) if stick.exists() else ()))
        assert not part.exists()

        process = b.begin("import", stick)
        _wait(lambda: process.poll() is not None or any((tmp_path / "b" / "store" / "extents").iterdir()))
        b.kill()
        process.communicate(timeout=60)
        b.start()
        assert b.run("import", stick)["courses"][0]["state"] == "complete"
        b.run("get", course, "-o", tmp_path / "out")
        assert (tmp_path / "out" / "large.bin").read_bytes() == source.read_bytes()

        with stick.open("r+b") as file:
            file.truncate(20 << 20)
        b.run("remove", course, "--yes")
        cut = b.run("import", stick, code=6)
        assert cut["problem"]
        assert cut["courses"][0]["state"] == "incomplete"
        assert cut["courses"][0]["missing"] == ["large.bin"]
        assert 15 << 20 < cut["courses"][0]["have_bytes"] < 20 << 20
        stick.write_bytes(b"not a CAR")
        assert b.run("import", stick, code=2)["code"] == "usage"


def _write_without_end(pipe: Path) -> None:
    with pipe.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def _wait(until: object) -> None:
    deadline = time.monotonic() + 60
    while not until():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
