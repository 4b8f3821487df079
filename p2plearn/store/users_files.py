"""The user's own files that chunks lie in (``--no-copy``), up to ``MOST`` to a row of the catalogue.

A course of small files that is served in place has one for each chunk or two. With a row, an index entry and a line in
the mirror for each, its path spelled out in all of them, what is known of a file of 4 KiB took a tenth of it; packed as
here it takes a few bytes.

Files are numbered, in one sequence with the store's own extents: a chunk's row says in either. A row has files of
ascending numbers below one folder, under the first number; numbers of rows never overlap. Rows are packed so:
``zlib`` of, for n files, n (u32), their numbers less the row's (n u32), sizes (n u64), times of last change in ns and
inodes (n u64 each, every one less the one before, modulo 2^64), all little-endian, then the names below the folder with
a zero byte between. The folder is spelled with the slash at its end; a file that is alone may have its path there, and
no name.

Functions on an open catalogue: the caller holds it for reading, or in a transaction. Imports ``database`` and siblings.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from p2plearn.database import DatabaseDamaged

MOST: Final = 256
"""Files of a row: enough to pack well, few enough to be unpacked for one of them, or written anew without one."""

_UNPACKED: Final = 16
"""Rows that stay unpacked, 60 KB each: files are asked for in the order in which they were noted."""

_EACH: Final = struct.calcsize("<IQQQ")
"""Bytes of a file, before they are packed, but for its name."""
_WRAP: Final = 1 << 64

Look = tuple[bytes, int, int, int]
"""(path, size, mtime_ns, inode) of a file: how it has to look for its chunks to count."""


class UsersFile(NamedTuple):
    """One of the user's files, as it looked when it was noted."""

    number: int
    path: bytes
    size: int
    mtime_ns: int
    inode: int

    @property
    def look(self) -> Look:
        """Without the number."""
        return self.path, self.size, self.mtime_ns, self.inode


def next_number(db: sqlite3.Connection) -> int:
    """The next number for a file of the user's or an extent of the store's own."""
    own = int(db.execute("SELECT coalesce(max(id), 0) FROM extents").fetchone()[0])
    last = db.execute("SELECT first, folder, files FROM users_files ORDER BY first DESC LIMIT 1").fetchone()
    return max(own, max(unpacked(*last), default=0) if last else 0) + 1


def add(db: sqlite3.Connection, root: bytes, looks: Iterable[Look]) -> array[int]:
    """Numbers for files as they look now, in that order, which chunk rows may then point into.

    ``root`` is the folder that they are below, most of them at least. One that was noted with the same root, and looks
    as it did, keeps its number.
    """
    mine = root.rstrip(b"/") + b"/"
    known = {hash(one.look): one.number for row in _of_folder(db, mine) for one in unpacked(*row).values()}
    numbers: array[int] = array("q")
    new: list[UsersFile] = []
    following = next_number(db)

    def number_of(look: Look) -> int | None:
        if not look[0].startswith(mine):
            return next(
                (one.number for row in _of_folder(db, look[0]) for one in unpacked(*row).values() if one.look == look),
                None,
            )
        number = known.get(hash(look))
        there = None if number is None else find(db, number)
        return number if there is not None and there.look == look else None

    for look in looks:
        number = number_of(look)
        if number is None:
            number, following = following, following + 1
            if not look[0].startswith(mine):
                _insert(db, look[0], [UsersFile(number, *look)])
            else:
                new.append(UsersFile(number, *look))
        numbers.append(number)
        if len(new) == MOST or (new and following - 1 > new[-1].number):
            _insert(db, mine, new)
            new = []
    if new:
        _insert(db, mine, new)
    return numbers


def insert(db: sqlite3.Connection, files: Iterable[UsersFile]) -> None:
    """Note files that have their numbers, in ascending order, each below the folder that those of its row share."""
    rest = iter(files)
    while some := list(itertools.islice(rest, MOST)):
        folders = [os.path.dirname(one.path) for one in some]
        _insert(db, some[0].path if len(some) == 1 else os.path.commonpath(folders).rstrip(b"/") + b"/", some)


def find(db: sqlite3.Connection, number: int) -> UsersFile | None:
    """The file with that number."""
    row = _row_at(db, number)
    return unpacked(*row).get(number) if row else None


def after(db: sqlite3.Connection, number: int) -> Iterator[int]:
    """The numbers behind that one, in ascending order."""
    rows = db.execute(
        "SELECT first, folder, files FROM users_files "
        "WHERE first >= coalesce((SELECT max(first) FROM users_files WHERE first <= ?), 0) ORDER BY first",
        (number,),
    )
    for row in rows:
        numbers = list(unpacked(*row))
        yield from numbers[bisect_right(numbers, number) :]


