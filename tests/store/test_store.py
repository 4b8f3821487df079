"""The store as a whole: a course in, over, out; reopened; removed."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import begin, copy, fetch, parcel, publish, read_tree

from p2plearn.errors import StoreProblem
from p2plearn.store.store import Store


def test_a_course_goes_in_over_and_out(store: Store, other: Store, folder: Path, tmp_path: Path) -> None:
    published = publish(store, folder)
    copy(store, other, published.course)
    row = other.course(published.course)
    assert row is not None
    assert row.complete and row.title == "A course" and row.why == "fetched"
    done = other.checkout(published.course, tmp_path / "out")
    assert done.path == tmp_path / "out"
    assert read_tree(tmp_path / "out") == read_tree(folder)


def test_what_was_acknowledged_is_there_after_reopening(
    opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    store = opened("one")
    course = publish(store, folder).course
    before = store.courses()
    store.close()
    again = Store.open(tmp_path / "one")
    try:
        assert again.courses() == before
        assert again.verify() == []
        again.checkout(course, tmp_path / "out")
        assert read_tree(tmp_path / "out") == read_tree(folder)
    finally:
        again.close()


def test_a_manifest_alone_is_kept(store: Store, other: Store, folder: Path) -> None:
    published = publish(store, folder)
    other.put_manifest(published.signed)
    row = other.course(published.course)
    assert row is not None
    assert not row.complete and not row.indexed
    assert other.holding(published.course) is None
    assert other.index_bytes(published.course) is None
    assert other.signed_manifest(published.course) == published.signed
    copy(store, other, published.course)
    row = other.course(published.course)
    assert row is not None
    assert row.complete


def test_the_index_is_given_in_the_manifests_parts(store: Store, folder: Path) -> None:
    course = publish(store, folder).course
    holding = store.holding(course)
    assert holding is not None
    parts = [holding.index_part(part) for part in range(len(holding.signed.manifest.index))]
    assert b"".join(part or b"" for part in parts) == store.index_bytes(course)
    assert holding.index_part(len(parts)) is None
    assert holding.index_part(-1) is None


def test_removing_frees_what_no_other_course_needs(store: Store, folder: Path) -> None:
    first = publish(store, folder)
    held = store.usage().bytes
    (folder / "large.bin").write_bytes(b"short now")
    second = publish(store, folder)
    assert store.usage().bytes - held < 10_000
    assert store.remove(first.course).freed == 0  # all in one extent, most of it still in use
    assert store.verify() == []
    assert store.remove(second.course).freed > 3_000_000
    assert store.usage().bytes == 0
    assert store.courses() == []
    assert os.listdir(store._parts.extents) == []


def test_a_second_process_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match="Another process"):
        Store.open(tmp_path / "home")


def test_a_newer_format_is_refused_with_words(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    db = sqlite3.connect(tmp_path / "store" / "catalogue.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    (tmp_path / "store" / "seal").unlink()
    with pytest.raises(StoreProblem, match="format 99") as caught:
        Store.open(tmp_path)
    assert "newer p2plearn" in caught.value.hint
    (tmp_path / "store" / "FORMAT").write_text("p2plearn store 98\n")
    with pytest.raises(StoreProblem, match="format 98"):
        Store.open(tmp_path)


def test_a_damaged_catalogue_is_noticed_after_an_unclean_stop(
    opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "one")
    publish(store, folder)
    store.close()
    path = tmp_path / "one" / "store" / "catalogue.sqlite"
    raw = bytearray(path.read_bytes())
    raw[4096 * 2 : 4096 * 4] = bytes(4096 * 2)
    path.write_bytes(raw)
    (tmp_path / "one" / "store" / "unclean").touch()
    store = opened("one")
    assert re.search(r"damaged|malformed", store.notices[0])
    assert [row.complete for row in store.courses()] == [True]
    assert store.verify() == []


def test_an_extent_that_was_deleted_costs_its_chunks_and_no_more(
    opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    source = opened("source-store")
    course = publish(source, folder).course
    store = Store.open(tmp_path / "one")
    copy(source, store, course)
    store.close()
    for extent in (tmp_path / "one" / "store" / "extents").iterdir():
        extent.unlink()
    store = opened("one")
    row = store.course(course)
    assert row is not None
    assert not row.complete and row.have_bytes == 0
    copy(source, store, course)
    assert store.verify() == []
    row = store.course(course)
    assert row is not None
    assert row.complete


def test_a_damaged_course_file_is_fetched_again(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    other = Store.open(tmp_path / "one")
    copy(store, other, course)
    other.close()
    (path,) = (tmp_path / "one" / "store" / "courses").iterdir()
    raw = bytearray(path.read_bytes())
    raw[-10] ^= 1
    path.write_bytes(raw)
    other = opened("one")
    assert [(damage.path, damage.what) for damage in other.verify()] == [("", "its index file is damaged or gone")]
    assert other.holding(course) is None
    download = begin(store, other, course)
    assert download.missing() == []
    download.close()
    row = other.course(course)
    assert row is not None
    assert row.complete
    assert parcel(other, course)[1] == parcel(store, course)[1]


def test_a_removed_course_can_still_be_read_by_who_has_it_open_or_says_so(store: Store, folder: Path) -> None:
    course = publish(store, folder).course
    holding = store.holding(course)
    assert holding is not None
    store.remove(course)
    assert set(holding.read_many(range(3))) == {None}


def test_fetching_what_is_removed_is_refused(store: Store, other: Store, folder: Path) -> None:
    course = publish(store, folder).course
    download = begin(store, other, course)
    with pytest.raises(Exception, match="being fetched"):
        other.remove(course)
    fetch(store, download)
    download.close()
    assert other.remove(course).freed > 0


def test_what_killed_writers_left_beside_the_store_goes(tmp_path: Path) -> None:
    home = tmp_path / "one"
    (home / "store").mkdir(parents=True)
    left = [home / ".people.notes-12ab.p2plearn-new", home / "store" / ".seal-12ab.p2plearn-new"]
    for path in left:
        path.touch()
    Store.open(home).close()
    assert [path for path in left if path.exists()] == []
