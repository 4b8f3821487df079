"""What a mistake at the command line is answered with: what is wrong, and what to do instead, in our own words."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from p2plearn.cli import cli, main
from p2plearn.errors import did_you_mean

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command for a home without a node; the exit code, and what stderr had."""
    for name in list(os.environ):
        if name.startswith("P2PLEARN_"):
            monkeypatch.delenv(name)

    def run(*words: object) -> tuple[int, str]:
        code = main(["--home", str(tmp_path / "home"), *map(str, words)])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plan --nodes x --leave-rate 5%", "--nodes takes a whole number from 1 to 10,000,000.\n  Try: p2plearn plan"),
        ("plan --nodes 0 --leave-rate 5%", "--nodes takes a whole number from 1 to 10,000,000."),
        ("plan --leave-rate 5%", "--nodes is missing."),
        ("rate abcdabcd 9", "STARS takes a whole number from 1 to 5."),
        ("rate", "HASH is missing."),
        ("publish . --chunker rabin", "--chunker takes one of these words: fastcdc, fixed."),
        ("completion powershell", "SHELL takes one of these words: bash, zsh, fish."),
        ("get ab --timeout soon", "--timeout: 'soon' is no length of time; write it like 30s, 5 min, 2h or 1.5."),
        (
            "publish My Course",
            "That is more than this command takes: Course\n  A name or a text with spaces in it needs",
        ),
        ("list --jsn", "There is no option --jsn here.\n  Did you mean '--json'? Try: p2plearn list --help"),
        ("list --zzz", "There is no option --zzz here.\n  Try: p2plearn list --help"),
        ("publsh .", "There is no command 'publsh' here.\n  Did you mean 'publish'? Try: p2plearn --help"),
        ("peers", "There is no command 'peers' here.\n  Did you mean 'node peers'? Try: p2plearn --help"),
        ("stauts", "There is no command 'stauts' here.\n  Did you mean 'node status'? Try: p2plearn --help"),
        ("remov abcdabcd", "Did you mean 'remove'? Try: p2plearn --help"),
        ("zzz", "There is no command 'zzz' here.\n  Try: p2plearn --help"),
        ("--json", "A command is missing after p2plearn.\n  Such as: publish, get, list, info, verify, remove, gc"),
        (
            "node --json",
            "after p2plearn node.\n  Such as: start, stop, leave, status, pause, resume, peers. Try: ",
        ),
        ("trust ad", "There is no command 'ad' here.\n  Did you mean 'add'? Try: p2plearn trust --help"),
        ("info 3f9a", "'3f9a' is too short: give at least 8 digits of the hash.\n  `p2plearn --home "),
        ("ratings 3f9a", "'3f9a' is too short: give at least 8 digits of the hash."),
        ("info 3f9a…c1", "is no hex digit."),
        ("info 3f9a…c1", "the first 8 digits of its hash are enough."),
        ("export abcdabcd --all -o x.car", "--all is every course that is complete here, and 'abcdabcd' names one"),
        ("export -o x.car", "Name the courses to export, or say --all."),
        ("node start --listen foo", "“foo” is no address to listen on.\n  It takes an IP address of this machine and"),
        (
            "node start --bootstrap foo",
            "“foo” is no address of a node.\n  An address looks like /ip4/192.0.2.7/tcp/4017",
        ),
    ],
)
def test_it_is_said_what_is_taken_instead(say: Say, line: str, said: str) -> None:
    code, err = say(*line.split())
    assert code == 2
    assert err.startswith("p2plearn: ")
    assert said in err


@pytest.mark.parametrize("length", ["12 parsecs", "-1h", "1e400h", "nan"])
def test_a_length_of_time_that_is_none_is_told_how_to_write_one(say: Say, length: str) -> None:
    code, err = say("node", "pause", "--for", length)
    assert (code, f"--for: '{length}' is no length of time; write it like 30s" in err) == (2, True)


def test_a_pause_out_of_range_names_its_option(say: Say) -> None:
    assert "p2plearn: --for: a pause lasts more than 0 s" in say("node", "pause", "--for", "0")[1]


def test_an_option_without_its_value_is_told_how_it_is_written(say: Say) -> None:
    code, err = say("list", "--home")
    assert code == 2
    assert "--home takes a value after it, and there is none.\n  Write it as --home DIR." in err


