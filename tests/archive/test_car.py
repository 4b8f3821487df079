"""CAR and DAG-CBOR: as other IPFS programs write them, and whatever anybody sends."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.archive import car, dagcbor, layout
from p2plearn.archive.car import BadCar, Decoder, Head, Header
from p2plearn.archive.dagcbor import BadCbor, Link
from p2plearn.archive.layout import NotOurs, Packed, Page

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "car.json").read_text("utf-8"))
BLOCKS = [
    (bytes.fromhex(cid), bytes([body[0]]) * body[1] if isinstance(body, list) else bytes.fromhex(body))
    for cid, body in VECTORS["blocks"]
]


def whole() -> bytes:
    """The vectors' file, put together here."""
    roots = [bytes.fromhex(root) for root in VECTORS["roots"]]
    return car.encode_header(roots) + b"".join(car.encode_head(cid, len(body)) + body for cid, body in BLOCKS)


def read(raw: bytes, cuts: list[int], skip: bool = False) -> tuple[Header | None, list[tuple[bytes, bytes]], bool]:
    """The header and the blocks of a file that comes in pieces; whether it may end there. Raises BadCar."""
    decoder, header, blocks = Decoder(), None, []
    at = 0
    for end in [*sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]:
        decoder.feed(raw[at:end])
        at = end
        while (head := decoder.head()) is not None:
            if isinstance(head, Header):
                header = head
            elif skip and len(blocks) % 2:
                blocks.append((head.cid, b""))
                decoder.skip()
            elif (body := decoder.body()) is None:
                break
            else:
                blocks.append((head.cid, body))
    return header, blocks, decoder.whole


def test_a_file_is_byte_for_byte_what_another_program_writes() -> None:
    raw = whole()
    assert len(raw) == VECTORS["car_bytes"]
    assert raw[:1000].hex() == VECTORS["car"]
    assert hashlib.sha256(raw).hexdigest() == VECTORS["car_sha256"]


def test_values_are_spelled_as_another_program_spells_them() -> None:
    for value, spelled in VECTORS["cbor"]:
        meant = bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value
        assert dagcbor.encode(meant).hex() == spelled
        assert dagcbor.decode(bytes.fromhex(spelled)) == meant


def test_bundle_and_page_are_what_another_program_makes_of_the_same_values() -> None:
    digest = hashlib.sha256
    parts = (digest(b"part 0").digest(), digest(b"part 1").digest())
    packed = Packed(digest(b"manifest").digest(), bytes([7]) * 64, parts, bytes.fromhex(VECTORS["roots"][0]))
    bundle = layout.encode_bundle([packed])
    assert (layout.block_cid(bundle), bundle) == BLOCKS[0]
    assert layout.decode_bundle(bundle) == (packed,)
    page = Page((digest(b"an envelope").digest(),), True)
    assert (layout.block_cid(layout.encode_page(page)), layout.encode_page(page)) == BLOCKS[7]
    assert layout.decode_page(BLOCKS[7][1]) == page


@given(st.lists(st.integers(0, 80_000), max_size=12), st.booleans())
def test_how_it_is_split_does_not_matter(cuts: list[int], skip: bool) -> None:
    assert read(whole(), cuts, skip) == read(whole(), [], skip)


@given(st.integers(0, 80_000))
def test_a_file_that_is_cut_gives_what_came_before(cut: int) -> None:
    raw = whole()[: min(cut, VECTORS["car_bytes"] - 1)]
    header, blocks, _ = read(raw, [])
    assert blocks == BLOCKS[: len(blocks)]
    assert header is None or len(header.roots) == 2


@given(st.binary(max_size=300))
def test_anything_is_a_car_or_a_bad_one(raw: bytes) -> None:
    try:
        read(raw, [7])
    except BadCar:
        return


