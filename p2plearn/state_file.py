"""Small files in which a node remembers something across restarts: JSON of our own, with a format number.

A node must start whatever has become of them. So all that can be wrong with one is ``Unusable``, also what its reader
stumbles over; who asked decides whether it is put aside or passed over.

Imports only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Unusable(Exception):
    """The file isn't one that we wrote, or can't be read; its text says why."""


def read_state(path: Path, most: int, version: int, read: Callable[[Any], T]) -> T | None:
    """What ``decode_state`` makes of the bytes in ``path``; None when there is no such file. Blocks briefly.

    Raises Unusable, also for a file that can't be read or has more than ``most`` bytes.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(str(error)) from error
    if len(raw) > most:
        raise Unusable("it is too large to be ours")
    return decode_state(raw, version, read)


def decode_state(raw: bytes, version: int, read: Callable[[Any], T]) -> T:
    """What ``read`` makes of the document in ``raw``.

    Raises Unusable for what is no JSON, or of another format than ``version``; and when ``read`` raises what reading a
    document of another shape raises.
    """
    try:
        document = json.loads(raw)
        if document["format"] != version:
            raise ValueError(f"format {document['format']!r}")
        return read(document)
    # OverflowError: float() of a number with hundreds of digits. RecursionError: [[[[…
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise Unusable(str(error)) from error


def put_aside(path: Path) -> None:
    """Move a file that can't be used out of the way, beside itself; one that can't be moved stays."""
    with contextlib.suppress(OSError):
        os.replace(path, path.with_name(path.name + ".bad"))
