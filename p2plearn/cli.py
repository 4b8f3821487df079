"""The command line: assembled from ``commands``, run, and every way in which it can end.

A command parses, makes one call to the node, and renders. Imports click and our own light modules; the module of a
command when it is run (``commands.assembly``), and the node itself (with libp2p, trio, cryptography) only inside ``node
start``, so that every other command starts in a blink. Exit codes are those of ``errors``; no traceback reaches a user
unless ``--debug`` asks for it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from p2plearn import __version__
from p2plearn.commands.assembly import Assembled
from p2plearn.commands.scope import Scope
from p2plearn.commands.usage import in_our_words
from p2plearn.errors import Interrupted, NoSpace, P2plearnError
from p2plearn.operations import SCHEMA

EXIT_CODES = """\
\b
Exit codes: 0 ok, 1 error, 2 usage, 3 no node running, 4 nobody has it,
5 timed out (the same command goes on from there), 6 integrity,
7 quota or disk, 8 refused by policy, 9 leave incomplete,
10 home gone while its node ran, 130 interrupted."""


def _tell_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    scope = context.ensure_object(Scope)
    scope.emit({"version": __version__}) if scope.as_json else click.echo(f"p2plearn {__version__}")
    context.exit()


@click.group(cls=Assembled, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version,
              help="Show the version and exit.")  # fmt: skip
def cli() -> None:
    """Courses that travel from learner to learner, with no server in the middle.

    Begin with `p2plearn demo`; then `p2plearn node start --detach`, `p2plearn publish FOLDER` on one machine and
    `p2plearn get HASH` on another.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, whatever happens."""
    from p2plearn.terminal import prepare_streams

    given = list(sys.argv[1:] if arguments is None else arguments)
    # A mistake in the options themselves must be answered in JSON as well, before any of them is read.
    options = given[: given.index("--")] if "--" in given else given
    scope = Scope(as_json="--json" in options, debug="--debug" in options)
    prepare_streams()
    try:
        outcome = cli.main(given, prog_name="p2plearn", standalone_mode=False, obj=scope)
    except click.exceptions.NoArgsIsHelpError as help_:
        click.echo(help_.format_message())
        return 0
    except click.ClickException as problem:
        return _fail(scope, in_our_words(problem))
    except (click.Abort, KeyboardInterrupt):
        return _fail(scope, Interrupted(scope.interrupted))
    except P2plearnError as error:
        return _fail(scope, error)
    except BrokenPipeError:
        _give_up_stdout()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            where = f"{error.filename}: " if isinstance(error.filename, str) else ""
            todo = "`p2plearn doctor` says more." if error.errno == errno.EROFS else "Run it with --debug for more."
            return _fail(scope, P2plearnError(f"{where}{error.strerror or error}.", todo))
        _give_up_stdout()
        scope.as_json = False  # it has nowhere to go
        return _fail(scope, NoSpace("The answer can't be written: the disk of its output is full.", "Make room there."))
    except Exception as bug:
        words = f"internal error: {type(bug).__name__}: {bug}"
        return _fail(scope, P2plearnError(words, "" if scope.debug else "Run it with --debug for more."))
    return outcome if isinstance(outcome, int) else 0


def _give_up_stdout() -> None:
    """Nobody reads it, or nothing can be written to it: or the last flush complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(scope: Scope, error: P2plearnError) -> int:
    """Say what went wrong, in words on stderr and, when asked, in JSON on stdout; returns the exit code."""
    from p2plearn.terminal import note, plain, write_json

    if scope.debug:
        import traceback

        traceback.print_exc()
    hint = scope.said(error.hint)
    lines = [plain(line) for line in error.message.splitlines() or [""]]
    note("p2plearn: " + "\n  ".join(lines))
    if hint:
        note("\n".join(f"  {plain(line)}" for line in hint.splitlines()))
    if scope.as_json:
        write_json(
            {
                "schema": SCHEMA, "event": "error", "code": error.code, "message": error.message,
                "hint": hint, "exit": error.exit_code,
            }
        )  # fmt: skip
    return error.exit_code
