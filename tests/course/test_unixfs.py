"""UnixFS: the roots that IPFS programs print, and nodes that a reader who knows only the specification can follow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course import unixfs
from p2plearn.course.index import Index
from p2plearn.course.names import RAW_CID, cid_text

Make = Callable[..., Any]


def contents(files: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """The files of a recipe in tests/vectors/unixfs.json."""
    for each in files:
        for number in range(each.get("count", 1)):
            path = each["path"].replace("{}", str(number).zfill(each.get("digits", 1)))
            if "text" in each:
                yield path, each["text"].encode()
            elif "shake256" in each:
                yield path, hashlib.shake_256(each["shake256"].encode()).digest(each["size"])
            else:
                yield path, path.encode()


def test_roots_are_those_that_ipfs_prints(vectors: Callable[[str], Any], index_of: Make) -> None:
    for each in vectors("unixfs")["roots"]:
        index = index_of(contents(each["files"]), each["empty_folders"])
        assert cid_text(unixfs.root_cid(index, each["kind"])) == each["root"], each["name"]


@pytest.mark.parametrize("date", ["2024-10", "2026-06"])
def test_the_root_of_a_real_course(
    vectors: Callable[[str], Any], index_of: Make, real_course: Callable[[str], Path], date: str
) -> None:
    top = real_course(date)
    files = [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    index = index_of((file.relative_to(top).as_posix(), file.read_bytes()) for file in files)
    assert cid_text(unixfs.root_cid(index, "folder")) == vectors("unixfs")["courses"][date]


# A reader of its own, by the specifications: knows nothing of how the nodes were made.


def fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and contents of a protobuf message's fields."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (raw[at] & 0x7F) << shift
            shift += 7
            at += 1
            if raw[at - 1] < 0x80:
                return value

    at = 0
    while at < len(raw):
        tag = varint()
        if tag & 7 == 2:
            length = varint()
            yield tag >> 3, raw[at : at + length]
            at += length
        else:
            assert tag & 7 == 0
            yield tag >> 3, varint()
    assert at == len(raw)


class Reader:
    def __init__(self, index: Index, kind: str) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.chunks = {RAW_CID + index.digest(slot): index.length(slot) for slot in range(len(index))}
        self.root = unixfs.root_cid(index, kind)  # type: ignore[arg-type]
        for cid, block in unixfs.blocks(index, kind):  # type: ignore[arg-type]
            assert cid[4:] == hashlib.sha256(block).digest()
            if cid[1] == 0x70:
                for link in self.links(block):
                    assert link[1] in self.blocks or link[1] in self.chunks, "a parent before its child"
            self.blocks[cid] = block

    @staticmethod
    def links(block: bytes) -> list[tuple[bytes, bytes, int]]:
        """Name, CID and Tsize of each link."""
        found = []
        for number, content in fields(block):
            if number == 2:
                link = dict(fields(content))
                found.append((link[2], link[1], link[3]))
        return found

    def data(self, block: bytes) -> list[tuple[int, Any]]:
        return list(fields(next(content for number, content in fields(block) if number == 1)))

    def file(self, cid: bytes) -> tuple[list[bytes], int, int]:
        """Chunks, bytes and Tsize of a file."""
        if cid in self.chunks:
            return [cid], self.chunks[cid], self.chunks[cid]
        block = self.blocks[cid]
        if cid[1] == 0x55:
            return [], len(block), len(block)
        data = self.data(block)
        assert data[0] == (1, 2)
        chunks: list[bytes] = []
        sizes = []
        total = len(block)
        assert len(self.links(block)) <= 174
        for name, child, tsize in self.links(block):
            inside, size, below = self.file(child)
            assert (name, tsize) == (b"", below)
            chunks += inside
            sizes.append(size)
            total += below
        assert [value for number, value in data if number == 4] == sizes
        assert dict(data)[3] == sum(sizes)
        return chunks, sum(sizes), total

    def folder(self, cid: bytes, prefix: bytes, found: dict[str, list[bytes]], empty: list[str]) -> int:
        """Gather what is in a folder; its Tsize."""
        block = self.blocks[cid]
        links = self.entries(cid, 0)
        names = [name for name, _, _ in links]
        assert len(set(names)) == len(names)
        if dict(self.data(block))[1] == 1:
            assert names == sorted(names)
        if not links and prefix:
            empty.append(prefix.decode()[:-1])
        for name, child, tsize in links:
            if child[1] == 0x70 and dict(self.data(self.blocks[child]))[1] in (1, 5):
                assert self.folder(child, prefix + name + b"/", found, empty) == tsize
            else:
                chunks, _, below = self.file(child)
                assert below == tsize
                found[(prefix + name).decode()] = chunks
        return self.weight(cid)

    def weight(self, cid: bytes) -> int:
        block = self.blocks.get(cid, b"")
        return len(block) + sum(tsize for _, _, tsize in self.links(block))

    def entries(self, cid: bytes, level: int) -> list[tuple[bytes, bytes, int]]:
        """The links of a folder, those of a split one gathered from its parts."""
        block = self.blocks[cid]
        data = dict(self.data(block))
        if data[1] == 1:
            return self.links(block)
        assert (data[1], data[5], data[6]) == (5, 0x22, 256)
        bits = int.from_bytes(data[2], "big")
        found = []
        slots = []
        for name, child, tsize in self.links(block):
            slot = int(name[:2], 16)
            slots.append(slot)
            assert bits >> slot & 1
            inside = [(name[2:], child, tsize)] if name[2:] else self.entries(child, level + 1)
            if not name[2:]:
                assert self.weight(child) == tsize
                assert len(inside) > 1
            for entry in inside:
                assert mmh3.hash64(entry[0], signed=False)[0] >> 56 - 8 * level & 0xFF == slot
            found += inside
        assert slots == sorted(slots)
        assert bits.bit_count() == len(slots)
        return found


def check(index: Index) -> None:
    reader = Reader(index, "folder")
    found: dict[str, list[bytes]] = {}
    empty: list[str] = []
    reader.folder(reader.root, b"", found, empty)
    assert sorted(empty) == list(index.folders)
    assert found == {
        file.path: [RAW_CID + index.digest(slot) for slot in range(file.first, file.first + file.count)]
        for file in index.files
    }


names = st.sampled_from(["a", "b", "a.b", "课", "🐍", "C"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
sizes = st.sampled_from([0, 1, 16383, 16384, 262144, 262145, 600_000])


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(paths, sizes, max_size=7),
    st.sets(paths, max_size=2),
    st.sampled_from([2, 3, 174]),
    st.sampled_from([100, 10**6]),
)
def test_any_course_can_be_read_back(
    index_of: Make, files: dict[str, int], folders: set[str], max_links: int, shard_from: int
) -> None:
    leaves = set(files) | folders
    above = {path[:at] for path in leaves for at in range(len(path)) if path[at] == "/"}
    files = {path: size for path, size in files.items() if path not in above}
    index = index_of([(path, bytes([len(path)]) * size) for path, size in files.items()], folders - above - set(files))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unixfs, "MAX_LINKS", max_links)  # deep trees from small files
        patch.setattr(unixfs, "SHARD_FROM", shard_from)
        check(index)


@pytest.mark.parametrize("chunker", ["fixed", "fastcdc"])
def test_trees_of_files_and_split_folders_can_be_read_back(index_of: Make, chunker: str) -> None:
    content = hashlib.shake_256(b"read back").digest(46 * 2**20)
    files = [("large", content), ("small-last", content[: 262_144 * 180 + 9])]
    files += [(f"many/a name long enough to fill the folder {number:05d}", b"%d" % number) for number in range(4000)]
    check(index_of(files, ["many/none"], chunker))


def test_a_file_alone_is_in_no_folder(index_of: Make) -> None:
    index = index_of([("one", b"1")])
    assert unixfs.root_cid(index, "file") == RAW_CID + index.digest(0)
    assert list(unixfs.blocks(index, "file")) == []
    empty = index_of([("none", b"")])
    assert unixfs.root_cid(empty, "file") == unixfs.EMPTY_FILE
    assert list(unixfs.blocks(empty, "file")) == [(unixfs.EMPTY_FILE, b"")]
    two = index_of([("two", bytes(262_145))])
    *_, last = unixfs.blocks(two, "file")
    assert last[0] == unixfs.root_cid(two, "file")
