"""A checkout that is what is kept: nothing twice on the disk, nothing wrong served, nothing lost that others need."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.store import Store
from tests.stores import FILES, FOLDERS, begin, copy, fetch, noise, publish, read_tree, write_tree

MIB = 1 << 20


@pytest.fixture
def fetched(store: Store, other: Store, tmp_path: Path) -> bytes:
    """A course published in ``other``, fetched into ``store``, and checked out at out/."""
    folder = write_tree(tmp_path / "course", {**FILES, "big.bin": noise(12 * MIB, 9)}, FOLDERS)
    course = publish(other, folder).course
    copy(other, store, course)
    store.checkout(course, tmp_path / "out")
    return course


def held(store: Store) -> int:
    return store.usage().bytes


def test_the_store_lets_go_of_its_copy_and_serves_from_the_files(
    store: Store, fetched: bytes, opened: Callable[..., Store], tmp_path: Path
) -> None:
    assert held(store) > 12 * MIB
    assert store.keep_in_place(fetched, tmp_path / "out") > 12 * MIB
    assert held(store) == 0
    row = store.course(fetched)
    assert row is not None
    assert row.complete
    third = opened("third")
    copy(store, third, fetched)
    assert third.verify() == []
    store.checkout(fetched, tmp_path / "again")
    assert read_tree(tmp_path / "again") == read_tree(tmp_path / "course")
    assert store.keep_in_place(fetched, tmp_path / "out") == 0  # once more: nothing to do, nothing lost
    assert store.verify() == []


def test_a_file_that_was_changed_stays_in_the_store(store: Store, fetched: bytes, tmp_path: Path) -> None:
    (tmp_path / "out" / "big.bin").write_bytes(b"mine now")
    store.keep_in_place(fetched, tmp_path / "out")
    assert held(store) >= 12 * MIB
    shutil.rmtree(tmp_path / "out")
    store.checkout(fetched, tmp_path / "again", [e for e in store.holding(fetched).index.files if e.path == "big.bin"])  # type: ignore[union-attr]
    assert (tmp_path / "again" / "big.bin").read_bytes() == noise(12 * MIB, 9)


def test_what_another_course_needs_stays_in_the_store(store: Store, fetched: bytes, tmp_path: Path) -> None:
    mine = publish(store, write_tree(tmp_path / "mine", {"part.bin": noise(12 * MIB, 9)}), title="Mine").course
    store.keep_in_place(fetched, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    store.checkout(mine, tmp_path / "mine again")
    assert (tmp_path / "mine again" / "part.bin").read_bytes() == noise(12 * MIB, 9)


def test_a_file_changed_afterwards_is_never_served_and_comes_again(
    store: Store, other: Store, fetched: bytes, tmp_path: Path
) -> None:
    store.keep_in_place(fetched, tmp_path / "out")
    file = tmp_path / "out" / "big.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    holding = store.holding(fetched)
    assert holding is not None
    (entry,) = (entry for entry in holding.index.files if entry.path == "big.bin")
    with pytest.raises((StoreDamage, ChunkMissing)):
        holding.read_all(range(entry.first, entry.first + entry.count))
    download = begin(other, store, fetched)
    assert fetch(other, download) >= 11 * MIB
    download.close()
    assert store.verify() == []
