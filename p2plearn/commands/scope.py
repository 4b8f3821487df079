"""What all commands share: options that may stand anywhere, the home they speak of, words that stand for things.

Imports click and our own light modules only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from p2plearn.config import Home, choose_home, parse_seconds
from p2plearn.errors import UsageProblem

if TYPE_CHECKING:
    from p2plearn.client import NodeClient

LEAST_PREFIX: Final = 8
"""Digits of a hash that are enough to name a course held here."""


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
        from p2plearn.terminal import note

        path, source = choose_home(self.home_option)
        return NodeClient(path, named=source == "--home", on_silence=note)

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


class Command(click.Command):
    """A command that takes what every command takes."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.params += _common_options()


class Group(click.Group):
    """A group of such commands, listed in the order in which they were put in."""

    command_class = Command

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.params += _common_options()

    sections: Mapping[str, Sequence[str]] = {}
    """Headings of its help, with the commands below each; those that are in none come last."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, each with its first sentence, however long."""
        rest = [name for name in self.commands if not any(name in names for names in self.sections.values())]
        for title, names in {**self.sections, "Commands" if not self.sections else "More": rest}.items():
            shown = [(name, self.commands[name]) for name in names if name in self.commands]
            rows = [(name, command.get_short_help_str(200)) for name, command in shown if not command.hidden]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def list_commands(self, _: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


Group.group_class = Group

pass_scope = click.make_pass_decorator(Scope, ensure=True)


def seconds_of(text: str | float) -> float:
    """A duration as people write it, in seconds: the type of an option."""
    try:
        return text if isinstance(text, float) else parse_seconds(text)
    except ValueError as problem:
        raise click.BadParameter(f"{problem}.") from None


def held_course(client: NodeClient, text: str) -> str:
    """The course (64 hex digits) that ``text`` names: hash, CID, link, or the beginning of a hash held here."""
    from p2plearn.course.names import parse_link

    prefix = text.strip().lower()
    if len(prefix) >= 64 or not prefix or set(prefix) - set("0123456789abcdef"):
        return parse_link(text).course.hex()
    if len(prefix) < LEAST_PREFIX:
        raise UsageProblem(f"{prefix!r} is too short: give at least {LEAST_PREFIX} digits of the hash.")
    found = sorted({str(row["course"]) for row in client.courses() if str(row["course"]).startswith(prefix)})
    if not found:
        raise UsageProblem(f"No course here begins with {prefix}.", "`p2plearn list` shows those that are.")
    if len(found) > 1:
        raise UsageProblem(f"{len(found)} courses here begin with {prefix}: {', '.join(found)}.", "Give more digits.")
    return found[0]
