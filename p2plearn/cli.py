"""The command line: parse, one call to the node, render.

Imports click and our own light modules; the node itself (with libp2p, trio, cryptography) only inside ``node start``,
so that every other command starts in a blink. Exit codes are those of ``errors``; no traceback reaches a user unless
``--debug`` asks for it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2plearn import __version__
from p2plearn.commands import people
from p2plearn.config import Home, Settings, choose_home, parse_seconds, spell
from p2plearn.errors import IntegrityProblem, Interrupted, LeaveIncomplete, NoSpace, P2plearnError, UsageProblem
from p2plearn.operations import SCHEMA, GetRequest, LeaveRequest, PublishRequest

if TYPE_CHECKING:
    from p2plearn.client import NodeClient

EXIT_CODES = """\
\b
Exit codes: 0 ok, 1 error, 2 usage, 3 no node running, 4 nobody has it,
5 timed out (the same command goes on from there), 6 integrity,
7 quota or disk, 8 refused by policy, 9 leave incomplete, 130 interrupted."""

_LEAST_PREFIX = 8


class PathWord(click.Path):
    """A path that isn't empty: an empty word is an unset variable of a script, not the folder one is in."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path; fails for an empty word."""
        if not os.fspath(value):
            self.fail("is empty; name it (. is the folder you are in).", param, ctx)
        return super().convert(value, param, ctx)


@dataclass(slots=True)
class Scope:
    """What holds for the whole command: the options that may stand before or after its name."""

    home_option: str | None = None
    as_json: bool = False
    debug: bool = False
    interrupted: str = "Interrupted."

    @property
    def home(self) -> Home:
        """The home, from ``--home``, ``P2PLEARN_HOME`` or the usual place."""
        return Home(choose_home(self.home_option)[0])

    def client(self) -> NodeClient:
        """The node of that home; nothing is connected yet."""
        from p2plearn.client import NodeClient

        path, source = choose_home(self.home_option)
        return NodeClient(path, named=source == "--home")

    def emit(self, value: dict[str, Any]) -> None:
        """The final JSON object."""
        from p2plearn.terminal import write_json

        write_json({"event": "result", **value})


# -- options that every command takes ---------------------------------------------------------------------------------


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(Scope), name, value)

    return keep


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_remember("as_json"),
            help="Answer in JSON, one object a line.",
        ),
        click.Option(
            ["--home"], metavar="DIR", expose_value=False, callback=_remember("home_option"),
            help="Where this node keeps everything (else P2PLEARN_HOME).",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_remember("debug"),
            help="Show tracebacks and log everything.",
        ),
    ]  # fmt: skip


class _Command(click.Command):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.params += _common_options()


class _Group(click.Group):
    command_class = _Command

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.params += _common_options()

    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)  # in the order of this file, not of the alphabet


_Group.group_class = _Group

pass_scope = click.make_pass_decorator(Scope, ensure=True)


def _seconds(text: str | float) -> float:
    try:
        return text if isinstance(text, float) else parse_seconds(text)
    except ValueError as problem:
        raise click.BadParameter(f"{problem}.") from None


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="p2plearn %(version)s")
def cli() -> None:
    """Courses that travel from learner to learner, with no server in the middle.

    Begin with `p2plearn demo`; then `p2plearn node start --detach`, `p2plearn publish FOLDER` on one machine and
    `p2plearn get HASH` on another.
    """


# -- node -------------------------------------------------------------------------------------------------------------


@cli.group()
def node() -> None:
    """Start, stop and look at this machine's node."""


