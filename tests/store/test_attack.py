"""What a hostile first user found, held for good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stores import AUTHOR, noise, publish, read_tree, sign, write_tree

from p2plearn.errors import NoSpace, Refused
from p2plearn.store.publish import PublishMeta
from p2plearn.store.store import Store


def test_a_course_that_lost_its_bytes_is_named_by_every_verify(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "c", {"a.bin": noise(2_000_000), "b.txt": b"b"})
    publish(store, folder)
    for extent in store._parts.extents.iterdir():
        os.truncate(extent, 0)
    for _ in range(3):
        assert {damage.path for damage in store.verify()} == {"a.bin", "b.txt"}
    publish(store, folder)
    assert store.verify() == []


def test_a_course_that_lost_its_index_is_named_by_every_verify(store: Store, tmp_path: Path) -> None:
    course = publish(store, write_tree(tmp_path / "c", {"a.bin": noise(100_000)})).course
    store._parts.course_files.path(course).write_bytes(b"rubbish")
    store._parts.forget(course)
    assert store.holding(course) is None
    for _ in range(3):
        assert [damage.path for damage in store.verify()] == [""]


def test_what_was_said_of_the_version_before_holds_until_it_is_said_anew(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "c", {"a": b"a"})
    said = PublishMeta("T", "about", ("x",), "en", "CC-BY-4.0")
    first = store.publish(folder, said, sign=sign, author=AUTHOR, now=1, chunker="fixed")
    again = store.publish(folder, PublishMeta("T"), sign=sign, author=AUTHOR, now=2, chunker="")
    assert (again.course, again.new) == (first.course, False)


def test_a_series_goes_on_after_a_course_was_removed(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "c", {"a": b"a"})
    first = publish(store, folder)
    store.remove(first.course)
    again = publish(store, folder)
    assert again.course == first.course
    row = store.course(again.course)
    assert row is not None
    assert row.complete
    (folder / "a").write_bytes(b"b")
    store.remove(again.course)
    assert publish(store, folder).manifest.series.seq == 2


def test_removing_makes_room_on_a_full_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = publish(store, write_tree(tmp_path / "c", {"a": b"a"})).course
    reserve = store._parts.directory / "reserve"
    assert reserve.stat().st_size > 1_000_000
    real = Store._forget

    def full_until_the_reserve_is_given_up(self: Store, gone: bytes) -> None:
        if reserve.exists():
            raise NoSpace("The disk is full.")
        real(self, gone)

    monkeypatch.setattr(Store, "_forget", full_until_the_reserve_is_given_up)
    store.remove(course)
    assert store.course(course) is None


@pytest.mark.parametrize("place", ["/", "home", "home/store/inside"])
def test_places_where_no_course_goes(store: Store, tmp_path: Path, place: str) -> None:
    course = publish(store, write_tree(tmp_path / "c", {"a": b"a"})).course
    signed, holding = store.signed_manifest(course), store.holding(course)
    assert signed is not None
    assert holding is not None
    with pytest.raises(Refused):
        store.check_destination(signed, holding.index, tmp_path / place)
    assert read_tree(tmp_path / "c") == {"a": b"a"}
