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
from array import array
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import mmh3

from p2plearn.course.names import DAG_PB_CID, RAW_CID
from p2plearn.course.paths import tree_key

if TYPE_CHECKING:  # index checks its root with this module
    from p2plearn.course.index import FileEntry, Index
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
    nodes = _course(index, kind)
    while True:
        try:
            next(nodes)
        except StopIteration as end:
            cid: bytes = end.value[0]
            return cid


def blocks(index: Index, kind: Kind) -> Iterator[Block]:
    """Every block of the course's UnixFS form that is no chunk, children before parents, the root last.

    Those of equal files and folders come again each time. A file of one chunk has none.
    """
    yield from _course(index, kind)


def _course(index: Index, kind: Kind) -> _Nodes:
    if kind == "file":
        return (yield from _file(index, index.files[0]))
    return (yield from _tree(index))


def _tree(index: Index) -> _Nodes:
    """The course's folder. Walks the paths in tree order, so only the folders above the current one are open."""
    leaves: list[tuple[str, int]] = [(tree_key(file.path), number) for number, file in enumerate(index.files)]
    leaves += [(tree_key(path), -1) for path in index.folders]
    leaves.sort()
    open_names: list[str] = []
    open_links: list[list[_Link]] = [[]]
    inside = ""
    for key, number in leaves:
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
        child = yield from (_folder([]) if number < 0 else _file(index, index.files[number]))
        open_links[-1].append(_Link(key[cut:].encode(), *child))
    while open_names:
        yield from _close(open_names, open_links)
    return (yield from _folder(open_links[0]))


def _close(open_names: list[str], open_links: list[list[_Link]]) -> Generator[Block, None, None]:
    """Build the innermost open folder and link it in the one around it."""
    child = yield from _folder(open_links.pop())
    open_links[-1].append(_Link(open_names.pop().encode(), *child))


# Files


def _file(index: Index, file: FileEntry) -> _Nodes:
    if file.count == 0:
        yield EMPTY_FILE, b""
        return EMPTY_FILE, 0
    if file.count == 1:
        return RAW_CID + index.digest(file.first), file.size
    level: list[tuple[bytes, int, int]] = []  # CID, Tsize and file bytes of each node
    for first in range(file.first, file.first + file.count, MAX_LINKS):
        last = min(first + MAX_LINKS, file.first + file.count)
        lengths = index.lengths[first:last]
        size = sum(lengths)
        block = _leaves_node(index.digests, first, lengths, size)
        cid = DAG_PB_CID + hashlib.sha256(block).digest()
        yield cid, block
        level.append((cid, len(block) + size, size))
    while len(level) > 1:
        above: list[tuple[bytes, int, int]] = []
        for at in range(0, len(level), MAX_LINKS):
            children = level[at : at + MAX_LINKS]
            size = sum(bytes_ for _, _, bytes_ in children)
            links = b"".join([_link(b"", cid, tsize) for cid, tsize, _ in children])
            block = links + _file_data(size, b"".join([b"\x20" + _varint(bytes_) for _, _, bytes_ in children]))
            cid = DAG_PB_CID + hashlib.sha256(block).digest()
            yield cid, block
            above.append((cid, len(block) + sum(tsize for _, tsize, _ in children), size))
        level = above
    return level[0][0], level[0][1]


# A link to a chunk up to its digest, by how many bytes its length takes as a varint.
_LEAF_HEAD = {width: bytes((0x12, 41 + width, 0x0A, 36)) + RAW_CID for width in (1, 2, 3)}


def _leaves_node(digests: bytes, first: int, lengths: array[int], size: int) -> bytes:
    """The node over the chunks in the slots from ``first`` on. A million of them have to go through here quickly."""
    links: list[bytes] = []
    sizes: list[bytes] = []
    at = 32 * first
    for length in lengths:
        number = bytes((length & 127 | 128, length >> 7 & 127 | 128, length >> 14)) if length >> 14 else _varint(length)
        links += (_LEAF_HEAD[len(number)], digests[at : at + 32], b"\x12\x00\x18", number)
        sizes += (b"\x20", number)
        at += 32
    return b"".join(links) + _file_data(size, b"".join(sizes))


def _file_data(size: int, block_sizes: bytes) -> bytes:
    """The UnixFS part of a node in a file's tree: type file, its bytes, those below each link."""
    return _field(0x0A, b"\x08\x02\x18" + _varint(size) + block_sizes)


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
    return _field(0x12, _field(0x0A, cid) + _field(0x12, name) + b"\x18" + _varint(size))


def _field(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