@node.command("start")
@click.option("--listen", multiple=True, metavar="MULTIADDR", help="Listen here (again for more).")
@click.option("--bootstrap", multiple=True, metavar="MULTIADDR", help="Join through this node (again for more).")
@click.option("--no-mdns", is_flag=True, help="Neither look for nodes on the LAN nor be found there.")
@click.option("--detach", is_flag=True, help="Run in the background; returns when the node is ready.")
@click.option("--ready-fd", type=int, default=-1, hidden=True)
@click.option("--stop-with-stdin", is_flag=True, hidden=True)
@pass_scope
def node_start(
    scope: Scope, *, listen: tuple[str, ...], bootstrap: tuple[str, ...], no_mdns: bool, detach: bool,
    ready_fd: int, stop_with_stdin: bool,
) -> int:  # fmt: skip
    """Run a node for this home, until Ctrl-C or `p2plearn node stop`."""
    from p2plearn import background

    flags: dict[str, object] = {}
    if listen:
        flags["network.listen"] = listen
    if bootstrap:
        flags["network.bootstrap"] = bootstrap
    if no_mdns:
        flags["network.mdns"] = False
    home = scope.home
    if stop_with_stdin:
        background.stop_with_stdin()
    if detach:
        return _start_detached(scope, home, flags)

    def ready(facts: dict[str, Any]) -> None:
        if ready_fd >= 0:
            background.say(ready_fd, {"ready": facts})
        else:
            _show_started(scope, home, facts)

    try:
        settings = Settings.load(home.path, flags)
        home.prepare()
        return _run_node(scope, home, settings, ready, detached=ready_fd >= 0)
    except P2plearnError as error:
        if ready_fd >= 0:
            problem = {"code": error.code, "detail": error.message, "hint": error.hint}
            background.say(ready_fd, {"problem": problem})
        raise


def _run_node(
    scope: Scope, home: Home, settings: Settings, ready: Callable[[dict[str, Any]], None], *, detached: bool
) -> int:
    from p2plearn.log import start_logging

    start_logging(settings.text("log.level"), debug=scope.debug, file=home.log if detached else None)
    from p2plearn.node import run_node  # takes a second, and nothing else here needs it

    return run_node(home.path, settings, ready)


def _start_detached(scope: Scope, home: Home, flags: dict[str, object]) -> int:
    from p2plearn import background
    from p2plearn.lock import refuse_if_held

    Settings.load(home.path, flags)  # mistakes are told here, at once
    home.prepare()
    refuse_if_held(home.lock)
    arguments = ["--debug"] if scope.debug else []
    for name in ("listen", "bootstrap"):
        addresses = flags.get(f"network.{name}", ())
        assert isinstance(addresses, tuple)  # noqa: S101
        arguments += [part for address in addresses for part in (f"--{name}", address)]
    if "network.mdns" in flags:
        arguments.append("--no-mdns")
    _show_started(scope, home, background.start(home, arguments))
    return 0


def _show_started(scope: Scope, home: Home, facts: dict[str, Any]) -> None:
    if scope.as_json:
        scope.emit({"event": "ready", "home": str(home.path), **facts})
        return
    click.echo(f"This node is {facts.get('peer_id', '?')}")
    for address in facts.get("addresses", []):
        click.echo(f"  {address}")


@node.command("stop")
@click.option("--handoff", is_flag=True, help="Hand over what it keeps first, as `node leave` does.")
@pass_scope
def node_stop(scope: Scope, *, handoff: bool) -> int:
    """Stop the node and wait until it is down; says which courses have fewer copies then."""
    if handoff or Settings.load(scope.home.path).text("node.on_stop") == "leave":
        return _leave(scope, LeaveRequest().deadline)
    _stop(scope)
    return 0


@node.command("leave")
@click.option("--deadline", type=_seconds, default=LeaveRequest().deadline, metavar="SECONDS", show_default=True,
              help="Stop anyway after this long; what is left stays on this disk.")  # fmt: skip
@pass_scope
def node_leave(scope: Scope, *, deadline: float) -> int:
    """Hand over every course it keeps to other nodes, then stop it."""
    return _leave(scope, deadline)


def _leave(scope: Scope, deadline: float) -> int:
    from p2plearn import background, terminal, views

    scope.interrupted = "Interrupted: the node runs on and keeps what it has not handed over."
    client = scope.client()
    with terminal.display("Leaving", as_json=scope.as_json) as display:
        result = client.leave(LeaveRequest(deadline), display.show)
    background.stop(scope.home, client)
    scope.emit(result.as_json()) if scope.as_json else click.echo(views.left(result))
    return LeaveIncomplete.exit_code if result.unplaced else 0


def _stop(scope: Scope) -> None:
    from p2plearn import background, views
    from p2plearn.terminal import note

    facts = background.stop(scope.home, scope.client())
    if scope.as_json:
        scope.emit({"stopped": True, **facts})
    else:
        if facts["signalled"]:
            note("It did not react to the call and was sent SIGTERM.")
        click.echo(f"The node (process {facts['pid']}) has stopped.")
        if facts["fewer_copies"]:
            note(views.fewer_copies(facts["fewer_copies"]))


