"""A checkout that is what is kept: nothing twice on the disk, nothing wrong served, nothing lost that others need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2plearn.errors import NoSpace
from p2plearn.store.download import Download
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.store import Store
from tests.stores import FILES, FOLDERS, begin, copy, fetch, noise, parcel, publish, read_tree, write_tree

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


def whole(store: Store, course: bytes) -> bool:
    """Whether all of a course is here, by the catalogue and by hashing it."""
    row = store.course(course)
    return row is not None and row.complete and store.verify(course) == []


OLD = {
    "same.bin": noise(2 * MIB, 11),
    "edited.bin": noise(3 * MIB, 12) + noise(MIB, 13),
    "old name.bin": noise(MIB, 14),
}
NEW = {
    "same.bin": OLD["same.bin"],
    "edited.bin": noise(3 * MIB, 12) + noise(MIB, 15),
    "new name.bin": OLD["old name.bin"],
    "a new one.bin": OLD["edited.bin"][MIB : 5 * MIB // 2],
}


@pytest.mark.parametrize("in_place", [True, False])
def test_the_next_version_over_its_folder_is_whole(
    store: Store, other: Store, opened: Callable[..., Store], tmp_path: Path, in_place: bool
) -> None:
    out = tmp_path / "out"
    first = publish(other, write_tree(tmp_path / "one", OLD)).course
    second = publish(other, write_tree(tmp_path / "two", NEW)).course
    copy(other, store, first)
    store.checkout(first, out)
    store.keep_in_place(first, out)
    assert held(store) == 0
    download = store.begin_download(*parcel(other, second), checkout=out, give=in_place)
    assert fetch(other, download) < 3 * MIB
    download.close()
    store.checkout(second, out, give=in_place)
    if in_place:
        store.keep_in_place(second, out)
        assert held(store) == 0
    assert read_tree(out) == NEW
    assert whole(store, second)
    third = opened("third")
    copy(store, third, second)
    assert whole(third, second)
    # Of the version before there is what both have, and that is what is said of it.
    row, holding = store.course(first), store.holding(first)
    assert row is not None
    assert holding is not None
    assert not row.complete
    assert row.have_bytes == holding.have_bytes >= sum(map(len, OLD.values())) - 3 * MIB
    assert all(holding.read(slot) for slot in range(holding.slots) if holding.has(slot))


@pytest.fixture
def lent(store: Store, other: Store, tmp_path: Path) -> Path:
    """A folder of the course ``A`` in which part of other courses lies, too; the store has none of it."""
    course = publish(other, write_tree(tmp_path / "source of A", {"shared.bin": noise(3 * MIB, 21)}), title="A").course
    copy(other, store, course)
    store.checkout(course, tmp_path / "A")
    store.keep_in_place(course, tmp_path / "A")
    assert held(store) == 0
    return tmp_path / "A"


def let_go(store: Store, lent: Path) -> None:
    """Remove the course ``A`` and delete its folder."""
    (course,) = (row.course for row in store.courses() if row.title == "A")
    store.remove(course)
    shutil.rmtree(lent)


def folder_of_b(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source of B", {"own.bin": noise(MIB, 22), "shared.bin": noise(3 * MIB, 21)})


@pytest.mark.parametrize("why", ["fetched", "custody", "imported"])
def test_a_plain_course_does_not_rely_on_another_ones_folder(
    store: Store, other: Store, lent: Path, tmp_path: Path, why: str
) -> None:
    course = publish(other, folder_of_b(tmp_path), title="B").course
    download = store.begin_download(*parcel(other, course), None, why)
    assert fetch(other, download) < 2 * MIB  # what lies in the folder needn't be fetched
    download.close()
    let_go(store, lent)
    assert whole(store, course)


def test_nor_does_one_that_is_kept_in_place(store: Store, other: Store, lent: Path, tmp_path: Path) -> None:
    course = publish(other, folder_of_b(tmp_path), title="B").course
    download = store.begin_download(*parcel(other, course), checkout=tmp_path / "B", give=True)
    assert fetch(other, download) < 2 * MIB
    done = store.checkout(course, tmp_path / "B", following=download.take_following(tmp_path / "B"), give=True)
    download.close()
    store.keep_in_place(course, tmp_path / "B", known=done.handed_over)
    assert held(store) == 0
    let_go(store, lent)
    assert whole(store, course)


@pytest.mark.parametrize("no_copy", [True, False])
def test_nor_does_one_that_is_published(store: Store, lent: Path, tmp_path: Path, no_copy: bool) -> None:
    course = publish(store, folder_of_b(tmp_path), title="B", no_copy=no_copy).course
    again = publish(store, tmp_path / "source of B", title="B", no_copy=no_copy)
    assert (again.course, again.new) == (course, False)
    let_go(store, lent)
    assert whole(store, course)


def test_what_is_not_right_any_more_in_the_users_file_is_fetched(
    store: Store, other: Store, lent: Path, tmp_path: Path
) -> None:
    assert store.verify() == []  # hashed in this process, and right
    file = lent / "shared.bin"
    facts = file.stat()
    with file.open("r+b") as opened_file:
        opened_file.write(b"not what it was")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    course = publish(other, folder_of_b(tmp_path), title="B").course
    download = store.begin_download(*parcel(other, course))
    assert MIB < fetch(other, download) < 3 * MIB
    download.close()
    assert whole(store, course)


def test_killed_while_it_is_brought_in_it_is_brought_in_again(
    other: Store, opened: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened("killed")
    publish(store, folder_of_b(tmp_path), title="A", no_copy=True)
    course = publish(other, tmp_path / "source of B", title="B").course
    with monkeypatch.context() as patched:
        patched.setattr(Download, "commit", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.begin_download(*parcel(other, course))
    store.close()
    store = opened("killed")
    download = store.begin_download(*parcel(other, course))
    assert download.missing() == []
    download.close()
    shutil.rmtree(tmp_path / "source of B")
    assert whole(store, course)


def test_without_room_for_it_nothing_is_begun(other: Store, opened: Callable[..., Store], tmp_path: Path) -> None:
    store = opened("small", quota=2 * MIB)
    publish(store, folder_of_b(tmp_path), title="A", no_copy=True)
    course = publish(other, tmp_path / "source of B", title="B").course
    with pytest.raises(NoSpace):
        store.begin_download(*parcel(other, course))
    assert held(store) == 0


def test_a_number_that_is_given_again_reads_the_new_file(store: Store, other: Store, tmp_path: Path) -> None:
    old = publish(store, write_tree(tmp_path / "old", {"x": noise(MIB, 31)}), title="old", no_copy=True).course
    holding = store.holding(old)
    assert holding is not None
    holding.read_all(range(holding.slots))  # the file is open from here on
    store.remove(old)
    new = publish(other, write_tree(tmp_path / "new", {"x": noise(MIB, 32)}), title="new").course
    copy(other, store, new)
    assert whole(store, new)


def test_what_lies_in_the_destination_needs_no_network(store: Store, other: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = publish(other, write_tree(tmp_path / "one", OLD)).course
    second = publish(other, write_tree(tmp_path / "two", NEW)).course
    copy(other, store, first)
    store.checkout(first, out)
    for extent in (store.home / "store" / "extents").iterdir():
        extent.unlink()
    store.verify()
    # The same course, another version of it, and where the folder is said to be.
    download = store.begin_download(*parcel(other, first), look_in=[out])
    assert download.missing() == []
    assert download.found_bytes == sum(map(len, OLD.values()))
    download.close()
    assert whole(store, first)
    for extent in (store.home / "store" / "extents").iterdir():
        extent.unlink()
    store.verify()
    download = store.begin_download(*parcel(other, second), checkout=out)
    assert fetch(other, download) < 3 * MIB
    download.close()
    store.checkout(second, out)
    assert read_tree(out) == NEW
    assert whole(store, second)


def test_of_a_folder_that_was_changed_only_what_is_right_is_taken(store: Store, other: Store, tmp_path: Path) -> None:
    course = publish(other, write_tree(tmp_path / "one", OLD)).course
    out = write_tree(tmp_path / "out", {**OLD, "same.bin": b"mine", "edited.bin": b"!" + OLD["edited.bin"][1:]})
    (out / "old name.bin").unlink()
    (out / "old name.bin").symlink_to(tmp_path / "one" / "old name.bin")
    download = store.begin_download(*parcel(other, course), look_in=[out])
    lacking = {download.placement.file_of(slot).path for slot in download.missing()}
    assert lacking == set(OLD)
    assert 2 * MIB < download.found_bytes < 4 * MIB
    fetch(other, download)
    download.close()
    assert whole(store, course)
