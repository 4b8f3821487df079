"""``get --no-copy`` and folders with real nodes: what lies in a person's files is kept, given on, found again."""

from __future__ import annotations

from pathlib import Path

from tests.nodes import RealNode, run_command
from tests.stores import noise, read_tree, write_tree

ONE = {
    "same.bin": noise(1_500_000, 1),
    "part.bin": noise(1_500_000, 2) + noise(500_000, 3),
    "old.bin": noise(500_000, 4),
}
TWO = {"same.bin": ONE["same.bin"], "part.bin": noise(1_500_000, 2) + noise(500_000, 5), "new.bin": ONE["old.bin"]}


def test_a_new_version_over_its_folder_is_whole_and_given_on(tmp_path: Path) -> None:
    source, out = tmp_path / "course", tmp_path / "out"
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        first = a.run("publish", write_tree(source, ONE), "--copies", "1")["course"]
        b.run("get", first, "--no-copy", "-o", out)
        (source / "old.bin").unlink()
        second = a.run("publish", write_tree(source, TWO), "--copies", "1")["course"]
        b.run("get", second, "--no-copy", "-o", out)
        assert read_tree(out) == TWO
        assert b.run("verify", second)["damaged"] == []
        assert {row["course"]: row["complete"] for row in b.run("list")["courses"]} == {second: True, first: False}
        assert b.run("get", second, "--no-copy", "-o", out)["fetched_bytes"] == 0
        address = b.address
        a.stop()
        with RealNode(tmp_path / "c", bootstrap=[address]) as c:
            c.run("get", second, "-o", tmp_path / "from b")
        assert read_tree(tmp_path / "from b") == TWO


def test_what_lies_in_the_folder_is_taken_from_there_when_nobody_has_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        course = a.run("publish", write_tree(tmp_path / "course", ONE), "--copies", "1")["course"]
        b.run("get", course, "-o", out)
        a.stop()

        def lose() -> None:
            for extent in (b.home.store / "extents").iterdir():
                extent.unlink()

        lose()
        ran = run_command("verify", "--repair", "--json", home=b.home.path)
        assert ran.code == 0, ran.stderr + b.log
        (mended,) = ran.last["repaired"]
        assert (mended["providers"], mended["found_bytes"]) == (0, sum(map(len, ONE.values())))
        lose()
        b.run("verify", code=6)
        got = b.run("get", course, "-o", out)
        assert (got["fetched_bytes"], got["found_bytes"]) == (0, sum(map(len, ONE.values())))
        assert b.run("verify")["damaged"] == []