@node.command("status")
@pass_scope
def node_status(scope: Scope) -> None:
    """What the node is and how it stands."""
    from p2plearn import views

    facts = scope.client().status()
    scope.emit(facts) if scope.as_json else click.echo(views.status(facts))


@node.command("pause")
@click.option("--for", "seconds", type=_seconds, default=0.0, metavar="DURATION", help="Such as 30min or 2h.")
@pass_scope
def node_pause(scope: Scope, *, seconds: float) -> None:
    """Neither serve nor fetch courses until `p2plearn node resume`, restarts included."""
    from p2plearn import views

    facts = scope.client().pause(seconds)
    scope.emit(facts) if scope.as_json else click.echo(views.paused(facts))


@node.command("resume")
@pass_scope
def node_resume(scope: Scope) -> None:
    """Serve and fetch again after `p2plearn node pause`."""
    from p2plearn import views

    facts = scope.client().resume()
    scope.emit(facts) if scope.as_json else click.echo(views.paused(facts))


@node.command("peers")
@pass_scope
def node_peers(scope: Scope) -> None:
    """The peers it is connected to."""
    from p2plearn import views

    peers = scope.client().peers()
    scope.emit({"peers": peers}) if scope.as_json else click.echo(views.peers(peers))


# -- courses ----------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("path", type=PathWord(path_type=Path))
@click.option("--title", default="", help="Its name (else from README, index or config.yaml, else the folder's).")
@click.option("--description", default="", help="What it is, in a sentence or two.")
@click.option("--tag", "tags", multiple=True, help="A word to find it by (again for more).")
@click.option("--language", default="", metavar="BCP47", help="Its language, such as en or zh-Hans.")
@click.option("--license", "license_", default="", metavar="SPDX", help="Its licence, such as CC-BY-4.0.")
@click.option("--chunker", type=click.Choice(["fastcdc", "fixed"]),
              help="fixed gives the chunks and the IPFS root of `ipfs add -r --cid-version=1` (default: fastcdc, or "
                   "as in the version before).")  # fmt: skip
@click.option("--copies", type=click.IntRange(1, 32), default=3, show_default=True,
              help="Copies that the network shall keep, this node's included.")  # fmt: skip
@click.option("--follow-symlinks", is_flag=True, help="Follow symlinks that stay inside the folder.")
@click.option("--skip-special", is_flag=True, help="Leave out symlinks, sockets, devices and unreadable files.")
@click.option("--no-copy", is_flag=True, help="Serve from these very files instead of a copy; don't change them.")
@click.option("--private", is_flag=True, help="Leave it out of the catalogue that others search.")
@pass_scope
def publish(
    scope: Scope, *, path: Path, title: str, description: str, tags: tuple[str, ...], language: str, license_: str,
    chunker: str | None, copies: int, follow_symlinks: bool, skip_special: bool, no_copy: bool,
    private: bool,
) -> None:  # fmt: skip
    """Publish a folder or a file and print its course hash."""
    from p2plearn import terminal, views

    scope.interrupted = "Interrupted: nothing was published. The same command does it."
    if not os.path.lexists(path):
        raise UsageProblem(f"There is no {path}.")
    request = PublishRequest(
        path=os.path.abspath(path), title=title, description=description, tags=tags, language=language,
        license=license_, chunker=chunker or "", follow_symlinks=follow_symlinks, skip_special=skip_special,
        no_copy=no_copy, copies=copies, private=private,
    )  # fmt: skip
    with terminal.display("Publishing", as_json=scope.as_json) as display:
        result = scope.client().publish(request, display.show)
    if scope.as_json:
        scope.emit(result.as_json())
    else:
        terminal.note(views.published(result))
        click.echo(result.course)


