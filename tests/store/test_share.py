"""Checkouts that share blocks with the store: right bytes whatever lies where; where it really works, no room taken."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2plearn.errors import NoSpace
from p2plearn.store import share
from p2plearn.store.extents import ALIGNMENT
from p2plearn.store.store import Store
from tests.stores import fetch, noise, parcel, publish, read_tree, write_tree

MIB = 1 << 20


def folder(root: Path) -> Path:
    twin = noise(3 * MIB, 7)
    return write_tree(
        root,
        {
            "big.bin": noise(9 * MIB + 123, 1),
            "again/twin.bin": twin,
            "first/twin.bin": twin,
            "first/longer.bin": twin + noise(2 * MIB, 3),
            "odd.bin": noise(700_001, 4),
            "small.txt": b"small",
            "empty": b"",
        },
    )


def copy_blocks(source: int, offset: int, length: int, target: int, at: int) -> None:
    """What the system call does to the bytes, with its conditions."""
    if offset % ALIGNMENT or at % ALIGNMENT or length % ALIGNMENT:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    raw = os.pread(source, length, offset)
    assert len(raw) == length
    assert os.pwrite(target, raw, at) == length


def test_runs_add_up_to_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloned: list[int] = []

    def clone(source: int, offset: int, length: int, target: int, at: int) -> None:
        copy_blocks(source, offset, length, target, at)
        cloned.append(length)

    monkeypatch.setattr(share, "clone_range", clone)
    # Large files are those that don't fit a group of small ones.
    monkeypatch.setattr("p2plearn.store.checkout._GROUP", 100_000)
    store = Store.open(tmp_path / "home")
    course = publish(store, folder(tmp_path / "course")).course
    store.close()
    store = Store.open(tmp_path / "home")  # nothing is hashed yet
    store.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "course")
    assert sum(cloned) > 14 * MIB
    store.close()


def test_what_cannot_be_shared_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def clone(source: int, offset: int, length: int, target: int, at: int) -> None:
        calls.append(length)
        if len(calls) > 1:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        copy_blocks(source, offset, length, target, at)

    monkeypatch.setattr(share, "clone_range", clone)
    store = Store.open(tmp_path / "home")
    course = publish(store, folder(tmp_path / "course")).course
    store.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "course")
    store.close()


def test_damage_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "clone_range", copy_blocks)
    store = Store.open(tmp_path / "home")
    course = publish(store, folder(tmp_path / "course")).course
    store.close()
    (extent,) = (tmp_path / "home" / "store" / "extents").iterdir()
    with extent.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"rotten")
    store = Store.open(tmp_path / "home")
    with pytest.raises(Exception, match="hash"):
        store.checkout(course, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store.close()


@pytest.fixture
def sharing_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system that can share blocks; skips where none can be made."""
    if os.geteuid() or not shutil.which("mkfs.btrfs"):
        pytest.skip("needs root and mkfs.btrfs")
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    made = subprocess.run(["mkfs.btrfs", "-q", "-f", "-m", "single", image], capture_output=True, check=False)
    if (
        made.returncode
        or subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_checkout_takes_no_room_of_its_own(sharing_disk: Path, tmp_path: Path) -> None:
    source, target = Store.open(tmp_path / "source"), Store.open(sharing_disk / "home")
    course = publish(source, write_tree(tmp_path / "course", {"a.bin": noise(60 * MIB, 1), "b.txt": b"b"})).course
    assert share.can_share(sharing_disk / "home" / "store" / "extents", sharing_disk)
    os.sync()
    before = shutil.disk_usage(sharing_disk).free
    download = target.begin_download(*parcel(source, course), checkout=sharing_disk / "out")
    fetch(source, download)
    following = download.take_following(sharing_disk / "out")
    assert following is None
    download.close()
    target.checkout(course, sharing_disk / "out")
    os.sync()
    assert read_tree(sharing_disk / "out") == read_tree(tmp_path / "course")
    assert before - shutil.disk_usage(sharing_disk).free < 1.05 * 60 * MIB + 2 * MIB
    target.close()
    source.close()


def test_room_is_asked_for_what_will_be_copied_all_the_same(sharing_disk: Path, tmp_path: Path) -> None:
    """Small files are copied there, too: a disk that holds them once refuses before a byte is fetched."""
    source, target = Store.open(tmp_path / "source"), Store.open(sharing_disk / "home")
    folder = write_tree(tmp_path / "course", {f"{number}.bin": noise(2 * MIB, number) for number in range(70)})
    course = publish(source, folder).course
    with pytest.raises(NoSpace):
        target.begin_download(*parcel(source, course), checkout=sharing_disk / "out")
    target.begin_download(*parcel(source, course)).close()  # without the copies there is room
    target.close()
    source.close()
