"""The index: canonical, in agreement with its manifest, and the peer's fault otherwise, whatever the bytes."""

from __future__ import annotations

import hashlib
import random
import sys
import time
import tracemalloc
from array import array
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course import index as index_module
from p2plearn.course import unixfs
from p2plearn.course.index import Index, IndexBuilder, decode_index, parts
from p2plearn.course.manifest import MAX_CHUNK, MAX_INDEX, Manifest, Part, Series, decode_manifest
from p2plearn.course.names import DAG_PB_CID, cid_text
from p2plearn.course.paths import BadPath
from p2plearn.errors import PeerFault, UsageProblem

Vectors = Callable[[str], Any]
Make = Callable[..., Any]


def test_the_good_vectors(vectors: Vectors) -> None:
    for each in vectors("index")["good"]:
        raw = bytes.fromhex(each["bytes"])
        builder = IndexBuilder()
        for file in reversed(each["files"]):
            chunks = [(bytes.fromhex(chunk["digest"]), chunk["length"]) for chunk in file["chunks"]]
            builder.add_file(file["path"], file["size"], chunks)
        for folder in reversed(each["folders"]):
            builder.add_folder(folder)
        index = builder.build()
        assert index.encode() == raw, each["name"]
        assert decode_index(raw, decode_manifest(bytes.fromhex(each["manifest"]))) == index
        assert [file.path for file in index.files] == [file["path"] for file in each["files"]]
        assert cid_text(unixfs.root_cid(index, each["kind"])) == each["root"]


def test_the_bad_vectors(vectors: Vectors) -> None:
    for each in vectors("index")["bad"]:
        manifest = decode_manifest(bytes.fromhex(each["manifest"]))
        with pytest.raises(PeerFault) as fault:
            decode_index(bytes.fromhex(each["bytes"]), manifest)
        assert str(fault.value).startswith(f"bad index: {each['reason']}"), each["name"]


names = st.text(st.sampled_from("abZ.-é课🐍 "), min_size=1, max_size=6)
a_path = st.lists(names, min_size=1, max_size=4).map("/".join)
a_chunk = st.tuples(st.sampled_from([bytes([n]) * 32 for n in range(8)]), st.integers(1, MAX_CHUNK))


@st.composite
def indexes(draw: st.DrawFn) -> Index:
    builder = IndexBuilder()
    lengths: dict[bytes, int] = {}
    taken: set[str] = set()
    for path in draw(st.lists(a_path, max_size=8)):
        chunks = [
            (digest, lengths.setdefault(digest, length)) for digest, length in draw(st.lists(a_chunk, max_size=5))
        ]
        above = {path[:at] for at in range(len(path)) if path[at] == "/"}
        if path in taken or above & {file.path for file in builder._files} or above & set(builder._folders):
            continue
        try:
            if draw(st.booleans()):
                builder.add_folder(path)
            else:
                builder.add_file(path, sum(length for _, length in chunks), chunks)
        except BadPath:
            continue
        taken |= {path, *above}
    return builder.build()


@settings(deadline=None, max_examples=100)
@given(indexes())
def test_what_is_written_is_what_is_read(manifest_for: Make, index: Index) -> None:
    raw = index.encode()
    decoded = decode_index(raw, manifest_for(index))
    assert decoded == index
    assert decoded.encode() == raw
    assert [decoded.digest(slot) for slot in range(len(decoded))] == [index.digest(slot) for slot in range(len(index))]
    assert decoded.bytes == sum(decoded.length(slot) for slot in range(len(decoded)))


def claimed(raw: bytes, **totals: int) -> Manifest:
    """A manifest whose parts are right, for bytes that may be anything; only its totals and root may be wrong."""
    told = {"bytes": 4, "files": 2, "chunks": 2, **totals}
    return Manifest(
        "folder", "T", "", bytes(32), (), "", "", 0, Series("T", 1, None), "",
        root=DAG_PB_CID + bytes(32), index=tuple(parts(raw)), **told,
    )  # fmt: skip


def reads_or_is_refused(raw: bytes) -> None:
    """All of decode but the comparison with the manifest, which hides what lies behind it."""
    with pytest.raises(PeerFault):
        decode_index(raw, claimed(raw))
    try:
        index = index_module._read(raw)
        index_module._check_spelling(index, raw)
        index_module._check(index, "folder")
    except (index_module.BadIndex, BadPath):
        return
    assert index.encode() == raw
    unixfs.root_cid(index, "folder")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_anything_is_the_peers_fault(raw: bytes) -> None:
    reads_or_is_refused(raw)


