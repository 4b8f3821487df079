"""Runs of large files reach the file whichever way they take, in any order, from any alignment."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2plearn.store import behind as behind_module
from p2plearn.store.behind import STRIPE, Behind
from p2plearn.store.past_cache import BLOCK, LEAST, aligned, lies_like

MIB = 1 << 20


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def pieces_of(data: bytes, rng: random.Random) -> list[memoryview]:
    view, pieces = memoryview(data), []
    while view:
        step = rng.randrange(1, 300_000)
        pieces.append(view[:step])
        view = view[step:]
    return pieces


@pytest.mark.parametrize("past_the_cache", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_runs_of_any_length_and_order_add_up(
    fd: int, seed: int, past_the_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not past_the_cache:
        monkeypatch.setattr(behind_module, "reopen_direct", lambda *_: -1)
    rng = random.Random(seed)
    data = rng.randbytes(11 * MIB + rng.randrange(BLOCK))
    cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(12)), BLOCK, 2 * BLOCK + LEAST})
    runs = list(itertools.pairwise(cuts))
    rng.shuffle(runs)
    behind = Behind(keep=STRIPE)
    for start, end in runs:
        behind.write(fd, pieces_of(data[start:end], rng), start)
        assert os.pread(fd, end - start, start) == data[start:end]  # at once, through the cache
    behind.close()
    assert os.pread(fd, len(data) + 1, 0) == data


def test_a_disk_that_refuses_blocks_of_this_size_is_written_through_the_cache(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(1).randbytes(3 * MIB + 77)
    real, refused = os.pwrite, []

    def pwrite(where: int, what: memoryview, offset: int) -> int:
        if where != fd:
            refused.append(offset)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(where, what, offset)

    behind = Behind(keep=STRIPE)
    monkeypatch.setattr(os, "pwrite", pwrite)
    for at in range(0, len(data), MIB):
        behind.write(fd, [data[at : at + MIB]], at)
    behind.close()
    assert os.pread(fd, len(data) + 1, 0) == data
    assert len(refused) <= 1  # none where there is no such way at all


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_other_errors_go_up(fd: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    behind = Behind(keep=STRIPE)
    monkeypatch.setattr(os, "pwrite", fails)
    monkeypatch.setattr(os, "pwritev", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        behind.write(fd, [bytes(MIB)], 0)
    behind.close()


def test_a_short_write_is_finished(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(2).randbytes(MIB)
    real = os.pwrite
    monkeypatch.setattr(
        os,
        "pwrite",
        lambda where, what, offset: (
            real(where, what[: len(what) // BLOCK // 2 * BLOCK], offset) if where != fd else real(where, what, offset)
        ),
    )
    behind = Behind(keep=STRIPE)
    behind.write(fd, [data], 0)
    behind.close()
    assert os.pread(fd, MIB, 0) == data


def test_written_stripes_leave_memory_in_turn(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    settled: list[int] = []
    monkeypatch.setattr(behind_module, "start_writeback", lambda fd, offset, n: started.append(offset // n))
    monkeypatch.setattr(behind_module, "settle_behind", lambda fd, offset, n: settled.append(offset // n))
    monkeypatch.setattr(behind_module, "reopen_direct", lambda *_: -1)
    behind, half = Behind(keep=2 * STRIPE), bytes(STRIPE // 2)
    behind.write(fd, [half], STRIPE)
    behind.write(fd, [half, half], 0)
    assert (started, settled) == ([0], [])
    behind.write(fd, [half, half], STRIPE + STRIPE // 2)  # fills the second, begins the third
    behind.write(fd, [half], 2 * STRIPE + STRIPE // 2)
    assert (started, settled) == ([0, 1, 2], [0])
    behind.close()


def test_what_lies_right_is_written_where_it_lies(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    view = aligned(2 * MIB)
    view[:] = random.Random(3).randbytes(2 * MIB)
    behind = Behind(keep=STRIPE)
    monkeypatch.setattr(behind, "_write_copied", None)  # it would fail
    for start, end in ((100, MIB + 5), (MIB + 5, MIB + 5 + LEAST), (0, 100), (MIB + 5 + LEAST, 2 * MIB)):
        behind.write(fd, [view[start:end]], start + 3 * BLOCK)
    behind.close()
    assert os.pread(fd, 2 * MIB, 3 * BLOCK) == view


def test_only_memory_that_lies_like_its_place_does() -> None:
    view = aligned(2 * BLOCK)
    assert lies_like(view[5:], 7 * BLOCK + 5)
    assert not lies_like(view[5:], 7 * BLOCK)
    assert not lies_like(bytes(BLOCK), 0)
