"""What remove and gc say of room that the disk doesn't let go of: it is done all the same, and what comes later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pocket_node import running

from p2plearn.cli import main

WHY = "12.0 MiB of /x/extents/a.extent can't be freed now. The disk failed while compacting it: Input/output error."


def test_a_course_is_gone_also_when_its_room_comes_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, file = tmp_path / "home", tmp_path / "file"
    file.write_bytes(b"x")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["--home", str(home), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    with running(home) as (node, _):
        for as_json in ((), ("--json",)):
            node.left = ()
            course = run("publish", str(file))[1].split()[-1]
            assert run("gc")[0] == 0
            node.left = (WHY,)
            code, out, err = run("remove", course, *as_json)
            assert code == 0
            assert "again" not in out
            if as_json:
                assert json.loads(out)["left"] == [WHY]
            else:
                assert out == "Removed file: 0 B freed.\n"
                assert f"{WHY}\nIt is tried again by `p2plearn --home {home} gc`, and whenever something is" in err
                assert f"`p2plearn --home {home} verify` says what is harmed" in err
            assert run("remove", course)[0] == 2
        code, out, err = run("gc")
        assert (code, out) == (1, "Freed 0 B.\n")
        assert WHY in err
        code, out, _ = run("gc", "--json")
        assert (code, json.loads(out)["left"]) == (1, [WHY])
