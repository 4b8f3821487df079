"""``export`` and ``import`` at the command line: what they print, and their exit codes."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Ran
from pocket_node import PocketArchives, PocketNode, running

from p2plearn.cli import main
from p2plearn.commands import archive
from p2plearn.errors import P2plearnError
from p2plearn.operations import ImportRequest, ImportResult, Report

Run = Callable[..., Ran]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PocketNode]:
    with running(tmp_path / "home") as (pocket, _):
        yield pocket


@pytest.fixture
def run(node: PocketNode, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def command(*words: object) -> Ran:
        capsys.readouterr()
        code = main(["--home", str(tmp_path / "home"), *map(str, words)])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return command


def test_an_export_into_a_pipe_names_the_users_own(run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("export", "ab" * 32, "-o", pipe, "--force").stdout == f"{pipe}\n"
        assert run("export", "ab" * 32, "-o", pipe, "--json").last["path"] == str(pipe)
    finally:
        os.close(reading)


def test_who_stops_reading_an_export_is_told_that_it_is_not_whole() -> None:
    (source, into), (reading, out) = os.pipe(), os.pipe()
    os.write(into, b"some of a file")
    os.close(reading)
    try:
        with pytest.raises(P2plearnError, match="stopped reading before its end"):
            archive._drain(source, out, threading.Event())
    finally:
        for each in (source, into, out):
            os.close(each)


class Carrying(PocketArchives):
    """Answers an import with ``result``."""

    result: ImportResult

    async def take_in(self, request: ImportRequest, report: Report) -> ImportResult:
        return self.result


def test_what_an_import_found_is_said_with_its_exit_code(run: Run, node: PocketNode, tmp_path: Path) -> None:
    file = tmp_path / "x.car"
    file.touch()
    carrying = Carrying()
    node.archives = carrying
    course = {"course": "ab" * 32, "title": "T", "version": 1, "state": "complete", "bytes": 10, "have_bytes": 10}
    for facts, words in (
        ({"stored": 10, "was_here": False}, "T: complete, 10 B of it new."),
        ({"stored": 0, "was_here": True}, "T: was here already."),
        ({"stored": 0, "was_here": False}, "T: is new here, and complete; all of its content was here already."),
    ):
        carrying.result = ImportResult("x", 100, 0, "", 0, 0, 0, True, 0.1, ({**course, **facts},))
        ran = run("import", file)
        assert (ran.code, ran.stderr) == (0, "")
        assert words in ran.stdout
    carrying.result = dataclasses.replace(carrying.result, warnings=("It goes on.",))
    ran = run("import", file)
    assert (ran.code, ran.stderr) == (0, "Warning: It goes on.\n")
    carrying.result = dataclasses.replace(carrying.result, warnings=(), problem="it ends in the middle")
    ran = run("import", file)
    assert ran.code == 6
    assert "Import another copy" in ran.stderr
