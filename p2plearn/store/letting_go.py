"""Extents, and files of the user's, taken out of the catalogue; and whatever is in memory that would still read by
their numbers.

What refers to them is looked up once for many: there is no index of chunks by extent, it would cost 45 MB a million.

Imports siblings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from p2plearn.store import users_files
from p2plearn.store.parts import StoreParts

EXTENTS_AT_ONCE: Final = 256
"""Extents that are looked up at once, in all chunks."""


def let_go(parts: StoreParts, extents: Collection[int], *, used: bool = False) -> set[int]:
    """Drop those of ``extents`` that nothing refers to, in one transaction; which these were.

    ``used``: all of them, and the chunks and downloads that refer to them go along.
    """
    numbers = sorted(extents)
    dropped: set[int] = set()
    with parts.gate:
        with parts.catalogue.writing() as db:
            for at in range(0, len(numbers), EXTENTS_AT_ONCE):
                some = numbers[at : at + EXTENTS_AT_ONCE]
                if used:
                    _drop_referring(db, some)
                dropped |= set(some) if used else _unused(db, some)
            db.executemany("DELETE FROM extents WHERE id = ?", [(number,) for number in sorted(dropped)])
            users_files.drop(db, dropped)
        _forget(parts, dropped)
    return dropped


def _drop_referring(db: sqlite3.Connection, numbers: Sequence[int]) -> None:
    marks = ",".join("?" * len(numbers))
    for table in ("downloads", "chunks"):
        db.execute(f"DELETE FROM {table} WHERE extent IN ({marks})", numbers)  # noqa: S608 - marks only


def _unused(db: sqlite3.Connection, numbers: Sequence[int]) -> set[int]:
    marks = ",".join("?" * len(numbers))
    referring = (
        f"SELECT extent FROM downloads WHERE extent IN ({marks}) "  # noqa: S608 - marks only
        f"UNION SELECT extent FROM chunks WHERE extent IN ({marks})"
    )
    return set(numbers).difference(row[0] for row in db.execute(referring, (*numbers, *numbers)))


def _forget(parts: StoreParts, dropped: set[int]) -> None:
    """Read nothing through the numbers of rows that are gone: another file may be given them."""
    for extent in dropped:
        parts.files.forget(extent)  # a file without a name could still be read, until the node stops
    usable = parts.usable()
    for placement in parts.open_placements() if dropped else ():
        slots = [slot for slot, extent in enumerate(placement.extents) if extent in dropped]
        if slots:
            placement.locate_again(parts.catalogue, usable, slots)