def test_an_empty_home_is_not_the_usual_one(say: Say) -> None:
    assert say("--home", "", "list") == (
        2, "p2plearn: --home: an empty word is no folder.\n  Name one: --home DIR; or leave --home out.\n"
    )  # fmt: skip


def test_in_a_file_no_node_is_proposed(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    for words in (["list"], ["paths"], ["node", "start"]):
        code, err = say("--home", file, *words)
        assert (code, err) == (
            8, f"p2plearn: {file} is a file, not a folder: it can't be a home.\n  Choose a folder with --home DIR.\n"
        )  # fmt: skip


def test_whoever_named_the_home_is_given_commands_that_name_it(say: Say, tmp_path: Path) -> None:
    home = f"p2plearn --home {tmp_path}/home"
    assert f"`{home} list` shows" in say("export", "-o", "x.car")[1]
    assert f"`{home} invite --new NAME` makes a closed group" in say("invite")[1]
    err = say("invite", "--new", "School")[1]
    assert f"Start a node here ({home} node start --detach)" in err
    assert "Elsewhere: p2plearn join TEXT" in err


def test_an_empty_path_is_no_path(say: Say) -> None:
    assert say("publish", "") == (2, "p2plearn: PATH: an empty word is no path; . is the folder you are in.\n"
                                     "  Try: p2plearn publish --help\n")  # fmt: skip


def test_who_stops_a_node_is_not_told_to_start_one(say: Say, tmp_path: Path) -> None:
    code, err = say("node", "stop")
    assert code == 3
    assert err == f"p2plearn: No node is running for {tmp_path}/home.\n  There is nothing to stop.\n"
    # To hand over takes a node that runs.
    assert "Start one: p2plearn" in say("node", "leave")[1]


@pytest.mark.parametrize("command", ["publish", "demo", "import"])
def test_a_path_that_is_not_there_is_told_before_that_no_node_runs_and_where_it_goes_wrong(
    say: Say, tmp_path: Path, command: str
) -> None:
    (tmp_path / "courses").mkdir()
    (tmp_path / "courses" / "python").touch()
    code, err = say(command, tmp_path / "courses" / "pyhton" / "1.md")
    assert code == 2
    assert f"There is no {tmp_path}/courses/pyhton/1.md.\n  {tmp_path}/courses is there, but nothing in it is" in err
    assert "'pyhton'. Did you mean 'python'?" in err
    code, err = say(command, tmp_path / "courses" / "python" / "1.md")
    assert code == 2
    assert f"{tmp_path}/courses/python can't be looked into: Not a directory." in err


def _documented(group: click.Group) -> Iterator[str]:
    context = click.Context(group)
    for each in (group.get_command(context, name) for name in group.list_commands(context)):
        assert each is not None
        if isinstance(each, click.Group):
            yield from _documented(each)
        yield from (line.strip() for line in (each.help or "").splitlines() if line.strip().startswith("p2plearn "))


def test_the_examples_of_the_help_are_commands_that_are_understood() -> None:
    lines = list(_documented(cli))
    assert len(lines) >= 10
    for line in lines:
        group: click.Command = cli
        words = shlex.split(line)[1:]
        while isinstance(group, click.Group):
            _, found, words = group.resolve_command(click.Context(group), words)
            assert found is not None, line
            group = found
        group.make_context("", words)  # raises what in_our_words is for


def test_there_is_one_spelling_of_a_guess() -> None:
    assert did_you_mean("pyhton", ["perl", "python"]) == "Did you mean 'python'?"
    assert did_you_mean("pyhton", ["java"]) == ""
    assert did_you_mean("pyhton", []) == ""


@pytest.mark.parametrize("before", [None, "[Unit]\nDescription=an older one\n"])
def test_an_install_that_systemd_does_not_hear_of_leaves_nothing_behind(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    # In place of systemd's own, whose session this machine may or may not have: says what it says without one.
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unit = tmp_path / "config" / "systemd" / "user" / "p2plearn.service"
    if before is not None:
        unit.parent.mkdir(parents=True)
        unit.write_text(before)
    code, err = say("service", "install")
    assert code == 1
    assert "`systemctl --user daemon-reload` failed: Failed to connect to bus: No medium found." in err
    assert "Nothing was installed." in err
    assert "/home node start --detach" in err
    assert (unit.read_text() if unit.exists() else None) == before
    assert (tmp_path / "config").exists() == (before is not None)
    assert say("service", "install", "--no-start")[0] == 0
    assert "ExecStart=" in unit.read_text()
