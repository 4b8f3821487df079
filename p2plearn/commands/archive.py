"""Commands for where no network is: ``export`` into a file that is carried, ``import`` of one that was."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import os
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

import click

from p2plearn.commands.scope import Command, PathWord, Scope, held_course, pass_scope
from p2plearn.commands.usage import no_such_path
from p2plearn.errors import IntegrityProblem, NoSpace, P2plearnError, Refused, UsageProblem
from p2plearn.operations import ExportRequest, ImportRequest, ImportResult

if TYPE_CHECKING:
    from p2plearn.operations import ExportResult

T = TypeVar("T")

_PUMP_BYTES: Final = 256 * 1024
_PIPE_BYTES: Final = 1024 * 1024
_POLL_MS: Final = 100


@click.command(cls=Command)
@click.argument("hashes", metavar="HASH...", nargs=-1)
@click.option("-o", "--output", required=True, type=PathWord(path_type=Path, allow_dash=True), metavar="FILE",
              help="The file to write, such as courses.car (- for standard output).")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Every course that is complete here.")
@click.option("--only-these", is_flag=True, help="Without the other versions of these courses that are here.")
@click.option("--people", type=click.Choice(["all", "courses", "none"]), default="all", show_default=True,
              help="What people said: the whole catalogue and these courses' discussions, only what is about these "
                   "courses, or nothing.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@pass_scope
def export(
    scope: Scope, *, hashes: tuple[str, ...], output: Path, everything: bool, only_these: bool, people: str,
    force: bool,
) -> None:  # fmt: skip
    """Write courses into one CAR file, to be carried to where no network is.

    \b
    p2plearn export --all -o /media/stick/courses.car
    """
    from p2plearn import terminal, views

    if hashes and everything:
        raise UsageProblem(
            f"--all is every course that is complete here, and {hashes[0]!r} names one of them.",
            "Leave out one of the two: either name courses, or say --all.",
        )
    if not hashes and not everything:
        raise UsageProblem("Name the courses to export, or say --all.", "`p2plearn list` shows those that are here.")
    to_stdout = str(output) == "-"
    piped = to_stdout or _is_pipe(output)
    if to_stdout and scope.as_json:
        raise UsageProblem("With -o - standard output holds the file: --json has no place there.")
    if to_stdout and sys.stdout.isatty():
        raise UsageProblem("A CAR file is nothing for a terminal.", "Name a file (-o FILE.car), or pipe it on.")
    scope.interrupted = "Interrupted. What was written is kept: the same command goes on from there."
    client = scope.client()
    courses = tuple(dict.fromkeys(held_course(client, text) for text in hashes))

    def ask(path: str, display: terminal.Display) -> ExportResult:
        request = ExportRequest(path, courses, everything, not only_these, people, force)
        with display:
            return client.export(request, display.show)

    if piped:
        # Its thread may be left behind, a bar would take the cursor with it.
        quiet = terminal.JsonLines() if scope.as_json else terminal.RareLines("Exporting")
        with _pipe(scope) as (path, reading, _), _opened(output, sys.stdout, os.O_WRONLY) as out:
            result = _beside(lambda: ask(path, quiet), lambda done: _drain(reading, out, done))
        # The node wrote into a pipe of ours, which is gone by now.
        result = dataclasses.replace(result, path=str(output) if to_stdout else os.path.abspath(output))
    else:
        result = ask(os.path.abspath(output), terminal.display("Exporting", as_json=scope.as_json))
    if scope.as_json:
        scope.emit(result.as_json())
    else:
        terminal.note(views.exported(result))
        if not to_stdout:
            click.echo(result.path)


@click.command("import", cls=Command)
@click.argument("file", type=PathWord(path_type=Path, allow_dash=True))
@pass_scope
def import_(scope: Scope, *, file: Path) -> int:
    """Take in the courses, and what people said, of a file that `p2plearn export` wrote (- for standard input).

    \b
    p2plearn import /media/stick/courses.car
    """
    from p2plearn import terminal, views

    if str(file) != "-" and not os.path.lexists(file):
        raise no_such_path(file)  # known without a node, and of more use than that none runs
    scope.interrupted = "Interrupted. What was taken in is kept: the same command goes on from there."
    client = scope.client()

    def ask(path: str, display: terminal.Display) -> ImportResult:
        with display:
            return client.take_in(ImportRequest(path), display.show)

    if str(file) == "-" or _is_pipe(file):
        quiet = terminal.JsonLines() if scope.as_json else terminal.RareLines("Importing")
        with _pipe(scope) as (path, _, writing), _opened(file, sys.stdin, os.O_RDONLY) as source:
            result = _beside(lambda: ask(path, quiet), lambda done: _pour(source, writing, done))
        result = dataclasses.replace(result, path="-" if str(file) == "-" else os.path.abspath(file))
    else:
        result = ask(_name_for_node(file), terminal.display("Importing", as_json=scope.as_json))
    scope.emit(result.as_json()) if scope.as_json else click.echo(views.imported(result, said=scope.said))
    return _verdict(scope, result)


def _verdict(scope: Scope, result: ImportResult) -> int:
    """The exit code: the findings are the answer, also for a script, so they stay the last line."""
    from p2plearn.terminal import note, plain

    for warning in result.warnings:
        note(f"Warning: {plain(warning)}")
    states = {str(course.get("state")) for course in result.courses}
    if result.problem or result.damaged or states & {"incomplete", "absent"}:
        what = result.problem or "some of it is damaged"
        todo = "Import another copy of it, which goes on from there; or `p2plearn get HASH` where there is a network."
        note(f"p2plearn: the file is not whole: {what}. What was right is kept.\n  {scope.said(todo)}")
        return IntegrityProblem.exit_code
    if "no-room" in states:
        todo = "Make some (p2plearn list, p2plearn remove HASH), then import again."
        note(f"p2plearn: not everything had room.\n  {scope.said(todo)}")
        return NoSpace.exit_code
    return Refused.exit_code if "refused" in states else 0


# -- pipes, standard input and output among them: the node has one end of a pipe in the home, this process the other --


def _is_pipe(path: Path) -> bool:
    """Whether it is a pipe with a name (``mkfifo``), or one that a shell handed on (``<(command)``: /dev/fd/63)."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False  # the node says what is wrong with it


