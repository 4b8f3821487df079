"""Extents that no row names: what may be all that is left of a course is never deleted, and what is nobody's is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import noise, publish, write_tree

from p2plearn.store.extents import SUFFIX, UNFINISHED
from p2plearn.store.orphans import ASIDE
from p2plearn.store.store import Store

STRANGER = "f" * 24 + SUFFIX


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def forgotten(store: Store, opened: Callable[..., Store], tmp_path: Path) -> Path:
    """The one extent of a store as it is when its disk was away at an opening: no row names it any more."""
    (extent,) = store._parts.extents.iterdir()
    store.close()
    away = extent.rename(tmp_path / "away")
    opened(store.home).close()
    return away.rename(extent)


def state(store: Store, course: bytes) -> tuple[int, int]:
    row = store.course(course)
    assert row is not None
    return row.have_bytes, row.bytes


def test_an_extent_whose_list_is_damaged_comes_back_by_the_hashes_of_its_chunks(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    extent = forgotten(store, opened, tmp_path)
    flip(extent, -10)
    again = opened(store.home)
    have, whole = state(again, course)
    assert have == whole
    assert again.verify() == []
    assert again.notices == ()
    assert not (again._parts.directory / ASIDE).exists()


def test_an_extent_whose_end_the_disk_cannot_read_comes_back_too(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = publish(store, folder).course
    extent = forgotten(store, opened, tmp_path)
    facts, read = extent.stat(), os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == facts.st_ino and offset + length > facts.st_size - 100:
            raise OSError(5, "Input/output error")
        return read(fd, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", pread)
        again = opened(store.home)
    have, whole = state(again, course)
    assert have == whole
    assert again.verify() == []


def test_what_is_behind_a_damaged_chunk_of_an_extent_without_a_list_is_set_aside(
    store: Store, opened: Callable[..., Store], tmp_path: Path
) -> None:
    course = publish(store, write_tree(tmp_path / "one", {"a": noise(4_000_000, 1), "b": noise(600_000, 2)})).course
    extent = forgotten(store, opened, tmp_path)
    flip(extent, 2_000_000)
    flip(extent, -10)
    raw = extent.read_bytes()
    again = opened(store.home)
    have, whole = state(again, course)
    assert 600_000 < have < whole
    aside = again._parts.directory / ASIDE / extent.name
    assert aside.read_bytes() == raw
    (words,) = again.notices
    assert str(aside) in words
    assert "verify --repair" in words
    # Nothing deletes it, whatever becomes of what was found.
    again.remove(course)
    again.close()
    last = opened(store.home)
    last.gc()
    assert not extent.exists()
    assert aside.read_bytes() == raw


def test_what_cannot_be_told_the_use_of_is_deleted_only_if_no_course_lacks_anything(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    stranger, aside = store._parts.extents / STRANGER, store._parts.directory / ASIDE / STRANGER
    store.close()
    stranger.write_bytes(noise(900_000, 9))
    opened(store.home).close()
    assert not stranger.exists()
    assert not aside.exists()
    (extent,) = store._parts.extents.iterdir()
    extent.unlink()
    stranger.write_bytes(noise(900_000, 9))
    again = opened(store.home)
    assert state(again, course)[0] == 0
    assert not stranger.exists()
    assert aside.read_bytes() == noise(900_000, 9)
    assert str(aside) in again.notices[0]
    again.close()
    assert opened(store.home).notices == ()  # told once
    assert aside.exists()


def test_what_was_never_finished_is_nobodys(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    seen: set[str] = set()

    def look(*_: int) -> None:
        seen.update(os.listdir(store._parts.extents))

    publish(store, write_tree(tmp_path / "two", {"a": noise(3_000_000, 7)}), title="Two", report=look)
    assert {name.endswith(SUFFIX + UNFINISHED) for name in seen} == {True, False}
    for extent in store._parts.extents.iterdir():
        assert extent.name.endswith(SUFFIX)
    store.close()
    raw = b"".join(path.read_bytes() for path in sorted(store._parts.extents.iterdir()))
    for extent in store._parts.extents.iterdir():
        extent.unlink()
    unfinished = store._parts.extents / (STRANGER + UNFINISHED)
    unfinished.write_bytes(raw)
    again = opened(store.home)
    assert state(again, course)[0] == 0
    assert list(again._parts.extents.iterdir()) == []
    assert not (again._parts.directory / ASIDE).exists()


def test_an_extent_that_was_given_another_name_is_found_by_what_is_in_it(
    store: Store, opened: Callable[..., Store], folder: Path
) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()
    store.close()
    extent.rename(extent.with_name(STRANGER))
    again = opened(store.home)
    have, whole = state(again, course)
    assert have == whole
    assert again.verify() == []
