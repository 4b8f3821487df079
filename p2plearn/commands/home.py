"""Commands that need no running node: where things are, how they are set, and a look at what this is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from p2plearn.commands.scope import Command, Group, PathWord, Scope, pass_scope
from p2plearn.commands.usage import no_such_path
from p2plearn.config import Settings, choose_home, spell
from p2plearn.errors import P2plearnError, UsageProblem
from p2plearn.lock import holder

_ADDRESSES: Final = ("network.listen", "network.announce", "network.bootstrap", "metrics.listen")


@click.command(cls=Command)
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


@click.group("config", cls=Group)
def config_() -> None:
    """Settings: see `p2plearn config show`."""


@config_.command("show")
@click.option("--reasons", is_flag=True, help="Say why each is as it is.")
@pass_scope
def config_show(scope: Scope, reasons: bool) -> None:
    """Every setting, its value, and where it comes from."""
    from p2plearn.terminal import note, table

    settings = Settings.load(scope.home.path)
    if any(not settings.is_default(name) for name in _ADDRESSES):
        from p2plearn.listening import check_addresses  # brings the network's libraries along

        check_addresses(settings)
    pending = _not_in_force(scope)
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
        scope.emit({"home": str(scope.home.path), "settings": rows, "restart_for": pending})
    elif reasons:
        for each in settings:
            click.echo(f"{each.row.name} = {spell(each.value, each.row.kind)}  ({each.source})\n    {each.row.reason}")
    else:
        cells = [(each.row.name, spell(each.value, each.row.kind), each.source) for each in settings]
        click.echo(table(("SETTING", "VALUE", "FROM"), cells))
    if pending and not scope.as_json:
        note(f"The running node has another value of {', '.join(pending)}: stop it and start it again.")


def _not_in_force(scope: Scope) -> list[str]:
    """Settings of which the running node still has another value; empty when none runs or it doesn't answer."""
    if not holder(scope.home.lock):
        return []
    try:
        return [str(name) for name in scope.client().status().get("restart_for", [])]
    except P2plearnError:
        return []


@click.command(cls=Command)
@click.argument("path", required=False, type=PathWord(path_type=Path))
@pass_scope
def demo(scope: Scope, path: Path | None) -> None:
    """Watch a course travel between three nodes on this machine."""
    from p2plearn.demo import run_demo

    if path is not None and not path.exists():
        raise no_such_path(path)
    scope.interrupted = "Interrupted; everything of the demo is cleaned up."
    result = run_demo(path, as_json=scope.as_json, debug=scope.debug)
    if scope.as_json:
        scope.emit(result)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script: `eval "$(p2plearn completion bash)"`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageProblem(f"There is no completion for {shell}.")
    click.echo(kind(context.find_root().command, {}, "p2plearn", "_P2PLEARN_COMPLETE").source())
