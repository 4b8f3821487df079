"""⊙ Request bodies: from JSON to the dataclasses of ``operations``, and the JSON Schema that says how.

Both come from the dataclass's own fields, so the description can't drift from what is accepted. What comes in is
anybody's text: it becomes a checked value or a UsageProblem, never another exception. Unknown fields are passed
over, so that a newer program can talk to an older node.

Imports ``errors`` and ``operations``; no I/O.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import Any, TypeVar, cast, get_type_hints

from p2plearn.errors import UsageProblem

T = TypeVar("T")

_SCHEMAS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    tuple[str, ...]: {"type": "array", "items": {"type": "string"}},
    tuple[dict[str, Any], ...]: {"type": "array", "items": {"type": "object"}},
}
_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def parse_json(body: bytes) -> Any:
    """The JSON value of ``body`` (empty: an empty object); raises UsageProblem."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse) if body else {}
    except (ValueError, RecursionError) as problem:
        words = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise UsageProblem(f"The body is not JSON in UTF-8: {words}.") from None


def read(kind: type[T], raw: object) -> T:
    """The dataclass ``kind`` from a parsed JSON value; raises UsageProblem naming the field that is off."""
    if not isinstance(raw, dict):
        raise UsageProblem("The body must be a JSON object.")
    hints = _hints(cast(type, kind))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, kind)):
        if field.name in raw:
            values[field.name] = _value(field.name, hints[field.name], raw[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageProblem(f"The body has no field {field.name!r}.")
    return kind(**values)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of its fields. They are texts until they are looked up, which costs more than all the rest."""
    return get_type_hints(kind)


def describe(kind: type) -> dict[str, Any]:
    """The JSON Schema of the dataclass ``kind``."""
    hints = _hints(kind)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in dataclasses.fields(kind):
        properties[field.name] = dict(_SCHEMAS[hints[field.name]])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
            properties[field.name]["default"] = list(default) if isinstance(default, tuple) else default
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n\n", maxsplit=1)[0],
        "properties": properties,
        **({"required": required} if required else {}),
    }


def _value(name: str, hint: Any, raw: object) -> object:
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        number = float(raw) if abs(raw) < 1e300 else math.inf
        if math.isfinite(number):
            return number
        raise UsageProblem(f"The field {name!r} is out of range.")
    if hint in _WORDS:
        if type(raw) is hint:
            if hint is str:
                _refuse_nul(name, cast(str, raw))
            return raw
        raise UsageProblem(f"The field {name!r} must be {_WORDS[hint]}.")
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise UsageProblem(f"The field {name!r} must be a list of texts.")
    for item in raw:
        _refuse_nul(name, item)
    return tuple(raw)


def _refuse_nul(name: str, text: str) -> None:
    if "\0" in text:
        raise UsageProblem(f"The field {name!r} has a NUL character in it.")