@cli.command()
@click.argument("course", metavar="HASH")
@click.option("-o", "--output", type=PathWord(path_type=Path), metavar="DIR", help="Where to (else ./TITLE).")
@click.option("--from", "providers", multiple=True, metavar="ADDR", help="Ask this node first (again for more).")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these files, such as '*.pdf' (again for more).")
@click.option("--manifest-only", is_flag=True, help="Show what is inside; fetch nothing else.")
@click.option("--in-order", is_flag=True, help="Fetch files one after the other, from the first.")
@click.option("--timeout", type=_seconds, default=0.0, metavar="SECONDS", help="Give up for now after this long.")
@pass_scope
def get(
    scope: Scope, *, course: str, output: Path | None, providers: tuple[str, ...], only: tuple[str, ...],
    manifest_only: bool, in_order: bool, timeout: float,
) -> None:  # fmt: skip
    """Fetch a course by its hash (hex, CID or p2plearn: link) and print where it is."""
    import dataclasses

    from p2plearn import terminal, views
    from p2plearn.course.names import parse_link

    scope.interrupted = "Interrupted. What was fetched is kept: the same command goes on from there."
    link = parse_link(course)
    begun = time.monotonic()
    request = GetRequest(
        course=link.course.hex(),
        dest=os.path.abspath(output) if output else "",
        providers=(*providers, *(address for address in link.providers if address not in providers)),
        only=only, timeout=timeout, in_order=in_order,
    )  # fmt: skip
    client = scope.client()
    with terminal.display("Fetching", as_json=scope.as_json) as display:
        if manifest_only or output is None:
            contents = client.contents(request, display.show)
            name = terminal.folder_name(str(contents.get("title", "")), request.course)
            request = dataclasses.replace(request, dest=os.path.abspath(name))
            if timeout:
                request = dataclasses.replace(request, timeout=max(0.1, timeout - (time.monotonic() - begun)))
        if not manifest_only:
            result = client.get(request, display.show)
    if manifest_only:
        scope.emit(contents) if scope.as_json else click.echo(views.course(contents))
    elif scope.as_json:
        scope.emit(result.as_json())
    else:
        terminal.note(views.fetched(result))
        click.echo(result.path)


@cli.command("list")
@pass_scope
def list_(scope: Scope) -> None:
    """The courses kept here, and why."""
    from p2plearn import views

    courses = scope.client().courses()
    scope.emit({"courses": courses}) if scope.as_json else click.echo(views.courses(courses))


def _held_course(client: NodeClient, text: str) -> str:
    """The course (64 hex digits) that ``text`` names: hash, CID, link, or the beginning of a hash held here."""
    from p2plearn.course.names import parse_link

    prefix = text.strip().lower()
    if len(prefix) >= 64 or not prefix or set(prefix) - set("0123456789abcdef"):
        return parse_link(text).course.hex()
    if len(prefix) < _LEAST_PREFIX:
        raise UsageProblem(f"{prefix!r} is too short: give at least {_LEAST_PREFIX} digits of the hash.")
    found = sorted({str(row["course"]) for row in client.courses() if str(row["course"]).startswith(prefix)})
    if not found:
        raise UsageProblem(f"No course here begins with {prefix}.", "`p2plearn list` shows those that are.")
    if len(found) > 1:
        raise UsageProblem(f"{len(found)} courses here begin with {prefix}: {', '.join(found)}.", "Give more digits.")
    return found[0]


@cli.command()
@click.argument("course", metavar="HASH")
@pass_scope
def info(scope: Scope, course: str) -> None:
    """All that is known here of one course (8 digits of its hash are enough)."""
    from p2plearn import views

    client = scope.client()
    facts = client.info(_held_course(client, course))
    scope.emit(facts) if scope.as_json else click.echo(views.course(facts))


@cli.command()
@click.argument("course", metavar="[HASH]", required=False, default="")
@pass_scope
def verify(scope: Scope, course: str) -> int:
    """Hash what is stored of one course, or of all, and name what is damaged."""
    from p2plearn import terminal, views

    client = scope.client()
    held = _held_course(client, course) if course else ""
    with terminal.display("Verifying", as_json=scope.as_json) as display:
        result = client.verify(held, display.show)
    # The findings are the answer, also for a script: they stay the last line, and the exit code says the rest.
    scope.emit(result.as_json()) if scope.as_json else click.echo(views.verified(result))
    if not result.damaged:
        return 0
    terminal.note(
        f"p2plearn: {terminal.count(len(result.damaged), 'damage')} found; nothing damaged is served or shown.\n"
        "  `p2plearn get HASH` mends a course that others have; publishing it again mends one of your own."
    )
    return IntegrityProblem.exit_code


