"""``verify --repair`` with real nodes: what a disk harmed comes back from who has it, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.nodes import RealNode, run_command
from tests.stores import noise

FILES = {"a.bin": 3_000_000, "b/c.bin": 900_000, "d.txt": 10}


def folder_with(root: Path) -> Path:
    for number, (name, size) in enumerate(FILES.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(noise(size, number))
    return root


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0x10
    path.write_bytes(raw)


def the_extent(node: RealNode) -> Path:
    return max((node.home.store / "extents").iterdir(), key=lambda path: path.stat().st_size)


def test_each_kind_of_damage_is_healed_from_the_peer_that_has_it(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "course")
    out = tmp_path / "out"
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        course = a.run("publish", folder)["course"]
        b.run("get", course, "-o", out)
        # The checkout is the learner's, and harmed too: repairing leaves it alone, and offers.
        for name in FILES:
            (out / name).write_bytes(b"my notes")

        def mends(what: set[str], fetched_at_most: int) -> None:
            ran = run_command("verify", course[:12], "--repair", "--json", home=b.home.path)
            assert ran.code == 0, ran.stderr + b.log
            assert {each["what"] for each in ran.last["damaged"]} <= what
            assert ran.last["damaged"]
            assert ran.last["left"] == []
            (mended,) = ran.last["repaired"]
            assert (mended["course"], mended["providers"], mended["checkouts"]) == (course, 1, [str(out)])
            assert 0 < mended["bytes"] <= fetched_at_most
            assert f"p2plearn --home {b.home.path} get {course} -o {out}" in ran.stderr

        whole = sum(FILES.values())
        flip(the_extent(b), 1_000_000)
        mends({"its bytes don't have their hash"}, 1024 * 1024)
        with the_extent(b).open("r+b") as file:
            file.truncate(2_000_000)
        gone = "part of it is gone from this store"
        mends({"its file was cut short", "the disk can't read it, or its file was cut short", gone}, whole)
        for extent in (b.home.store / "extents").iterdir():
            extent.unlink()
        mends({gone}, whole)
        # The same found by a node that starts with it, and the index's file besides.
        b.stop()
        for extent in (b.home.store / "extents").iterdir():
            extent.unlink()
        flip(next((b.home.store / "courses").iterdir()), 700)
        b.start()
        ran = run_command("verify", "--repair", home=b.home.path)
        assert ran.code == 0, ran.stderr + b.log
        assert "the course itself: its index file is damaged or gone" in ran.stdout
        assert "Mended course: " in ran.stdout and "from 1 node." in ran.stdout
        assert b.run("verify")["damaged"] == []
        assert b.run("list")["courses"][0]["complete"] is True
        assert (out / "d.txt").read_bytes() == b"my notes"
        # What was repaired is true to its hashes where it counts: it comes out as it went in.
        shutil.rmtree(out)
        a.stop()
        b.run("get", course, "-o", out)
        assert {name: (out / name).read_bytes() for name in FILES} == {
            name: (folder / name).read_bytes() for name in FILES
        }


def test_with_nobody_to_ask_it_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    with RealNode(tmp_path / "a") as a:
        course = a.run("publish", folder_with(tmp_path / "course"))["course"]
        flip(the_extent(a), 1_000_000)
        ran = run_command("verify", "--repair", home=a.home.path)
        assert ran.code == 6
        assert "Still damaged: course: a.bin: its bytes don't have their hash. Nobody who has this" in ran.stdout
        assert "publish a course of your own again" in ran.stderr
        # Limited in time, and once more as a script would: it stays named until it is back.
        left = a.run("verify", course, "--repair", "--timeout", "0.1", code=6)["left"]
        assert [(each["path"], each["what"]) for each in left] == [("a.bin", "part of it is gone from this store")]
        a.run("publish", tmp_path / "course")
        assert a.run("verify", "--repair")["damaged"] == []
        assert run_command("verify", "--timeout", "3", home=a.home.path).code == 2


def test_a_course_that_nobody_has_is_mended_by_what_came_for_another(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "course")
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        course = a.run("publish", folder)["course"]
        b.run("get", course, "-o", tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
        # The same files as a course that only this node has: looked at first, for it is the newer one.
        own = b.run("publish", folder, "--title", "own", "--private", "--copies", "1")["course"]
        for extent in (b.home.store / "extents").iterdir():
            extent.unlink()
        ran = run_command("verify", "--repair", "--json", home=b.home.path)
        assert ran.code == 0, ran.stderr + b.log
        assert ran.last["left"] == []
        assert {each["course"] for each in ran.last["repaired"]} == {course, own}
        assert all(row["complete"] for row in b.run("list")["courses"])
