"""A checkout that grows while its course comes: in order, each file complete, and going on in the same folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from stores import FILES, begin, fetch, noise, parcel, publish, read_tree, write_tree

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.errors import Refused
from p2plearn.store import reconcile
from p2plearn.store.download import Download
from p2plearn.store.growing import Growing
from p2plearn.store.store import Store
from p2plearn.store.tree import part_name


@pytest.fixture
def course(other: Store, folder: Path) -> bytes:
    return publish(other, folder).course


def never() -> bool:
    return False


def bring(source: Store, download: Download, entry: FileEntry) -> None:
    """Fetch what a file lacks."""
    fetch(source, download, [slot for slot in range(entry.first, entry.first + entry.count) if not download.has(slot)])


def names(folder: Path) -> set[str]:
    return {path for path, raw in read_tree(folder).items() if raw is not None} if folder.exists() else set()


def count_hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of files in a destination that are read and hashed from now on."""
    hashed: list[str] = []
    true = cast("Callable[[int, str, Index, FileEntry], bool]", reconcile._is_same)

    def counting(parent: int, name: str, index: Index, entry: FileEntry) -> bool:
        hashed.append(entry.path)
        return true(parent, name, index, entry)

    monkeypatch.setattr(reconcile, "_is_same", counting)
    return hashed


