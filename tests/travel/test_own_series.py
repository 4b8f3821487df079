"""A teacher's next version from a new laptop and from a restored backup, between nodes of the real kind."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import p2plearn
from p2plearn.config import Home
from tests.nodes import RealNode
from tests.travel.course_folders import made_file


def shows(node: RealNode, version: int) -> bool:
    """Whether search shows that version, within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if [row["version"] for row in node.run("search", "Umzug")["courses"]] == [version]:
            return True
        time.sleep(0.2)
    return False


def test_the_next_version_comes_from_a_new_laptop_or_a_restored_home(tmp_path: Path) -> None:
    folder = tmp_path / "course"
    folder.mkdir()
    made_file(folder / "a.bin", 3000)
    teacher, new = tmp_path / "teacher", tmp_path / "new"
    with RealNode(tmp_path / "learner") as learner:
        with RealNode(teacher, bootstrap=[learner.address]) as node:
            first = node.run("publish", folder, "--title", "Umzug", "--tag", "moved")
        shutil.copytree(teacher, tmp_path / "backup")
        with RealNode(teacher, bootstrap=[learner.address]) as node:
            (folder / "b.txt").write_text("two", "utf-8")
            second = node.run("publish", folder, "--title", "Umzug")
            assert shows(learner, 2)
            assert learner.run("get", second["course"], "-o", tmp_path / "learned")["complete"]

        # Nothing but the author's key goes to the new laptop.
        Home(new).keys.mkdir(mode=0o700, parents=True)
        shutil.copy(Home(teacher).author_key, Home(new).author_key)
        with RealNode(new, bootstrap=[learner.address]) as node:
            node.run("get", second["course"], "-o", tmp_path / "out")
            same = node.run("publish", tmp_path / "out", "--title", "Umzug")
            assert (same["course"], same["new"]) == (second["course"], False)
            (tmp_path / "out" / "c.txt").write_text("three", "utf-8")
            third = node.run("publish", tmp_path / "out", "--title", "Umzug", "--public")
            assert third["version"] == 3
            assert shows(learner, 3)
            assert learner.run("get", third["course"], "--manifest-only")["tags"] == ["moved"]

        # The old one, from a backup of the first version: it learns of the third by the catalogue alone.
        shutil.rmtree(teacher)
        shutil.copytree(tmp_path / "backup", teacher)
        with RealNode(teacher, bootstrap=[learner.address]) as node:
            assert shows(node, 3)
            (folder / "b.txt").write_text("four", "utf-8")
            fourth = node.run("publish", folder, "--title", "Umzug")
            assert (fourth["version"], first["version"]) == (4, 1)
            assert third["course"] in str(fourth["warnings"])
            assert shows(learner, 4)


def test_a_restored_home_asks_before_it_numbers(tmp_path: Path) -> None:
    """Nodes exchange nothing by themselves here, so what a publish knows it has asked for."""
    paths = (Path(__file__).parent / "unmet", Path(p2plearn.__file__).parents[1])
    env = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    folder, teacher = tmp_path / "course", tmp_path / "teacher"
    folder.mkdir()
    (folder / "a.txt").write_text("one", "utf-8")
    with RealNode(tmp_path / "learner", env=env) as learner:
        with RealNode(teacher) as alone:  # with nobody to ask
            assert alone.run("publish", folder, "--title", "Umzug")["version"] == 1
        shutil.copytree(teacher, tmp_path / "backup")
        with RealNode(teacher, bootstrap=[learner.address], env=env) as node:
            node.wait_until("peers", 1)
            (folder / "a.txt").write_text("two", "utf-8")
            second = node.run("publish", folder, "--title", "Umzug")
            assert second["version"] == 2
            assert shows(learner, 2)
        shutil.rmtree(teacher)
        shutil.copytree(tmp_path / "backup", teacher)
        with RealNode(teacher, bootstrap=[learner.address], env=env) as node:
            node.wait_until("peers", 1)
            (folder / "a.txt").write_text("another two", "utf-8")
            third = node.run("publish", folder, "--title", "Umzug")
            assert third["version"] == 3
            assert second["course"] in str(third["warnings"])
