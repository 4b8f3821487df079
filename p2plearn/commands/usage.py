"""What a mistake in the words of a command is answered with: click finds it, these are our words for it.

In: what click raised. Out: a UsageProblem that says what an option or an argument takes, and where to read more.

Imports click and our own light modules only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from p2plearn.errors import UsageProblem, did_you_mean

_NO_COMMAND: Final = "Missing command."
_FEW: Final = 8
"""Commands that are named where one is missing."""

_EXTRA: Final = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)


def in_our_words(problem: click.ClickException) -> UsageProblem:
    """What click has to say against a command line."""
    context = problem.ctx if isinstance(problem, click.UsageError) else None
    more = f"Try: {context.command_path} --help" if context else ""
    if isinstance(problem, click.NoSuchOption):
        near = did_you_mean(problem.option_name, _options(context))
        return UsageProblem(f"There is no option {problem.option_name} here.", " ".join(filter(None, (near, more))))
    if isinstance(problem, click.BadParameter):
        return UsageProblem(_of_parameter(problem), more)
    if isinstance(problem, click.BadOptionUsage) and "requires" in problem.message:
        # click doesn't say of which command; --home is the same in each.
        how = "Write it as --home DIR." if problem.option_name == "--home" else "--help after the command says which."
        return UsageProblem(f"{problem.option_name} takes a value after it, and there is none.", how)
    if context is not None and problem.message == _NO_COMMAND and isinstance(context.command, click.Group):
        names = context.command.list_commands(context)
        few = ", ".join(names[:_FEW]) + (" and so on" if len(names) > _FEW else "")
        return UsageProblem(f"A command is missing after {context.command_path}.", f"Such as: {few}. {more}")
    extra = _EXTRA.fullmatch(problem.message)
    if extra is not None:
        quotes = "A name or a text with spaces in it needs quotes around it."
        return UsageProblem(
            f"That is more than this command takes: {extra[1]}", "\n".join(filter(None, (quotes, more)))
        )
    return UsageProblem(problem.format_message(), more)


def no_such_command(name: str, known: list[str], below: Mapping[str, str], context: click.Context) -> UsageProblem:
    """A word that is no command where one is wanted; ``below``: those one level further, and how each is written."""
    near = did_you_mean(name, known, below)
    hint = " ".join(filter(None, (near, f"Try: {context.command_path} --help")))
    return UsageProblem(f"There is no command {name!r} here.", hint)


def no_such_path(path: Path) -> UsageProblem:
    """A file or folder that isn't there: how far it is right, and what it may have been meant to be."""
    whole = Path(os.path.abspath(path))
    # The root at least is there.
    there = next(folder for folder in whole.parents if os.path.lexists(folder))
    name = whole.relative_to(there).parts[0]
    hint = f"{there} is there, but nothing in it is called {name!r}."
    try:
        near = did_you_mean(name, os.listdir(there))
    except OSError as error:  # a file, or closed to this user
        hint, near = f"{there} can't be looked into: {error.strerror}.", ""
    return UsageProblem(f"There is no {path}.", " ".join(filter(None, (hint, near))))


def _options(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    return [name for each in context.command.params if isinstance(each, click.Option) for name in each.opts]


def _of_parameter(problem: click.BadParameter) -> str:
    what = problem.param_hint if isinstance(problem.param_hint, str) else _name(problem.param)
    if isinstance(problem, click.MissingParameter):
        return f"{what} is missing."
    kind = problem.param.type if problem.param else None
    if isinstance(kind, click.Choice):
        return f"{what} takes one of these words: {', '.join(map(str, kind.choices))}."
    if isinstance(kind, click.IntRange) and kind.min is not None and kind.max is not None:
        return f"{what} takes a whole number from {kind.min:,.0f} to {kind.max:,.0f}."
    if isinstance(kind, click.types.IntParamType):
        return f"{what} takes a whole number."
    return f"{what}: {problem.message}"  # from a type of ours


def _name(parameter: click.Parameter | None) -> str:
    """An option as it is typed, an argument as the help has it."""
    if parameter is None:
        return "That"
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return (parameter.metavar or (parameter.name or "").upper()).strip("[]").removesuffix("...")
