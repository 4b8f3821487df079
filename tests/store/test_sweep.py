"""A sweep goes in steps: what others do in between stands, and no step grows with what there is to sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import begin, fetch, noise, parcel, publish, read_tree, write_tree

from p2plearn.store import gc as gc_module
from p2plearn.store.catalogue import add_chunks, add_extent
from p2plearn.store.check import drop_gone
from p2plearn.store.store import Store

AT_ONCE = 2


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
    """Calls that are made one after the other, each between two steps of a sweep that takes few chunks at once."""
    calls: list[Callable[[], object]] = []

    def breathe() -> None:
        if calls:
            calls.pop(0)()

    monkeypatch.setattr(gc_module, "CHUNKS_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(gc_module, "_breathe", breathe)
    yield calls
    assert not calls


def digests_of(store: Store, course: bytes) -> list[bytes]:
    index = parcel(store, course)[2]
    return [index.digest(slot) for slot in range(len(index))]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_what_is_published_again_between_two_steps_is_whole(
    store: Store, tmp_path: Path, between: list[Callable[[], object]], steps: int
) -> None:
    folder = write_tree(tmp_path / "one", {f"{n}": noise(700_000, n) for n in range(8)})
    course = publish(store, folder).course
    before = store.usage().bytes
    store.forget(course)
    between += [lambda: None] * steps
    between.append(lambda: publish(store, folder))
    store.gc()
    row = store.course(course)
    assert row is not None
    assert row.complete
    assert store.verify() == []
    between[:] = []
    store.gc()
    assert store.verify() == []
    store.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)
    assert store.usage().bytes <= 2 * before  # some in the old extent, the rest in a new one


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_what_is_fetched_between_two_steps_is_whole(
    source: Store, store: Store, tmp_path: Path, between: list[Callable[[], object]], steps: int
) -> None:
    folder = write_tree(tmp_path / "one", {f"{n}": noise(700_000, n) for n in range(8)})
    course = publish(source, folder).course
    publish(store, folder, title="The same under another name")
    store.forget(store.names()[0])
    between += [lambda: None] * steps

    def get() -> None:
        with contextlib.closing(begin(source, store, course)) as download:
            fetch(source, download)

    between.append(get)
    store.gc()
    row = store.course(course)
    assert row is not None
    assert row.complete
    assert store.verify() == []


def test_what_is_removed_between_two_steps_goes_next_time(
    store: Store, tmp_path: Path, between: list[Callable[[], object]]
) -> None:
    folder = write_tree(tmp_path / "one", {f"{n}": noise(700_000, n) for n in range(8)})
    course = publish(store, folder).course
    between += [lambda: None] * 2
    between.append(lambda: store.forget(course))
    assert store.gc().unlinked == 0
    assert store.gc().unlinked == 1
    assert store.usage().bytes == 0


def test_an_index_that_is_harmed_between_two_steps_frees_nothing_more(
    store: Store, tmp_path: Path, between: list[Callable[[], object]]
) -> None:
    publish(store, write_tree(tmp_path / "one", {f"{n}": noise(700_000, n) for n in range(8)}))
    course = publish(store, write_tree(tmp_path / "two", {"a": noise(700_000, 9)}), title="Two").course
    digests = digests_of(store, course)
    store.forget(publish(store, write_tree(tmp_path / "three", {"a": noise(900_000, 10)}), title="Three").course)
    between += [lambda: None, lambda: None]
    between.append(lambda: store._parts.drop_index(course))
    assert store.gc().unlinked == 0  # three's chunks lie all over, so some of them were not looked at yet
    assert store._parts.catalogue.locate(digests).keys() == set(digests)


def longest_transaction(store: Store, extents: int, work: Callable[[], object]) -> int:
    """Instructions of SQLite's machine in the longest transaction of ``work``, with 6,000 chunks in so many extents."""
    with store._parts.catalogue.writing() as db:
        for number in range(extents):
            name = f"{number:032x}"
            (store._parts.extents / name).touch()
            extent = add_extent(db, name, 1)
            each = 6_000 // extents
            add_chunks(db, [(noise(32, number * each + at), extent, at, 1) for at in range(each)])
    counts = [0]
    with store._parts.catalogue.reading() as db:
        db.set_progress_handler(lambda: counts.__setitem__(-1, counts[-1] + 1), 100)
        db.set_trace_callback(lambda text: counts.append(0) if text.startswith("BEGIN") else None)
    work()
    with store._parts.catalogue.reading() as db:
        db.set_progress_handler(None, 0)
        db.set_trace_callback(None)
        assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM extents").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    return max(counts)


def test_no_step_grows_with_the_number_of_extents(opened: Callable[..., Store]) -> None:
    def longest(extents: int) -> int:
        store = opened(f"{extents}")
        count = longest_transaction(store, extents, store.gc)
        assert not list(store._parts.extents.iterdir())
        return count

    assert longest(200) < 1.5 * longest(20)


def test_what_is_gone_is_forgotten_at_one_look_for_many_extents(opened: Callable[..., Store]) -> None:
    def longest(extents: int) -> int:
        store = opened(f"{extents}")

        def lose_all() -> None:
            for path in store._parts.extents.iterdir():
                path.unlink()
            drop_gone(store._parts)

        return longest_transaction(store, extents, lose_all)

    assert longest(200) < 1.5 * longest(20)


def test_an_extent_that_something_lies_in_after_all_stays(store: Store, tmp_path: Path) -> None:
    publish(store, write_tree(tmp_path / "one", {"a": noise(700_000, 1)}))
    (extent,) = store._parts.catalogue.extents()
    assert gc_module._drop(store._parts, [extent], []) == []
    assert store.verify() == []


def test_who_still_reads_a_removed_course_is_given_nothing_of_what_came_after(store: Store, tmp_path: Path) -> None:
    course = publish(store, write_tree(tmp_path / "one", {"a": noise(900_000, 1)})).course
    (before,) = store._parts.catalogue.extents()
    holding = store.holding(course)
    assert holding is not None
    slots = range(holding.slots)
    assert None not in holding.read_many(slots)
    store.forget(course)
    store.gc()
    publish(store, write_tree(tmp_path / "two", {"a": noise(900_000, 2)}), title="Two")
    (after,) = store._parts.catalogue.extents()
    assert (after.id, after.name) != (before.id, before.name)
    assert holding.read_many(slots) == [None] * holding.slots
