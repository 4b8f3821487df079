"""The command line: its words, its JSON, its exit codes, its speed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from nodes import Ran, command, environment, run_command
from pocket_node import PEER_ID, PocketNode, running

from p2plearn import __version__, errors
from p2plearn.cli import EXIT_CODES, cli, main
from p2plearn.commands.assembly import ROWS, SECTIONS
from p2plearn.commands.scope import MOST_SHORT
from p2plearn.config import SETTINGS, Home
from p2plearn.lock import NodeLock
from p2plearn.operations import PublishResult
from p2plearn.terminal import width


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[PocketNode, Home]]:
    with running(tmp_path / "home") as pair:
        yield pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Python für alle"
    (folder / "lessons").mkdir(parents=True)
    (folder / "README.md").write_text("# Python\n")
    (folder / "lessons" / "一.md").write_text("你好\n")
    return folder


class Shell:
    """Runs commands in this process, for one home."""

    def __init__(self, capsys: pytest.CaptureFixture[str], home: Path) -> None:
        self.capsys, self.home = capsys, home

    def __call__(self, *arguments: object) -> Ran:
        self.capsys.readouterr()
        code = main(["--home", str(self.home), *map(str, arguments)])
        out, err = self.capsys.readouterr()
        return Ran(code, out, err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in list(os.environ):
        if name.startswith("P2PLEARN_"):
            monkeypatch.delenv(name)
    return Shell(capsys, tmp_path / "home")


# -- quick, and complete ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["get", "--help"], ["paths"], ["config", "show"]])
def test_what_needs_no_node_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    probe = (
        "import sys; from p2plearn.cli import main; code = main(sys.argv[1:]);"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, "--home", str(tmp_path / "home"), *arguments],
        capture_output=True, encoding="utf-8", check=True, env=environment(),
    )  # fmt: skip
    for heavy in ("trio", "libp2p", "cryptography", "rich", "h11", "http", "multiaddr", "msgpack", "ssl", "sqlite3"):
        assert f"'{heavy}'" not in done.stderr, heavy
    assert not (tmp_path / "home").exists()


def test_help_loads_nothing_that_takes_its_time() -> None:
    """What makes it quick; the seconds are in the benchmarks, where a busy machine fails nobody."""
    code = (
        "import sys; from p2plearn.cli import main; main(['--help']);"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"libp2p", "trio", "cryptography", "rich", "msgpack", "h11", "sqlite3", "asyncio", "zeroconf"}
    assert "click" in loaded


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        assert each is not None
        if isinstance(each, click.Group):
            yield from commands(each, (*prefix, name))
        else:
            yield (*prefix, name), each


def test_every_command_is_there_has_help_and_takes_the_common_options(run: Shell) -> None:
    found = dict(commands(cli))
    assert {" ".join(path) for path in found} == {
        "node start", "node stop", "node status", "node pause", "node resume", "node peers", "publish", "get", "list",
        "info", "verify", "remove", "paths", "config show", "demo", "completion", "node leave", "gc",
        "metrics", "doctor", "service print", "service install", "service remove",
        "search", "rate", "ratings", "ask", "answer", "comment", "edit",
        "withdraw", "accept", "moderate", "discussion", "trust add", "trust remove", "trust list", "profile", "mute",
        "block", "label", "subscribe", "plan", "export", "import", "invite", "join", "hidden",
    }  # fmt: skip
    for path, each in found.items():
        assert each.help
        shown = run(*path, "--help")
        assert shown.code == 0
        for option in ("--json", "--home", "--debug"):
            assert option in shown.stdout, path


def test_help_shows_of_each_command_what_it_says_of_itself(run: Shell) -> None:
    """The list is a table, so that it loads none of them; its words are theirs."""
    group = click.Group()
    for row in ROWS.values():
        found = row.load()
        assert found.name == row.name
        assert not found.hidden
        assert row.short == found.get_short_help_str(MOST_SHORT)
        assert row.commands.split() == (list(found.commands) if isinstance(found, click.Group) else [])
        group.add_command(found)
    assert sum(map(len, SECTIONS.values())) == len(ROWS)
    completed = {item.value: item.help for item in group.shell_complete(click.Context(group), "")}
    assert {item.value: item.help for item in cli.shell_complete(click.Context(cli), "")} == completed
    shown = " ".join(run("--help").stdout.split())
    for title, rows in SECTIONS.items():
        assert f"{title}: " + " ".join(f"{row.name} {row.short}" for row in rows) in shown


@pytest.mark.parametrize(
    ("arguments", "its"),
    [
        (["--help"], set()), (["lost"], set()), (["list"], {"courses"}), (["get", "ab" * 32], {"courses"}),
        (["node", "status"], {"node"}), (["search", "x"], {"people", "people_words"}),
    ],
)  # fmt: skip
def test_a_command_loads_its_own_module_and_none_that_takes_its_time(
    arguments: list[str], its: set[str], tmp_path: Path
) -> None:
    """One that asks the running node, too: what speaks to it needs neither ``http`` nor what comes with that."""
    probe = "import sys; from p2plearn.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", probe, "--home", str(tmp_path / "home"), *arguments],
        capture_output=True, encoding="utf-8", check=True, env=environment(),
    )  # fmt: skip
    loaded = set(done.stderr.splitlines()[-1].split())
    inside = {name.removeprefix("p2plearn.commands.") for name in loaded if name.startswith("p2plearn.commands.")}
    hinted = set() if "--help" in arguments else {"pasting"}  # each of the others ends with a hint
    assert inside == its | hinted | {"assembly", "scope", "usage"}
    assert not loaded & {"http", "ssl", "email", "subprocess", "sqlite3", "trio", "rich", "h11", "msgpack"}


def test_no_command_at_all_is_answered_with_help(run: Shell) -> None:
    assert main([]) == 0
    assert "Courses that travel" in run.capsys.readouterr().out
    assert run("node").code == 0
    assert run("--version").stdout.strip() == f"p2plearn {__version__}"
    for ran in (run("--version", "--json"), run("--json", "--version")):
        assert (ran.code, ran.stdout.count("\n"), ran.last["version"]) == (0, 1, __version__)


# -- without a node ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["node", "status"], ["node", "peers"], ["node", "pause"], ["node", "resume"],
        ["publish", "/"], ["get", "ab" * 32], ["list"],
        ["info", "ab" * 32], ["info", "abababab"], ["verify"], ["remove", "ab" * 32],
        ["export", "ab" * 32, "-o", "x.car"], ["import", "-"],
    ],
)  # fmt: skip
def test_without_a_node_the_command_that_starts_one_is_told(run: Shell, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 3
    assert ran.stdout == ""
    assert f"Start one: p2plearn --home {run.home} node start --detach" in ran.stderr
    ran = run(*arguments, "--json")
    assert ran.last["code"] == "no-node"
    assert ran.last["exit"] == ran.code == 3


def test_paths_say_where_everything_is(run: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = run("paths", "--json")
    assert ran.last["home"] == str(run.home)
    assert ran.last["home_source"] == "--home"
    assert ran.last["author_key"] == str(run.home / "keys" / "author.key")
    assert str(run.home / "config.toml") in run("paths").stdout
    monkeypatch.setenv("P2PLEARN_HOME", str(tmp_path / "other"))
    assert main(["paths", "--json"]) == 0
    assert json.loads(run.capsys.readouterr().out)["home"] == str(tmp_path / "other")


def test_config_shows_values_and_where_they_come_from(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    run.home.mkdir()
    (run.home / "config.toml").write_text('[storage]\nquota = "5 GiB"\n')
    monkeypatch.setenv("P2PLEARN_NETWORK_MDNS", "false")
    rows = {row["name"]: row for row in run("config", "show", "--json").last["settings"]}
    assert set(rows) == {row.name for row in SETTINGS}
    assert rows["storage.quota"]["value"] == 5 * 2**30
    assert rows["storage.quota"]["source"] == str(run.home / "config.toml")
    assert rows["network.mdns"]["source"] == "P2PLEARN_NETWORK_MDNS"
    assert rows["storage.min_free"]["source"] == "default"
    assert re.search(r"storage\.quota +5 GiB +" + re.escape(str(run.home)), run("config", "show").stdout)
    assert rows["network.mdns"]["reason"] in run("config", "show", "--reasons").stdout


def test_a_mistake_in_the_config_is_told_by_every_command_that_reads_it(run: Shell) -> None:
    run.home.mkdir()
    (run.home / "config.toml").write_text('[storage]\nqouta = "5 GiB"\n')
    for arguments in (["config", "show"], ["node", "start"], ["node", "start", "--detach"]):
        ran = run(*arguments)
        assert ran.code == 2
        assert "storage.qouta" in ran.stderr
        assert "'storage.quota'" in ran.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Shell, shell: str, tmp_path: Path) -> None:
    script = run("completion", shell)
    assert script.code == 0
    assert "_P2PLEARN_COMPLETE" in script.stdout
    completed = run_command(
        cwd=tmp_path, _P2PLEARN_COMPLETE=f"{shell}_complete", COMP_WORDS="p2plearn node st", COMP_CWORD="2"
    )
    if shell == "bash":
        assert {"plain,start", "plain,stop", "plain,status"} == set(completed.stdout.split())


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"], ["node", "nothing"], ["get"], ["get", "xyz"], ["get", "ab" * 31], ["publish"],
        ["publish", "/no/such/folder"], ["publish", "/", "--chunker", "rabin"], ["get", "ab" * 32, "--timeout", "soon"],
        ["info", "abc"], ["--nothing"], ["completion", "powershell"], ["get", "ab" * 32, "--timeout", "-1"],
    ],
)  # fmt: skip
def test_usage_problems_exit_2_in_words_and_in_json(
    node: tuple[PocketNode, Home], run: Shell, arguments: list[str]
) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("p2plearn: ")
    ran = run(*arguments, "--json")
    assert ran.code == 2
    assert {"schema", "event", "code", "message", "hint", "exit"} == set(ran.last)


# -- courses ----------------------------------------------------------------------------------------------------------


def test_publish_then_get_for_people(
    node: tuple[PocketNode, Home], run: Shell, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("publish", folder, "--title", "Python 一")
    assert ran.code == 0
    assert re.fullmatch("[0-9a-f]{64}\n", ran.stdout)
    assert "Published Python 一" in ran.stderr
    course = ran.stdout.strip()
    assert "already" in run("publish", folder, "--title", "Python 一").stderr
    monkeypatch.chdir(tmp_path)
    ran = run("get", course)
    assert ran.code == 0
    assert ran.stdout == f"{tmp_path / 'Python 一'}\n"
    assert "Fetched Python 一" in ran.stderr
    assert (tmp_path / "Python 一" / "lessons" / "一.md").read_text() == "你好\n"
    ran = run("get", course)
    assert ran.code == 8
    assert "other things" in ran.stderr
    inside = run("get", course, "--manifest-only")
    assert "lessons/一.md" in inside.stdout
    assert run("list").stdout.count(course[:12]) == 1
    assert "Python 一" in run("info", course[:8]).stdout
    assert "all good" in run("verify").stdout
    assert "Removed Python 一" in run("remove", course[:10]).stdout
    assert "No courses" in run("list").stdout


def test_publish_then_get_for_scripts(node: tuple[PocketNode, Home], run: Shell, folder: Path, tmp_path: Path) -> None:
    ran = run("publish", folder, "--json", "--tag", "a", "--tag", "b", "--license", "CC-BY-4.0")
    assert ran.code == 0
    assert {"course", "ipfs", "bytes", "files", "chunks", "copies"} <= set(ran.last)
    assert all(event["schema"] == 1 for event in ran.events)
    assert ran.last["event"] == "result"
    course = ran.last["course"]
    for name, ran in {
        "with -o": run("get", course, "-o", tmp_path / "a", "--json"),
        "link": run("--json", "get", f"p2plearn:{course}?from=/ip4/1.2.3.4/tcp/1/p2p/x", "-o", tmp_path / "b"),
    }.items():
        assert ran.code == 0, name
        assert {"course", "path", "bytes", "seconds", "providers"} <= set(ran.last)
        assert {event["event"] for event in ran.events[:-1]} <= {"progress"}
    assert run("get", course, "--manifest-only", "--json").last["entries"]
    (row,) = run("list", "--json").last["courses"]
    assert {"course", "title", "bytes", "complete", "why"} <= set(row)
    status = run("node", "status", "--json").last
    assert {"peer_id", "addresses", "peers", "courses", "uptime"} <= set(status)
    assert status["peer_id"] == PEER_ID
    assert run("node", "peers", "--json").last["peers"]
    assert run("info", course[:8], "--json").last["course"] == course
    assert run("verify", course[:8], "--json").last["damaged"] == []
    assert run("remove", course, "--json").last["freed"] > 0


def test_a_last_copy_is_removed_only_by_whoever_says_so(
    node: tuple[PocketNode, Home], run: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node[0].last_copy = True
    course = run("publish", folder).stdout.strip()
    ran = run("remove", course[:10])
    assert ran.code == 8
    assert "--yes" in ran.stderr
    assert run("remove", course, "--json").last["code"] == "last-copy"
    # On a terminal it asks.
    asked: list[str] = []

    def answers(yes: bool) -> None:
        def confirm(question: str, **_: object) -> bool:
            asked.append(question)
            return yes

        monkeypatch.setattr("click.confirm", confirm)

    with monkeypatch.context() as terminal:
        terminal.setattr("sys.stdin.isatty", lambda: True, raising=False)
        terminal.setattr("sys.stderr.isatty", lambda: True, raising=False)
        answers(False)
        assert run("remove", course).code == 8
        assert run("list").stdout.count(course[:12]) == 1
        answers(True)
        assert "Removed" in run("remove", course).stdout
    assert len(asked) == 2
    course = run("publish", folder).stdout.strip()
    assert "Removed" in run("remove", course, "--yes").stdout
    assert len(asked) == 2


def test_prefixes_must_be_long_enough_and_mean_one_course(
    node: tuple[PocketNode, Home], run: Shell, folder: Path
) -> None:
    course = run("publish", folder).stdout.strip()
    twin = course[:10] + "0" * 54
    node[0].kept[twin] = node[0].kept[course]
    assert run("info", course[:7]).code == 2
    ran = run("info", course[:9])
    assert ran.code == 2
    assert course in ran.stderr
    assert twin in ran.stderr
    assert run("info", course[:20].upper()).code == 0
    assert run("info", "0123456789").code == 2
    assert run("get", course[:20]).code == 2


def test_pause_and_resume_say_how_it_stands(node: tuple[PocketNode, Home], run: Shell) -> None:
    resume = f"p2plearn --home {run.home} node resume"
    assert run("node", "pause").stdout == f"Paused until `{resume}`: no course is served or fetched.\n"
    assert node[0].paused == {"paused": True, "paused_until": None}
    assert re.match(r"Paused until \d{4}-\d\d-\d\d \d\d:\d\d UTC, or until", run("node", "pause", "--for", "2h").stdout)
    assert run("node", "pause", "--for", "soon").code == 2
    for wrong in ("0s", "99999999h"):
        refused = run("node", "pause", "--for", wrong)
        assert refused.code == 2
        assert "at most 3,660 days; without --for it lasts until `p2plearn node resume`" in refused.stderr
    assert run("node", "resume").stdout == "Courses are served and fetched.\n"
    assert run("node", "resume", "--json").last["paused"] is False


def test_status_and_peers_are_tables(node: tuple[PocketNode, Home], run: Shell) -> None:
    status = run("node", "status").stdout
    assert re.search(rf"Node +{PEER_ID}\n", status)
    assert re.search(r"Keeps .*no quota", status)
    assert re.search(r"12D3KooWOther +/ip4", run("node", "peers").stdout)
    assert "\x1b" not in run("node", "peers").stdout


def test_damage_is_exit_6(node: tuple[PocketNode, Home], run: Shell) -> None:
    node[0].damaged = [{"course": "12", "title": "T\x1b[2J", "path": "a/b", "what": "bytes changed"}]
    ran = run("verify")
    assert ran.code == 6
    assert "T[2J: a/b: bytes changed" in ran.stdout
    ran = run("verify", "--json")
    assert ran.code == 6
    assert ran.last["damaged"] == node[0].damaged
    assert "1 damage found" in ran.stderr


def test_nobody_and_timeouts(tmp_path: Path, run: Shell, folder: Path) -> None:
    with running(run.home, slowly=1) as (_, _):
        assert run("get", "12" * 32, "-o", tmp_path / "x").code == 4
        course = run("publish", folder).stdout.strip()
        ran = run("get", course, "-o", tmp_path / "x", "--timeout", "0.2", "--json")
        assert ran.code == 5
        assert ran.last["code"] == "timed-out"


def test_a_title_cannot_touch_the_terminal_or_leave_the_folder(
    node: tuple[PocketNode, Home], run: Shell, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "../../\x1b]0;pwned\x07\u202eexe\x9b31m/.."
    course = run("publish", folder, "--title", evil).stdout.strip()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for ran in (run("list"), run("info", course), run("get", course), run("remove", course)):
        assert ran.code == 0
        assert not set(ran.stdout + ran.stderr) & set("\x1b\x07\x9b\u202e")
    (made,) = (tmp_path / "here").iterdir()
    assert not set(made.name) & set("/\x1b\x07\x9b\u202e")
    assert not made.name.startswith(".")


def test_paths_with_names_that_are_not_utf8_come_out_as_they_are(
    node: tuple[PocketNode, Home], run: Shell, folder: Path, tmp_path: Path
) -> None:
    course = run("publish", folder).stdout.strip()
    odd = os.fsencode(tmp_path) + b"/k\xf8n"
    done = subprocess.run(
        command("get", course, "-o", odd, home=run.home), stdout=subprocess.PIPE, env=environment(), check=True
    )
    assert done.stdout == odd + b"\n"
    assert os.path.isdir(odd)


# -- ending -----------------------------------------------------------------------------------------------------------


def test_interrupted_is_130_and_says_how_to_go_on(tmp_path: Path, run: Shell, folder: Path) -> None:
    with running(run.home) as (node, _):
        course = run("publish", folder).stdout.strip()
        node.slowly = 60
        with subprocess.Popen(
            command("get", course, "-o", tmp_path / "x", "--json", home=run.home),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment(),
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "progress"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "the same command goes on" in err
        assert json.loads(out.splitlines()[-1])["code"] == "interrupted"
        assert node.cancelled.wait(5)


def test_no_traceback_reaches_a_user_unless_asked_for(
    node: tuple[PocketNode, Home], run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("inner words")

    monkeypatch.setattr("p2plearn.client.NodeClient.courses", broken)
    ran = run("list")
    assert ran.code == 1
    assert "internal error" in ran.stderr
    assert "--debug" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Traceback" in run("list", "--debug").stderr
    ran = run("get", "00" * 32, "-o", "/nowhere")
    assert ran.code == 1
    assert "Internal error" in ran.stderr
    assert "secret" not in ran.stderr


def test_a_closed_pipe_ends_it_quietly(node: tuple[PocketNode, Home], run: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command("list", home=run.home), stdout=writing, stderr=subprocess.PIPE, encoding="utf-8", env=environment(),
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_exit_codes_are_those_of_the_readme() -> None:
    codes = {
        errors.UsageProblem: 2, errors.NoNode: 3, errors.NobodyHasIt: 4, errors.OutOfTime: 5,
        errors.IntegrityProblem: 6, errors.NoSpace: 7, errors.Refused: 8, errors.LeaveIncomplete: 9,
        errors.HomeGone: 10, errors.Interrupted: 130, errors.P2plearnError: 1, errors.StoreProblem: 1,
        errors.AlreadyRunning: 1,
    }  # fmt: skip
    for kind, code in codes.items():
        assert kind.exit_code == code
    for code in set(codes.values()):
        assert re.search(rf"\b{code} [a-z]", EXIT_CODES)


# -- stopping a node --------------------------------------------------------------------------------------------------


def test_stop_waits_until_the_node_is_down(run: Shell, tmp_path: Path) -> None:
    pocket = str(Path(__file__).parent / "pocket_node.py")
    with subprocess.Popen([sys.executable, pocket, str(run.home)], env=environment()) as process:
        while not (run.home / "api.sock").exists():
            time.sleep(0.02)
        ran = run("node", "stop", "--json")
        assert ran.code == 0
        assert ran.last["pid"] == process.pid
        assert ran.last["signalled"] is False
        assert process.wait(5) == 0
    assert run("node", "stop").code == 3


HOLD = """
import sys, time
from pathlib import Path
from p2plearn.lock import NodeLock
with NodeLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_stop_falls_back_to_a_signal(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2plearn.client._STARTING_SECONDS", 0.2)
    run.home.mkdir(mode=0o700)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(Home(run.home).lock)], stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ran = run("node", "stop")
        assert ran.code == 0
        assert "SIGTERM" in ran.stderr
        assert process.wait(5) == -signal.SIGTERM


