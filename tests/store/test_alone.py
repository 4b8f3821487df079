"""Files that become the user's without a byte being copied: one copy on the disk, and never one that two rely on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import fetch, noise, parcel, publish, read_tree, write_tree

from p2plearn.errors import Interrupted, NoSpace
from p2plearn.store import alone, space
from p2plearn.store.checkout import CheckedOut
from p2plearn.store.download import Download
from p2plearn.store.follow import LARGE
from p2plearn.store.store import Store

MIB = 1 << 20
PART = noise(LARGE, 1)
FILES = {
    "a/large.bin": PART + noise(300_000, 2),
    "other.bin": noise(2 * LARGE, 3),
    "twice.bin": noise(LARGE, 4) * 2,
    "small.txt": b"small",
    "empty": b"",
}


@pytest.fixture
def course(source: Store, tmp_path: Path) -> bytes:
    return publish(source, write_tree(tmp_path / "course", FILES, ("nothing in it",))).course


def start(source: Store, target: Store, course: bytes, dest: Path) -> Download:
    return target.begin_download(*parcel(source, course), checkout=dest, give=True)


def finish(target: Store, download: Download, dest: Path) -> CheckedOut:
    following = download.take_following(dest)
    download.close()
    return target.checkout(download.course, dest, following=following, give=True)


def handed_over(source: Store, target: Store, course: bytes, dest: Path) -> CheckedOut:
    """A get that ends before the checkout becomes what is kept."""
    download = start(source, target, course, dest)
    fetch(source, download)
    return finish(target, download, dest)


def get(source: Store, target: Store, course: bytes, dest: Path) -> CheckedOut:
    done = handed_over(source, target, course, dest)
    target.keep_in_place(course, dest, known=done.handed_over)
    return done


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def on_disk(*folders: Path) -> int:
    """Bytes of all files, each counted once whatever its names."""
    found = {path.stat().st_ino: path.stat().st_size for folder in folders for path in folder.rglob("*")}
    return sum(found.values())


def test_large_files_become_the_users_without_a_copy(
    source: Store, target: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest, home = tmp_path / "out", target.home
    download = start(source, target, course, dest)
    fetch(source, download)
    own = inodes(home / "store" / "extents")
    holding = target.holding(course)
    assert holding is not None
    read: list[int] = []
    real = type(holding).read_all
    monkeypatch.setattr(type(holding), "read_all", lambda self, slots: read.extend(slots) or real(self, slots))
    done = finish(target, download, dest)
    assert set(done.handed_over) == {"a/large.bin", "other.bin"}
    assert done.written_files == len(FILES)
    # Neither of the two was read again, to be copied or to be hashed.
    table = {entry.path: entry for entry in holding.index.files}
    for path in done.handed_over:
        assert not set(read) & set(range(table[path].first, table[path].first + table[path].count))
        assert (dest / path).stat().st_ino in own
        assert stat.S_IMODE((dest / path).stat().st_mode) == 0o666 & ~_umask() & 0o755
    target.keep_in_place(course, dest, known=done.handed_over)
    assert read_tree(dest) == read_tree(tmp_path / "course")
    assert target.usage().bytes == 0
    assert not list((home / "store" / "extents").iterdir())
    assert all((dest / path).stat().st_nlink == 1 for path in FILES)
    row = target.course(course)
    assert row is not None
    assert row.complete
    assert target.verify() == []


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def test_others_are_served_from_the_users_files(
    source: Store, target: Store, course: bytes, tmp_path: Path, opened: Callable[..., Store]
) -> None:
    get(source, target, course, tmp_path / "out")
    third = opened("third")
    download = third.begin_download(*parcel(target, course))
    fetch(target, download)
    download.close()
    assert third.verify() == []


def test_it_never_takes_twice_the_room(
    source: Store, target: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, FILES.values()))
    room = target.usage().min_free + size + 3 * LARGE  # the repeated file is copied, it has one of its halves here only
    monkeypatch.setattr(space, "free_bytes", lambda path: room)
    with pytest.raises(NoSpace):
        target.begin_download(*parcel(source, course), checkout=tmp_path / "out")
    download = start(source, target, course, tmp_path / "out")
    fetch(source, download)
    finish(target, download, tmp_path / "out")
    assert on_disk(target.home / "store" / "extents", tmp_path / "out") < size + 3 * LARGE


@pytest.mark.parametrize("committed", [True, False])
def test_an_interrupted_download_goes_on_in_the_same_extents(
    source: Store, opened: Callable[..., Store], course: bytes, tmp_path: Path, committed: bool
) -> None:
    dest, home = tmp_path / "out", tmp_path / "interrupted"
    target = Store.open(home)
    download = start(source, target, course, dest)
    fetch(source, download, download.missing()[::2])
    if committed:
        download.commit()
    target.close()
    target = opened("interrupted")
    download = start(source, target, course, dest)
    assert fetch(source, download) < sum(map(len, FILES.values())) * 2 // 3
    done = finish(target, download, dest)
    assert set(done.handed_over) == {"a/large.bin", "other.bin"}
    target.keep_in_place(course, dest, known=done.handed_over)
    assert read_tree(dest) == read_tree(tmp_path / "course")
    assert target.verify() == []


def test_what_was_never_hashed_here_is_hashed_before_it_is_handed_over(
    source: Store, opened: Callable[..., Store], course: bytes, tmp_path: Path
) -> None:
    dest, home = tmp_path / "out", tmp_path / "home"
    target = Store.open(home)
    download = start(source, target, course, dest)
    fetch(source, download)
    target.close()
    (extent,) = (
        path for path in (home / "store" / "extents").iterdir() if path.read_bytes().startswith(FILES["other.bin"][:99])
    )
    with extent.open("r+b") as file:
        file.seek(LARGE)
        file.write(b"not what it was")
    target = opened("home")
    download = start(source, target, course, dest)
    following = download.take_following(dest)
    with pytest.raises(Exception, match=r"other\.bin"):
        target.checkout(course, dest, following=following, give=True)
    download.close()
    assert not dest.exists()


def test_an_edit_after_a_get_that_was_stopped_is_the_users_alone(
    source: Store, target: Store, course: bytes, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    done = handed_over(source, target, course, dest)
    with pytest.raises(Interrupted):
        target.keep_in_place(course, dest, cancelled=lambda: True, known=done.handed_over)
    (dest / "other.bin").write_bytes(b"mine now")
    assert target.verify() == []
    target.checkout(course, tmp_path / "again")
    assert (tmp_path / "again" / "other.bin").read_bytes() == FILES["other.bin"]


def test_after_a_crash_the_next_sweep_gives_the_store_its_own(
    source: Store, opened: Callable[..., Store], course: bytes, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    target = Store.open(tmp_path / "home")
    download = start(source, target, course, dest)
    fetch(source, download)
    finish(target, download, dest)
    target.close()  # killed before the checkout became what is kept
    target = opened("home")
    assert target.gc(dry_run=True).compacted == 0
    target.gc()
    (dest / "other.bin").write_bytes(b"mine now")
    assert target.verify() == []
    # Nor is it given away a second time by a get that finds a changed folder.
    target.keep_in_place(course, dest)
    target.checkout(course, tmp_path / "again")
    assert (tmp_path / "again" / "other.bin").read_bytes() == FILES["other.bin"]


def test_a_backups_second_name_is_no_reason_to_copy(
    source: Store, target: Store, course: bytes, tmp_path: Path
) -> None:
    download = target.begin_download(*parcel(source, course))
    fetch(source, download)
    download.close()
    extents = target.home / "store" / "extents"
    before = inodes(extents)
    for extent in extents.iterdir():
        os.link(extent, tmp_path / extent.name)
    target.gc()
    assert inodes(extents) == before


def test_chunks_that_another_course_needs_keep_a_copy_of_the_stores_own(
    source: Store, target: Store, course: bytes, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    done = handed_over(source, target, course, dest)
    mine = publish(target, write_tree(tmp_path / "mine", {"part.bin": FILES["other.bin"]}), title="Mine").course
    target.keep_in_place(course, dest, known=done.handed_over)
    (dest / "other.bin").write_bytes(b"changed")
    target.checkout(mine, tmp_path / "mine again")
    assert (tmp_path / "mine again" / "part.bin").read_bytes() == FILES["other.bin"]


def test_where_no_second_name_is_to_be_had_it_is_copied(
    source: Store, target: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(alone.os, "link", refuse)
    done = get(source, target, course, tmp_path / "out")
    assert not done.handed_over
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "course")
    assert target.usage().bytes == 0
    assert target.verify() == []


def test_something_else_in_the_files_place_is_left_alone(
    source: Store, target: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"p" * (3 * LARGE))
    link = os.link

    def swapped(file: str, name: str, *, dst_dir_fd: int, follow_symlinks: bool) -> None:
        link(file, name, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        os.unlink(name, dir_fd=dst_dir_fd)
        link(precious, name, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(alone.os, "link", swapped)
    get(source, target, course, tmp_path / "out")
    assert precious.read_bytes() == b"p" * (3 * LARGE)
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "course")
    assert target.verify() == []
