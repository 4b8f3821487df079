"""The index: every file of a course and every chunk of every file, so that one fetch plans all the others.

Chunks are numbered by *slot*, 0 to n-1, through the files in their order; the same digest may be in several slots.
An index can be large (``MAX_INDEX``), so it is kept as flat arrays, read as a stream, and never as a tree of small
objects that a hostile index could blow up. ``decode_index`` returns only an index that is canonical, agrees with
its manifest in every total, gives only paths that may be written, and has the UnixFS root that the manifest says.

Sans-IO. Imports ``errors`` and ``course``.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgpack

from p2plearn.course import unixfs
from p2plearn.course.digests import repeated
from p2plearn.course.file_table import FileEntry, FileTable
from p2plearn.course.manifest import (
    INDEX_PART,
    MAX_CHUNK,
    MAX_CHUNKS,
    MAX_FILES,
    MAX_INDEX,
    Binary,
    Kind,
    Manifest,
    Part,
)
from p2plearn.course.names import HASH_BYTES
from p2plearn.course.paths import MAX_PATH, BadPath, check_path, check_tree
from p2plearn.course.patterns import pattern
from p2plearn.errors import PeerFault, UsageProblem

VERSION = 1
MAX_FOLDERS = 250_000
"""Folders of a course, those with files in them included. Whoever checks the root builds a node for each."""

_FIELDS = ("digests", "files", "folders", "lengths", "v")
_AT_ONCE = 4096
"""Files packed into one piece: few calls, small pieces."""


class BadIndex(ValueError):
    """An index breaks a rule; the message is the reason. Never leaves this module."""


class Index:
    """The files and chunks of a course. Made by ``IndexBuilder`` and ``decode_index`` only; not to be changed."""

    __slots__ = ("bytes", "digests", "files", "folders", "lengths")

    def __init__(self, files: FileTable, folders: Sequence[str], digests: Binary, lengths: array[int]) -> None:
        self.files = files
        """In canonical order: by the path's UTF-8 bytes."""
        self.folders = tuple(folders)
        """Paths of the folders that have nothing in them, in the same order."""
        self.digests = digests
        """SHA-256 of each slot's chunk, 32 bytes each, back to back."""
        self.lengths = lengths
        """Bytes of each slot's chunk."""
        self.bytes = files.bytes
        """Bytes of all files."""

    def __len__(self) -> int:
        """How many slots."""
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        mine = (self.files, self.folders, self.digests, self.lengths)
        return mine == (other.files, other.folders, other.digests, other.lengths)

    __hash__ = None  # type: ignore[assignment]

    def digest(self, slot: int) -> Binary:
        """SHA-256 of the chunk in ``slot``; 32 bytes. Raises IndexError outside 0 to n-1."""
        if not 0 <= slot < len(self.lengths):
            raise IndexError(slot)
        return self.digests[HASH_BYTES * slot : HASH_BYTES * (slot + 1)]

    def length(self, slot: int) -> int:
        """Bytes of the chunk in ``slot``. Raises IndexError outside 0 to n-1."""
        if slot < 0:
            raise IndexError(slot)
        return self.lengths[slot]

    def encode(self) -> Binary:
        """The canonical bytes. Raises UsageProblem when there is more in it than an index may hold."""
        raw = b"".join(_pieces(self))
        if len(raw) > MAX_INDEX:
            raise UsageProblem(
                f"This course is too large: its index has {len(raw)} bytes, more than {MAX_INDEX}.",
                "Publish it as several courses.",
            )
        return raw

    def select(self, patterns: Iterable[str]) -> tuple[FileEntry, ...]:
        """The files that any of the ``patterns`` (see there) matches, in canonical order. Raises UsageProblem."""
        chosen = [pattern(each) for each in patterns]
        return tuple(file for file in self.files if any(one.match(file.path) for one in chosen))


def parts(raw: bytes) -> list[Part]:
    """The parts of an index's bytes, as the manifest lists them."""
    view = memoryview(raw)
    pieces = [view[at : at + INDEX_PART] for at in range(0, len(raw), INDEX_PART)]
    return [Part(hashlib.sha256(piece).digest(), len(piece)) for piece in pieces]