@given(st.lists(st.tuples(st.integers(0, 80_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_is_a_bad_car_or_other_blocks_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(whole())
    for at, byte in changes:
        raw[at % len(raw)] = byte
    try:
        read(bytes(raw), [1000])
    except BadCar:
        return


@given(st.binary(max_size=200))
def test_anything_is_a_value_or_bad_cbor_and_has_one_spelling(raw: bytes) -> None:
    try:
        value = dagcbor.decode(raw)
    except BadCbor:
        return
    assert dagcbor.encode(value) == raw


VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.text() | st.binary() | st.booleans() | st.none() | st.binary(min_size=4).map(Link),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=40)
@given(VALUES)
def test_a_value_survives(value: Any) -> None:
    raw = dagcbor.encode(value)
    try:
        read_back = dagcbor.decode(raw)
    except BadCbor as wrong:
        if "nested" not in str(wrong):
            raise
    else:
        assert read_back == value


@settings(max_examples=40)
@given(VALUES)
def test_any_value_is_a_bundle_or_not_ours(value: Any) -> None:
    raw = dagcbor.encode(value)
    for decode in (layout.decode_bundle, layout.decode_page):
        with pytest.raises(NotOurs):
            decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        bytes([0x9B]) + b"\xff" * 8,  # a list of 2^64 - 1
        bytes([0xBB]) + b"\xff" * 8,
        bytes([0x5B]) + b"\xff" * 8 + b"x",
        b"\x81" * 200,  # 200 lists within each other
        b"\xd8\x2a" * 200,
        b"\x9f\xff",  # of indefinite length
        b"\xf9\x00\x00",  # a float
        b"\x20",  # a negative number
        b"\xc1\x00",  # another tag
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xa2\x62aa\x01\x61b\x02",  # keys out of order
        b"\x18\x17",  # 23 in two bytes
    ],
)
def test_bombs_and_odd_spellings_are_refused(raw: bytes) -> None:
    with pytest.raises(BadCbor):
        dagcbor.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 9 + b"\x7f",  # a length beyond 63 bits
        b"\x80\x80\x04" + b"\xa2",  # a header of 64 KiB that never comes is waited for, one of 2^62 is not
        car.varint(2**62),
        car.varint(car.MAX_HEADER + 1),
        b"\x00",
        b"PK\x03\x04",
        b"\x81\x00",  # not the shortest form
    ],
)
def test_heads_that_lie_are_refused_before_anything_is_kept(raw: bytes) -> None:
    decoder = Decoder()
    decoder.feed(raw)
    if raw.endswith(b"\xa2"):
        assert decoder.head() is None
        return
    with pytest.raises(BadCar):
        decoder.head()


@pytest.mark.parametrize("length", [0, car.MAX_BLOCK + 1000, 2**31, 2**62])
def test_a_block_of_no_or_too_many_bytes_ends_the_reading(length: int) -> None:
    decoder = Decoder()
    decoder.feed(car.encode_header([BLOCKS[0][0]]) + car.varint(length) + BLOCKS[0][0])
    assert isinstance(decoder.head(), Header)
    with pytest.raises(BadCar):
        decoder.head()


def test_version_2_is_named() -> None:
    decoder = Decoder()
    decoder.feed(bytes.fromhex("0aa16776657273696f6e02") + bytes(40))
    with pytest.raises(BadCar, match="version 2"):
        decoder.head()


def test_a_skipped_block_takes_no_memory() -> None:
    decoder = Decoder()
    decoder.feed(car.encode_header([BLOCKS[0][0]]) + car.encode_head(BLOCKS[5][0], 2_000_000))
    assert isinstance(decoder.head(), Header)
    head = decoder.head()
    assert isinstance(head, Head)
    assert (head.length, decoder.skip()) == (2_000_000, 2_000_000)
    decoder.feed(bytes(1_500_000))
    assert decoder.head() is None
    decoder.feed(bytes(500_000) + car.encode_head(*BLOCKS[1][:1], len(BLOCKS[1][1])) + BLOCKS[1][1])
    head = decoder.head()
    assert isinstance(head, Head)
    assert head.cid == BLOCKS[1][0]
