"""``/p2plearn/chunk/1``: what was encoded comes back, however it is cut; anything else is the peer's fault."""

from __future__ import annotations

import random
import sys
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.errors import PeerFault
from p2plearn.transfer import protocol
from p2plearn.transfer.protocol import (
    FROM_FETCHER,
    FROM_SERVER,
    HEADER,
    MAX_RANGES,
    MAX_SLOTS,
    Busy,
    Cancel,
    Chunk,
    Decoder,
    Have,
    HaveMore,
    IndexPart,
    Kind,
    ManifestIs,
    Message,
    Missing,
    NotHere,
    Open,
    Want,
    WantIndex,
    encode,
    messages_of,
    ranges_of,
)

ranges = st.lists(
    st.integers(0, MAX_SLOTS - 1).flatmap(lambda first: st.tuples(st.just(first), st.integers(1, MAX_SLOTS - first))),
    max_size=20,
).map(tuple)


def chunk_of(slot: int, body: bytes) -> Chunk:
    return Chunk(slot, (memoryview(body),), len(body))


bitmaps = st.integers(0, 300).flatmap(
    lambda slots: st.builds(Have, st.just(slots), st.binary(min_size=(slots + 7) // 8, max_size=(slots + 7) // 8))
)
from_fetcher = st.one_of(
    st.builds(Open, st.binary(min_size=32, max_size=32), st.booleans()),
    st.builds(WantIndex, st.integers(0, 300), st.integers(1, 300)),
    st.builds(Want, ranges),
    st.builds(Cancel, ranges),
)
from_server = st.one_of(
    st.builds(ManifestIs, st.binary(min_size=64, max_size=64), st.binary(min_size=1, max_size=400)),
    st.builds(IndexPart, st.integers(0, 0xFFFFFFFF), st.binary(max_size=400)),
    bitmaps,
    st.builds(HaveMore, ranges),
    st.builds(chunk_of, st.integers(0, 0xFFFFFFFF), st.binary(min_size=1, max_size=9000)),
    st.builds(Missing, ranges),
    st.just(NotHere()),
    st.builds(Busy, st.integers(0, 100_000).map(lambda ms: ms / 1000)),
)
conversations = st.one_of(
    st.tuples(st.just(FROM_FETCHER), st.lists(from_fetcher, max_size=8)),
    st.tuples(st.just(FROM_SERVER), st.lists(from_server, max_size=8)),
)


def plain(message: Message) -> object:
    """Chunks compared by their bytes, not by the pieces they came in."""
    if isinstance(message, Chunk):
        body = b"".join(message.pieces)
        assert len(body) == message.length
        return message.slot, body
    return message


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    return [wire[a:b] for a, b in pairwise(at)]


@given(conversations, st.lists(st.integers(0, 1 << 20), max_size=30))
def test_what_was_encoded_comes_back_however_it_is_cut(conversation, places):
    accepts, messages = conversation
    wire = b"".join(map(encode, messages))
    decoder = Decoder(accepts)
    got = [message for piece in cut(wire, places) for message in decoder.feed(piece)]
    assert list(map(plain, got)) == list(map(plain, messages))
    assert decoder.idle


@given(conversations)
@settings(max_examples=40)
def test_byte_by_byte_is_the_same(conversation):
    accepts, messages = conversation
    wire = b"".join(map(encode, messages))
    decoder = Decoder(accepts)
    got = [message for at in range(len(wire)) for message in decoder.feed(wire[at : at + 1])]
    assert list(map(plain, got)) == list(map(plain, messages))


def outcome(accepts, pieces: list[bytes]) -> list[object]:
    decoder, got = Decoder(accepts), []
    try:
        for piece in pieces:
            for message in decoder.feed(piece):
                got.append(plain(message))
    except PeerFault:
        got.append("fault")
    return got


@given(st.sampled_from([FROM_FETCHER, FROM_SERVER]), st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=9))
@settings(max_examples=400)
def test_garbage_is_a_fault_or_a_message_and_nothing_else(accepts, garbage, places):
    assert outcome(accepts, [garbage]) == outcome(accepts, cut(garbage, places))


@given(
    conversations.filter(lambda c: c[1]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=6),
    st.lists(st.integers(0, 1 << 20), max_size=9),
)
@settings(max_examples=60)
def test_mutated_messages_are_a_fault_or_a_message_and_nothing_else(conversation, changes, places):
    accepts, messages = conversation
    wire = bytearray(b"".join(map(encode, messages)))
    for at, value in changes:
        wire[at % len(wire)] = value
    assert outcome(accepts, [bytes(wire)]) == outcome(accepts, cut(bytes(wire), places))


def test_ten_thousand_mutations_whole_and_byte_by_byte():
    dice = random.Random(2026)
    samples = {
        "fetcher": [Open(bytes(32), True), WantIndex(0, 3), Want(((1, 2), (9, 1))), Cancel(((5, 5),))],
        "server": [
            ManifestIs(bytes(64), b"m" * 30),
            IndexPart(1, b"i" * 20),
            Have(20, b"abc"),
            HaveMore(((1, 2),)),
            chunk_of(7, b"c" * 40),
            Missing(((3, 1),)),
            NotHere(),
            Busy(1.5),
        ],
    }
    for accepts, name in ((FROM_FETCHER, "fetcher"), (FROM_SERVER, "server")):
        for _ in range(5000):
            wire = bytearray(b"".join(encode(dice.choice(samples[name])) for _ in range(dice.randrange(1, 4))))
            for _ in range(dice.randrange(1, 5)):
                match dice.randrange(4):
                    case 0:
                        wire[dice.randrange(len(wire))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
                    case 1:
                        wire.insert(dice.randrange(len(wire) + 1), dice.randrange(256))
                    case 2 if len(wire) > 1:
                        del wire[dice.randrange(len(wire))]
                    case _:
                        at = dice.randrange(len(wire))
                        wire[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", bytes(4), b"\x80\0\0\0"))
            whole = bytes(wire)
            assert outcome(accepts, [whole]) == outcome(accepts, [whole[at : at + 1] for at in range(len(whole))])


@pytest.mark.parametrize("accepts", [FROM_FETCHER, FROM_SERVER], ids=["fetcher", "server"])
@pytest.mark.parametrize("length", [1 << 31, 0xFFFFFFFF, "cap + 1"])
def test_a_length_over_the_cap_is_refused_at_its_header(accepts, length):
    for kind in Kind:
        size = accepts.get(kind, 0) + 1 if length == "cap + 1" else length
        tracemalloc.start()
        try:
            with pytest.raises(PeerFault):
                list(Decoder(accepts).feed(HEADER.pack(kind, size)))
            assert tracemalloc.get_traced_memory()[1] < 50_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", FROM_SERVER)
def test_a_claim_within_the_cap_costs_nothing_until_bytes_come(kind):
    tracemalloc.start()
    try:
        assert not list(Decoder(FROM_SERVER).feed(HEADER.pack(kind, FROM_SERVER[kind]))) or kind is Kind.NOT_HERE
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_each_end_refuses_what_only_the_other_may_say():
    for accepts, other in ((FROM_FETCHER, FROM_SERVER), (FROM_SERVER, FROM_FETCHER)):
        for kind in other:
            with pytest.raises(PeerFault):
                list(Decoder(accepts).feed(HEADER.pack(kind, 0)))


def bytes_held(decoder: Decoder) -> int:
    return sum(sys.getsizeof(piece) + len(piece.obj) for piece in decoder._pieces if isinstance(piece, memoryview)) + (
        sum(map(sys.getsizeof, (piece for piece in decoder._pieces if isinstance(piece, bytearray))))
    )


@pytest.mark.parametrize(("piece", "buffer"), [(1, 1), (1, 256 * 1024), (100, 100), (5000, 256 * 1024), (4095, 4095)])
def test_a_chunk_in_crumbs_takes_memory_in_proportion_to_its_size(piece, buffer):
    decoder = Decoder(FROM_SERVER)
    fed = list(decoder.feed(protocol.chunk_header(0, 200_000)))
    while not fed:
        fed = list(decoder.feed(memoryview(bytearray(buffer))[: min(piece, decoder._left)]))
        assert bytes_held(decoder) < 5 * 200_000
    (chunk,) = fed
    assert chunk.length == 200_000
    assert len(chunk.pieces) < 100


def test_large_pieces_of_a_chunk_are_not_copied():
    batch = memoryview(bytearray(256 * 1024))
    decoder = Decoder(FROM_SERVER)
    assert not list(decoder.feed(protocol.chunk_header(0, 128 * 1024)))
    assert not list(decoder.feed(batch[: 64 * 1024]))
    (chunk,) = decoder.feed(batch[64 * 1024 : 128 * 1024])
    assert all(piece.obj is batch.obj for piece in chunk.pieces)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.OPEN, bytes(32)),
        (Kind.OPEN, bytes(32) + b"\2"),
        (Kind.WANT, bytes(7)),
        (Kind.WANT, bytes(8)),  # no slots
        (Kind.WANT, b"\xff" * 8),  # beyond any course
        (Kind.WANT_INDEX, b""),
    ],
)
def test_what_the_serving_end_refuses(kind, body):
    with pytest.raises(PeerFault):
        list(Decoder(FROM_FETCHER).feed(HEADER.pack(kind, len(body)) + body))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.CHUNK, bytes(3)),
        (Kind.CHUNK, bytes(4)),  # empty
        (Kind.HAVE, bytes(3)),
        (Kind.HAVE, b"\0\0\0\1"),  # a bitmap too short
        (Kind.HAVE, b"\0\0\0\1\0\0"),  # and too long
        (Kind.HAVE, b"\xff\xff\xff\xff"),
        (Kind.MANIFEST, bytes(64)),
        (Kind.INDEX, bytes(3)),
        (Kind.BUSY, bytes(3)),
    ],
)
def test_what_the_fetching_end_refuses(kind, body):
    with pytest.raises(PeerFault):
        list(Decoder(FROM_SERVER).feed(HEADER.pack(kind, len(body)) + body))


@given(st.lists(st.integers(0, 200), max_size=100))
def test_ranges_say_what_the_slots_say(slots):
    runs = list(ranges_of(slots))
    assert [slot for first, count in runs for slot in range(first, first + count)] == slots


def test_more_ranges_than_one_message_holds_go_into_several():
    slots = list(range(0, 4 * MAX_RANGES, 2))
    messages = [m for wire in messages_of(Want, slots) for m in Decoder(FROM_FETCHER).feed(wire)]
    assert len(messages) == 2
    assert [first for want in messages for first, _ in want.ranges] == slots