def test_each_file_is_there_complete_before_the_next_has_come(
    store: Store, other: Store, course: bytes, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    download = begin(other, store, course)
    growing = Growing(store, download, out, download.index.files)
    growing.more(never)
    assert not out.exists()
    files = list(download.index.files)
    for number, entry in enumerate(files):
        if entry.count > 1:
            fetch(other, download, [slot for slot in [entry.first] if not download.has(slot)])
            growing.more(never)
            assert entry.path not in names(out) or all(
                download.has(slot) for slot in range(entry.first, entry.first + entry.count)
            )
        bring(other, download, entry)
        growing.more(never)
        assert names(out) >= {one.path for one in files[: number + 1]}
        assert all((out / path).read_bytes() == FILES[path] for path in names(out))
        assert store.checkouts(course) == [str(out)]
    assert growing.done
    assert growing.there == set(FILES)
    assert growing.written == len(FILES)
    download.close()
    hashed = count_hashed(monkeypatch)
    done = store.checkout(course, out, known=growing.there)
    assert (done.written_files, done.replaced, hashed) == (0, (), [])
    assert read_tree(out) == read_tree(folder)


def test_a_file_that_is_here_waits_for_those_before_it(
    store: Store, other: Store, course: bytes, tmp_path: Path
) -> None:
    download = begin(other, store, course)
    growing = Growing(store, download, tmp_path / "out", download.index.files)
    first, *rest = (entry for entry in download.index.files if entry.count)
    for entry in rest:
        bring(other, download, entry)
    growing.more(never)
    assert names(tmp_path / "out") == set()
    bring(other, download, first)
    growing.more(never)
    assert growing.done
    assert names(tmp_path / "out") == set(FILES)
    download.close()


def test_what_ends_in_the_middle_goes_on_in_the_same_folder(
    store: Store, other: Store, course: bytes, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    signed, raw, index = parcel(other, course)
    download = begin(other, store, course)
    files = list(index.files)
    for entry in files[:4]:
        bring(other, download, entry)
    growing = Growing(store, download, out, files)
    growing.more(never)
    began = {path: (out / path).stat().st_ino for path in growing.there}
    assert began
    assert not growing.done
    download.close()
    (out / "a" / part_name("near")).write_bytes(b"a file that was being written when the node was killed")
    (out / "notes.txt").write_bytes(b"mine")

    store.check_destination(signed, index, out)
    download = store.begin_download(signed, raw, index, checkout=out, follow=False)
    again = Growing(store, download, out, files)
    again.more(never)
    assert again.written == 0
    assert again.there == set(began)
    fetch(other, download)
    download.close()
    done = store.checkout(course, out, known=again.there)
    assert done.written_files == len(FILES) - len(began)
    assert {path: (out / path).stat().st_ino for path in began} == began
    assert read_tree(out) == {**read_tree(folder), "notes.txt": b"mine"}


def test_what_the_learner_does_meanwhile_is_left(
    store: Store, other: Store, course: bytes, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    download = begin(other, store, course)
    files = list(download.index.files)
    for entry in files[:3]:
        bring(other, download, entry)
    growing = Growing(store, download, out, files)
    growing.more(never)
    worked_on, lost = files[0].path, files[1].path
    (out / worked_on).write_bytes(b"the exercise, solved")
    (out / lost).unlink()
    fetch(other, download)
    growing.more(never)
    download.close()
    done = store.checkout(course, out, known=growing.there)
    assert (done.written_files, done.replaced) == (1, ())
    assert read_tree(out) == {**read_tree(folder), worked_on: b"the exercise, solved"}


def test_a_new_version_grows_over_the_old_one(store: Store, other: Store, tmp_path: Path) -> None:
    out, source = tmp_path / "out", write_tree(tmp_path / "v", {"a": b"1", "b": noise(9000, 1), "c": b"3", "d": b"4"})
    old = publish(other, source).course
    download = begin(other, store, old)
    fetch(other, download)
    download.close()
    store.checkout(old, out)
    (source / "c").unlink()
    write_tree(source, {"a": b"one", "b": noise(9000, 2), "d": b"four"})
    new = publish(other, source).course
    for _ in range(2):  # the second time, what the first one wrote is there
        download = begin(other, store, new)
        growing = Growing(store, download, out, list(download.index.files))
        bring(other, download, download.index.files[0])
        growing.more(never)
        assert read_tree(out) == {"a": b"one", "b": noise(9000, 1), "c": b"3", "d": b"4"}
        if growing.written:
            download.close()
    fetch(other, download)
    growing.more(never)
    download.close()
    done = store.checkout(new, out, known=growing.there)
    assert read_tree(out) == read_tree(source)
    assert (done.replaced, growing.replaced) == ((), [])
    assert store.checkouts(new) == [str(out)]


def test_what_was_the_users_is_named_with_where_it_is(
    store: Store, other: Store, course: bytes, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    download = begin(other, store, course)
    fetch(other, download)
    download.close()
    store.checkout(course, out)
    changed = [entry.path for entry in download.index.files if entry.count][:2]
    for path in changed:
        (out / path).write_bytes(b"my version of " + path.encode())
    download = begin(other, store, course)
    growing = Growing(store, download, out, list(download.index.files))
    growing.more(never)
    download.close()
    assert (growing.written, growing.replaced) == (2, changed)
    assert growing.replaced_into is not None
    assert all((growing.replaced_into / path).read_bytes() == b"my version of " + path.encode() for path in changed)
    assert read_tree(out) == read_tree(folder)


def test_somebody_elses_folder_is_refused(store: Store, other: Store, course: bytes, tmp_path: Path) -> None:
    out = write_tree(tmp_path / "out", {"mine.txt": b"mine"})
    download = begin(other, store, course)
    fetch(other, download)
    with pytest.raises(Refused, match=r"mine\.txt"):
        Growing(store, download, out, list(download.index.files)).more(never)
    download.close()
    assert read_tree(out) == {"mine.txt": b"mine"}
    assert store.checkouts(course) == []


def test_what_is_in_the_folder_already_needs_no_room_again(
    store: Store, other: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    true = store._parts.budget.check

    def noting(*what: object, **sizes: object) -> None:
        asked.append(cast("int", sizes["beside"]))
        true(*what, **sizes)  # type: ignore[arg-type]

    monkeypatch.setattr(store._parts.budget, "check", noting)
    out, (signed, raw, index) = tmp_path / "out", parcel(other, course)
    for done in (0, 3, len(FILES)):
        download = store.begin_download(signed, raw, index, checkout=out, follow=False)
        left = sum(entry.size for entry in list(index.files)[done:])
        assert asked[-1] >= left  # and the chunks that are still to come, which take room in the store
        lacked = download.missing_bytes
        assert asked[-1] <= left + lacked
        for entry in list(index.files)[: done + 3] if done < 3 else index.files:
            bring(other, download, entry)
        Growing(store, download, out, list(index.files)).more(never)
        download.close()
    assert asked[-1] == 0
