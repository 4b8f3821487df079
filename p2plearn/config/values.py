"""What the value of a setting may be, and how it is read (from TOML, the environment, a flag) and written.

Imports nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

Kind: TypeAlias = Literal["flag", "count", "size", "seconds", "text", "texts"]
Value: TypeAlias = bool | int | float | str | tuple[str, ...] | None
"""flag: bool; count and size: int (size in bytes, None where "none" is allowed); seconds: float; texts: tuple."""


_NO_LIMIT: Final = float(2**62)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. ``least`` and ``most`` bound numbers; ``choices`` bounds texts; ``none`` allows the word "none"."""

    name: str
    kind: Kind
    default: Value
    unit: str
    reason: str
    least: float = 0
    most: float = _NO_LIMIT
    choices: tuple[str, ...] = ()
    none: bool = False


_SIZE_UNITS: Final = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": 1024 * GIB, "tib": 1024 * GIB, "tb": 1000**4,
}  # fmt: skip
_TIME_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
                      "day": 86400.0, "days": 86400.0}  # fmt: skip
_AMOUNT: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,4})\s*", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of ``"5 GiB"``, ``"500MB"``, ``"4096"``; raises ValueError with what is wrong."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is no size; write it like 512 MiB, 5 GiB or 4096")
    unit = _SIZE_UNITS[match[2].lower()]
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def parse_seconds(text: str) -> float:
    """Seconds of ``"30s"``, ``"5 min"``, ``"1.5"``; raises ValueError with what is wrong."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].lower() not in _TIME_UNITS:
        raise ValueError(f"{text!r} is no length of time; write it like 30s, 5 min, 2h or 1.5")
    return float(match[1]) * _TIME_UNITS[match[2].lower()]


_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def parse(row: Row, raw: object) -> Value:
    """``raw`` (TOML's types, or a text of the environment) as the row's kind; raises ValueError."""
    if row.none and (raw is None or (isinstance(raw, str) and raw.strip().lower() in {"none", ""})):
        return None
    if row.kind == "flag":
        if isinstance(raw, bool):
            return raw
        word = raw.strip().lower() if isinstance(raw, str) else ""
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise ValueError(f"{raw!r} is neither true nor false")
    if row.kind == "texts":
        items = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ValueError(f"{raw!r} is no list of texts")
        return tuple(item for item in items if item)
    if row.kind == "text":
        if not isinstance(raw, str) or (row.choices and raw not in row.choices):
            raise ValueError(f"{raw!r} is none of {', '.join(row.choices)}" if row.choices else f"{raw!r} is no text")
        return raw
    return _parse_number(row, raw)


def _parse_number(row: Row, raw: object) -> int | float:
    number: int | float
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError(f"{raw!r} is no number")  # noqa: TRY004 - one kind of error for whatever is off
    if isinstance(raw, str):
        if row.kind == "count":
            if not re.fullmatch(r"\s*[0-9]{1,18}\s*", raw, re.ASCII):
                raise ValueError(f"{raw!r} is no whole number")
            number = int(raw)
        else:
            number = parse_size(raw) if row.kind == "size" else parse_seconds(raw)
    elif row.kind == "seconds":
        number = float(raw)
    elif isinstance(raw, float):
        raise ValueError(f"{raw!r} is no whole number")
    else:
        number = raw
    if not row.least <= number <= row.most:  # NaN fails here too
        raise ValueError(f"{raw if isinstance(raw, str) else number} is out of range: {_range(row)}")
    return number


def _range(row: Row) -> str:
    """What a number may be, in the units in which people write it."""
    least, most = (_written(number, row) for number in (row.least, row.most))
    unit = f" {row.unit}" if row.kind == "count" and row.unit else ""
    return f"{least} or more{unit}" if row.most == _NO_LIMIT else f"{least} to {most}{unit}"


def _written(number: float, row: Row) -> str:
    if row.kind == "size":
        return spell(round(number), "size")
    return f"{number:,.0f}" if row.kind == "count" else _spell_seconds(number)


def _spell_seconds(number: float) -> str:
    """In the longest unit that it is a whole number of."""
    for unit, factor in (("day", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if number >= factor and number % factor == 0:
            return f"{number / factor:.0f} {unit}" + ("s" if unit == "day" and number != factor else "")
    return f"{number * 1000:.9g} ms" if 0 < number < 1 else f"{number:.15g} s"


def spell(value: Value, kind: Kind) -> str:
    """A value as a person would write it in ``config.toml``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value) if value else "(empty)"
    if kind == "size" and isinstance(value, int):
        for unit, factor in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
            if value and value % factor == 0:
                return f"{value // factor} {unit}"
        return f"{value} B"
    if kind == "seconds" and isinstance(value, float):
        return _spell_seconds(value)
    return str(value)
