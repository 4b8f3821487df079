"""The same chunks as IPFS sees them: UnixFS nodes over raw leaves, and their root CID.

Each chunk is a raw block. A file of one chunk *is* that block; a longer one is a balanced tree of dag-pb nodes with
up to 174 links; a folder is a dag-pb node with a link for each name, or, from 256 KiB on, a tree of them by the
names' hashes (HAMT). That is what ``ipfs add -r --cid-version=1`` builds, so for 262,144-byte chunks the root is the
one that Kubo prints, and for any chunks one that every IPFS program can read.

Sources: specs.ipfs.tech/unixfs (nodes, HAMT), ipld.io/specs/codecs/dag-pb (the encoding). What these leave open
(link limit, sizes, when a folder is split) follows Kubo's own output; tests/vectors/unixfs.json holds roots it printed.

Sans-IO. Imports ``course`` only.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Generator, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import mmh3

from p2plearn.course.names import CID_BYTES, DAG_PB_CID, RAW_CID
from p2plearn.course.paths import tree_key
from p2plearn.course.varint import varint

if TYPE_CHECKING:  # index checks its root with this module
    from p2plearn.course.file_table import FileEntry
    from p2plearn.course.index import Index
    from p2plearn.course.manifest import Kind

MAX_LINKS = 174
"""Links of a node in a file's tree: Kubo's choice, from a time when it wanted nodes of at most 8 KiB."""
SHARD_FROM = 256 * 1024
"""A folder whose names and CIDs have this many bytes together, or more, is split."""
_FANOUT_BITS = 8
_HASH_BITS = 64

Block = tuple[bytes, bytes]
"""A binary CIDv1 and the block it names."""


class Unrepresentable(ValueError):
    """A folder has names whose hashes are all the same: no such HAMT exists."""


class _Link(NamedTuple):
    """What a folder says of an entry. ``size`` (Tsize) counts the bytes of the blocks below, repetitions included."""

    name: bytes
    cid: bytes
    size: int


_Nodes = Generator[Block, None, tuple[bytes, int]]
"""Yields the blocks of a subtree, children first; returns the CID and Tsize of its root."""

EMPTY_FILE = RAW_CID + hashlib.sha256(b"").digest()


def root_cid(index: Index, kind: Kind) -> bytes:
    """The binary CID of the course's UnixFS root; of kind "file": of the file itself, in no folder.

    Raises Unrepresentable for a folder that can't be split.
    """
    nodes = blocks(index, kind)
    while True:
        try:
            next(nodes)
        except StopIteration as end:
            cid: bytes = end.value
            return cid


def blocks(index: Index, kind: Kind) -> Generator[Block, None, bytes]:
    """Every block of the course's UnixFS form that is no chunk, children before parents, the root last.

    Those of equal files and folders come again each time. A course of kind "file" with one chunk has none. Returns
    the root's CID; raises Unrepresentable like ``root_cid``.
    """
    roots = yield from _files(index)
    if kind == "file":
        return roots.cid(0)
    return (yield from _tree(index, roots))


class _Roots:
    """CID and Tsize of each file's root, in flat arrays: there may be a million."""

    __slots__ = ("_cids", "_sizes")

    def __init__(self) -> None:
        self._cids = bytearray()
        self._sizes: array[int] = array("Q")

    def add(self, cid: bytes, size: int) -> None:
        self._cids += cid
        self._sizes.append(size)

    def cid(self, number: int) -> bytes:
        return bytes(self._cids[CID_BYTES * number : CID_BYTES * (number + 1)])

    def size(self, number: int) -> int:
        return self._sizes[number]


