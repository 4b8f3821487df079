"""What was copied from a file of the user's is read from there only while that is sure to hold the same bytes."""

from __future__ import annotations

import gc
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import noise, publish

from p2plearn.store import originals
from p2plearn.store.originals import FEW_PAGES, Original, Originals
from p2plearn.store.past_cache import LEAST, in_memory
from p2plearn.store.store import Store

DATA = noise(4 * LEAST + 77)
START = 8192
LATER = int(time.time()) + 3600


def remembered(file: Path, published: int = LATER) -> Originals:
    facts = file.stat()
    return Originals([Original(START, str(file), facts.st_size, facts.st_mtime_ns, facts.st_ino)], published)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lesson.bin"
    path.write_bytes(DATA)
    return path


def _in_memory(path: Path) -> bool:
    with path.open("rb") as opened:
        return in_memory(opened.fileno(), 0, path.stat().st_size)


def test_a_range_is_what_the_file_holds(file: Path) -> None:
    if not _in_memory(file):
        pytest.skip("this system doesn't tell what is in memory")
    kept = remembered(file)
    assert kept.read(START, len(DATA)) == DATA
    assert kept.read(START + 5, LEAST) == DATA[5 : 5 + LEAST]
    assert kept.read(START - 1, LEAST) is None
    assert kept.read(START + len(DATA) - LEAST + 1, LEAST) is None
    assert kept.read(START, LEAST - 1) is None


def test_what_left_memory_is_not_read_from_there(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _in_memory(file):
        pytest.skip("a file system in memory")
    assert remembered(file).read(START, LEAST) is None


@pytest.mark.parametrize("gone", [1, FEW_PAGES, FEW_PAGES + 1])
def test_a_few_pages_that_left_memory_are_read_and_bring_no_others_with_them(file: Path, gone: int) -> None:
    page = mmap.PAGESIZE
    with file.open("rb") as opened:
        fd = opened.fileno()
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for number in (0, *range(gone + 1, LEAST // page)):
            os.pread(fd, page, number * page)
        if in_memory(fd, 0, LEAST) or in_memory(fd, LEAST, page) or not in_memory(fd, 0, page):
            pytest.skip("this system doesn't tell what is in memory, or keeps it there")
        got = remembered(file).read(START, LEAST)
        assert got == (DATA[:LEAST] if gone <= FEW_PAGES else None)
        assert in_memory(fd, page, gone * page) is (gone <= FEW_PAGES)
        assert not in_memory(fd, LEAST, page)


def _edit(path: Path) -> None:
    with path.open("r+b") as opened:
        opened.write(b"changed")


def _edit_secretly(path: Path) -> None:
    facts = path.stat()
    _edit(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _replace(path: Path) -> None:
    path.with_name("new").write_bytes(DATA)
    path.with_name("new").replace(path)


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


CHANGES: list[Callable[[Path], None]] = [
    _edit,
    _edit_secretly,
    _replace,
    _link,
    lambda path: os.truncate(path, 9),
    Path.unlink,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_touched_no_longer_counts(file: Path, change: Callable[[Path], None]) -> None:
    kept = remembered(file)
    change(file)
    assert kept.read(START, LEAST) is None


def test_a_file_that_had_not_rested_when_it_was_published_does_not_count(file: Path) -> None:
    assert not remembered(file, int(time.time()))
    assert remembered(file)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each read that could have used an original did."""
    seen: list[bool] = []
    real = Originals.read

    def read(self: Originals, offset: int, length: int) -> bytes | None:
        got = real(self, offset, length)
        seen.append(got is not None)
        return got

    monkeypatch.setattr(Originals, "read", read)
    monkeypatch.setattr(originals, "RESTED_SECONDS", -LATER)
    return seen


def test_a_peer_is_given_the_right_bytes_before_and_after_the_originals_change(
    store: Store, tmp_path: Path, reads: list[bool]
) -> None:
    folder = tmp_path / "course"
    folder.mkdir()
    parts = {f"{number}.bin": noise(size) for number, size in enumerate([5 * LEAST, 100, 0, 3 * LEAST + 1, LEAST])}
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    whole = b"".join(parts.values())
    told = all(_in_memory(folder / name) for name, data in parts.items() if data)
    course = publish(store, folder).course

    def given() -> bytes:
        gc.collect()
        holding = store.holding(course)
        assert holding is not None
        runs = [range(entry.first, entry.first + entry.count) for entry in holding.index.files]
        return b"".join(bytes(chunk or b"") for run in runs for chunk in holding.read_many(run))

    assert given() == whole
    assert any(reads) or not told
    before = len(reads)
    for name in parts:
        (folder / name).write_bytes(b"something else" * LEAST)
    assert given() == whole
    assert not any(reads[before:])
