"""What is read past the page cache is what is in the file, and only what is read once is read so."""

from __future__ import annotations

import errno
import gc
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import begin, fetch, noise, publish

from p2plearn.store import past_cache
from p2plearn.store.holding import Holding
from p2plearn.store.past_cache import BLOCK, LEAST, PastCache, in_memory
from p2plearn.store.store import Store

DATA = noise(3 * LEAST + 1234)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, DATA)
    os.fsync(fd)
    yield fd
    os.close(fd)


def ranges(count: int) -> list[tuple[int, int]]:
    rng = random.Random(count)
    cuts = [sorted((rng.randrange(len(DATA)), rng.randrange(len(DATA)))) for _ in range(count)]
    return [(0, len(DATA)), (0, BLOCK), (1, BLOCK), (len(DATA) - 1, 1), *((a, b - a + 1) for a, b in cuts)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_any_range_is_what_the_file_holds(fd: int, in_memory: bool) -> None:
    past = PastCache(fd)
    for offset, length in ranges(20):
        if not in_memory:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        got = past.read(offset, length)
        # Where the disk has no such way, the caller reads through the cache.
        assert got is None or got == DATA[offset : offset + length]
    past.close()
    past.close()


def test_what_lies_in_memory_is_taken_from_there(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    past, real = PastCache(fd), os.preadv
    from_disk: list[int] = []

    def preadv(where: int, buffers: list[memoryview], offset: int) -> int:
        from_disk.append(offset)
        return real(where, buffers, offset)

    os.pread(fd, len(DATA), 0)
    if not in_memory(fd, 0, len(DATA)):
        pytest.skip("this system doesn't tell what is in memory")
    monkeypatch.setattr(os, "preadv", preadv)
    got = past.read(100, LEAST)
    past.close()
    assert got is None or (got == DATA[100 : 100 + LEAST] and not from_disk)


def test_what_is_read_past_the_cache_does_not_get_into_it(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(fd, 0, len(DATA)):
        pytest.skip("a file system in memory")
    past = PastCache(fd)
    got = past.read(0, 2 * LEAST)
    past.close()
    assert got is None or got == DATA[: 2 * LEAST]
    assert not in_memory(fd, 0, LEAST)
    assert not in_memory(fd, LEAST, LEAST)


def test_a_range_beyond_the_end_is_not_there(fd: int) -> None:
    past = PastCache(fd)
    assert past.read(len(DATA) - 10, 20) is None
    past.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_disk_that_refuses_leaves_it_to_the_cache(fd: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    past = PastCache(fd)
    monkeypatch.setattr(past_cache, "in_memory", lambda *_, **__: False)
    monkeypatch.setattr(os, "preadv", refuse)
    assert past.read(0, LEAST) is None
    assert past.read(0, LEAST) is None
    past.close()


@pytest.fixture
def past_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Offsets of the reads that went past the cache, or tried to."""
    offsets: list[int] = []
    real = past_cache.PastCache.read

    def read(self: PastCache, offset: int, length: int) -> bytes | memoryview | None:
        offsets.append(offset)
        return real(self, offset, length)

    monkeypatch.setattr(past_cache.PastCache, "read", read)
    return offsets


def test_what_several_peers_are_given_is_read_through_the_cache(
    store: Store, tmp_path: Path, past_reads: list[int]
) -> None:
    source = tmp_path / "course.bin"
    source.write_bytes(DATA)
    course = publish(store, source).course
    alone = store.holding(course)
    assert alone is not None
    slots = range(alone.slots)

    def read(holding: Holding) -> bytes:
        return b"".join(chunk or b"" for chunk in holding.read_many(slots))

    assert read(alone) == DATA
    assert len(past_reads) == 1
    assert b"".join(alone.read_all(slots)) == DATA  # a checkout reads as ever
    assert len(past_reads) == 1
    second = store.holding(course)
    assert second is not None
    assert read(second) == read(alone) == DATA
    assert len(past_reads) == 1
    del second
    gc.collect()
    assert read(alone) == DATA
    assert len(past_reads) == 2


def test_damage_shows_past_the_cache_too(opened: Callable[..., Store], tmp_path: Path, past_reads: list[int]) -> None:
    source = tmp_path / "course.bin"
    source.write_bytes(DATA)
    first = opened("home")
    course = publish(first, source).course
    first.close()
    extent = next((tmp_path / "home" / "store" / "extents").iterdir())
    with extent.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    store = opened("home")
    holding = store.holding(course)
    assert holding is not None
    chunks = holding.read_many(range(holding.slots))
    assert past_reads
    assert chunks[0] is None
    assert b"".join(chunk or b"" for chunk in chunks) == DATA[holding.length(0) :]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice")
def test_nothing_is_read_ahead_where_it_may_not_be_written_yet(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advice: list[int] = []
    real = os.posix_fadvise

    def advise(where: int, offset: int, length: int, which: int) -> None:
        if which in (os.POSIX_FADV_NORMAL, os.POSIX_FADV_RANDOM):
            advice.append(which)
        real(where, offset, length, which)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    source = tmp_path / "course.bin"
    source.write_bytes(DATA)
    download = begin(store, other, publish(store, source).course)
    first, *rest = download.missing()
    fetch(store, download, [first])
    advice.clear()
    assert download.read(first) == DATA[: download.length(first)]
    assert download.read(first) == DATA[: download.length(first)]
    assert advice == [os.POSIX_FADV_RANDOM]
    fetch(store, download, rest)
    assert b"".join(download.read_all(range(download.slots))) == DATA
    assert advice == [os.POSIX_FADV_RANDOM, os.POSIX_FADV_NORMAL]
    download.close()
