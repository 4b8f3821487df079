"""Every decoder of ``decoders.py`` against made-up, mutated and kept input: an object, or the error it promises.

``P2PLEARN_INPUTS=N`` tries N mutated inputs a decoder (10,000 by default). The fuzzer in ``fuzz/`` goes on from there.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import runpy
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator

import pytest
import true_input as true
from decoders import CORPUS, DECODERS, MOST_KEPT, MOST_KEPT_BYTES, Decoder, kept_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from trying import mutated, try_all

INPUTS = int(os.environ.get("P2PLEARN_INPUTS", "10000"))
MOST_MEMORY = 32 << 20
"""Bytes that one input, of a few KiB, may make a decoder take."""

every = pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Files that can't be used are told of; here there are thousands."""
    ours = logging.getLogger("p2plearn")
    before = ours.level
    ours.setLevel(logging.CRITICAL)
    yield
    ours.setLevel(before)


@functools.cache
def seeds_of(name: str) -> list[bytes]:
    decoder = next(each for each in DECODERS if each.name == name)
    return [*decoder.seeds(), *kept_inputs(name)]


def take(decoder: Decoder, raw: bytes) -> None:
    with contextlib.suppress(*decoder.raises):
        decoder.take(raw)


@every
def test_true_and_kept_input(decoder: Decoder) -> None:
    assert seeds_of(decoder.name)
    for raw in seeds_of(decoder.name):
        take(decoder, raw)


def test_what_is_kept_is_tried_and_small() -> None:
    names = {path.stem for path in CORPUS.glob("*.txt")}
    assert names
    assert names <= {decoder.name for decoder in DECODERS}, "what is kept for no decoder is not tried"
    for name in names:
        kept = kept_inputs(name)
        assert 0 < len(kept) <= MOST_KEPT
        assert len(set(kept)) == len(kept)
        assert sum(map(len, kept)) <= MOST_KEPT_BYTES


def test_kept_is_what_reaches_new_code_and_no_more() -> None:
    keep = runpy.run_path(str(CORPUS.parent / "keep.py"))
    decoder = next(each for each in DECODERS if each.name == "dag-cbor")
    one, other, text, cut = b"\x01", b"\x02", b"\x61a", b"\x62a"
    chosen = keep["cover"](decoder, [one], [other, text, cut], 9, 99)
    assert other not in chosen, "it goes where the first went"
    assert {text, cut} & set(chosen)
    everything = keep["cover"](decoder, [one, text, cut], [other, text, cut], 9, 99)
    assert everything == []
    assert keep["cover"](decoder, [one], [text, cut], 9, 1) == [], "no room"


def test_the_fuzzer_writes_values_as_they_came() -> None:
    notations = runpy.run_path(str(CORPUS.parent / "notations.py"))
    for raw in [b"".join(true.chunk_messages()), b"".join(true.custody_messages())]:
        assert len(frames := notations["read_frames"](raw)) > 9
        assert notations["write_frames"](frames) == raw
    for raw in true.kademlia_answers():
        fields = notations["read_protobuf"](raw)
        assert any(isinstance(value, list) for _, value in fields), "a message in it"
        assert notations["write_protobuf"](fields) == raw


async def _within(raw: bytes) -> None:
    raise KeyError(raw) if raw == b"bad" else ValueError(raw)


@pytest.mark.parametrize("within", [None, _within])
def test_which_input_it_was_is_said(within: Callable[[bytes], Awaitable[object]] | None) -> None:
    table = {b"one": 1}
    decoder = Decoder("lookup", lambda raw: table[raw], list, (ValueError,), within)
    try_all(decoder, [b"one"])
    said: list[list[str]] = []
    try:
        try_all(decoder, [b"one", b"bad", b"one"])
    except* KeyError as problems:
        said = [problem.__notes__ for problem in problems.exceptions]
    assert said == [["of b'bad'"]]


@every
def test_thousands_of_mutated_inputs_in_bounded_memory(decoder: Decoder) -> None:
    dice = random.Random(decoder.name)
    seeds = seeds_of(decoder.name)
    try_all(decoder, [mutated(dice, seeds) for _ in range(INPUTS)])
    tracemalloc.start()
    try:
        for _ in range(50):
            take(decoder, mutated(dice, seeds))
            assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


EDITS = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 8), st.binary(max_size=6)), min_size=1, max_size=6)


@every
@settings(max_examples=30)
@given(data=st.data())
def test_made_up_input(decoder: Decoder, data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.binary(max_size=200) | st.sampled_from(seeds_of(decoder.name))))
    for place, length, bytes_ in data.draw(EDITS):
        at = place % (len(raw) + 1)
        raw[at : at + length] = bytes_
    take(decoder, bytes(raw))
