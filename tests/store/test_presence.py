"""What is said to be here is on the disk under its name: found by a look at names, without reading a byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stores import noise, publish

from p2plearn.store import holding as holding_room
from p2plearn.store.presence import Seen
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.store import Store

NOTHING = Seen(frozenset(), frozenset())


@pytest.fixture
def course(store: Store, tmp_path: Path) -> bytes:
    source = tmp_path / "course.bin"
    source.write_bytes(noise(300_000))
    return publish(store, source).course


def in_place(store: Store, tmp_path: Path) -> tuple[Path, bytes]:
    source = tmp_path / "own.bin"
    source.write_bytes(noise(300_000, 7))
    return source, publish(store, source, no_copy=True).course


def complete(store: Store, course: bytes) -> bool:
    row = store.course(course)
    assert row is not None
    return row.complete


def test_what_was_deleted_while_it_was_open_is_no_longer_here(store: Store, course: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(noise(200_000, 1))
    other = publish(store, tmp_path / "other.bin").course
    extents = set((store.home / "store" / "extents").iterdir())
    (tmp_path / "third.bin").write_bytes(noise(200_000, 2))
    third = publish(store, tmp_path / "third.bin").course
    holding = store.holding(course)
    assert holding is not None
    with holding:
        holding.read(0, afresh=True)
        assert store.look() == NOTHING
        for extent in extents:
            extent.unlink()
        assert holding.read(0)  # through the open file
        with pytest.raises(ChunkMissing):
            holding.read(0, afresh=True)
    assert store.look() == Seen(frozenset({course, other}), frozenset())
    assert [complete(store, each) for each in (course, other, third)] == [False, False, True]
    assert store.look() == NOTHING


def test_a_look_reads_no_chunk(store: Store, course: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr(holding_room.os, "pread", read)
    assert store.look() == NOTHING
    assert complete(store, course)


def test_another_file_in_its_place_is_hashed_before_it_counts(store: Store, course: bytes) -> None:
    holding = store.holding(course)
    assert holding is not None
    with holding:
        holding.read(0, afresh=True)
        (extent,) = (store.home / "store" / "extents").iterdir()
        other = extent.with_name("other")
        other.write_bytes(bytes(extent.stat().st_size))
        other.rename(extent)
        with pytest.raises(StoreDamage):
            holding.read(0, afresh=True)
        holding.read(1)
        other.write_bytes(bytes(extent.stat().st_size))
        other.rename(extent)
        assert store.look().replaced == {course}
        assert store.look() == NOTHING
        assert store.verify(course)


def test_a_users_own_file_counts_while_it_is_as_it_was(store: Store, tmp_path: Path) -> None:
    source, course = in_place(store, tmp_path)
    assert store.look() == NOTHING
    holding = store.holding(course)
    assert holding is not None
    away = source.with_name("away.bin")
    with holding:
        holding.read(0, afresh=True)
        source.rename(away)  # it is open, and as it was, but not where it should be
        with pytest.raises(StoreDamage):
            holding.read(0, afresh=True)
    assert store.look() == Seen(frozenset({course}), frozenset())
    assert not complete(store, course)
    assert store.look() == NOTHING
    away.rename(source)
    assert store.look().changed == {course}
    assert complete(store, course)
    os.utime(source, ns=(1, 1))
    assert store.look().changed == {course}
    assert not complete(store, course)


def test_one_that_came_back_while_no_node_ran_counts_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    source, course = in_place(store, tmp_path)
    away = source.rename(source.with_name("away.bin"))
    store.look()
    assert not complete(store, course)
    store.close()
    away.rename(source)
    store = Store.open(tmp_path / "home")
    assert store.look().changed == {course}
    assert complete(store, course)
    store.close()


def test_a_folder_that_is_gone_or_another_one_is_a_disk_being_changed(store: Store, course: bytes) -> None:
    folder = store.home / "store" / "extents"
    away = folder.rename(folder.with_name("away"))
    assert store.look() == NOTHING
    folder.mkdir()
    assert store.look() == NOTHING
    folder.rmdir()
    away.rename(folder)
    assert store.look() == NOTHING
    assert complete(store, course)
    assert store.verify(course) == []