def _tree(index: Index, roots: _Roots) -> Generator[Block, None, bytes]:
    """The course's folder. Walks the paths in tree order, so only the folders above the current one are open."""
    files, folders = index.files, index.folders

    def key_of(leaf: int) -> str:
        return tree_key(files.path(leaf) if leaf < len(files) else folders[leaf - len(files)])

    leaves: Iterable[int] = range(len(files))
    keys: Iterable[str] = map(tree_key, files.paths())
    if folders or not all(key < following for key, following in pairwise(map(tree_key, files.paths()))):
        leaves = array("I", sorted(range(len(files) + len(folders)), key=key_of))  # numbers: paths would be megabytes
        keys = map(key_of, leaves)
    open_names: list[str] = []
    open_links: list[list[_Link]] = [[]]
    inside = ""
    for leaf, key in zip(leaves, keys, strict=True):
        cut = key.rfind("\0") + 1
        if key[:cut] != inside:
            inside = key[:cut]
            names = inside.split("\0")[:-1]
            shared = 0
            while shared < min(len(names), len(open_names)) and names[shared] == open_names[shared]:
                shared += 1
            while len(open_names) > shared:
                yield from _close(open_names, open_links)
            for name in names[shared:]:
                open_names.append(name)
                open_links.append([])
        name = key[cut:]
        if leaf >= len(files):
            open_links[-1].append(_Link(name.encode(), *(yield from _folder([]))))
        else:
            open_links[-1].append(_Link(name.encode(), roots.cid(leaf), roots.size(leaf)))
    while open_names:
        yield from _close(open_names, open_links)
    cid, _ = yield from _folder(open_links[0])
    return cid


def _close(open_names: list[str], open_links: list[list[_Link]]) -> Generator[Block, None, None]:
    """Build the innermost open folder and link it in the one around it."""
    child = yield from _folder(open_links.pop())
    open_links[-1].append(_Link(open_names.pop().encode(), *child))


# Files


def _files(index: Index) -> Generator[Block, None, _Roots]:
    """Every file's nodes, in the files' order."""
    roots = _Roots()
    leaves = _LeafLinks(index)
    for file in index.files:
        if file.count == 0:
            yield EMPTY_FILE, b""
            roots.add(EMPTY_FILE, 0)
        elif file.count == 1:
            roots.add(RAW_CID + index.digest(file.first), file.size)
        else:
            roots.add(*(yield from _file(file, leaves)))
    return roots


def _file(file: FileEntry, leaves: _LeafLinks) -> _Nodes:
    """A file of two chunks or more: nodes over up to 174 chunks, nodes over up to 174 of these, and so on to one."""
    level: list[tuple[bytes, int, int]] = []  # CID, Tsize and file bytes of each node
    end = file.first + file.count
    for first in range(file.first, end, MAX_LINKS):
        links, sizes, size = leaves.between(first, min(first + MAX_LINKS, end))
        block = links + _file_data(size, sizes)
        cid = DAG_PB_CID + hashlib.sha256(block).digest()
        yield cid, block
        level.append((cid, len(block) + size, size))
    while len(level) > 1:
        above: list[tuple[bytes, int, int]] = []
        for at in range(0, len(level), MAX_LINKS):
            children = level[at : at + MAX_LINKS]
            size = sum(content for _, _, content in children)
            links = b"".join([_link(b"", cid, tsize) for cid, tsize, _ in children])
            block = links + _file_data(size, b"".join([b"\x20" + varint(content) for _, _, content in children]))
            cid = DAG_PB_CID + hashlib.sha256(block).digest()
            yield cid, block
            above.append((cid, len(block) + sum(tsize for _, tsize, _ in children), size))
        level = above
    return level[0][0], level[0][1]


def _file_data(size: int, block_sizes: bytes) -> bytes:
    """The UnixFS part of a node in a file's tree: type file, its bytes, those below each link."""
    return _field(0x0A, b"\x08\x02\x18" + varint(size) + block_sizes)