@cli.command()
@click.argument("course", metavar="HASH")
@pass_scope
def remove(scope: Scope, course: str) -> None:
    """Forget a course and free its bytes (8 digits of its hash are enough)."""
    from p2plearn import terminal

    client = scope.client()
    facts = client.remove(_held_course(client, course))
    if scope.as_json:
        scope.emit(facts)
    else:
        title = terminal.plain(str(facts.get("title", "")))
        click.echo(f"Removed {title}: {terminal.size(int(facts.get('freed', 0)))} freed.")


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@pass_scope
def gc(scope: Scope, *, dry_run: bool) -> None:
    """Free what nobody needs any more."""
    from p2plearn import views

    facts = scope.client().gc(dry_run=dry_run)
    scope.emit(facts) if scope.as_json else click.echo(views.swept(facts))


people.attach(cli)


# -- without a node ---------------------------------------------------------------------------------------------------


@cli.command()
@pass_scope
def paths(scope: Scope) -> None:
    """Where everything is kept."""
    from p2plearn.terminal import table

    _, source = choose_home(scope.home_option)
    named = {name: str(path) for name, path in scope.home.named().items()}
    if scope.as_json:
        scope.emit({**named, "home_source": source})
    else:
        click.echo(table(("", ""), list(named.items())))


@cli.group("config")
def config_() -> None:
    """Settings: see `p2plearn config show`."""


@config_.command("show")
@click.option("--reasons", is_flag=True, help="Say why each is as it is.")
@pass_scope
def config_show(scope: Scope, reasons: bool) -> None:
    """Every setting, its value, and where it comes from."""
    from p2plearn.terminal import table

    settings = Settings.load(scope.home.path)
    if scope.as_json:
        rows = [
            {
                "name": each.row.name,
                "value": list(each.value) if isinstance(each.value, tuple) else each.value,
                "unit": each.row.unit,
                "source": each.source,
                "reason": each.row.reason,
            }
            for each in settings
        ]
        scope.emit({"home": str(scope.home.path), "settings": rows})
    elif reasons:
        for each in settings:
            click.echo(f"{each.row.name} = {spell(each.value, each.row.kind)}  ({each.source})\n    {each.row.reason}")
    else:
        cells = [(each.row.name, spell(each.value, each.row.kind), each.source) for each in settings]
        click.echo(table(("SETTING", "VALUE", "FROM"), cells))


@cli.command()
@click.argument("path", required=False, type=PathWord(path_type=Path))
@pass_scope
def demo(scope: Scope, path: Path | None) -> None:
    """Watch a course travel between three nodes on this machine."""
    from p2plearn.demo import run_demo

    scope.interrupted = "Interrupted; everything of the demo is cleaned up."
    result = run_demo(path, as_json=scope.as_json, debug=scope.debug)
    if scope.as_json:
        scope.emit(result)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_scope
def completion(_: Scope, shell: str) -> None:
    """Print the completion script: `eval "$(p2plearn completion bash)"`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageProblem(f"There is no completion for {shell}.")
    click.echo(kind(cli, {}, "p2plearn", "_P2PLEARN_COMPLETE").source())


# -- the way in and out -----------------------------------------------------------------------------------------------


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
        return _fail(scope, _usage(problem))
    except (click.Abort, KeyboardInterrupt):
        return _fail(scope, Interrupted(scope.interrupted))
    except P2plearnError as error:
        return _fail(scope, error)
    except BrokenPipeError:
        _give_up_stdout()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _fail(scope, P2plearnError(f"{error.strerror or error}.", "Run it with --debug for more."))
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


def _usage(problem: click.ClickException) -> UsageProblem:
    message = problem.format_message()
    context = getattr(problem, "ctx", None)
    hint = f"Try: {context.command_path} --help" if isinstance(context, click.Context) else ""
    return UsageProblem(message, hint)


def _fail(scope: Scope, error: P2plearnError) -> int:
    """Say what went wrong, in words on stderr and, when asked, in JSON on stdout; returns the exit code."""
    from p2plearn.terminal import note, plain, write_json

    if scope.debug:
        import traceback

        traceback.print_exc()
    lines = [plain(line) for line in error.message.splitlines() or [""]]
    note("p2plearn: " + "\n  ".join(lines))
    if error.hint:
        note("\n".join(f"  {plain(line)}" for line in error.hint.splitlines()))
    if scope.as_json:
        write_json(
            {
                "schema": SCHEMA, "event": "error", "code": error.code, "message": error.message,
                "hint": error.hint, "exit": error.exit_code,
            }
        )  # fmt: skip
    return error.exit_code