def _name_for_node(file: Path) -> str:
    """Where the node finds a file: /dev/fd/3 is another one to each process."""
    path = os.path.abspath(file)
    return os.path.realpath(path) if path.startswith(("/dev/", "/proc/")) else path


@contextlib.contextmanager
def _opened(path: Path, standard: TextIO, flags: int) -> Iterator[int]:
    """The pipe ``path``, or ``standard`` for a dash; waits until somebody has its other end. Closed at the end, which
    whoever is there sees. Raises Refused.
    """
    if str(path) == "-":
        yield standard.fileno()
        return
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"The pipe {path} can't be opened: {error.strerror}.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _pipe(scope: Scope) -> Iterator[tuple[str, int, io.FileIO]]:
    """A pipe's path and both its ends, held open here: neither side waits for the other, and nothing in it is lost."""
    import shutil  # late, so that --help comes in a blink
    import tempfile

    scope.client().status()  # without a node there is no home to put it in
    folder = tempfile.mkdtemp(prefix=".pipe-", dir=scope.home.path)
    try:
        path = os.path.join(folder, "car")
        os.mkfifo(path, 0o600)
        with (
            io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as reading,
            io.FileIO(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), "w") as writing,
        ):
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                with contextlib.suppress(OSError):  # more than this user may have: the usual 64 KiB will do
                    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            yield path, reading.fileno(), writing
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(call: Callable[[], T], pump: Callable[[threading.Event], Any]) -> T:
    """Make a call in a thread while this one pumps; when pumping fails, the process ends and with it the call."""
    done = threading.Event()
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    pump(done)
    done.wait()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _drain(pipe: int, out: int, done: threading.Event) -> None:
    """From the pipe to ``out``, until the call is done and the pipe is empty."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        ended = done.is_set()
        try:
            data = memoryview(os.read(pipe, _PUMP_BYTES))
        except BlockingIOError:
            if ended:
                return
            poll.poll(_POLL_MS)
            continue
        while data:
            try:
                data = data[os.write(out, data) :]
            except BrokenPipeError:
                raise P2plearnError(
                    "Whoever read the output stopped reading before its end: what was read is not the whole file.",
                    "Run it again with a reader that takes all, or name a file (-o FILE.car).",
                ) from None


def _pour(source: int, pipe: io.FileIO, done: threading.Event) -> None:
    """From ``source`` into the pipe, until it ends or the call does."""
    incoming, outgoing = select.poll(), select.poll()
    incoming.register(source, select.POLLIN)
    outgoing.register(pipe, select.POLLOUT)
    while not done.is_set():
        if not incoming.poll(_POLL_MS):
            continue
        data = memoryview(os.read(source, _PUMP_BYTES))
        if not data:
            pipe.close()  # the node sees the end
            return
        while data and not done.is_set():
            try:
                data = data[os.write(pipe.fileno(), data) :]
            except BlockingIOError:
                outgoing.poll(_POLL_MS)
