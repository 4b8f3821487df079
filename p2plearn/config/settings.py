"""What the settings are on this node.

They come from four sources, the later one wins: the default in the table, ``config.toml`` in the home, the environment
(``storage.quota`` is ``P2PLEARN_STORAGE_QUOTA``), a flag. A value always knows which one it came from. A key that is
not in the table is an error, because a misspelt limit that is silently ignored is no limit.

Imports ``errors`` and siblings; ``tomllib`` late.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from p2plearn.config.home import Home
from p2plearn.config.table import BY_NAME, SETTINGS
from p2plearn.config.values import Row, Value, parse
from p2plearn.errors import UsageProblem, did_you_mean


def environment_name(name: str) -> str:
    """The environment variable of a setting: ``P2PLEARN_STORAGE_QUOTA`` for ``storage.quota``."""
    return "P2PLEARN_" + name.replace(".", "_").upper()


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from: ``default``, the path of the file, ``P2PLEARN_…``, or ``--flag``."""

    row: Row
    value: Value
    source: str


class Settings:
    """All settings of one node, fixed once read."""

    def __init__(self, values: Mapping[str, Setting] | None = None) -> None:
        self._values = {row.name: Setting(row, row.default, "default") for row in SETTINGS} | dict(values or {})

    def __iter__(self) -> Iterator[Setting]:
        """Every setting, in the order of the table."""
        return iter(self._values.values())

    def setting(self, name: str) -> Setting:
        """One setting with its source; an unknown name is a bug of ours (KeyError)."""
        return self._values[name]

    def is_default(self, name: str) -> bool:
        """Whether nobody asked for this value: such a value may give way (a taken port, say)."""
        return self._values[name].source == "default"

    def flag(self, name: str) -> bool:
        """A true-or-false setting."""
        value = self._values[name].value
        assert isinstance(value, bool), name  # noqa: S101 - the table is ours
        return value

    def count(self, name: str) -> int:
        """A whole number, or a size in bytes that always has a value."""
        value = self._values[name].value
        assert isinstance(value, int), name  # noqa: S101
        return value

    def size(self, name: str) -> int | None:
        """A size in bytes; None where the setting is "none"."""
        value = self._values[name].value
        assert value is None or isinstance(value, int), name  # noqa: S101
        return value

    def seconds(self, name: str) -> float:
        """A length of time in seconds."""
        value = self._values[name].value
        assert isinstance(value, float), name  # noqa: S101
        return value

    def text(self, name: str) -> str:
        """A text."""
        value = self._values[name].value
        assert isinstance(value, str), name  # noqa: S101
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._values[name].value
        assert isinstance(value, tuple), name  # noqa: S101
        return value

    @classmethod
    def load(
        cls,
        home: Path,
        flags: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read every source; ``flags`` maps setting names to values given on the command line.

        Raises UsageProblem naming the file or variable, the key and, for an unknown key, the nearest known one.
        """
        values: dict[str, Setting] = {}

        def take(name: str, raw: object, source: str, todo: str) -> None:
            row = BY_NAME[name]
            try:
                values[name] = Setting(row, parse(row, raw), source)
            except ValueError as problem:
                raise UsageProblem(f"{name} in {source}: {problem}.", todo) from None

        file = Home(home).config
        for name, raw in _read_toml(file).items():
            if name not in BY_NAME:
                raise UsageProblem(f"{file} has a setting {name!r} that doesn't exist.", _nearest(name))
            take(name, raw, str(file), "Correct that line of the file, or take it out: then the default holds.")
        environment = os.environ if environment is None else environment
        _refuse_unknown(environment)
        for row in SETTINGS:
            variable = environment_name(row.name)
            if variable in environment:
                take(row.name, environment[variable], variable, "Give the variable another value, or unset it.")
        for name, raw in (flags or {}).items():
            take(name, raw, "the command line", "Give the option another value, or leave it out.")
        return cls(values)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """A misspelt variable is told, as a misspelt key in the file is: silence would mean the default."""
    known = {environment_name(row.name): row.name for row in SETTINGS}
    rooms = tuple({environment_name(row.name.partition(".")[0]) + "_" for row in SETTINGS})
    for variable in environment:
        if variable not in known and variable.startswith(rooms):
            name = variable.removeprefix("P2PLEARN_").lower().replace("_", ".", 1)
            raise UsageProblem(f"The environment variable {variable} sets nothing.", _nearest(name))


def _nearest(name: str) -> str:
    key = name.rpartition(".")[2]
    same = [known for known in BY_NAME if known.rpartition(".")[2] == key]  # in the wrong section, or in none
    guess = f"Did you mean {same[0]!r}?" if len(same) == 1 else did_you_mean(name, BY_NAME)
    return f"{guess} `p2plearn config show` lists them all.".lstrip()


def _read_toml(file: Path) -> dict[str, object]:
    """The file as dotted names; empty when there is none. Raises UsageProblem."""
    import tomllib

    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:  # the last: [[[[…
        raise UsageProblem(f"{file} is not valid TOML: {problem}.") from None
    except OSError as problem:
        raise UsageProblem(f"{file} can't be read: {problem.strerror}.") from None
    flat: dict[str, object] = {}
    pending: list[tuple[str, Mapping[str, object]]] = [("", tree)]
    while pending:
        prefix, table = pending.pop()
        for key, value in table.items():
            if isinstance(value, dict) and prefix + key not in BY_NAME:
                pending.append((f"{prefix}{key}.", value))
            else:
                flat[prefix + key] = value
    return flat
