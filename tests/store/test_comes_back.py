"""Extents that go while a download is unfinished, that are away at one opening and back at the next, and homes that
were moved while their store is open: nothing is called here that isn't, and nothing that comes back is deleted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import begin, copy, fetch, noise, publish, write_tree

from p2plearn.errors import StoreProblem
from p2plearn.store.store import Store


def _interrupted(store: Store, other: Store, course: bytes) -> Path:
    """A download that committed some chunks; the extent that they lie in."""
    download = begin(store, other, course)
    fetch(store, download, download.missing()[:3])
    download.close()
    (extent,) = other._parts.extents.iterdir()
    return extent


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_committed_in_an_extent_that_is_gone_is_fetched_again(
    store: Store, other: Store, opened: Callable[..., Store], folder: Path, restarted: bool
) -> None:
    course = publish(store, folder).course
    extent = _interrupted(store, other, course)
    if restarted:
        other.close()
        other = opened("other")
    extent.unlink()
    download = begin(store, other, course)
    fetch(store, download)
    download.close()
    other._parts.files.close()  # as after a restart: what is open still can be read
    assert other.verify() == []
    home = other.home
    other.close()
    row = opened(home).course(course)
    assert row is not None
    assert row.complete


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_stands_in_an_unfinished_extents_place_counts_nothing_and_holds_nobody_up(
    store: Store, other: Store, opened: Callable[..., Store], folder: Path, what: str
) -> None:
    course = publish(store, folder).course
    extent = _interrupted(store, other, course)
    other.close()
    other = opened("other")
    extent.unlink()
    if what == "folder":
        extent.mkdir()
    else:
        os.mkfifo(extent)
    counted: list[int] = []
    row = other.course(course)
    assert row is not None
    thread = threading.Thread(target=lambda: counted.append(other.have_bytes(row)), daemon=True)
    thread.start()
    thread.join(5)
    assert counted == [row.have_bytes]


def test_extents_that_were_away_at_one_opening_count_again_at_the_next(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    place, home = store._parts.extents, store.home
    store.close()
    away = place.rename(tmp_path / "away")
    place.mkdir()  # a mount point whose disk isn't there
    without = opened(home)
    row = without.course(course)
    assert row is not None
    assert not row.complete
    without.close()
    place.rmdir()
    away.rename(place)
    again = opened(home)
    row = again.course(course)
    assert row is not None
    assert row.complete
    assert again.verify() == []


def test_what_comes_back_damaged_counts_as_far_as_it_is_right(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()
    home = store.home
    store.close()
    away = extent.rename(tmp_path / "away")
    opened(home).close()
    raw = bytearray(away.read_bytes())
    raw[5000] ^= 1
    extent.write_bytes(raw)
    again = opened(home)
    row = again.course(course)
    assert row is not None
    assert 0 < row.have_bytes < row.bytes


def test_an_extent_that_nobody_lacks_does_not_come_back(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()
    raw, home = extent.read_bytes(), store.home
    store.remove(course)
    store.close()
    extent.write_bytes(raw)
    opened(home)
    assert not extent.exists()


def test_a_publish_relies_on_no_extent_that_is_gone(store: Store, opened: Callable[..., Store], folder: Path) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()
    extent.unlink()
    assert publish(store, folder).course == course
    home = store.home
    store.close()
    row = opened(home).course(course)
    assert row is not None
    assert row.complete


def test_a_course_that_was_only_seen_is_kept_when_it_was_fetched(store: Store, other: Store, folder: Path) -> None:
    published = publish(store, folder)
    other.put_manifest(published.signed)
    copy(store, other, published.course)
    other._parts.drop_index(published.course)
    assert other.gc().freed == 0


def test_a_store_that_was_moved_acknowledges_nothing_into_another_home(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    source = publish(store, write_tree(tmp_path / "first", {"one": noise(5000)})).course
    home = store.home
    home.rename(tmp_path / "moved")
    new = opened(home)
    unclean = sorted(os.listdir(home / "store"))
    with pytest.raises(StoreProblem, match="moved"):
        publish(store, folder)
    assert list(new._parts.extents.iterdir()) == []
    # Nor does it write down there what it goes on to note: of a course, of a place that it checks out to.
    there = {path: path.read_bytes() for path in sorted((home / "store").iterdir()) if path.is_file()}
    assert home / "store" / "notes" in there
    with store._parts.catalogue.writing() as db:
        db.execute("UPDATE courses SET why = 'seen'")
    store._part_folders.note(tmp_path / "out")
    assert {path: path.read_bytes() for path in sorted((home / "store").iterdir()) if path.is_file()} == there
    with store._parts.catalogue.writing() as db:
        db.execute("UPDATE courses SET why = 'published'")
    store.close()
    assert sorted(os.listdir(home / "store")) == unclean
    row = opened(tmp_path / "moved").course(source)
    assert row is not None
    assert row.complete


def test_what_is_kept_for_others_is_not_given_up_when_its_person_wants_it_by_now(store: Store, folder: Path) -> None:
    published = publish(store, folder)
    with store._parts.catalogue.writing() as db:
        db.execute("UPDATE courses SET why = 'custody'")
    assert store.custody.is_unneeded(published.course)
    assert store.claim(published.course, "imported")  # between that look and the removal
    assert not store.give_up(published.course)
    assert store.verify() == []
    with store._parts.catalogue.writing() as db:
        db.execute("UPDATE courses SET why = 'custody'")
    assert store.give_up(published.course)
    assert not store.claim(published.course, "imported")
