"""The manifest: what it says is what comes back, and nothing but a right one comes back."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course.manifest import (
    INDEX_PART,
    MAX_CHUNK,
    MAX_CHUNKS,
    MAX_FILES,
    MAX_MANIFEST,
    Manifest,
    Part,
    Series,
    decode_manifest,
    open_manifest,
    sign_manifest,
    signed_text,
)
from p2plearn.course.names import DAG_PB_CID, RAW_CID, course_cid
from p2plearn.course.text import tidy
from p2plearn.errors import PeerFault, UsageProblem

Vectors = Callable[[str], Any]


def from_json(fields: dict[str, Any]) -> Manifest:
    series = fields["series"]
    return Manifest(
        **{
            **fields,
            "author": bytes.fromhex(fields["author"]),
            "root": bytes.fromhex(fields["root"]),
            "tags": tuple(fields["tags"]),
            "series": Series(series["name"], series["seq"], series["prev"] and bytes.fromhex(series["prev"])),
            "index": tuple(Part(bytes.fromhex(part["digest"]), part["length"]) for part in fields["index"]),
        }
    )


def test_the_good_vectors(vectors: Vectors) -> None:
    told = vectors("manifest")
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(told["key"]["seed"]))
    assert key.public_key().public_bytes_raw().hex() == told["key"]["public"]
    for each in told["good"]:
        raw, signature = bytes.fromhex(each["bytes"]), bytes.fromhex(each["signature"])
        manifest = from_json(each["fields"])
        assert decode_manifest(raw) == manifest, each["name"]
        assert manifest.encode() == raw
        signed = sign_manifest(manifest, key.sign)
        assert signed.signature == signature
        assert signed.course.hex() == each["course"] == hashlib.sha256(raw).hexdigest()
        assert course_cid(signed.course) == each["cid"]
        assert open_manifest(raw, signature, signed.course) == signed


def test_the_bad_vectors(vectors: Vectors) -> None:
    told = vectors("manifest")
    for each in told["bad"]:
        raw = bytes.fromhex(each["bytes"])
        with pytest.raises(PeerFault) as fault:
            decode_manifest(raw)
        assert str(fault.value).startswith(f"bad manifest: {each['reason']}"), each["name"]
    for each in told["bad_signatures"]:
        with pytest.raises(PeerFault, match="signature"):
            open_manifest(bytes.fromhex(each["bytes"]), bytes.fromhex(each["signature"]))


def test_another_courses_manifest_is_refused(vectors: Vectors) -> None:
    told = vectors("manifest")["good"][0]
    with pytest.raises(PeerFault, match="hash differs"):
        open_manifest(bytes.fromhex(told["bytes"]), bytes.fromhex(told["signature"]), bytes(32))


def test_too_large_is_refused_before_it_is_read() -> None:
    for raw in (bytes(MAX_MANIFEST + 1), b"\xc6\x00\x01\x00\x00" + bytes(65536)):
        with pytest.raises(PeerFault):
            open_manifest(raw, bytes(64))
        with pytest.raises(PeerFault, match="65536"):
            decode_manifest(raw)


def test_an_author_is_told_what_is_wrong(vectors: Vectors) -> None:
    manifest = from_json(vectors("manifest")["good"][0]["fields"])
    for field, value, says in (
        ("title", "x" * 201, "201 characters"),
        ("title", "", "title is empty"),
        ("language", "english please", "BCP 47"),
        ("tags", ("a", "a"), "twice"),
        ("description", "\ud800", "control character"),
        ("description", "好" * 16384 + "好" * 0, None),
        ("description", "🐍" * 16384, "65536"),
    ):
        wrong = dataclasses.replace(manifest, **{field: value})
        if says is None:
            assert decode_manifest(wrong.encode()) == wrong
        else:
            with pytest.raises(UsageProblem, match=says):
                wrong.encode()


def test_only_the_author_signs(vectors: Vectors) -> None:
    manifest = from_json(vectors("manifest")["good"][0]["fields"])
    with pytest.raises(ValueError, match="not the author's"):
        sign_manifest(manifest, Ed25519PrivateKey.generate().sign)
    with pytest.raises(ValueError, match="not the author's"):
        sign_manifest(dataclasses.replace(manifest, author=b"\xff" * 32), Ed25519PrivateKey.generate().sign)


words = st.text(max_size=40).map(lambda text: tidy(text, 40))
filled = words.filter(bool)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    chunks = draw(st.integers(0, MAX_CHUNKS))
    needed = max(1, 36 * chunks)
    full, last = divmod(draw(st.integers(needed, 64 * 2**20)), INDEX_PART)
    lengths = [INDEX_PART] * full + [last] * bool(last)
    kind = draw(st.sampled_from(["folder", "file"]))
    seq = draw(st.integers(1, 2**32 - 1))
    return Manifest(
        kind=kind,
        title=draw(filled),
        description=draw(st.text(max_size=300).map(lambda text: tidy(text, 300, lines=True))),
        author=draw(st.binary(min_size=32, max_size=32)),
        tags=tuple(draw(st.lists(filled, max_size=5, unique=True))),
        language=draw(st.sampled_from(["", "en", "zh-Hans-CN"])),
        license=draw(words),
        created=draw(st.integers(0, 2**37)),
        series=Series(draw(words), seq, draw(st.binary(min_size=32, max_size=32)) if seq > 1 else None),
        chunker=draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50)),
        bytes=draw(st.integers(chunks, chunks * MAX_CHUNK)),
        files=1 if kind == "file" else draw(st.integers(0, MAX_FILES)),
        chunks=chunks,
        root=draw(st.sampled_from([RAW_CID, DAG_PB_CID])) + draw(st.binary(min_size=32, max_size=32)),
        index=tuple(Part(bytes([n % 256]) * 32, length) for n, length in enumerate(lengths)),
    )


@settings(deadline=None, max_examples=100)
@given(manifests())
def test_what_is_written_is_what_is_read(manifest: Manifest) -> None:
    raw = manifest.encode()
    assert len(raw) <= MAX_MANIFEST
    assert decode_manifest(raw) == manifest


def decodes_or_is_refused(raw: bytes) -> None:
    try:
        manifest = decode_manifest(raw)
    except PeerFault:
        return
    assert manifest.encode() == raw


packable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=250)
@given(st.one_of(st.binary(max_size=200), packable.map(msgpack.packb)))
def test_anything_is_a_manifest_or_the_peers_fault(raw: bytes) -> None:
    decodes_or_is_refused(raw)


@settings(deadline=None, max_examples=250)
@given(st.data())
def test_any_field_may_hold_anything(vectors: Vectors, data: st.DataObject) -> None:
    fields = msgpack.unpackb(bytes.fromhex(vectors("manifest")["good"][1]["bytes"]))
    place = data.draw(st.sampled_from([fields, fields["series"], fields["index"][0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(packable)
    decodes_or_is_refused(msgpack.packb(fields))


def test_ten_thousand_mutations(vectors: Vectors) -> None:
    valid = bytes.fromhex(vectors("manifest")["good"][1]["bytes"])
    chance = random.Random(2)
    for at in range(len(valid)):
        decodes_or_is_refused(valid[:at])
        decodes_or_is_refused(valid[:at] + valid[at + 1 :])
        for byte in (0, 0x80, 0xC1, 0xFF, valid[at] ^ 1, valid[at] ^ 0x80, chance.randrange(256)):
            decodes_or_is_refused(valid[:at] + bytes([byte]) + valid[at + 1 :])
    for _ in range(5000):
        mutated = bytearray(valid)
        for _ in range(chance.randrange(1, 4)):
            start = chance.randrange(len(mutated))
            mutated[start : start + chance.randrange(5)] = chance.randbytes(chance.randrange(5))
        decodes_or_is_refused(bytes(mutated))


@pytest.mark.parametrize(
    "header", [b"\xdd\x00\x00\x01\x00", b"\xdd\x00\x01\x00\x00", b"\x91", b"\xdf\x00\x00\x01\x00\xa0", b"\x81\xa0"]
)
def test_nested_headers_take_no_memory(header: bytes) -> None:
    raw = (header * MAX_MANIFEST)[:MAX_MANIFEST]
    tracemalloc.start()
    try:
        decodes_or_is_refused(raw)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=60), st.booleans())
def test_tidy_text_is_what_a_manifest_takes(text: str, lines: bool) -> None:
    clean = tidy(text, 40, lines=lines)
    assert len(clean) <= 40
    assert tidy(clean, 40, lines=lines) == clean


def test_the_signature_is_over_more_than_the_manifest() -> None:
    assert signed_text(b"raw") == b"p2plearn manifest v1\nraw"
