"""How many inputs each decoder was given, over all runs: a small JSON file outside the repository.

``P2PLEARN_FUZZ_COUNTS`` says where (``p2plearn-fuzz.json`` in the user's folder for state otherwise). ``python
fuzz/counts.py`` prints it. Delete it to begin anew, for another release.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import platformdirs

Counts = dict[str, dict[str, int]]
"""Decoder: {"guided": inputs of fuzz/run.py, "plain": of fuzz/plain.py}."""


def path() -> Path:
    """Where the file is."""
    told = os.environ.get("P2PLEARN_FUZZ_COUNTS")
    return Path(told) if told else platformdirs.user_state_path("p2plearn") / "fuzz.json"


def read() -> Counts:
    """What was tried so far."""
    try:
        told: Counts = json.loads(path().read_text("ascii"))
    except FileNotFoundError:
        return {}
    return told


def tried(name: str) -> int:
    """Inputs of one decoder, in both ways."""
    return sum(read().get(name, {}).values())


def add(name: str, *, guided: int = 0, plain: int = 0) -> None:
    """Count more. One process at a time; a crash leaves the old file or the new one."""
    told = read()
    row = told.setdefault(name, {"guided": 0, "plain": 0})
    row["guided"] += guided
    row["plain"] += plain
    where = path()
    where.parent.mkdir(parents=True, exist_ok=True)
    fresh = where.with_name(where.name + ".new")
    fresh.write_text(json.dumps(told, indent=1), "ascii")
    fresh.replace(where)


if __name__ == "__main__":
    for name, row in read().items():
        print(f"{name}: {row['guided']:,} guided, {row['plain']:,} plain, {sum(row.values()):,} in all")
