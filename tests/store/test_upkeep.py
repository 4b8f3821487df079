"""Verify, sweep and compaction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import begin, copy, fetch, noise, publish, read_tree, write_tree

from p2plearn.errors import Interrupted, StoreProblem
from p2plearn.store import extents
from p2plearn.store import gc as gc_module
from p2plearn.store.problems import ChunkMissing
from p2plearn.store.store import Store


def flip(extent: Path, offset: int) -> None:
    with extent.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_damage_is_named_dropped_and_only_it_is_fetched_again(store: Store, other: Store, folder: Path) -> None:
    published = publish(store, folder)
    copy(store, other, published.course)
    (extent,) = other._parts.extents.iterdir()
    holding = other.holding(published.course)
    assert holding is not None
    victims = [entry.first for entry in holding.index.files if entry.path in ("a/near", "a/b/c/deep.bin")]
    for slot in victims:
        flip(extent, holding.placement.offsets[slot] + 100)
    found = other.verify()
    assert {(one.path, one.title) for one in found} == {("a/near", "A course"), ("a/b/c/deep.bin", "A course")}
    assert all("hash" in one.what and one.course == published.course and one.bytes for one in found)
    assert [holding.read_many([slot]) for slot in victims] == [[None], [None]]
    row = other.course(published.course)
    assert row is not None
    assert not row.complete
    download = begin(store, other, published.course)
    assert sorted(download.missing()) == sorted(victims)
    fetch(store, download)
    download.close()
    assert other.verify() == []


def test_damage_of_a_shared_chunk_counts_for_every_course(store: Store, folder: Path) -> None:
    publish(store, folder)
    (folder / "README.md").write_bytes(b"second")
    publish(store, folder)
    extent = max(store._parts.extents.iterdir(), key=lambda path: path.stat().st_size)
    flip(extent, 1_000_000)
    assert len(store.verify()) >= 1
    assert [row.complete for row in store.courses()] == [False, False]


def test_a_truncated_extent(store: Store, folder: Path) -> None:
    publish(store, folder)
    (extent,) = store._parts.extents.iterdir()
    os.truncate(extent, 2_000_000)
    whats = {damage.what for damage in store.verify()}
    gone = "part of it is gone from this store"
    assert whats - {gone} == {"its file was cut short", "the disk can't read it, or its file was cut short"}
    # What is gone stays named until it is back.
    assert {damage.what for damage in store.verify()} == {gone}
    publish(store, folder)
    assert store.verify() == []


@pytest.mark.parametrize("what", ["folder", "link", "dead link", "pipe", "nothing"])
def test_another_thing_in_an_extents_place_is_an_extent_that_is_gone_and_stays(
    store: Store, other: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path, what: str
) -> None:
    course = publish(store, folder).course
    copy(store, other, course)
    (extent,) = other._parts.extents.iterdir()
    holding = other.holding(course)
    assert holding is not None
    elsewhere = extent.rename(tmp_path / "elsewhere")
    if what == "folder":
        write_tree(extent, {"mine.txt": b"mine"})
    elif what == "link":
        extent.symlink_to(elsewhere)
    elif what == "dead link":
        extent.symlink_to(tmp_path / "nowhere")
    elif what == "pipe":
        os.mkfifo(extent)
    other._parts.files.close()  # as after a restart: what is open still can be read
    with pytest.raises(ChunkMissing):
        holding.read(0)
    found = other.verify()
    assert {one.title for one in found} == {"A course"}
    assert {one.what for one in found} == {"part of it is gone from this store"}
    other.gc()
    download = begin(store, other, course)
    fetch(store, download)
    download.close()
    assert other.verify() == []
    assert other.look().changed <= {course}
    home = other.home
    other.close()
    again = opened(home)
    row = again.course(course)
    assert row is not None
    assert row.complete
    assert os.path.lexists(extent) == (what != "nothing")
    if what == "folder":
        assert read_tree(extent) == {"mine.txt": b"mine"}


def test_it_is_noticed_without_a_verify_too(store: Store, folder: Path) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()
    extent.unlink()
    extent.mkdir()
    assert store.look().changed == {course}


def test_an_extent_that_was_closed_to_its_owner_is_opened_again(store: Store, folder: Path) -> None:
    publish(store, folder)
    (extent,) = store._parts.extents.iterdir()
    extent.chmod(0)
    store._parts.files.close()
    assert store.verify() == []
    if os.getuid() != 0:  # who may read everything has nothing to open
        assert extent.stat().st_mode & 0o777 == 0o600


def test_one_that_can_not_be_opened_is_gone_but_never_swept(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()
    store._parts.files.close()

    def closed(path: str | Path, mode: int) -> bool:
        return Path(path) != extent

    def not_yours(path: str | Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(extents.os, "access", closed)  # as another user's file answers; root can read those too
    monkeypatch.setattr(extents.os, "chmod", not_yours)
    assert {one.course for one in store.verify()} == {course}
    assert extents.sweep_orphans(store._parts.extents, set()) == 0
    assert extent.exists()


def test_a_store_whose_folder_is_away_forgets_nothing(store: Store, folder: Path) -> None:
    publish(store, folder)
    place = store._parts.extents
    away = place.rename(place.with_name("away"))
    with pytest.raises(StoreProblem, match="is gone") as caught:
        store.verify()
    assert "plugged in" in caught.value.hint
    away.rename(place)
    assert store.verify() == []


def test_verify_tells_and_can_be_stopped(store: Store, folder: Path) -> None:
    course = publish(store, folder).course
    told: list[tuple[int, int]] = []
    assert store.verify(course, lambda *figures: told.append(figures)) == []
    assert told
    with pytest.raises(Interrupted):
        store.verify(cancelled=lambda: True)
    assert store.verify(bytes(32)) == []


def two_versions(store: Store, tmp_path: Path) -> tuple[bytes, bytes, Path]:
    folder = write_tree(tmp_path / "s", {"a": noise(30_000_000, 1), "b": noise(2_000_000, 2)})
    first = publish(store, folder)
    (folder / "a").unlink()
    return first.course, publish(store, folder).course, folder


def test_a_mostly_dead_extent_is_compacted(store: Store, tmp_path: Path) -> None:
    first, second, folder = two_versions(store, tmp_path)
    reading = store.holding(second)
    assert reading is not None
    before = reading.read_many(range(reading.slots))
    assert store.gc(dry_run=True) == gc_module.Sweep(0, 0, 0)
    assert store.remove(first).freed >= 29_000_000
    assert store.usage().bytes < 2_100_000
    assert reading.read_many(range(reading.slots)) == before
    assert store.verify() == []
    store.checkout(second, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)


def test_reads_go_on_while_it_is_compacted(store: Store, tmp_path: Path) -> None:
    first, second, _ = two_versions(store, tmp_path)
    reading = store.holding(second)
    assert reading is not None
    before = [bytes(chunk or b"") for chunk in reading.read_many(range(reading.slots))]

    def read(_: int) -> bool:
        now = reading.read_many(range(reading.slots))
        return [bytes(chunk or b"") for chunk in now] == before

    with ThreadPoolExecutor(4) as threads:
        reads = threads.map(read, range(200))
        store.remove(first)
        assert all(reads)


def test_damage_met_while_compacting_is_dropped(store: Store, opened: Callable[..., Store], tmp_path: Path) -> None:
    first, second, _ = two_versions(store, tmp_path)
    extent = max(store._parts.extents.iterdir(), key=lambda path: path.stat().st_size)
    flip(extent, 31_000_000)
    store.remove(first)
    row = store.course(second)
    assert row is not None
    assert not row.complete
    assert {damage.what for damage in store.verify()} == {"part of it is gone from this store"}


def test_a_compaction_that_fails_changes_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, folder = two_versions(store, tmp_path)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(gc_module, "sync_file", fail)
        swept = store.remove(first)
    # The course is gone, and only its room is not free yet: to say "again" would be wrong.
    assert store.course(first) is None
    assert (swept.compacted, swept.freed) == (0, 0)
    (words,) = swept.left
    (extent,) = store._parts.extents.iterdir()
    assert f"of {extent} can't be freed now. The disk failed while compacting it: Input/output error." in words
    assert store.verify() == []
    swept = store.gc()
    assert (swept.compacted, swept.left) == (1, ())
    assert swept.freed >= 29_000_000
    store.checkout(second, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)


def test_a_catalogue_that_fails_once_the_course_is_gone_is_no_reason_to_remove_it_again(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = publish(store, folder).course

    def fail(*_: object, **__: object) -> gc_module.Sweep:
        raise StoreProblem("The catalogue failed while reading.", "Check the disk it is on.")

    with monkeypatch.context() as patched:
        patched.setattr("p2plearn.store.store.sweep", fail)
        assert store.remove(course).left == ("The catalogue failed while reading.",)
    assert store.course(course) is None
    assert store.gc().freed > 3_000_000


def test_one_bad_sector_holds_up_no_other_extent(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept, gone = [], []
    for number in range(3):
        folder = write_tree(tmp_path / f"{number}", {"a": noise(20_000_000, number), "b": noise(900_000, 10 + number)})
        gone.append(publish(store, folder, title=f"{number}, all").course)
        (folder / "a").unlink()
        kept.append(publish(store, folder, title=f"{number}").course)
    extents = {os.stat(path).st_ino: path for path in store._parts.extents.iterdir()}
    for course in gone:
        store.forget(course)
    bad: list[int] = []
    read = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        inode = os.fstat(fd).st_ino
        if inode in extents and not bad:
            bad.append(inode)
        if inode in bad:
            raise OSError(5, "Input/output error")
        return read(fd, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr("p2plearn.store.gc.os.pread", pread)
        swept = store.gc()
    assert swept.compacted == 2
    assert 38_000_000 < swept.freed < 41_000_000
    (words,) = swept.left
    assert str(extents[bad[0]]) in words
    assert str(extents[bad[0]]) in caplog.text
    assert extents[bad[0]].exists()  # with all that is in it: another time the disk may read it
    assert store.verify() == []
    assert store.gc().compacted == 1
    assert all(row.complete for row in store.courses())


def test_a_file_that_cannot_be_deleted_is_named_and_goes_at_the_next_opening(
    store: Store, opened: Callable[..., Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = publish(store, folder).course
    (extent,) = store._parts.extents.iterdir()

    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(gc_module, "remove_extent", fail)
        swept = store.remove(course)
    assert (swept.unlinked, swept.freed) == (0, 0)
    assert len(swept.left) == 1
    assert swept.left[0].startswith(f"{extent}, which no course needs, can't be deleted now (operation not permitted).")
    home = store.home
    store.close()
    opened(home)
    assert not extent.exists()


def test_a_sweep_leaves_running_downloads_alone(store: Store, other: Store, folder: Path) -> None:
    course = publish(store, folder).course
    download = begin(store, other, course)
    fetch(store, download, download.missing()[:2])
    assert other.gc() == gc_module.Sweep(0, 0, 0)
    fetch(store, download)
    other.gc()
    download.close()
    assert other.verify() == []


def test_a_sweep_takes_nothing_for_dead_by_an_index_that_was_harmed(store: Store, folder: Path) -> None:
    course = publish(store, folder).course
    holding = store.holding(course)
    assert holding is not None
    digest = holding.index.digest(0)
    file = store._parts.course_files.path(course)
    flip(file, file.read_bytes().index(digest))
    before = store.usage().bytes
    assert store.gc().freed == 0
    assert store.usage().bytes == before
    assert digest in store._parts.catalogue.locate([digest])


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 10 * 366 * 86400.0, -1_700_000_000.0])
def test_a_clock_that_jumps_changes_nothing(
    store: Store, other: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    first = publish(store, folder).course
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    copy(store, other, first)
    (folder / "README.md").write_bytes(b"later, or earlier")
    second = publish(store, folder, now=max(0, int(1_700_000_000 + jump)))
    assert second.manifest.series.seq == 2
    other.checkout(first, tmp_path / "out")
    other.close()
    monkeypatch.undo()
    again = Store.open(tmp_path / "other")
    assert again.notices == ()
    assert [(row.course, row.complete) for row in again.courses()] == [(first, True)]
    assert (again.verify(), store.verify()) == ([], [])
    again.gc()
    assert again.verify() == []
    again.close()
