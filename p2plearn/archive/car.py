"""⊙ CAR version 1: a header with roots, then blocks, each after its length and its CID.

Source: ipld.io/specs/transport/car/carv1. Numbers are unsigned LEB128 in their shortest form. Nothing is made as long
as a length says before its bytes have come, and what is longer than ``MAX_BLOCK`` is damage: no block of ours, or of
IPFS (2 MiB), is. Behind damage a search goes on with the next block of our kinds that is what its CID says.

Sans-IO. Imports ``course`` and siblings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from p2plearn.archive.dagcbor import BadCbor, Link, decode, encode
from p2plearn.course.names import CID_BYTES, RAW_CID
from p2plearn.course.varint import varint

MAX_BLOCK: Final = 2 * 1024 * 1024
"""Bytes of a block: what the IPFS world exchanges at most; ours have 1 MiB."""
MAX_HEADER: Final = 512 * 1024
"""Bytes of the header: room for some 12,000 roots."""
MAX_CID: Final = 128
MAX_VARINT: Final = 9
"""Bytes of a number: 63 bits, as multiformats has it."""

RAW, DAG_PB, DAG_CBOR = 0x55, 0x70, 0x71
DAG_CBOR_CID: Final = bytes((1, DAG_CBOR, 0x12, 32))
"""What the CID of a DAG-CBOR block by SHA-256 begins with."""
MAX_IN_VAIN: Final = 64 * 1024 * 1024
"""Bytes that a search hashes in vain, besides as many as the file has, before it looks less closely."""
_NAMED: Final = re.compile(rb"\x01[\x55\x70\x71]\x12\x20")
"""What CIDs of ours begin with."""
_LENGTH_BYTES: Final = 4
"""Bytes of the length of a block of ours at most."""
_VERSION_2: Final = bytes.fromhex("0aa16776657273696f6e02")


class BadCar(ValueError):
    """These bytes are no CAR v1, or no longer: framing is lost from here on. The message is the reason."""


class OtherVersion(BadCar):
    """A CAR of a version that isn't read."""


class Header(NamedTuple):
    """The roots, as binary CIDs."""

    roots: tuple[bytes, ...]


class Head(NamedTuple):
    """A block that begins: its binary CID, codec, SHA-256 (empty if it is named by another hash), and length."""

    cid: bytes
    codec: int
    digest: bytes
    length: int


