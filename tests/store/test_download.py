"""Downloads: planned places, any order, many threads, resumed, shared, served while they run."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import begin, copy, fetch, noise, parcel, publish, read_tree, write_tree

from p2plearn.errors import NoSpace, StoreProblem
from p2plearn.store import download as download_module
from p2plearn.store.placement import bit
from p2plearn.store.space import StoreLimits
from p2plearn.store.store import Store


def abandon(store: Store) -> None:
    """End a store as SIGKILL would: nothing committed, nothing closed properly, its lock gone."""
    os.close(store._lock_fd)
    store._parts.catalogue.close()


def test_wrong_bytes_are_refused_and_nothing_is_written(store: Store, other: Store, folder: Path) -> None:
    course = publish(store, folder).course
    download = begin(store, other, course)
    holding = store.holding(course)
    assert holding is not None
    slot = download.missing()[0]
    chunk = holding.read(slot)
    assert not download.put(slot, [chunk[:-1]])
    assert not download.put(slot, [chunk, b"x"])
    assert not download.put(slot, [bytes(len(chunk))])
    assert not download.put(slot, [])
    assert not download.has(slot)
    assert download.put_many([(slot, [chunk]), (slot, [chunk]), (slot, [b"?"])]) == [True, True, False]
    assert download.read(slot) == chunk
    with pytest.raises(IndexError):
        download.put(len(download.index), [b""])
    download.close()


def test_twins_are_fetched_once_and_had_together(store: Store, other: Store, tmp_path: Path) -> None:
    raw = noise(400_000, 9)
    folder = write_tree(tmp_path / "s", {"a": raw, "b": raw, "c": raw + b"!"})
    course = publish(store, folder).course
    download = begin(store, other, course)
    missing = download.missing()
    assert len({download.index.digest(slot) for slot in missing}) == len(missing) < len(download.index)
    fetch(store, download)
    assert download.complete and download.have_bytes == 1_200_001
    download.close()
    row = other.course(course)
    assert row is not None
    assert row.complete
    other.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)


def test_what_another_course_holds_is_not_fetched(store: Store, other: Store, folder: Path) -> None:
    first = publish(store, folder)
    copy(store, other, first.course)
    held = other.usage().bytes
    (folder / "README.md").write_bytes(b"# Second edition")
    second = publish(store, folder)
    download = begin(store, other, second.course)
    assert [download.placement.file_of(slot).path for slot in download.missing()] == ["README.md"]
    fetch(store, download)
    download.close()
    assert other.usage().bytes - held < 1000
    # The first goes; what the second needs of it stays.
    other.remove(first.course)
    assert other.verify() == []
    row = other.course(second.course)
    assert row is not None
    assert row.complete


def test_a_running_download_is_served(store: Store, other: Store, folder: Path) -> None:
    course = publish(store, folder).course
    download = begin(store, other, course)
    holding = other.holding(course)
    assert holding is not None
    assert not any(holding.have)
    first, *rest = download.missing()
    fetch(store, download, [first])
    assert holding.has(first) and holding.read(first) == download.read(first)
    assert holding.read_many([first, rest[0]])[1] is None
    fetch(store, download)
    assert holding.complete
    assert all(bit(holding.have, slot) for slot in range(holding.slots))
    download.close()


def test_after_a_kill_nothing_that_was_written_is_fetched_again(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    killed = Store.open(tmp_path / "killed")
    download = begin(store, killed, course)
    missing = download.missing()
    half = random.Random(1).sample(missing, len(missing) // 2)
    fetch(store, download, half[: len(half) // 2])
    download.commit()
    fetch(store, download, half[len(half) // 2 :])
    written, (before,) = download.have_bytes, killed.courses()
    assert 0 < before.have_bytes < written == killed.have_bytes(before)
    abandon(killed)
    again = opened("killed")
    (row,) = again.courses()
    assert row.have_bytes == before.have_bytes
    shown = again.have_bytes(row)
    assert written <= shown <= written + (64 << 10)  # a file knows by blocks what was written
    assert again.have_bytes(row) == shown
    resumed = begin(store, again, course)
    assert resumed.have_bytes == again.have_bytes(row) == written
    assert sorted(resumed.missing()) == sorted(set(missing) - set(half))
    fetch(store, resumed)
    resumed.close()
    (row,) = again.courses()
    assert again.have_bytes(row) == row.have_bytes == row.bytes
    assert again.verify() == []
    again.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)
    assert again._parts.catalogue.plans(course) == []


def test_bytes_torn_by_a_crash_are_not_trusted(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    killed = Store.open(tmp_path / "killed")
    download = begin(store, killed, course)
    fetch(store, download)
    (extent,) = (tmp_path / "killed" / "store" / "extents").iterdir()
    abandon(killed)
    with extent.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"torn")
    again = opened("killed")
    (row,) = again.courses()
    assert again.have_bytes(row) == row.bytes
    assert not row.complete  # what was written is shown; whether it is right is not known
    resumed = begin(store, again, course)
    (slot,) = resumed.missing()
    fetch(store, resumed, [slot])
    resumed.close()
    assert again.verify() == []


def test_a_plan_whose_file_never_reached_the_disk_is_made_anew(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    killed = Store.open(tmp_path / "killed")
    begin(store, killed, course)
    abandon(killed)
    for extent in (tmp_path / "killed" / "store" / "extents").iterdir():
        extent.unlink()
    again = opened("killed")
    copy(store, again, course)
    assert again.verify() == []
    assert len(os.listdir(tmp_path / "killed" / "store" / "extents")) == 1


def test_some_files_first_then_more_in_the_same_download(
    store: Store, other: Store, folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    index = parcel(store, course)[2]
    small = [entry for entry in index.files if entry.path == "a/near"]
    download = begin(store, other, course, small)
    assert len(download.missing()) == 1
    again = begin(store, other, course, [entry for entry in index.files if entry.path.startswith("a/")])
    assert again is download
    assert {download.placement.file_of(slot).path for slot in download.missing()} == {"a/near", "a/b/c/deep.bin"}
    fetch(store, download)
    again.close()
    other.checkout(course, tmp_path / "out", [entry for entry in index.files if entry.path.startswith("a/")])
    assert set(read_tree(tmp_path / "out")) == {"a", "a/b", "a/b/c", "a/b/c/deep.bin", "a/near"}
    row = other.course(course)
    assert row is not None
    assert not row.complete
    download.close()
    copy(store, other, course)
    row = other.course(course)
    assert row is not None
    assert row.complete


def test_many_threads_put_and_one_commits(store: Store, other: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "s", {f"{n}.bin": noise(500_000 + n, n) for n in range(12)})
    course = publish(store, folder).course
    download = begin(store, other, course)
    holding = store.holding(course)
    assert holding is not None
    slots = download.missing() * 2  # each twice, as in an endgame
    random.Random(3).shuffle(slots)
    done = threading.Event()

    def commit() -> None:
        while not done.is_set():
            download.commit()

    committer = threading.Thread(target=commit)
    committer.start()
    with ThreadPoolExecutor(4) as threads:
        batches = [slots[at : at + 3] for at in range(0, len(slots), 3)]
        results = threads.map(lambda batch: download.put_many([(s, [holding.read(s)]) for s in batch]), batches)
        assert all(all(result) for result in results)
    done.set()
    committer.join()
    assert download.missing() == [] and download.missing_bytes == 0
    download.close()
    row = other.course(course)
    assert row is not None
    assert row.complete
    assert other.verify() == []


def test_two_downloads_of_courses_that_share_chunks(store: Store, other: Store, folder: Path) -> None:
    first = publish(store, folder)
    (folder / "README.md").write_bytes(b"other")
    second = publish(store, folder)
    one, two = begin(store, other, first.course), begin(store, other, second.course)
    fetch(store, two)
    fetch(store, one)
    one.close()
    two.close()
    assert other.verify() == []
    assert all(row.complete for row in other.courses())
    other.remove(first.course)
    assert other.verify() == []


def test_a_failed_fsync_is_not_acknowledged(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = publish(store, folder).course
    other = opened("failing")
    download = begin(store, other, course)
    fetch(store, download)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(download_module, "sync_file", fail)
        with pytest.raises(StoreProblem, match="disk failed"):
            download.commit()
    assert not any(download.have)
    with pytest.raises(StoreProblem):
        download.put(0, [b""])
    download.close()
    row = other.course(course)
    assert row is not None
    assert row.have_bytes == 0
    copy(store, other, course)
    assert other.verify() == []
    other.gc()
    assert len(os.listdir(tmp_path / "failing" / "store" / "extents")) == 1


def test_a_chunk_found_damaged_while_fetching_is_fetched_again(store: Store, other: Store, folder: Path) -> None:
    first = publish(store, folder)
    copy(store, other, first.course)
    (folder / "README.md").write_bytes(b"other")
    second = publish(store, folder)
    download = begin(store, other, second.course)
    damaged = next(slot for slot in range(download.slots) if download.has(slot) and download.length(slot) > 50_000)
    with max(other._parts.extents.iterdir(), key=lambda path: path.stat().st_size).open("r+b") as file:
        file.seek(download.placement.offsets[damaged] + 7)
        file.write(b"rot")
    with download.placement.lock:
        download.placement.good[:] = bytes(len(download.placement.good))
    assert download.read_many([damaged]) == [None]
    assert download.placement.twins.get(damaged, (damaged,))[0] in download.missing()
    fetch(store, download)
    download.close()
    assert other.verify() == []
    assert all(row.complete for row in other.courses())


def test_what_is_here_of_a_course_is_known_while_it_comes(store: Store, other: Store, folder: Path) -> None:
    course = publish(store, folder).course
    download = begin(store, other, course)
    came = fetch(store, download, download.missing()[:2])
    row = other.course(course)
    assert row is not None
    assert row.have_bytes == 0  # nothing is committed so far
    assert other.have_bytes(row) == download.have_bytes >= came > 0
    download.close()
    row = other.course(course)
    assert row is not None
    assert other.have_bytes(row) == row.have_bytes >= came


def test_no_room_is_said_with_figures_before_anything_is_written(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder).course
    small = opened("small", quota=1_000_000)
    with pytest.raises(NoSpace, match=r"3\.2 MiB more.*quota of 976\.6 KiB") as caught:
        begin(store, small, course)
    assert "p2plearn remove" in caught.value.hint
    assert os.listdir(tmp_path / "small" / "store" / "extents") == []
    assert small.course(course) is None
    full = opened("full", min_free=1 << 60)
    with pytest.raises(NoSpace, match="free"):
        begin(store, full, course)


@pytest.mark.parametrize("limits", [{"quota": 1_000_000}, {"min_free": 1 << 60}])
@pytest.mark.parametrize("give", [False, True])
def test_a_refusal_for_lack_of_room_leaves_nothing_remembered(
    store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path, limits: dict[str, int], give: bool
) -> None:
    course = publish(store, folder).course
    tight = opened("tight", **limits)
    for _ in range(2):
        with pytest.raises(NoSpace):
            tight.begin_download(*parcel(store, course), checkout=tmp_path / "out", give=give)
        # A fetch that begins now has to ask for all of it: neither manifest nor index is here.
        assert tight.holding(course) is None
        assert tight.signed_manifest(course) is None
    tight._parts.budget.limits = StoreLimits()
    copy(store, tight, course)
    assert tight.verify() == []


def test_two_downloads_cannot_reserve_the_same_room(store: Store, opened: Callable[..., Store], tmp_path: Path) -> None:
    courses = [
        publish(store, write_tree(tmp_path / name, {"f": noise(600_000, seed)}), title=name).course
        for seed, name in enumerate("ab")
    ]
    tight = opened("tight", quota=1_000_000)
    one = begin(store, tight, courses[0])
    with pytest.raises(NoSpace):
        begin(store, tight, courses[1])
    fetch(store, one)
    one.close()
    tight.remove(courses[0])
    copy(store, tight, courses[1])