class _LeafLinks:
    """Links to chunks, made for thousands of slots at a time: one by one, a million take a second.

    Nearly all chunks have 2^14 to 2^21-1 bytes, a varint of three bytes, so nearly all links have one length and
    differ in the same places: whole columns of bytes are put in at once. Those of smaller chunks are made singly.
    Slots have to be asked for in ascending order.
    """

    _AT_ONCE = 8192
    _BEFORE = bytes((0x12, 44, 0x0A, CID_BYTES)) + RAW_CID
    _AFTER = b"\x12\x00\x18"
    _TEMPLATE = _BEFORE + bytes(32) + _AFTER + bytes(3)

    def __init__(self, index: Index) -> None:
        self._digests = index.digests
        self._lengths = index.lengths
        self._start = self._end = 0
        self._links = b""
        self._sizes = b""

    def between(self, first: int, last: int) -> tuple[bytes, bytes, int]:
        """Links, block sizes and sum of lengths of the slots from ``first`` up to ``last``, without it."""
        if last > self._end:
            self._fill(first, max(last, min(first + self._AT_ONCE, len(self._lengths))))
        lengths = self._lengths[first:last]
        size = sum(lengths)
        width = len(self._TEMPLATE)
        at = first - self._start
        if min(lengths) >= 1 << 14:
            end = last - self._start
            return self._links[width * at : width * end], self._sizes[4 * at : 4 * end], size
        links: list[bytes] = []
        sizes: list[bytes] = []
        for slot, length in enumerate(lengths, at):
            if length >= 1 << 14:
                links.append(self._links[width * slot : width * (slot + 1)])
                sizes.append(self._sizes[4 * slot : 4 * (slot + 1)])
            else:
                digest = self._links[width * slot + len(self._BEFORE) : width * (slot + 1) - 6]
                links.append(_link(b"", RAW_CID + digest, length))
                sizes.append(b"\x20" + varint(length))
        return b"".join(links), b"".join(sizes), size

    def _fill(self, start: int, end: int) -> None:
        """Make links and sizes for these slots. Where a length is under 2^14, only the digest comes out right."""
        self._start, self._end = start, end
        count = end - start

        def each(lane: int) -> int:
            return int.from_bytes(lane.to_bytes(4, "little") * count, "little")

        # All lengths as one large number, in lanes of 32 bits: its sevens of bits are moved apart in all lanes at
        # once. A lane's bytes then are the field's tag, 0x20, and the varint.
        lengths = self._lengths[start:end]
        if sys.byteorder == "big":
            lengths.byteswap()
        lanes = int.from_bytes(lengths.tobytes(), "little")
        lanes = (lanes & each(0x7F)) << 8 | (lanes & each(0x3F80)) << 9 | (lanes & each(0x1FC000)) << 10
        self._sizes = (lanes | each(0x00808020)).to_bytes(4 * count, "little")
        links = bytearray(self._TEMPLATE) * count
        width = len(self._TEMPLATE)
        digests = self._digests[32 * start : 32 * end]
        for column in range(32):
            links[len(self._BEFORE) + column :: width] = digests[column::32]
        for column in range(3):
            links[width - 3 + column :: width] = self._sizes[1 + column :: 4]
        self._links = bytes(links)


# Folders


def _folder(links: Sequence[_Link]) -> _Nodes:
    """A folder over these links, which are sorted by name."""
    if sum(len(link.name) + len(link.cid) for link in links) >= SHARD_FROM:
        hashes = [mmh3.hash64(link.name, signed=False)[0] for link in links]
        return (yield from _shard(list(zip(hashes, links, strict=True)), _HASH_BITS - _FANOUT_BITS))
    return (yield from _node([_link(*link) for link in links], b"\x08\x01", sum(link.size for link in links)))


def _shard(entries: list[tuple[int, _Link]], shift: int) -> _Nodes:
    """A HAMT node over entries with the first half of their names' MurmurHash3-x64-128, looked at from ``shift`` on."""
    if shift < 0:
        raise Unrepresentable("a folder has names with the same hash")
    slots: dict[int, list[tuple[int, _Link]]] = {}
    for entry in entries:
        slots.setdefault(entry[0] >> shift & 0xFF, []).append(entry)
    links: list[bytes] = []
    bits = 0
    size = 0
    for slot in sorted(slots):
        prefix = b"%02X" % slot
        if len(slots[slot]) == 1:
            link = slots[slot][0][1]
            link = _Link(prefix + link.name, link.cid, link.size)
        else:
            link = _Link(prefix, *(yield from _shard(slots[slot], shift - _FANOUT_BITS)))
        links.append(_link(*link))
        bits |= 1 << slot
        size += link.size
    bitfield = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    # Type HAMT shard, the slots in use, hash murmur3-x64-64 (0x22), fanout 256.
    return (yield from _node(links, b"\x08\x05" + _field(0x12, bitfield) + b"\x28\x22\x30\x80\x02", size))


def _node(links: list[bytes], unixfs: bytes, size_below: int) -> _Nodes:
    block = b"".join(links) + _field(0x0A, unixfs)
    cid = DAG_PB_CID + hashlib.sha256(block).digest()
    yield cid, block
    return cid, len(block) + size_below


# dag-pb


def _link(name: bytes, cid: bytes, size: int) -> bytes:
    link = b"".join((b"\x0a", varint(len(cid)), cid, b"\x12", varint(len(name)), name, b"\x18", varint(size)))
    return b"".join((b"\x12", varint(len(link)), link))


def _field(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + varint(len(content)) + content
