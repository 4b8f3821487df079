"""The user's files that are served in place: packed many to a row, found by number and by folder, whatever they look
like; and those of a store of the format before, which had a row each.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from older import of_format_3
from stores import FILES, FOLDERS, begin, copy, fetch, noise, publish, read_tree, write_tree

from p2plearn.database import DatabaseDamaged
from p2plearn.store import users_files
from p2plearn.store.catalogue import MIGRATIONS, add_extent
from p2plearn.store.store import Store
from p2plearn.store.users_files import MOST, Look, UsersFile

CATALOGUE = Path("store/catalogue.sqlite")


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for step in MIGRATIONS:
        connection.executescript(step)
    yield connection
    connection.close()


def look(path: bytes, roll: random.Random) -> Look:
    return path, roll.randrange(1 << 63), roll.randrange(-(1 << 63), 1 << 63), roll.randrange(1 << 64)


def everything(db: sqlite3.Connection) -> dict[int, UsersFile | None]:
    return {number: users_files.find(db, number) for number in users_files.after(db, 0)}


def test_they_come_out_as_they_went_in(db: sqlite3.Connection) -> None:
    """Among extents of the store's own, in several courses, forgotten one by one; a plain dict is the model."""
    roll = random.Random(1)
    model: dict[int, Look] = {}
    own: set[int] = set()
    for step in range(60):
        if roll.random() < 0.3:
            own.add(add_extent(db, f"extent {step}", 1))
        root = b"/home/" + bytes([roll.choice(b"abc")])
        number_of_files = roll.choice([1, 2, 5, MOST, MOST + 1])
        paths = [root + f"/{at % 7}/".encode() + bytes([0xFF, 0x0A, 0x22]) + f"{at}".encode() for at in range(5)]
        paths += [root + f"/more/{step}/{at}".encode() for at in range(number_of_files)] + [root + b"x", b"/elsewhere"]
        looks = [look(path, roll) for path in paths]
        numbers = users_files.add(db, root, looks)
        assert not own & set(numbers)
        assert not model.keys() & set(numbers)
        model |= dict(zip(numbers, looks, strict=True))
        # Noted again, as they look: the same numbers. One of them changed: another for that one.
        assert users_files.add(db, root, looks) == numbers
        changed = look(paths[2], roll)
        again = users_files.add(db, root, [looks[0], changed, *looks[3:]])
        assert (again[0], again[2:]) == (numbers[0], numbers[3:])
        model[again[1]] = changed
        gone = set(roll.sample(sorted(model), len(model) // 3))
        users_files.drop(db, gone | own | {10**6})
        model = {number: one for number, one in model.items() if number not in gone}
        found = everything(db)
        assert {number: one and one.look for number, one in found.items()} == model
        assert list(found) == sorted(model)
        at = roll.choice([0, *model, *own])
        assert list(users_files.after(db, at)) == [number for number in sorted(model) if number > at]
        assert all(users_files.find(db, number) is None for number in (*gone, *own))
        for folder in (b"/", b"/home/", root + b"/", root + b"/more/", root + b"/3/", b"/home", b"/x/"):
            if folder.endswith(b"/"):
                below = {number for number, one in model.items() if one[0].startswith(folder)}
                assert set(users_files.below(db, folder)) == below
    users_files.drop(db, model)
    assert db.execute("SELECT count(*) FROM users_files").fetchone() == (0,)


def test_many_that_are_alike_take_a_few_bytes_each(db: sqlite3.Connection) -> None:
    roll = random.Random(2)
    looks, time = [], 1_700_000_000_000_000_000
    for number in range(10_000):
        time += roll.randrange(0, 40_000_000, 4_000_000)
        looks.append((f"/home/me/course/{number // 100:03}/{number % 100:02}.bin".encode(), 4096, time, 10**6 + number))
    users_files.add(db, b"/home/me/course", looks)
    (taken,) = db.execute("SELECT sum(length(files) + length(folder)) FROM users_files").fetchone()
    assert taken < 8 * len(looks)


def test_what_is_damaged_is_said_to_be(db: sqlite3.Connection) -> None:
    users_files.add(db, b"/a", [(b"/a/b", 1, 2, 3), (b"/a/c", 1, 2, 3)])
    (packed,) = db.execute("SELECT files FROM users_files").fetchone()
    for harmed in (b"", packed[:-5], b"?" + packed[1:], packed[:9] + bytes([packed[9] ^ 8]) + packed[10:]):
        db.execute("UPDATE users_files SET files = ?", (harmed,))
        with pytest.raises(DatabaseDamaged):
            users_files.find(db, 1)


def of_folder(tmp_path: Path, number: int) -> Path:
    return write_tree(tmp_path / "small", {f"{at // 50:02}/{at:04}.bin": noise(4096, at) for at in range(number)})


def test_a_course_of_small_files_takes_little_beside_them(store: Store, other: Store, tmp_path: Path) -> None:
    number = 3000
    course = publish(other, of_folder(tmp_path, number)).course
    copy(other, store, course)
    store.checkout(course, tmp_path / "out", give=True)
    store.keep_in_place(course, tmp_path / "out")
    room = sum(path.lstat().st_blocks * 512 for path in (store.home / "store").rglob("*") if path.name != "reserve")
    assert room < 0.05 * number * 4096  # some 100 KB of it however many there are
    assert store.verify() == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of the format before: served in place, in the store, and not all here yet."""
    source = Store.open(tmp_path / "elsewhere")
    store = Store.open(tmp_path / "home")
    publish(store, of_folder(tmp_path, MOST + 40), title="in place", no_copy=True)
    publish(store, write_tree(tmp_path / "file", {"one.bin": noise(500_000, 1)}) / "one.bin", title="f", no_copy=True)
    publish(store, write_tree(tmp_path / "mine", FILES, FOLDERS), title="copied")
    partly = publish(source, write_tree(tmp_path / "p", {"p": noise(9_000_000, 10)}), title="partly").course
    download = begin(source, store, partly)
    fetch(source, download, download.missing()[:5])
    download.close()
    store.close()
    source.close()
    of_format_3(tmp_path / "home")
    return tmp_path / "home"


def check(home: Path, tmp_path: Path) -> None:
    """Everything is here, served from where it was."""
    store = Store.open(home)
    rows = {row.title: row for row in store.courses()}
    assert {title for title, row in rows.items() if row.complete} == {"in place", "f", "copied"}
    assert 0 < rows["partly"].have_bytes < rows["partly"].bytes
    assert store.verify() == []
    for title, folder in (("in place", tmp_path / "small"), ("f", tmp_path / "file" / "one.bin"), ("copied", None)):
        holding = store.holding(rows[title].course)
        assert holding is not None
        assert store.folder_of(holding) == os.fspath(folder or "")
    store.checkout(rows["in place"].course, tmp_path / "again")
    assert read_tree(tmp_path / "again") == read_tree(tmp_path / "small")
    # What becomes of a file afterwards is noticed as ever.
    (tmp_path / "small" / "00" / "0007.bin").write_bytes(b"mine now")
    (damage,) = store.verify()
    assert damage.path == "00/0007.bin"
    store.close()


def test_a_store_of_the_format_before_is_taken_over(home: Path, tmp_path: Path) -> None:
    check(home, tmp_path)
    backup = sqlite3.connect(home / "store" / "catalogue.sqlite.format-3")
    assert backup.execute("PRAGMA user_version").fetchone() == (3,)
    assert backup.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert backup.execute("SELECT count(*) FROM extents WHERE name IS NULL").fetchone() == (MOST + 41,)
    backup.close()
    with sqlite3.connect(home / CATALOGUE) as db:
        assert db.execute("SELECT count(*) FROM extents WHERE path IS NOT NULL").fetchone() == (0,)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()
    assert (home / "store" / "FORMAT").read_text() == "p2plearn store 4\n"


def test_a_catalogue_of_the_format_before_that_is_lost_is_built_anew_from_its_notes(home: Path, tmp_path: Path) -> None:
    (home / CATALOGUE).unlink()
    check(home, tmp_path)