def test_a_second_start_says_who_holds_the_home(run: Shell) -> None:
    run.home.mkdir(mode=0o700)
    with NodeLock(Home(run.home).lock):
        ran = run("node", "start", "--detach")
    assert ran.code == 1
    assert f"process {os.getpid()} holds it" in ran.stderr


# -- on a terminal ----------------------------------------------------------------------------------------------------


def on_a_terminal(arguments: list[str], columns: int = 80, **env: str) -> tuple[int, str]:
    """Run with stderr and stdout on a pseudo terminal; exit code and what appeared there."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env=environment(**{"TERM": "xterm", "COLUMNS": str(columns)} | env),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        readable, _, _ = select.select([ours], [], [], 30)
        assert readable, "nothing came for 30 s"
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the last writer is gone
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode("utf-8")


@pytest.mark.parametrize("columns", [80, 40, 20])
def test_a_terminal_gets_one_live_line_that_never_wraps(run: Shell, folder: Path, tmp_path: Path, columns: int) -> None:
    with running(run.home) as (node, _):
        course = run("publish", folder, "--title", "一门关于全宽字符的课程" * 3).stdout.strip()
        node.slowly = 0.6
        code, shown = on_a_terminal(command("get", course, "-o", tmp_path / "x", home=run.home), columns)
        assert code == 0
        assert "\x1b[" in shown
        frames = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame) for frame in shown.split("\x1b[2K")]
        drawn = [frame.strip("\r") for frame in frames if "Fetching" in frame]
        assert len(drawn) > 2
        assert all(width(frame.rstrip("\r\n")) <= columns for frame in drawn), drawn
        assert shown.count("\x1b[1A") <= 1  # it climbs only to clear its one line at the end


def test_no_colour_no_bar(run: Shell, folder: Path, tmp_path: Path) -> None:
    with running(run.home) as (node, _):
        course = run("publish", folder).stdout.strip()
        node.slowly = 0.3
        for setting in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            dest = tmp_path / next(iter(setting))
            code, shown = on_a_terminal(command("get", course, "-o", dest, home=run.home), **setting)
            assert code == 0
            assert "\x1b" not in shown


def test_results_made_of_lists_are_read_back_as_they_were() -> None:
    result = PublishResult("c", "i", "t", 1, 1, 1, 1, True, 1, 0.1, "l", ("w",))
    assert PublishResult.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_the_console_script_is_the_one_tested() -> None:
    project = Path(__file__).parent.parent / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["scripts"]["p2plearn"] == "p2plearn.__main__:start"