def read_varint(raw: bytes | bytearray | memoryview, at: int) -> tuple[int, int] | None:
    """The number at ``at`` and where it ends; None when bytes are missing. Raises BadCar."""
    value = 0
    for place in range(MAX_VARINT):
        if at + place >= len(raw):
            return None
        byte = raw[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if byte == 0 and place:
                raise BadCar("a number isn't in its shortest form")
            return value, at + place + 1
    raise BadCar("a number is too long")


def encode_header(roots: Sequence[bytes]) -> bytes:
    """The first bytes of a file with these roots (binary CIDs)."""
    raw = encode({"roots": [Link(root) for root in roots], "version": 1})
    return varint(len(raw)) + raw


def encode_head(cid: bytes, length: int) -> bytes:
    """What stands before a block of ``length`` bytes."""
    return varint(len(cid) + length) + cid


def read_cid(raw: bytes | bytearray | memoryview, at: int) -> tuple[int, bytes, int] | None:
    """Codec, SHA-256 (empty for another hash) and end of the CID at ``at``; None when bytes are missing."""
    if bytes(raw[at : at + 2]) == b"\x12\x20":  # version 0: a bare SHA-256 of a dag-pb block
        return (DAG_PB, bytes(raw[at + 2 : at + 34]), at + 34) if len(raw) >= at + 34 else None
    numbers = []
    for _ in range(4):
        read = read_varint(raw, at)
        if read is None:
            return None
        numbers.append(read[0])
        at = read[1]
    version, codec, function, length = numbers
    if version != 1 or length > MAX_CID:
        raise BadCar("what should be a CID is none")
    if len(raw) < at + length:
        return None
    digest = bytes(raw[at : at + length])
    return codec, digest if function == 0x12 and length == 32 else b"", at + length


class Decoder:
    """``feed`` it bytes as they come; ``head`` says what comes next; ``body`` or ``skip`` deals with it.

    However the bytes are split, the answers are the same. Holds what was fed and not yet taken, nothing more.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._drop = 0
        self._next: Head | None = None
        self._from = 0
        """Where in the buffer a search goes on."""
        self._ended = False
        self._in_vain = 0
        self.begun = False
        """Whether the header is behind, or was given up."""
        self.searching = False
        """Whether the next block has to be found first."""
        self.offset = 0
        """Bytes dealt with so far."""
        self.start = 0
        """Where the frame begins that ``head`` gave last."""

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the file."""
        dropped = min(self._drop, len(data))
        self._drop -= dropped
        self.offset += dropped
        if self._at > MAX_BLOCK or (self._at and self._at == len(self._buffer)):
            del self._buffer[: self._at]
            self._from = max(0, self._from - self._at)
            self._at = 0
        self._buffer += memoryview(data)[dropped:]

    def head(self) -> Header | Head | None:
        """What comes next; None until enough was fed. The same head again until ``body`` or ``skip``. Raises BadCar."""
        if self._next is not None:
            return self._next
        if self._drop or (self.searching and not self._find()):
            return None
        if not self.begun:
            return self._header()
        read = read_varint(self._buffer, self._at)
        if read is None:
            return None
        length, start = read
        if not 0 < length <= MAX_BLOCK + MAX_CID:
            raise BadCar(f"a block of {length} bytes")
        window = memoryview(self._buffer)[start : start + min(length, MAX_CID + 40)]
        try:
            cid = read_cid(window, 0)
            if cid is None:
                if len(window) == min(length, MAX_CID + 40):
                    raise BadCar("a block is shorter than its CID")
                return None
            codec, digest, size = cid
            name = bytes(window[:size])
        finally:
            window.release()
        self.start = self.offset
        self._take(start + size)
        self._next = Head(name, codec, digest, length - size)
        return self._next

    def _header(self) -> Header | None:
        read = read_varint(self._buffer, 0)
        if read is None:
            return None
        if self._buffer[: len(_VERSION_2)] == _VERSION_2:
            raise OtherVersion("it is a CAR of version 2, and only version 1 is read")
        length, start = read
        if not 0 < length <= MAX_HEADER:
            raise BadCar("it doesn't begin as a CAR does")
        # What is no CAR is told from its first bytes: a map of two.
        if len(self._buffer) > start and self._buffer[start] != 0xA2:
            raise BadCar("it doesn't begin as a CAR does")
        if len(self._buffer) < start + length:
            return None
        try:
            value = decode(bytes(self._buffer[start : start + length]))
        except BadCbor as wrong:
            raise BadCar(f"its header can't be read: {wrong}") from None
        if not isinstance(value, dict) or set(value) != {"roots", "version"} or value["version"] != 1:
            raise BadCar("its header isn't that of a CAR of version 1")
        roots = value["roots"]
        if not isinstance(roots, list) or not all(isinstance(root, Link) for root in roots):
            raise BadCar("its roots are no links")
        self._take(start + length)
        self.begun = True
        return Header(tuple(root.cid for root in roots))

    def body(self) -> bytes | None:
        """The block whose head was given; None until enough was fed. Its hash is for the caller to check."""
        block = self._due()
        end = self._at + block.length
        if len(self._buffer) < end:
            return None
        view = memoryview(self._buffer)
        raw = bytes(view[self._at : end])
        view.release()
        self._take(end)
        self._next = None
        return raw

    def skip(self) -> int:
        """Leave that block out. Returns how many of its bytes were not fed yet: feed them, or ``jump`` over them."""
        block = self._due()
        here = min(block.length, len(self._buffer) - self._at)
        self._take(self._at + here)
        self._drop = block.length - here
        self._next = None
        return self._drop

    def jump(self) -> None:
        """The bytes that ``skip`` told of were passed over in the file itself."""
        self.offset += self._drop
        self._drop = 0

    def end(self) -> None:
        """Nothing more will be fed."""
        self._ended = True

    def search(self, offset: int) -> None:
        """Forget what was fed; what is fed from now on stands at ``offset``. ``head`` gives the next block that is what
        its CID, of our kinds, says; what follows it is read as ever.
        """
        self._buffer.clear()
        self._at = self._drop = self._from = 0
        self._next, self._ended = None, False
        self.begun = self.searching = True
        self.offset = offset

    def search_on(self) -> None:
        """Like ``search``, from here on in what was fed."""
        self._next, self._drop, self._from = None, 0, self._at
        self.begun = self.searching = True

    def _find(self) -> bool:
        """Go to the next block whose hash is right; False when more has to be fed first, or nothing more comes."""
        while True:
            match = _NAMED.search(self._buffer, max(self._from, self._at))
            name = match.start() if match else max(self._at, len(self._buffer) - 3)
            del match  # else the buffer can't be changed
            if name + CID_BYTES > len(self._buffer):
                self._wait_at(name)
                return False
            for start, length in self._lengths(name):
                end = name + length
                if end > len(self._buffer):
                    if self._ended:
                        continue
                    self._wait_at(name)
                    return False
                with memoryview(self._buffer) as view:
                    right = hashlib.sha256(view[name + CID_BYTES : end]).digest() == view[name + 4 : name + CID_BYTES]
                if right:
                    self._take(start)
                    self.searching = False
                    return True
                self._in_vain += length
                if self._in_vain > MAX_IN_VAIN + self.offset:
                    name = end - 1
                    break
            self._from = name + 1
            self._take(max(self._at, self._from - _LENGTH_BYTES))

    def _wait_at(self, name: int) -> None:
        self._take(max(self._at, name - _LENGTH_BYTES))
        self._from = name

    def _lengths(self, name: int) -> list[tuple[int, int]]:
        """Each number that may end before the CID at ``name``, where it begins, and the frame's length it says."""
        found = []
        for start in range(name - 1, max(self._at, name - _LENGTH_BYTES) - 1, -1):
            if (self._buffer[start] < 0x80) != (start == name - 1):
                break
            try:
                read = read_varint(self._buffer, start)
            except BadCar:
                break
            if read is not None and CID_BYTES <= read[0] <= MAX_BLOCK + CID_BYTES:
                found.append((start, read[0]))
        return found

    @property
    def whole(self) -> bool:
        """Whether the file may end here: after the header or a block."""
        return self.begun and self._next is None and not self._drop and self._at == len(self._buffer)

    def _due(self) -> Head:
        if self._next is None:
            raise AssertionError("no block has begun")
        return self._next

    def _take(self, end: int) -> None:
        self.offset += end - self._at
        self._at = end


def raw_cid(digest: bytes) -> bytes:
    """The binary CID of a raw block with this SHA-256."""
    return RAW_CID + digest


__all__ = [
    "CID_BYTES", "DAG_CBOR", "DAG_CBOR_CID", "DAG_PB", "MAX_BLOCK", "RAW",
    "BadCar", "Decoder", "Head", "Header", "OtherVersion",
    "encode_head", "encode_header", "raw_cid", "read_cid", "read_varint", "varint",
]  # fmt: skip
