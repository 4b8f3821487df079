"""What a killed checkout left beside its destination goes, also if nobody comes back there; nothing else does."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from p2plearn.store.store import Store
from tests.stores import copy, noise, parcel, publish, write_tree

PART = ".out.p2plearn-part-0123abcd"


def left_behind(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if "p2plearn-part" in name}


@pytest.fixture
def course(other: Store, tmp_path: Path) -> bytes:
    return publish(other, write_tree(tmp_path / "course", {"large.bin": noise(5 << 20), "small": b"small"})).course


def test_the_part_folder_of_a_killed_get_goes_at_the_next_start(other: Store, tmp_path: Path, course: bytes) -> None:
    store = Store.open(tmp_path / "mine")
    store.begin_download(*parcel(other, course), checkout=tmp_path / "out").close()
    os.close(store._lock_fd)  # as SIGKILL ends it
    store._parts.catalogue.close()
    write_tree(tmp_path / PART, {"a/large.bin": b"begun"})
    assert (tmp_path / "mine" / "store" / "begun").exists()
    again = Store.open(tmp_path / "mine")
    again.close()
    assert left_behind(tmp_path) == set()
    assert not (tmp_path / "mine" / "store" / "begun").exists()


def test_gc_takes_only_what_is_a_part_of_a_noted_place_and_unlocked(
    store: Store, other: Store, tmp_path: Path, course: bytes
) -> None:
    copy(other, store, course)
    store.checkout(course, tmp_path / "out")
    running = ".out.p2plearn-part-89abcdef"
    others = {".elsewhere.p2plearn-part-0123abcd", ".out.p2plearn-part-mine"}
    for name in (PART, running, *others):
        write_tree(tmp_path / name, {"file": b""})
    link = tmp_path / ".out.p2plearn-part-11111111"
    link.symlink_to(tmp_path / "course")
    fd = os.open(tmp_path / running, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        store.gc(dry_run=True)
        assert PART in left_behind(tmp_path)
        store.gc()
        assert left_behind(tmp_path) == {*others, running, link.name}
        assert (tmp_path / "course" / "large.bin").exists()
    finally:
        os.close(fd)
    store.gc()  # it is noted still, and now nobody holds it
    assert left_behind(tmp_path) == {*others, link.name}


def test_the_note_of_a_place_that_is_away_stays_until_it_is_back(
    store: Store, other: Store, tmp_path: Path, course: bytes
) -> None:
    copy(other, store, course)
    store.checkout(course, tmp_path / "drive" / "out")
    write_tree(tmp_path / "drive" / PART, {"file": b""})
    (tmp_path / "drive").rename(tmp_path / "away")
    store.gc()
    (tmp_path / "away").rename(tmp_path / "drive")
    with (tmp_path / "home" / "store" / "begun").open("ab") as notes:
        notes.write(b"/torn by a power cut")
    store.gc()
    assert os.listdir(tmp_path / "drive") == ["out"]
