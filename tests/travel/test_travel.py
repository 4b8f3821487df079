"""A course travels between real nodes in processes of their own: the main promise, as a user would see it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.nodes import RealNode, run_command
from tests.travel.course_folders import DATES, assert_same, made_file, odd_folder, real_course


def test_both_dates_through_a_bootstrap_node_and_on_after_the_teacher_is_gone(tmp_path: Path) -> None:
    with (
        RealNode(tmp_path / "c") as c,
        RealNode(tmp_path / "a", bootstrap=[c.address]) as a,
        RealNode(tmp_path / "b", bootstrap=[c.address]) as b,
    ):
        courses = {}
        for date in DATES:
            published = a.run("publish", real_course(date))
            assert published["title"] == "Programming with Python"
            courses[date] = published["course"]
            got = b.run("get", published["course"], "-o", tmp_path / "b-out" / date)
            assert got["path"] == str(tmp_path / "b-out" / date)
            assert got["providers"] == 1
            assert_same(real_course(date), tmp_path / "b-out" / date)
        # The newer date moved only what it doesn't share with the older one.
        assert got["fetched_bytes"] < got["bytes"] / 2
        a.stop()
        with RealNode(tmp_path / "d", bootstrap=[c.address]) as d:
            for date, course in courses.items():
                d.run("get", course, "-o", tmp_path / "d-out" / date)
                assert_same(real_course(date), tmp_path / "d-out" / date)


def test_everything_that_a_folder_can_hold(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "odd")
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        published = a.run("publish", folder)
        assert published["title"] == "Odd things"
        again = a.run("publish", folder)
        assert (again["course"], again["new"]) == (published["course"], False)
        inside = b.run("get", published["course"], "--manifest-only")
        assert {entry["path"] for entry in inside["entries"]} >= {"empty", "课程/第一课.md"}
        some = b.run("get", published["course"], "--only", "*.md", "-o", tmp_path / "some")
        assert some["complete"] is False
        assert {path.suffix for path in (tmp_path / "some").rglob("*") if path.is_file()} == {".md"}
        b.run("get", published["course"], "-o", tmp_path / "out")
        assert_same(folder, tmp_path / "out")
        listed = b.run("list")["courses"]
        assert [(row["course"], row["complete"], row["why"]) for row in listed] == [
            (published["course"], True, "fetched")
        ]
        assert b.run("verify")["damaged"] == []


def test_one_file_and_its_link(tmp_path: Path) -> None:
    file = made_file(tmp_path / "lecture 1.mp4", 1_500_000)
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b") as b:
        published = a.run("publish", file, "--title", "Lecture")
        # The link names the teacher's address: no bootstrap, no LAN, no --from.
        b.run("get", published["link"], "-o", tmp_path / "out")
        assert (tmp_path / "out" / "lecture 1.mp4").read_bytes() == file.read_bytes()
        by_cid = b.run("info", published["course"])
        assert by_cid["bytes"] == 1_500_000


def test_a_second_get_into_the_same_folder_writes_only_what_differs_and_keeps_the_users_version(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "odd")
    with RealNode(tmp_path / "a") as a:
        course = a.run("publish", folder)["course"]
        a.run("get", course, "-o", tmp_path / "out")
        (tmp_path / "out" / "one").write_bytes(b"my notes")
        second = a.run("get", course, "-o", tmp_path / "out")
        assert_same(folder, tmp_path / "out")
        assert second["written_files"] == 1
        kept = list(Path(second["replaced_into"]).rglob("one"))
        assert [path.read_bytes() for path in kept] == [b"my notes"]
        other = tmp_path / "mine"
        other.mkdir()
        (other / "thesis.tex").write_text("years of work")
        a.run("get", course, "-o", other, code=8)
        assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_nobody_has_it(tmp_path: Path) -> None:
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        missing = hashlib.sha256(b"no such course").hexdigest()
        # A place where nothing can be written is told before anybody is asked.
        (tmp_path / "rf").touch()
        told = b.run("get", missing, "-o", tmp_path / "rf" / "sub", code=8)
        assert f"{tmp_path}/rf is a file, not a folder" in str(told)
        problem = b.run("get", missing, "-o", tmp_path / "out", code=4, timeout=60)
        assert "0 providers found" in str(problem)
        b.run("get", missing, "-o", tmp_path / "out", "--timeout", "1", code=5)
        assert not (tmp_path / "out").exists()


def test_a_mistyped_hash_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with RealNode(tmp_path / "a") as a:
        for wrong in ("abc", "g" * 64, "0" * 63, "0" * 65):
            ran = run_command("get", wrong, home=a.home.path)
            assert ran.code == 2
            assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_files(tmp_path: Path, size: int) -> None:
    file = made_file(tmp_path / "tiny.bin", size)
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b") as b:
        course = a.run("publish", file)["course"]
        b.run("get", course, "--from", a.address, "-o", tmp_path / "out")
        assert (tmp_path / "out" / "tiny.bin").stat().st_size == size