packable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=250)
@given(st.data())
def test_any_field_may_hold_anything(vectors: Vectors, data: st.DataObject) -> None:
    fields = msgpack.unpackb(bytes.fromhex(vectors("index")["good"][3]["bytes"]))
    field = data.draw(st.sampled_from(sorted(fields)))
    if isinstance(fields[field], list) and data.draw(st.booleans()):
        fields[field][data.draw(st.integers(0, len(fields[field]) - 1))] = data.draw(packable)
    else:
        fields[field] = data.draw(packable)
    reads_or_is_refused(msgpack.packb(fields))


def test_ten_thousand_mutations(vectors: Vectors) -> None:
    valid = bytes.fromhex(vectors("index")["good"][3]["bytes"])
    chance = random.Random(3)
    for at in range(len(valid)):
        reads_or_is_refused(valid[:at])
        reads_or_is_refused(valid[:at] + valid[at + 1 :])
        for byte in (0, 0x80, 0xC1, 0xFF, valid[at] ^ 1, valid[at] ^ 0x80):
            reads_or_is_refused(valid[:at] + bytes([byte]) + valid[at + 1 :])
    for _ in range(6000):
        mutated = bytearray(valid)
        for _ in range(chance.randrange(1, 4)):
            start = chance.randrange(len(mutated))
            mutated[start : start + chance.randrange(5)] = chance.randbytes(chance.randrange(5))
        reads_or_is_refused(bytes(mutated))


def hostile(files: bytes) -> bytes:
    return b"\x85\xa7digests\xc4\x00\xa5files" + files


@pytest.mark.parametrize(
    "raw",
    [
        hostile(b"\xdd\x00\x0f\x42\x40" + b"\x93" + b"\xdd\x00\x0f\x42\x40" * 400_000),
        hostile(b"\xdd\x00\x0f\x42\x40" + b"\x90" * 2_000_000),
        hostile(b"\xdd\x00\x0f\x42\x40" + b"\x93\x91\xa2ab\x00\x00" * 300_000),
        hostile(b"\xdd\x00\x0f\x42\x40" + b"\x93\xdb\x7f\xff\xff\xff" + b"a" * 2_000_000),
        b"\x85\xa7digests\xc6\xff\xff\xff\xff" + bytes(2_000_000),
        b"\x85\xa7digests\xc4\x00\xa5files\x90\xa7folders\xdd\x00\x03\xd0\x90" + b"\x91" * 2_000_000,
    ],
    ids=["nested headers", "empty lists", "lists for paths", "a text of 2 GiB", "a binary of 4 GiB", "deep nesting"],
)  # fmt: skip
def test_a_bomb_takes_little_memory(raw: bytes) -> None:
    manifest = claimed(raw)
    tracemalloc.start()
    try:
        with pytest.raises(PeerFault, match=r"msgpack|described|no text"):
            decode_index(raw, manifest)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(raw) + 2**20
    finally:
        tracemalloc.stop()


def test_more_than_a_manifest_can_name_is_refused() -> None:
    raw = bytes(MAX_INDEX + 1)
    with pytest.raises(PeerFault, match="not the bytes"):
        decode_index(raw, claimed(raw[:1000]))


def test_a_large_index_is_read_quickly_and_kept_small(manifest_for: Make) -> None:
    files, each = 5_000, 10
    builder = IndexBuilder()
    chance = random.Random(4)
    for number in range(files):
        chunks = [(chance.randbytes(32), chance.randrange(1 << 14, MAX_CHUNK)) for _ in range(each)]
        size = sum(length for _, length in chunks)
        builder.add_file(f"lesson {number % 100:02d}/part {number % 7}/page {number:06d}.html", size, chunks)
    index = builder.build()
    raw = index.encode()
    manifest = manifest_for(index, raw)
    started = time.process_time()
    assert decode_index(raw, manifest) == index
    # A tenth of a second where this was written; a quadratic step would take minutes.
    assert time.process_time() - started < 3
    tracemalloc.start()
    try:
        kept = decode_index(raw, manifest)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < files * 80 + len(kept) * 36 + 2**18
    assert peak < now + 4 * len(raw) + files * 300


def test_a_few_paths_make_no_forest_of_folders() -> None:
    builder = IndexBuilder()
    for number in range(4200):
        builder.add_file(f"{number}/" + "/".join("d" * 62) + "/f", 0, [])
    with pytest.raises(BadPath, match="folders"):
        builder.build()


