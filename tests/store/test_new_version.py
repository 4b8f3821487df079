"""A new version into the folder of the one before: what nobody touched is renewed, what somebody did is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2plearn.errors import Refused
from p2plearn.store.store import Store
from tests.stores import noise, publish, read_tree, write_tree

OLD = {
    "same.txt": b"same",
    "new.txt": b"old words",
    "gone/away.txt": b"away",
    "gone/mine.txt": b"theirs",
    "big": noise(9000),
}
NEW = {"same.txt": b"same", "new.txt": b"new words", "more/added.txt": b"added", "big": noise(9000) + b"!"}


@pytest.fixture
def out(store: Store, tmp_path: Path) -> Path:
    """The first version, checked out."""
    course = publish(store, write_tree(tmp_path / "one", OLD)).course
    store.checkout(course, tmp_path / "out")
    return tmp_path / "out"


def second(store: Store, tmp_path: Path, **options: str) -> bytes:
    return publish(store, write_tree(tmp_path / "two", NEW), **options).course


def test_an_untouched_folder_becomes_the_new_version(store: Store, out: Path, tmp_path: Path) -> None:
    course = second(store, tmp_path)
    holding = store.holding(course)
    assert holding is not None
    store.check_destination(holding.signed, holding.index, out)
    done = store.checkout(course, out)
    assert read_tree(out) == read_tree(tmp_path / "two")
    assert done.replaced == ()
    assert done.written_files == 3
    assert not (tmp_path / "home" / "replaced").exists()


def test_what_somebody_changed_or_added_is_kept(store: Store, out: Path, tmp_path: Path) -> None:
    (out / "new.txt").write_bytes(b"my words")
    (out / "gone" / "mine.txt").write_bytes(b"mine")
    (out / "notes.txt").write_bytes(b"notes")
    done = store.checkout(second(store, tmp_path), out)
    assert done.replaced == ("new.txt",)
    assert done.replaced_into is not None
    assert (done.replaced_into / "new.txt").read_bytes() == b"my words"
    assert (out / "new.txt").read_bytes() == b"new words"
    assert (out / "gone" / "mine.txt").read_bytes() == b"mine"
    assert (out / "notes.txt").read_bytes() == b"notes"
    assert not (out / "gone" / "away.txt").exists()


def test_a_part_of_the_new_version_removes_nothing(store: Store, out: Path, tmp_path: Path) -> None:
    course = second(store, tmp_path)
    holding = store.holding(course)
    assert holding is not None
    store.checkout(course, out, [entry for entry in holding.index.files if entry.path == "new.txt"])
    assert (out / "gone" / "away.txt").read_bytes() == b"away"
    assert (out / "new.txt").read_bytes() == b"new words"


def test_when_the_old_version_is_forgotten_its_files_are_somebodys(store: Store, out: Path, tmp_path: Path) -> None:
    (row,) = store.courses()
    course = second(store, tmp_path)
    store.remove(row.course)
    with pytest.raises(Refused, match="aren't this course's"):
        store.checkout(course, out)
    assert read_tree(out) == read_tree(tmp_path / "one")


def test_another_course_is_still_refused(store: Store, out: Path, tmp_path: Path) -> None:
    course = second(store, tmp_path, title="Another course")
    with pytest.raises(Refused, match="aren't this course's"):
        store.checkout(course, out)
    assert read_tree(out) == read_tree(tmp_path / "one")


def test_of_a_folder_with_other_bytes_under_the_courses_names_it_is_said_so(store: Store, tmp_path: Path) -> None:
    course = publish(store, write_tree(tmp_path / "course", {"c1.bin": b"right", "c2.bin": b"right, too"})).course
    half = write_tree(tmp_path / "half", {"c1.bin": b"other"})
    with pytest.raises(
        Refused, match=r"half has other bytes in files that have names of this course's \(1: 'c1.bin'\)"
    ):
        store.checkout(course, half)
    (half / "mine").write_bytes(b"")
    with pytest.raises(Refused, match=r"half has files in it that aren't this course's \(1: 'mine'\)"):
        store.checkout(course, half)
