"""The files of a course in flat arrays: as a list of entries, in a fraction of the memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.course.file_table import FileEntry, FileTable

some_files = st.lists(
    st.tuples(st.text("aé课🐍/", max_size=6), st.integers(0, 2**64 - 1), st.integers(0, 3)), max_size=9
)


def table(files: list[tuple[str, int, int]]) -> FileTable:
    made = FileTable()
    for file in files:
        made.append(*file)
    return made


@given(some_files, st.integers(-10, 10), st.integers(-10, 10))
def test_it_is_what_a_list_would_be(files: list[tuple[str, int, int]], start: int, stop: int) -> None:
    entries, first = [], 0
    for path, size, count in files:
        entries.append(FileEntry(path, size, first, count))
        first += count
    made = table(files)
    assert list(made) == entries == [made[number] for number in range(len(made))]
    assert list(made.paths()) == [made.path(number) for number in range(len(files))] == [path for path, _, _ in files]
    assert made[start:stop] == tuple(entries[start:stop])
    assert (made.slots, made.bytes) == (first, sum(size for _, size, _ in files))
    for slot in range(first):
        entry = made[made.number_of(slot)]
        assert entry.first <= slot < entry.first + entry.count
    for outside in (len(files), -len(files) - 1):
        with pytest.raises(IndexError):
            made[outside]
    if files:
        assert made[-1] == entries[-1]


@given(some_files, some_files)
def test_equal_when_all_is(one: list[tuple[str, int, int]], other: list[tuple[str, int, int]]) -> None:
    assert (table(one) == table(other)) is (one == other)


def test_a_file_takes_its_path_and_some_bytes() -> None:
    tracemalloc.start()
    try:
        made = table([])
        for number in range(10_000):
            made.append(f"{number:08}", 4096, 1)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 10_000 * (8 + 24) * 1.3  # arrays grow by an eighth beyond what is in them