def below(db: sqlite3.Connection, folder: bytes) -> list[int]:
    """The numbers of the files below a folder, which is spelled with a slash at its end."""
    above = [folder[: at + 1] for at, byte in enumerate(folder) if byte == ord("/")]
    marks = ",".join("?" * len(above))
    rows = db.execute(
        f"SELECT first, folder, files FROM users_files WHERE folder > ? AND folder < ? OR folder IN ({marks})",  # noqa: S608 - only "?"s
        (folder, folder[:-1] + b"0", *above),
    )
    return [one.number for row in rows for one in unpacked(*row).values() if one.path.startswith(folder)]


def drop(db: sqlite3.Connection, numbers: Collection[int]) -> None:
    """Forget files. Numbers that aren't there, or are of the store's own extents, are passed over."""
    going = sorted(set(numbers))
    while going:
        row = _row_at(db, going[-1])
        if row is None:
            return
        first, folder, files = row
        there = unpacked(first, folder, files)
        gone = set()
        while going and going[-1] >= first:
            gone.add(going.pop())
        left = [one for one in there.values() if one.number not in gone]
        if not left:
            db.execute("DELETE FROM users_files WHERE first = ?", (first,))
        elif len(left) < len(there):
            db.execute("UPDATE users_files SET files = ? WHERE first = ?", (_packed(first, folder, left), first))


def take_over(db: sqlite3.Connection) -> None:
    """The fourth migration: what had a row each in ``extents``."""
    rows = db.execute("SELECT id, path, size, mtime_ns, inode FROM extents WHERE name IS NULL ORDER BY id").fetchall()
    insert(db, itertools.starmap(UsersFile, rows))
    db.execute("DELETE FROM extents WHERE name IS NULL")


@lru_cache(_UNPACKED)
def unpacked(first: int, folder: bytes, files: bytes) -> dict[int, UsersFile]:
    """The files of a row, by number, in ascending order. Not to be changed. Raises DatabaseDamaged."""
    try:
        raw = zlib.decompress(files)
        (count,) = struct.unpack_from("<I", raw)
        numbers = struct.unpack_from(f"<{count}I", raw, 4)
        wide = struct.unpack_from(f"<{3 * count}Q", raw, 4 + 4 * count)
        names = raw[4 + _EACH * count :].split(b"\0")
    except (zlib.error, struct.error) as error:
        raise DatabaseDamaged(
            f"What the catalogue knows of files that are served in place is damaged: {error}."
        ) from None
    sizes, times, inodes = wide[:count], _added_up(wide[count : 2 * count]), _added_up(wide[2 * count :])
    found = {}
    for number, name, size, time, inode in zip(numbers, names, sizes, times, inodes, strict=False):
        found[first + number] = UsersFile(first + number, folder + name, size, time - (time >> 63 << 64), inode)
    return found


def _packed(first: int, folder: bytes, files: Sequence[UsersFile]) -> bytes:
    count = len(files)
    numbers = struct.pack(f"<I{count}I", count, *(one.number - first for one in files))
    sizes = [one.size for one in files]
    times, inodes = _differences([one.mtime_ns for one in files]), _differences([one.inode for one in files])
    names = b"\0".join(one.path[len(folder) :] for one in files)
    return zlib.compress(numbers + struct.pack(f"<{3 * count}Q", *sizes, *times, *inodes) + names)


def _differences(values: Sequence[int]) -> list[int]:
    return [(value - before) % _WRAP for before, value in zip((0, *values), values, strict=False)]


def _added_up(differences: Iterable[int]) -> list[int]:
    return list(itertools.accumulate(differences, lambda total, value: (total + value) % _WRAP))


def _insert(db: sqlite3.Connection, folder: bytes, files: Sequence[UsersFile]) -> None:
    first = files[0].number
    db.execute("INSERT INTO users_files VALUES (?, ?, ?)", (first, folder, _packed(first, folder, files)))


def _row_at(db: sqlite3.Connection, number: int) -> tuple[int, bytes, bytes] | None:
    """The row that has the file of that number, if any has."""
    query = "SELECT first, folder, files FROM users_files WHERE first <= ? ORDER BY first DESC LIMIT 1"
    row: tuple[int, bytes, bytes] | None = db.execute(query, (number,)).fetchone()
    return row


def _of_folder(db: sqlite3.Connection, folder: bytes) -> list[tuple[int, bytes, bytes]]:
    return db.execute("SELECT first, folder, files FROM users_files WHERE folder = ?", (folder,)).fetchall()