def test_names_with_one_hash_are_the_peers_fault(manifest_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Names that really collide are easily found for MurmurHash3, but 3,000 of them would fill a page here.
    monkeypatch.setattr(unixfs, "SHARD_FROM", 64)
    builder = IndexBuilder()
    for name in ("one", "two", "three"):
        builder.add_file(name, 0, [])
    index = builder.build()
    raw = index.encode()
    manifest = manifest_for(index, raw)
    monkeypatch.setattr(unixfs.mmh3, "hash64", lambda name, signed: (7, 7))
    with pytest.raises(PeerFault, match="same hash"):
        decode_index(raw, manifest)


def test_the_builder_refuses_what_no_index_may_hold() -> None:
    builder = IndexBuilder()
    with pytest.raises(BadPath):
        builder.add_file("../x", 0, [])
    with pytest.raises(BadPath):
        builder.add_folder("x/")
    with pytest.raises(ValueError, match="together"):
        builder.add_file("x", 3, [(bytes(32), 2)])
    for digest, length in ((bytes(31), 1), (bytes(32), 0), (bytes(32), MAX_CHUNK + 1)):
        with pytest.raises(ValueError, match="digest"):
            builder.add_file("x", length, [(digest, length)])
    twice = IndexBuilder()
    twice.add_file("a", 0, [])
    twice.add_file("a/b", 0, [])
    with pytest.raises(BadPath, match="inside"):
        twice.build()


def test_too_large_a_course_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    index = IndexBuilder().build()
    monkeypatch.setattr(index_module, "MAX_INDEX", 10)
    with pytest.raises(UsageProblem, match="too large"):
        index.encode()
    monkeypatch.setattr(index_module, "MAX_FILES", 0)
    builder = IndexBuilder()
    builder.add_file("a", 0, [])
    with pytest.raises(UsageProblem, match="1 files"):
        builder.build()


def test_slots_outside_are_errors(index_of: Make) -> None:
    index = index_of([("a", b"x")])
    assert index.digest(0) == hashlib.sha256(b"x").digest()
    for slot in (-1, 1):
        with pytest.raises(IndexError):
            index.digest(slot)
        with pytest.raises(IndexError):
            index.length(slot)


def test_parts_cover_the_index() -> None:
    raw = bytes(600_000)
    assert [part.length for part in parts(raw)] == [262_144, 262_144, 75_712]
    assert parts(raw)[2] == Part(hashlib.sha256(bytes(75_712)).digest(), 75_712)


def test_lengths_are_big_endian_on_the_wire() -> None:
    lengths = array("I", [1, 0x01020304])
    assert index_module._big_endian(lengths).tobytes() == b"\0\0\0\1\1\2\3\4"
    assert list(lengths) == [1, 0x01020304]
    assert sys.byteorder in ("little", "big")


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("*.csv", ["data.csv", "episodes/data/a.csv", "episodes/data/b.csv"]),
        ("/*.csv", ["data.csv"]),
        ("episodes", ["episodes/01.md", "episodes/data/a.csv", "episodes/data/b.csv"]),
        ("episodes/", ["episodes/01.md", "episodes/data/a.csv", "episodes/data/b.csv"]),
        ("./episodes/*", ["episodes/01.md", "episodes/data/a.csv", "episodes/data/b.csv"]),
        ("episodes/*.csv", []),
        ("episodes/**.csv", ["episodes/data/a.csv", "episodes/data/b.csv"]),
        ("**/data", ["episodes/data/a.csv", "episodes/data/b.csv"]),
        ("data", ["episodes/data/a.csv", "episodes/data/b.csv"]),
        ("data.csv/", []),
        ("[ab].csv", ["episodes/data/a.csv", "episodes/data/b.csv"]),
        ("[!a].csv", ["episodes/data/b.csv"]),
        ("[b-z].csv", ["episodes/data/b.csv"]),
        ("?.csv", ["episodes/data/a.csv", "episodes/data/b.csv"]),
        ("[1] intro.md", ["[1] intro.md"]),
        ("README.MD", []),
        ("(x", ["(x"]),
        ("[", []),
        ("[]", []),
        ("[!]", []),
        ("[&&~~||-]", []),
        ("episodes?data", []),
        ("", []),
        ("课*", ["课程.md"]),
    ],
)
def test_patterns(index_of: Make, pattern: str, chosen: list[str]) -> None:
    paths = [
        "(x",
        "[1] intro.md",
        "data.csv",
        "episodes/01.md",
        "episodes/data/a.csv",
        "episodes/data/b.csv",
        "课程.md",
    ]
    index = index_of([(path, b"") for path in paths])
    assert [file.path for file in index.select([pattern])] == chosen
    assert index.select([pattern, "(x"])


def test_a_pattern_the_wrong_way_round_is_the_users() -> None:
    with pytest.raises(UsageProblem, match="wrong way"):
        IndexBuilder().build().select(["[z-a]"])


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("ab*?[]!^-/\\.&|~"), max_size=12))
def test_any_pattern_can_be_read(index_of: Make, pattern: str) -> None:
    try:
        index_of([("a/b", b""), ("b", b"")]).select([pattern])
    except UsageProblem:
        assert "[" in pattern
