"""Chunking: the same cuts for the same bytes, today and after an upgrade, however they are handed over."""

from __future__ import annotations

import gc
import hashlib
import random
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course.chunking import FIXED_CHUNK, MAX_CHUNK, MIN_SIZE, Chunker, ChunkerKind, chunker

KINDS: tuple[ChunkerKind, ...] = ("fastcdc", "fixed")


def noise(text: str, size: int) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size)


CONTENT = noise("some content", 6 * 2**20 + 123)


def in_buffers(cutter: Chunker, content: bytes, sizes: Iterable[int]) -> list[int]:
    """Cut as a reader does who gets the file in pieces of these sizes and keeps what is left over."""
    lengths: list[int] = []
    buffer = bytearray()
    at = 0
    for size in sizes:
        buffer += content[at : at + size]
        at += size
        done = cutter.cut(memoryview(buffer), last=False)
        lengths += done
        del buffer[: sum(done)]
        assert len(buffer) < MAX_CHUNK
    buffer += content[at:]
    return lengths + cutter.cut(memoryview(buffer), last=True)


def test_the_cuts_are_the_pinned_ones(vectors: Callable[[str], Any]) -> None:
    told = vectors("chunking")
    for kind in KINDS:
        cutter = chunker(kind)
        assert cutter.name == told["names"][kind]
        for each in told["cuts"]:
            size = each["size"]
            content = bytes(size) if each["content"] == "zeros" else noise(each["content"]["shake256"], size)
            assert cutter.cut(memoryview(content), last=True) == each[kind]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 2 * 2**20), max_size=8), st.integers(0, len(CONTENT)))
def test_buffers_make_no_difference(kind: ChunkerKind, sizes: list[int], size: int) -> None:
    content = CONTENT[:size]
    whole = chunker(kind).cut(memoryview(content), last=True)
    assert sum(whole) == size
    assert all(1 <= length <= MAX_CHUNK for length in whole)
    assert in_buffers(chunker(kind), content, sizes) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_buffers_that_end_near_a_cut_make_no_difference(kind: ChunkerKind) -> None:
    content = CONTENT[: 2 * 2**20]
    whole = chunker(kind).cut(memoryview(content), last=True)
    for off in (-2, -1, 0, 1, 2):
        assert in_buffers(chunker(kind), content, [whole[0] + off]) == whole
        assert in_buffers(chunker(kind), content, [sum(whole[:2]) + off, whole[2]]) == whole
    zeros = bytes(3 * MAX_CHUNK + 5)
    for off in (-1, 0, 1):
        assert in_buffers(chunker(kind), zeros, [MAX_CHUNK + off] * 3) == chunker(kind).cut(
            memoryview(zeros), last=True
        )


def test_no_bytes_make_no_chunk() -> None:
    for kind in KINDS:
        assert chunker(kind).cut(memoryview(b""), last=True) == []
        assert chunker(kind).cut(memoryview(b""), last=False) == []
        assert chunker(kind).cut(memoryview(b"x"), last=False) == []
        assert chunker(kind).cut(memoryview(b"x"), last=True) == [1]


def digests(content: bytes) -> set[bytes]:
    found = set()
    at = 0
    for length in chunker("fastcdc").cut(memoryview(content), last=True):
        found.add(hashlib.sha256(content[at : at + length]).digest())
        at += length
    return found


@settings(deadline=None, max_examples=15)
@given(st.integers(0, len(CONTENT)), st.binary(min_size=1, max_size=50))
def test_an_insertion_changes_only_what_is_near(at: int, inserted: bytes) -> None:
    before = digests(CONTENT)
    after = digests(CONTENT[:at] + inserted + CONTENT[at:])
    assert len(after - before) <= 8


def test_chunks_are_as_large_as_announced() -> None:
    lengths = chunker("fastcdc").cut(memoryview(noise("the mean", 64 * 2**20)), last=True)
    mean = sum(lengths) / len(lengths)
    assert 0.85 * FIXED_CHUNK < mean < 1.15 * FIXED_CHUNK
    assert min(lengths[:-1]) >= MIN_SIZE


def test_no_reference_is_kept() -> None:
    buffer = bytearray(CONTENT)
    cutter = chunker("fastcdc")
    cutter.cut(memoryview(buffer), last=True)
    gc.disable()
    try:
        buffer.append(0)  # raises BufferError while anything looks at it
    finally:
        gc.enable()
    before = sys.getrefcount(CONTENT)
    cutter.cut(memoryview(CONTENT), last=False)
    assert sys.getrefcount(CONTENT) == before


def test_chunkers_in_threads_cut_the_same() -> None:
    whole = chunker("fastcdc").cut(memoryview(CONTENT), last=True)
    results: list[list[int]] = []

    def run() -> None:
        cutter = chunker("fastcdc")
        results.extend(cutter.cut(memoryview(CONTENT), last=True) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [whole] * 20


def test_the_compiled_scanner_is_in_use() -> None:
    # The package falls back to Python, a thousand times slower, where its extension is missing.
    from pyfastcdc import FastCDC

    assert "cy" in FastCDC.__module__.split(".")


def test_the_slow_scanner_cuts_the_same() -> None:
    # What runs where no compiled one does; small, because it is slow.
    from pyfastcdc.py import FastCDC as Slow

    from p2plearn.course import chunking

    content = CONTENT[: 1024 * 1024]
    slow = Slow(
        chunking.AVG_SIZE,
        min_size=MIN_SIZE,
        max_size=chunking.MAX_SIZE,
        normalized_chunking=chunking.NORMALIZATION,
    )
    lengths = [chunk.length for chunk in slow.cut_buf(content)]
    assert lengths == chunker("fastcdc").cut(memoryview(content), last=True)


def test_random_sizes_of_every_kind() -> None:
    chance = random.Random(5)
    for _ in range(30):
        content = CONTENT[: chance.randrange(300_000)]
        for kind in KINDS:
            assert sum(chunker(kind).cut(memoryview(content), last=True)) == len(content)
