"""Commands about this machine's node: start, stop, leave, and how it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from p2plearn.commands.scope import Command, Group, Scope, pass_scope, seconds_of
from p2plearn.config import Home, Settings
from p2plearn.errors import LeaveIncomplete, NoNode, P2plearnError
from p2plearn.operations import MOST_PAUSE_SECONDS, LeaveRequest


@click.group(cls=Group)
def node() -> None:
    """Start, stop and look at this machine's node."""


@node.command("start")
@click.option(
    "--listen", multiple=True, metavar="ADDR", help="Listen here, such as /ip4/0.0.0.0/tcp/4017 (again for more)."
)
@click.option("--bootstrap", multiple=True, metavar="ADDR",
              help="Join through the node of this address, as its `node status` has it (again for more).")  # fmt: skip
@click.option("--no-mdns", is_flag=True, help="Neither look for nodes on the LAN nor be found there.")
@click.option("--detach", is_flag=True, help="Run in the background; returns when the node is ready.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How to log (else the setting log.format).")
@click.option("--ready-fd", type=int, default=-1, hidden=True)
@click.option("--stop-with-stdin", is_flag=True, hidden=True)
@pass_scope
def node_start(
    scope: Scope, *, listen: tuple[str, ...], bootstrap: tuple[str, ...], no_mdns: bool, detach: bool,
    log_format: str | None, ready_fd: int, stop_with_stdin: bool,
) -> int:  # fmt: skip
    """Run a node for this home, until Ctrl-C or `p2plearn node stop`.

    \b
    p2plearn node start --detach
    p2plearn node start --detach --bootstrap /ip4/192.0.2.7/tcp/4017/p2p/12D3KooW…
    """
    from p2plearn import background

    flags: dict[str, object] = {}
    if listen:
        flags["network.listen"] = listen
    if bootstrap:
        flags["network.bootstrap"] = bootstrap
    if no_mdns:
        flags["network.mdns"] = False
    if log_format:
        flags["log.format"] = log_format
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

    as_json = settings.text("log.format") == "json"
    start_logging(settings.text("log.level"), as_json=as_json, debug=scope.debug, file=home.log if detached else None)
    from p2plearn.private_files import have_temporary_folder

    have_temporary_folder(home.path / "tmp")
    from p2plearn import collecting
    from p2plearn.late import load_late

    collecting.put_off()
    load_late()
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
    if "log.format" in flags:
        arguments += ["--log-format", str(flags["log.format"])]
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
    from p2plearn import background
    from p2plearn.terminal import note

    if pid := background.wake(scope.home):
        note(f"The node (process {pid}) is suspended (Ctrl-Z, SIGSTOP): it is woken, to end in good order.")
    if handoff or _leaves_on_stop(scope):
        return _leave(scope, LeaveRequest().deadline)
    _stop(scope)
    return 0


@node.command("leave")
@click.option("--deadline", type=seconds_of, default=LeaveRequest().deadline, metavar="SECONDS", show_default=True,
              help="Stop anyway after this long; what is left stays on this disk.")  # fmt: skip
@pass_scope
def node_leave(scope: Scope, *, deadline: float) -> int:
    """Hand over every course it keeps to other nodes, then stop it."""
    return _leave(scope, deadline)


def _leaves_on_stop(scope: Scope) -> bool:
    """What the node itself goes by: it may have been started with another setting than is in force here."""
    try:
        return scope.client().leaves_on_stop()
    except P2plearnError:
        return False  # it answers nothing: it is stopped by a signal, and then does what its setting says


def _leave(scope: Scope, deadline: float) -> int:
    from p2plearn import background, views

    scope.interrupted = "Interrupted: the node runs on and keeps what it has not handed over."
    client = scope.client()
    with scope.display("Leaving") as display:
        result = client.leave(LeaveRequest(deadline), display.show)
    try:
        stopped = background.stop(scope.home, client)
    except NoNode:
        stopped = {"signalled": False}  # somebody else had it stop, too
    if scope.as_json:
        scope.emit(result.as_json() | {"stopped": stopped})
    else:
        _note_signal(stopped)
        click.echo(views.left(result))
    return LeaveIncomplete.exit_code if result.unplaced else 0


def _note_signal(stopped: dict[str, Any]) -> None:
    from p2plearn.terminal import note

    if stopped["signalled"]:
        note("It did not react to the call and was sent SIGTERM.")


def _stop(scope: Scope) -> None:
    from p2plearn import background, views
    from p2plearn.terminal import note

    facts = background.stop(scope.home, scope.client())
    if scope.as_json:
        scope.emit({"stopped": True, **facts})
    else:
        _note_signal(facts)
        click.echo(f"The node (process {facts['pid']}) has stopped.")
        if not facts["told"]:
            note(f"Which courses have fewer copies now is in its log: {scope.home.log}")
        if facts["fewer_copies"]:
            note(views.fewer_copies(facts["fewer_copies"], facts["unconfirmed"]))
            note(scope.said("To hand over first, the next time: p2plearn node leave"))


@node.command("status")
@pass_scope
def node_status(scope: Scope) -> None:
    """What the node is and how it stands."""
    from p2plearn import status_words

    facts = scope.client().status()
    scope.emit(facts) if scope.as_json else click.echo(status_words.status(facts, said=scope.said))


@node.command("pause")
@click.option("--for", "seconds", type=seconds_of, metavar="DURATION", help="Such as 30min or 2h.")
@pass_scope
def node_pause(scope: Scope, *, seconds: float | None) -> None:
    """Neither serve nor fetch courses until `p2plearn node resume`, restarts included."""
    from p2plearn import views

    if seconds is not None and not 0 < seconds <= MOST_PAUSE_SECONDS:
        most = f"{MOST_PAUSE_SECONDS // 86400:,} days"
        raise click.BadParameter(
            f"a pause lasts more than 0 s and at most {most}; without --for it lasts until `p2plearn node resume`.",
            param_hint="--for",
        )
    facts = scope.client().pause(seconds or 0.0)
    scope.emit(facts) if scope.as_json else click.echo(scope.said(views.paused(facts)))


@node.command("resume")
@pass_scope
def node_resume(scope: Scope) -> None:
    """Serve and fetch again after `p2plearn node pause`."""
    from p2plearn import views

    facts = scope.client().resume()
    scope.emit(facts) if scope.as_json else click.echo(scope.said(views.paused(facts)))


@click.command(cls=Command)
@pass_scope
def metrics(scope: Scope) -> None:
    """The node's figures, as Prometheus reads them."""
    from p2plearn.terminal import plain

    text = scope.client().metrics()
    if scope.as_json:
        scope.emit({"format": "prometheus", "text": text})
    else:
        click.echo("\n".join(plain(line) for line in text.splitlines()))


@node.command("peers")
@pass_scope
def node_peers(scope: Scope) -> None:
    """The peers it is connected to."""
    from p2plearn import views

    peers = scope.client().peers()
    scope.emit({"peers": peers}) if scope.as_json else click.echo(views.peers(peers))
