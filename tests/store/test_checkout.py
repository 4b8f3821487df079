"""Checkout: whole or not at all, never outside the destination, nothing of the user's lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import EVERY
from stores import FILES, copy, noise, publish, read_tree, write_tree

from p2plearn.errors import Interrupted, NoSpace, Refused, UsageProblem
from p2plearn.store import checkout as checkout_module
from p2plearn.store import reconcile as reconcile_module
from p2plearn.store.problems import StoreDamage
from p2plearn.store.store import Store
from p2plearn.store.tree import PART, make_part


@pytest.fixture
def course(store: Store, folder: Path) -> bytes:
    return publish(store, folder).course


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if PART in path.name]


def test_modes_are_plain(store: Store, folder: Path, tmp_path: Path) -> None:
    (folder / "one").chmod(0o777)
    course = publish(store, folder).course
    before = os.umask(0o027)
    try:
        store.checkout(course, tmp_path / "out")
    finally:
        os.umask(before)
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)


def test_into_an_empty_folder_and_below_missing_ones(store: Store, course: bytes, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store.checkout(course, tmp_path / "empty")
    store.checkout(course, tmp_path / "x" / "y" / "out")
    assert read_tree(tmp_path / "empty") == read_tree(tmp_path / "x" / "y" / "out") == read_tree(folder)


def test_other_peoples_files_are_refused(store: Store, course: bytes, tmp_path: Path) -> None:
    dest = write_tree(tmp_path / "out", {"mine.txt": b"mine"})
    with pytest.raises(Refused, match=r"mine\.txt") as caught:
        store.checkout(course, dest)
    assert "-o DIR" in caught.value.hint
    assert read_tree(dest) == {"mine.txt": b"mine"}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refused, match="no folder"):
        store.checkout(course, tmp_path / "file")
    with pytest.raises(UsageProblem, match="not in this store"):
        store.checkout(bytes(32), tmp_path / "elsewhere")


@pytest.mark.parametrize("deep", ["sub", "sub/deeper/still"])
def test_a_place_below_a_file_is_named_as_such(store: Store, course: bytes, tmp_path: Path, deep: str) -> None:
    (tmp_path / "rf").write_bytes(b"mine")
    (tmp_path / "to").symlink_to(tmp_path / "rf")
    os.mkfifo(tmp_path / "pipe")
    for name, real, what in (("rf", "rf", "is a file, not a folder"), ("to", "rf", "is a file, not a folder"),
                             ("pipe", "pipe", "is no folder")):  # fmt: skip
        with pytest.raises(Refused) as caught:
            store.checkout(course, tmp_path / name / deep)
        assert f"{tmp_path / real} {what}" in caught.value.message
        assert "another place" in caught.value.hint
        with pytest.raises(Refused, match=what):
            checkout_module.refuse_below_file(tmp_path / name / deep)
    assert (tmp_path / "rf").read_bytes() == b"mine"
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    checkout_module.refuse_below_file(tmp_path / "link" / deep)


def test_again_writes_only_what_differs_and_keeps_the_users_version(
    store: Store, course: bytes, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert store.checkout(course, out).written_files == len(FILES)
    again = store.checkout(course, out)
    assert (again.written_files, again.replaced, again.replaced_into) == (0, (), None)
    untouched = (out / "large.bin").stat()
    (out / "README.md").write_bytes(b"my notes")
    (out / "one").unlink()
    (out / "my own.txt").write_bytes(b"kept")
    done = store.checkout(course, out)
    assert (done.written_files, done.replaced) == (2, ("README.md",))
    assert done.replaced_into is not None
    assert done.replaced_into.is_relative_to(tmp_path / "home" / "replaced" / course.hex()[:12])
    assert (done.replaced_into / "README.md").read_bytes() == b"my notes"
    assert (out / "large.bin").stat().st_mtime_ns == untouched.st_mtime_ns
    assert read_tree(out) == {**read_tree(folder), "my own.txt": b"kept"}
    assert leftovers(tmp_path) == []


def test_a_folder_with_nothing_but_the_courses_paths_is_taken(
    store: Store, course: bytes, folder: Path, tmp_path: Path
) -> None:
    out = write_tree(tmp_path / "out", {"one": read_tree(folder)["one"] or b""})
    done = store.checkout(course, out)
    assert not done.replaced
    assert read_tree(out) == read_tree(folder)


def test_a_folder_with_other_bytes_under_the_courses_names_is_somebodys_work(
    store: Store, course: bytes, tmp_path: Path
) -> None:
    out = write_tree(tmp_path / "out", {"a/near": b"what I wrote for weeks"})
    with pytest.raises(Refused, match="a/near"):
        store.checkout(course, out)
    assert read_tree(out)["a/near"] == b"what I wrote for weeks"


def test_what_stands_in_the_way_is_moved_not_followed(
    store: Store, course: bytes, folder: Path, tmp_path: Path
) -> None:
    out, outside = tmp_path / "out", write_tree(tmp_path / "outside", {"near": b"safe", "large.bin": b"safe"})
    store.checkout(course, out)
    (out / "a" / "near").unlink()
    (out / "a" / "near").symlink_to(outside / "near")
    (out / "large.bin").unlink()
    (out / "large.bin").symlink_to(outside / "large.bin")
    (out / "a-b" / "near").unlink()
    (out / "a-b").rmdir()
    (out / "a-b").symlink_to(outside)
    (out / "one").unlink()
    write_tree(out / "one", {"deep/er": b"a folder where a file goes"})
    done = store.checkout(course, out)
    assert read_tree(out) == read_tree(folder)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert read_tree(outside) == {"near": b"safe", "large.bin": b"safe"}
    assert set(done.replaced) == {"a/near", "large.bin", "a-b", "one"}
    assert done.replaced_into is not None
    assert (done.replaced_into / "one" / "deep" / "er").read_bytes() == b"a folder where a file goes"


def test_the_users_version_is_kept_on_another_file_system_too(
    store: Store, course: bytes, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    store.checkout(course, out)
    (out / "README.md").write_bytes(b"my notes")
    (out / "one").unlink()
    write_tree(out / "one", {"x": b"1", "y/z": b"2"})
    (out / "one" / "link").symlink_to("x")
    rename = os.rename

    def across(source: object, target: object, **at: int) -> None:
        if "replaced" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target, **at)  # type: ignore[arg-type]

    monkeypatch.setattr(reconcile_module.os, "rename", across)
    done = store.checkout(course, out)
    assert done.replaced_into is not None
    assert read_tree(done.replaced_into) == {
        "README.md": b"my notes", "one": None, "one/x": b"1", "one/y": None, "one/y/z": b"2", "one/link": b"1",
    }  # fmt: skip
    assert (done.replaced_into / "one" / "link").is_symlink()
    assert read_tree(out) == read_tree(folder)


def test_one_file_goes_beside_others_but_not_over_them(store: Store, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", {"talk.mp4": noise(100_000)}) / "talk.mp4"
    course = publish(store, source).course
    downloads = write_tree(tmp_path / "Downloads", {"mine": b"1"})
    store.checkout(course, downloads)
    assert (downloads / "talk.mp4").read_bytes() == source.read_bytes()
    other = write_tree(tmp_path / "Other", {"talk.mp4": b"another talk"})
    with pytest.raises(Refused, match=r"another talk\.mp4"):
        store.checkout(course, other)
    assert (other / "talk.mp4").read_bytes() == b"another talk"


def test_stale_parts_go_and_running_ones_stay(store: Store, course: bytes, tmp_path: Path) -> None:
    above = os.open(tmp_path, os.O_RDONLY)
    stale, fd = make_part("out", above)
    write_tree(tmp_path / stale, {"x/y": b"1"})
    os.close(fd)  # as a killed process would
    running, fd = make_part("out", above)
    store.checkout(course, tmp_path / "out")
    assert leftovers(tmp_path) == [running]
    os.close(fd)
    os.close(above)


def test_it_can_be_stopped_and_leaves_nothing(store: Store, course: bytes, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        store.checkout(course, tmp_path / "out", cancelled=lambda: True)
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(
    store: Store, course: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkout_module, "write_all", full)
        with pytest.raises(NoSpace, match="disk is full"):
            store.checkout(course, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []
    store.checkout(course, tmp_path / "out")


def test_damage_is_never_checked_out(store: Store, opened: Callable[..., Store], folder: Path, tmp_path: Path) -> None:
    course = publish(store, folder).course
    other = Store.open(tmp_path / "rotten")
    copy(store, other, course)
    other.close()
    (extent,) = (tmp_path / "rotten" / "store" / "extents").iterdir()
    with extent.open("r+b") as file:
        file.seek(50_000)
        file.write(b"rot")
    other = opened("rotten")
    with pytest.raises(StoreDamage):
        other.checkout(course, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    copy(store, other, course)
    other.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)


def test_large_files_and_many_small_ones(store: Store, tmp_path: Path) -> None:
    files = {f"{n // 100}/{n}": noise(n * 7 % 5000, n) for n in range(1500)}
    files |= {"large": noise(11_000_000, 1), "larger": noise(4_194_304, 2), "zero": b""}
    folder = write_tree(tmp_path / "s", files)
    course = publish(store, folder).course
    told: list[tuple[int, int, int, int]] = []
    store.checkout(course, tmp_path / "out", report=lambda *figures: told.append(figures))
    assert read_tree(tmp_path / "out") == read_tree(folder)
    total = sum(map(len, files.values()))
    assert told[-1] == (total, total, len(files), len(files))


@pytest.mark.timeout(3600 if EVERY else 120)
def test_no_escape_while_directories_are_swapped(store: Store, tmp_path: Path) -> None:
    """Someone swaps folders of a running checkout for links to elsewhere, as fast as they can."""
    folder = write_tree(tmp_path / "s", {f"d{n}/e/f{m}": b"course" for n in range(8) for m in range(8)})
    course = publish(store, folder).course
    outside = write_tree(tmp_path / "outside", {"e/keep": b"keep"})
    arena = tmp_path / "arena"
    arena.mkdir()
    taken = tmp_path / "taken"
    taken.mkdir()
    over = threading.Event()
    races = 1000 if EVERY else 120
    number = 0

    def swap() -> None:
        nonlocal number
        while not over.is_set():
            with contextlib.suppress(OSError):
                for found in arena.glob("*/d*"):
                    number += 1
                    before = taken / f"{number}"
                    os.rename(found, before)
                    os.symlink(outside if number % 2 else outside / "e", found)
                    if before.is_symlink():  # tens of thousands would take minutes to clear away
                        before.unlink()

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for race in range(races):
            with contextlib.suppress(Refused):
                store.checkout(course, arena / (f"out{race}" if race % 2 else "out"))
    finally:
        over.set()
        attacker.join()
    assert read_tree(outside) == {"e": None, "e/keep": b"keep"}
    assert number
    print(f"{races} checkouts, {number} folders swapped for links meanwhile, nothing written outside")


def test_two_homes_that_write_to_one_place_at_once(store: Store, other: Store, folder: Path, tmp_path: Path) -> None:
    first = publish(store, folder).course
    (folder / "README.md").write_bytes(b"another version")
    second = publish(other, folder).course
    dest = tmp_path / "out"
    outcomes: list[str] = []

    def meanwhile(*_: int) -> None:
        if not outcomes:
            outcomes.append("begun")
            try:
                other.checkout(second, dest)
            except Refused as refusal:
                outcomes.append(refusal.message)

    # Both new: one is there first, whole; the other is told so.
    with pytest.raises(Refused, match="appeared while"):
        store.checkout(first, dest, report=meanwhile)
    assert (outcomes, read_tree(dest)) == (["begun"], read_tree(folder))
    # Both on record as the place of their own version: they take turns.
    shutil.rmtree(dest)
    store.checkout(first, dest)
    outcomes.clear()
    store.checkout(first, dest, report=meanwhile)
    assert outcomes == ["begun", f"Another get is writing to {dest} right now."]
    assert (dest / "README.md").read_bytes() == FILES["README.md"]
    other.checkout(second, dest)
    assert read_tree(dest) == read_tree(folder)