class IndexBuilder:
    """Gathers a course's files and folders in any order; ``build`` puts them into the canonical one."""

    def __init__(self) -> None:
        self._files = FileTable()
        self._folders: list[str] = []
        self._digests = bytearray()
        self._lengths: array[int] = _u32()

    def add_file(self, path: str, size: int, chunks: Iterable[tuple[bytes, int]]) -> None:
        """Add a file of ``size`` bytes whose chunks are ``(digest, length)`` in order.

        Raises BadPath for a path that no course may have, ValueError when the chunks aren't the file's.
        """
        digests, lengths = bytearray(), _u32()
        for digest, length in chunks:
            if len(digest) != HASH_BYTES or not 1 <= length <= MAX_CHUNK:
                raise ValueError(f"chunk of {length} bytes, digest of {len(digest)}")
            digests += digest
            lengths.append(length)
        self.add_run(path, size, digests, lengths)

    def add_run(self, path: str, size: int, digests: bytes | bytearray | memoryview, lengths: array[int]) -> None:
        """The same with the chunks' digests back to back. Raises BadPath, ValueError."""
        check_path(path)
        if len(digests) != HASH_BYTES * len(lengths) or sum(lengths) != size:
            raise ValueError(f"the chunks of {path!r} aren't its {size} bytes together")
        self._digests += digests
        self._lengths += lengths
        self._files.append(path, size, len(lengths))

    def add_folder(self, path: str) -> None:
        """Add a folder that has nothing in it. Raises BadPath for a path that no course may have."""
        check_path(path)
        self._folders.append(path)

    def build(self) -> Index:
        """The index; it takes over what was gathered.

        Raises BadPath when the paths don't make one tree, UsageProblem when there are too many.
        """
        if len(self._files) > MAX_FILES:
            raise UsageProblem(f"This course has {len(self._files)} files, more than {MAX_FILES}.")
        if len(self._lengths) > MAX_CHUNKS:
            raise UsageProblem(f"This course has {len(self._lengths)} chunks, more than {MAX_CHUNKS}.")
        folders = sorted(self._folders)
        check_tree(self._files.paths(), folders, MAX_FOLDERS)
        # By code points, which is by UTF-8 bytes: UTF-8 was made so.
        if any(path > following for path, following in pairwise(self._files.paths())):
            self._sort()
        return Index(self._files, folders, bytes(self._digests), self._lengths)

    def _sort(self) -> None:
        gathered, old_digests, old_lengths = self._files, self._digests, self._lengths
        self._files, self._digests, self._lengths = FileTable(), bytearray(), _u32()
        for number in sorted(range(len(gathered)), key=gathered.path):
            path, size, first, count = gathered[number]
            self._files.append(path, size, count)
            self._digests += old_digests[HASH_BYTES * first : HASH_BYTES * (first + count)]
            self._lengths += old_lengths[first : first + count]


def decode_index(raw: bytes, manifest: Manifest) -> Index:
    """The index in ``raw``, which is all of what ``manifest`` lists as its parts. Raises PeerFault unless it is right.

    Right means: the bytes are those the manifest names, canonical, in agreement with its totals; each path may be
    written and all make one tree; the UnixFS root is the manifest's. Takes about a second for 100,000 files and
    1,000,000 slots, so not on an event loop.
    """
    try:
        if tuple(parts(raw)) != manifest.index:
            raise BadIndex("these are not the bytes that the manifest names")
        index = _read(raw)
        _check_spelling(index, raw)
        _check(index, manifest.kind)
        if (index.bytes, len(index.files), len(index)) != (manifest.bytes, manifest.files, manifest.chunks):
            raise BadIndex(f"{index.bytes} bytes, {len(index.files)} files, {len(index)} chunks aren't the manifest's")
        if unixfs.root_cid(index, manifest.kind) != manifest.root:
            raise BadIndex("its UnixFS root is not the manifest's")
    except (BadIndex, BadPath, unixfs.Unrepresentable) as wrong:
        raise PeerFault(f"bad index: {wrong}") from None
    return index


def _u32() -> array[int]:
    empty: array[int] = array("I")
    assert empty.itemsize == 4  # noqa: S101 - so on every platform CPython runs on
    return empty


def _big_endian(lengths: array[int]) -> array[int]:
    """``lengths`` in the other byte order, if this machine's is little-endian: to and from the wire."""
    if sys.byteorder == "little":
        lengths = lengths[:]
        lengths.byteswap()
    return lengths


def _pieces(index: Index) -> Iterator[bytes | memoryview]:
    """The canonical bytes of an index, in pieces."""
    packer = msgpack.Packer(use_bin_type=True)
    yield packer.pack_map_header(len(_FIELDS)) + packer.pack("digests") + _bin_header(len(index.digests))
    yield index.digests
    yield packer.pack("files") + packer.pack_array_header(len(index.files))
    pack = packer.pack
    for at in range(0, len(index.files), _AT_ONCE):
        yield b"".join([pack((path, size, count)) for path, size, _, count in index.files[at : at + _AT_ONCE]])
    yield packer.pack("folders") + packer.pack(index.folders)
    yield packer.pack("lengths") + _bin_header(4 * len(index.lengths))
    yield memoryview(_big_endian(index.lengths)).cast("B")
    yield packer.pack("v") + packer.pack(VERSION)


def _bin_header(length: int) -> bytes:
    """The msgpack header of a binary; the packer has none by itself, and joining it to 40 MB would copy them."""
    if length < 1 << 8:
        return bytes((0xC4, length))
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    return b"\xc6" + length.to_bytes(4, "big")


