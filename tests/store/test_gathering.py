"""Chunks are laid out as they will lie on the disk, whole, in whatever pieces and order they came."""

from __future__ import annotations

import random

from p2plearn.store.gathering import Gathering, Offer
from p2plearn.store.past_cache import BLOCK, as_one, lies_like


def offers_of(chunks: dict[int, bytes], rng: random.Random) -> list[Offer]:
    offers: list[Offer] = []
    for slot, raw in chunks.items():
        cut = rng.randrange(len(raw))
        offers.append((slot, [raw[:cut], bytearray(raw[cut:])]))
    rng.shuffle(offers)
    return offers


def test_runs_lie_side_by_side_like_their_places() -> None:
    rng = random.Random(4)
    chunks = {slot: rng.randbytes(rng.randrange(1, 3 * BLOCK)) for slot in range(30)}
    places: dict[int, tuple[int, int]] = {}
    extent, offset = 1, 5
    for slot, raw in chunks.items():
        if slot in (7, 20):  # a new run: elsewhere, or in another extent
            extent, offset = extent + (slot == 20), offset + 2 * BLOCK + 77
        places[slot] = (extent, offset)
        offset += len(raw)
    gathering = Gathering()
    for _ in range(2):  # the second time in the same memory
        with gathering.laid(offers_of(chunks, rng), places.__getitem__) as laid:
            assert [(slot, b"".join(pieces)) for slot, pieces in laid] == list(chunks.items())
            for first, stop in ((0, 7), (7, 20), (20, 30)):
                run = as_one([piece for _, pieces in laid[first:stop] for piece in pieces])
                assert run == b"".join(chunks[slot] for slot in range(first, stop))
                assert lies_like(run, places[first][1])


def test_a_batch_larger_than_any_has_memory_of_its_own() -> None:
    raw = random.Random(5).randbytes(6 << 20)
    with Gathering().laid([(3, [raw])], lambda _: (0, 123)) as laid:
        assert laid[0][1][0] == raw


def test_pieces_that_lie_apart_are_not_one() -> None:
    memory = memoryview(bytearray(range(100)))
    assert as_one([memory[10:20], memory[20:25]]) == memory[10:25]
    assert as_one([memory[10:20], memory[21:25]]) is None
    assert as_one([memory[10:20], memoryview(bytearray(5))]) is None
    assert as_one([memoryview(bytes(10)), memoryview(bytes(10))]) is None
    assert as_one([bytes(3), bytes(3)]) is None
    assert as_one([b"abc"]) == b"abc"
