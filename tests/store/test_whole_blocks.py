"""A published file is written in whole blocks from one buffer to the next, and reads as it was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from stores import noise, publish

from p2plearn.store.behind import Behind
from p2plearn.store.durable import Piece
from p2plearn.store.past_cache import BLOCK
from p2plearn.store.store import Store

MIB = 1 << 20


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(begin, end) of what was written to the extents, in any order."""
    seen: list[tuple[int, int]] = []
    real = Behind.write

    def write(self: Behind, fd: int, pieces: Sequence[Piece], offset: int) -> None:
        seen.append((offset, offset + sum(map(len, pieces))))
        real(self, fd, pieces, offset)

    monkeypatch.setattr(Behind, "write", write)
    return seen


def _kept(store: Store, course: bytes) -> bytes:
    holding = store.holding(course)
    assert holding is not None
    return b"".join(bytes(chunk) for chunk in holding.read_all(range(holding.slots)))


def test_only_the_last_bytes_of_a_file_are_no_whole_block(
    store: Store, tmp_path: Path, written: list[tuple[int, int]]
) -> None:
    data = noise(13 * MIB + 777)
    (tmp_path / "film.bin").write_bytes(data)
    course = publish(store, tmp_path / "film.bin").course
    written.sort()
    assert [end for _, end in written[:-1]] == [begin for begin, _ in written[1:]]  # each byte once
    assert len(written) >= 4
    assert all(begin % BLOCK == 0 for begin, _ in written)
    assert written[-1][1] == len(data)
    assert _kept(store, course) == data


@pytest.mark.parametrize("seed", range(6))
def test_files_in_which_parts_come_again_are_kept_as_they_are(
    store: Store, tmp_path: Path, written: list[tuple[int, int]], seed: int
) -> None:
    rng = random.Random(seed)
    parts = [noise(rng.randrange(1, 3 * MIB) + seed) for _ in range(4)]
    folder = tmp_path / "course"
    folder.mkdir()
    files = [b"".join(rng.choices(parts, k=rng.randrange(1, 7))) for _ in range(4)]
    for number, data in enumerate(files):
        (folder / f"{number}.bin").write_bytes(data)
        (folder / f"{number}.txt").write_bytes(data[: rng.randrange(6000)])
    first = publish(store, folder / "2.bin").course
    course = publish(store, folder).course
    assert _kept(store, first) == files[2]
    found = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert _kept(store, course) == found
    assert written