def _check_spelling(index: Index, raw: bytes) -> None:
    """Raise BadIndex unless ``raw`` is the canonical spelling of ``index``."""
    view = memoryview(raw)
    at = 0
    for piece in _pieces(index):
        if view[at : at + len(piece)] != piece:
            raise BadIndex("it is not spelled canonically")
        at += len(piece)
    if at != len(raw):
        raise BadIndex("it is not spelled canonically")


def _read(raw: bytes) -> Index:
    """What ``raw`` says, every type checked and no sum. Raises BadIndex."""
    # Read item by item: what an item may be is known before it is read, so nothing can be larger than it should.
    reader = msgpack.Unpacker(
        raw=False,
        max_buffer_size=MAX_INDEX,
        max_str_len=MAX_PATH,
        max_bin_len=MAX_INDEX,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    try:
        reader.feed(raw)
        if reader.read_map_header() != len(_FIELDS):
            raise BadIndex("it is no map of five fields")
        _expect(reader, "digests")
        digests = _binary(reader, HASH_BYTES)
        _expect(reader, "files")
        files = _read_files(reader)
        _expect(reader, "folders")
        count = reader.read_array_header()
        if count > MAX_FOLDERS:
            raise BadIndex(f"{count} empty folders are more than {MAX_FOLDERS}")
        folders = [_text(reader) for _ in range(count)]
        _expect(reader, "lengths")
        lengths = _u32()
        lengths.frombytes(_binary(reader, 4))
        lengths = _big_endian(lengths)
        _expect(reader, "v")
        version = reader.unpack()
        if type(version) is not int or version != VERSION:
            raise BadIndex(f"its version is {version!r:.40}, not {VERSION}")
        if reader.tell() != len(raw):
            raise BadIndex("there is more after its end")
    except BadIndex:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as wrong:
        raise BadIndex(f"not msgpack of an index: {wrong}") from None
    if len(digests) != HASH_BYTES * len(lengths):
        raise BadIndex(f"{len(digests)} bytes of digests don't go with {len(lengths)} lengths")
    return Index(files, folders, digests, lengths)


def _read_files(reader: msgpack.Unpacker) -> FileTable:
    count = reader.read_array_header()
    if count > MAX_FILES:
        raise BadIndex(f"{count} files are more than {MAX_FILES}")
    header, unpack = reader.read_array_header, reader.unpack
    files = FileTable()
    for _ in range(count):
        if header() != 3:
            raise BadIndex("a file is not described by three values")
        path, size, chunks = unpack(), unpack(), unpack()
        if type(path) is not str or type(size) is not int or type(chunks) is not int:
            raise BadIndex("a file is not described by path, size and number of chunks")
        if size < 0 or not 0 <= chunks <= MAX_CHUNKS:
            raise BadIndex(f"a file has {size} bytes in {chunks} chunks")
        files.append(path, size, chunks)
    return files


def _expect(reader: msgpack.Unpacker, field: str) -> None:
    if reader.unpack() != field:
        raise BadIndex(f"the field {field} is missing or in the wrong place")


def _text(reader: msgpack.Unpacker) -> str:
    value = reader.unpack()
    if type(value) is not str:
        raise BadIndex("a path is no text")
    return value


def _binary(reader: msgpack.Unpacker, size: int) -> bytes:
    value = reader.unpack()
    if type(value) is not bytes or len(value) % size:
        raise BadIndex(f"a list is no binary of {size} bytes an item")
    return value


def _check(index: Index, kind: Kind) -> None:
    """Raise BadIndex or BadPath unless paths, order and sums are right."""
    lengths = index.lengths
    if len(lengths) and not (min(lengths) >= 1 and max(lengths) <= MAX_CHUNK):
        raise BadIndex(f"a chunk has no bytes or more than {MAX_CHUNK}")
    before = ""
    for path, size, first, count in index.files:
        check_path(path)
        if path <= before:
            raise BadIndex(f"the file {path!r:.300} is not in its place")
        before = path
        if sum(lengths[first : first + count]) != size:
            raise BadIndex(f"the chunks of {path!r:.300} aren't its {size} bytes together")
    if index.files.slots != len(lengths):
        raise BadIndex(f"the files have {index.files.slots} chunks, not {len(lengths)}")
    _check_lengths_agree(index)
    before = ""
    for path in index.folders:
        check_path(path)
        if path <= before:
            raise BadIndex(f"the folder {path!r:.300} is not in its place")
        before = path
    check_tree(index.files.paths(), index.folders, MAX_FOLDERS)
    if kind == "file" and (len(index.files) != 1 or index.folders or "/" in index.files[0].path):
        raise BadIndex("a course of kind 'file' is one file in no folder")


def _check_lengths_agree(index: Index) -> None:
    """Raise BadIndex if a digest comes with two lengths: only one can be true, and the store keeps one."""
    lengths = index.lengths
    if any(lengths[slot] != lengths[first] for first, *others in repeated(index.digests) for slot in others):
        raise BadIndex("a chunk is there with two lengths")
