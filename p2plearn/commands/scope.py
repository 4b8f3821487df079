"""What all commands share: options that may stand anywhere, the home they speak of, words that stand for things.

Imports click and our own light modules only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2plearn import collecting
from p2plearn.commands.usage import no_such_command
from p2plearn.config import Home, choose_home, parse_seconds
from p2plearn.errors import Refused, UsageProblem

if TYPE_CHECKING:
    from p2plearn.client import NodeClient
    from p2plearn.terminal import Display

MOST_SHORT: Final = 200
"""Characters of what a list of commands says of each; all of them say less."""

LEAST_PREFIX: Final = 8
"""Digits of a hash that are enough to name a course held here."""

_LISTED: Final = "`p2plearn list` shows the courses that are kept here."


class PathWord(click.Path):
    """A path that isn't empty: an empty word is an unset variable of a script, not the folder one is in."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path; fails for an empty word."""
        if not os.fspath(value):
            self.fail("an empty word is no path; . is the folder you are in.", param, ctx)
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
        """The home, from ``--home``, ``P2PLEARN_HOME`` or the usual place. Raises Refused when it is a file."""
        return Home(self._place()[0])

    def said(self, text: str) -> str:
        """A sentence of ours as this person can use it: its commands with ``--home``, where that was given."""
        from p2plearn.commands.pasting import with_home

        return with_home(text, choose_home(self.home_option)[0] if self.home_option else None)

    def display(self, verb: str) -> Display:
        """The right way to show progress here and now."""
        from p2plearn.terminal import display

        return display(verb, as_json=self.as_json, said=self.said)

    def _place(self) -> tuple[Path, str]:
        """The home and where it came from; raises Refused when it is a file, where no node can be or be started."""
        path, source = choose_home(self.home_option)
        if path.exists() and not path.is_dir():
            other = "--home DIR" if source != "P2PLEARN_HOME" else "--home DIR, or set P2PLEARN_HOME to one"
            raise Refused(f"{path} is a file, not a folder: it can't be a home.", f"Choose a folder with {other}.")
        return path, source

    def client(self) -> NodeClient:
        """The node of that home; nothing is connected yet."""
        from p2plearn.client import NodeClient
        from p2plearn.terminal import note

        path, source = self._place()
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


def _remember_home(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value == "":  # an unset variable of a script; the usual home is another node, maybe in another network
        raise UsageProblem("--home: an empty word is no folder.", "Name one: --home DIR; or leave --home out.")
    if value is not None:
        context.ensure_object(Scope).home_option = value


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_remember("as_json"),
            help="Answer in JSON, one object a line.",
        ),
        click.Option(
            ["--home"], metavar="DIR", expose_value=False, callback=_remember_home,
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

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what was loaded for it stays until it ends."""
        collecting.begin()
        return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands, listed in the order in which they were put in."""

    command_class = Command

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.params += _common_options()

    def sections(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """What its help lists: by heading, each command with its first sentence, however long."""
        return {"Commands": [(name, each.get_short_help_str(MOST_SHORT)) for name, each in self.commands.items()]}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the ``sections``."""
        for title, rows in self.sections().items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that ``args`` begin with; raises UsageProblem when there is none of that name."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise no_such_command(args[0], known, self.below(), ctx)
        return super().resolve_command(ctx, args)

    def below(self) -> dict[str, str]:
        """Commands of groups in it, and how they are written: `peers` is `node peers`."""
        return {}

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


def course_word(text: str) -> str:
    """What names a course that is known here, as the node takes it: 64 hex digits, or ``LEAST_PREFIX`` and more that
    its hash begins with. Raises UsageProblem.
    """
    short = text.strip().lower()
    if 0 < len(short) < 64 and not set(short) - set("0123456789abcdef"):
        if len(short) < LEAST_PREFIX:
            raise UsageProblem(f"{short!r} is too short: give at least {LEAST_PREFIX} digits of the hash.", _LISTED)
        return short
    from p2plearn.course.names import parse_link

    try:
        return parse_link(text).course.hex()
    except UsageProblem as wrong:
        enough = f"Of one that is here already, the first {LEAST_PREFIX} digits of its hash are enough."
        raise UsageProblem(wrong.message, f"{wrong.hint}\n{enough} {_LISTED}".strip()) from None


def held_course(client: NodeClient, text: str) -> str:
    """The course (64 hex digits) that ``text`` names: hash, CID, link, or the beginning of a hash held here."""
    prefix = course_word(text)
    if len(prefix) == 64:
        return prefix
    found = sorted({str(row["course"]) for row in client.courses() if str(row["course"]).startswith(prefix)})
    if not found:
        raise UsageProblem(f"No course here begins with {prefix}.", _LISTED)
    if len(found) > 1:
        raise UsageProblem(f"{len(found)} courses here begin with {prefix}: {', '.join(found)}.", "Give more digits.")
    return found[0]
