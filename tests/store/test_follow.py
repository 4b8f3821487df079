"""A checkout that is written while its course is still coming: same files, nothing left behind, never in the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from stores import fetch, noise, parcel, publish, read_tree, write_tree

from p2plearn.errors import Refused
from p2plearn.store import follow
from p2plearn.store.download import Download
from p2plearn.store.store import Store

LARGE = follow.LARGE


@pytest.fixture
def course(source: Store, tmp_path: Path) -> bytes:
    """A course with two large files (one with a repeated part), a small and an empty one."""
    part = noise(LARGE, 1)
    files = {"a/large.bin": part + noise(300_000, 2), "twice.bin": part + part, "small.txt": b"small", "empty": b""}
    return publish(source, write_tree(tmp_path / "course", files, ("nothing in it",))).course


def begin_at(source: Store, target: Store, course: bytes, dest: Path) -> Download:
    return target.begin_download(*parcel(source, course), checkout=dest)


def parts_beside(dest: Path) -> list[str]:
    return [path.name for path in dest.parent.iterdir() if path.name.startswith(f".{dest.name}.")]


def test_what_passed_by_need_not_be_read_again(
    source: Store, target: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "place" / "out"
    download = begin_at(source, target, course, dest)
    fetch(source, download)
    download.commit()
    following = download.take_following(dest)
    assert following is not None
    assert not dest.exists()
    read: list[int] = []
    holding = target.holding(course)
    assert holding is not None
    real = type(holding).read_all
    monkeypatch.setattr(type(holding), "read_all", lambda self, slots: read.extend(slots) or real(self, slots))
    done = target.checkout(course, dest, following=following)
    download.close()
    assert done.written_files == 4
    assert read_tree(dest) == read_tree(tmp_path / "course")
    assert not parts_beside(dest)
    # Only the small file, and the two further places of what came once, were read.
    assert sum(holding.length(slot) for slot in read) <= 2 * LARGE + len(b"small")
    assert stat.S_IMODE((dest / "a" / "large.bin").stat().st_mode) & 0o111 == 0


def test_what_was_here_before_is_filled_in(source: Store, target: Store, course: bytes, tmp_path: Path) -> None:
    first = target.begin_download(*parcel(source, course))
    fetch(source, first, first.missing()[::2])
    first.close()
    dest = tmp_path / "out"
    download = begin_at(source, target, course, dest)
    fetch(source, download)
    following = download.take_following(dest)
    download.close()
    target.checkout(course, dest, following=following)
    assert read_tree(dest) == read_tree(tmp_path / "course")


def test_a_get_that_ends_early_leaves_nothing_beside_the_destination(
    source: Store, target: Store, course: bytes, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    download = begin_at(source, target, course, dest)
    assert parts_beside(dest)
    fetch(source, download, download.missing()[:3])
    download.close()
    assert not parts_beside(dest)
    assert not dest.exists()


def test_taken_and_not_used_it_is_abandoned(source: Store, target: Store, course: bytes, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    download = begin_at(source, target, course, dest)
    fetch(source, download)
    following = download.take_following(dest)
    download.close()
    assert following is not None
    following.abandon()
    following.abandon()
    assert not parts_beside(dest)
    target.checkout(course, dest)
    assert read_tree(dest) == read_tree(tmp_path / "course")


def test_a_destination_that_fills_up_ends_the_following_and_not_the_download(
    source: Store, target: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "out"
    download = begin_at(source, target, course, dest)

    def full(fd: int, pieces: object, offset: int) -> None:
        raise OSError(28, os.strerror(28))

    following = download._following
    assert following is not None
    monkeypatch.setattr(following._behind, "write", full)
    fetch(source, download)
    assert download.missing() == []
    assert download.take_following(dest) is None
    assert not parts_beside(dest)
    download.close()


def test_a_destination_that_appears_meanwhile_is_refused(
    source: Store, target: Store, course: bytes, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    download = begin_at(source, target, course, dest)
    fetch(source, download)
    following = download.take_following(dest)
    download.close()
    write_tree(dest, {"mine.txt": b"mine"})
    with pytest.raises(Refused):
        target.checkout(course, dest, following=following)
    assert following is not None
    following.abandon()
    assert read_tree(dest) == {"mine.txt": b"mine"}
    assert not parts_beside(dest)


def test_small_courses_are_not_followed(source: Store, target: Store, tmp_path: Path) -> None:
    course = publish(source, write_tree(tmp_path / "little", {"a": b"a"})).course
    dest = tmp_path / "out"
    download = begin_at(source, target, course, dest)
    assert not parts_beside(dest)
    download.close()
