"""What an extent says of itself: a list at its end of which chunk lies where.

The catalogue is what is asked; this is for the day it is lost (``rebuild``). Written with the chunks and made durable
by the same fsync, so it costs a write and no wait. The list of a download names what was planned, whether it came or
not: whoever reads it hashes each chunk before it counts.

Layout, at the very end of the file: for each chunk digest (32 bytes), offset (u64), length (u32), big-endian; then
``MAGIC``, the number of chunks (u32), and SHA-256 of the list.

Imports siblings and the standard library.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from p2plearn.store.durable import write_all

MAGIC = b"p2plearn extent 1\n"
_TAIL = struct.Struct(f">{len(MAGIC)}sI32s")
_ENTRY = struct.Struct(">32sQI")

Entry = tuple[bytes, int, int]
"""(digest, offset, length) of a chunk."""

_AT_ONCE = 4096
"""Entries made and written at a time."""

_SECTOR = 512
"""The least of a disk that can't be read."""

SMALL = 4096
"""Of shorter chunks one may by chance begin another; a match this long is taken at once."""


def size_for(count: int) -> int:
    """Bytes that the list of so many chunks takes."""
    return count * _ENTRY.size + _TAIL.size


def write(fd: int, entries: Iterable[Entry], end: int) -> int:
    """Put the list at ``end``, where no chunk is, and end the file there; its size then. Raises OSError."""
    digest, count, at = hashlib.sha256(), 0, end
    entries = iter(entries)
    while True:
        some = [_ENTRY.pack(*entry) for entry in islice(entries, _AT_ONCE)]
        piece = b"".join(some)
        digest.update(piece)
        count += len(some)
        last = len(some) < _AT_ONCE
        if last:
            piece += _TAIL.pack(MAGIC, count, digest.digest())
        write_all(fd, [piece], at)
        at += len(piece)
        if last:
            break
    if os.fstat(fd).st_size != at:
        os.ftruncate(fd, at)
    return at


def read(fd: int) -> list[Entry] | None:
    """The list of an open extent; None if it has none, or none that is whole. Raises OSError."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _TAIL.size, max(size - _TAIL.size, 0))
    if len(tail) != _TAIL.size:
        return None
    magic, count, digest = _TAIL.unpack(tail)
    start = size - size_for(count)
    if magic != MAGIC or start < 0:
        return None
    listed = os.pread(fd, count * _ENTRY.size, start)
    if hashlib.sha256(listed).digest() != digest:
        return None
    entries: list[Entry] = list(_ENTRY.iter_unpack(listed))
    return entries if all(offset + length <= start for _, offset, length in entries) else None


def search(fd: int, known: dict[int, set[bytes]], alignment: int, patience: int | None = None) -> Iterator[Entry]:
    """Chunks of an extent without a list, found by their hashes alone; ``known`` has digests by length.

    Chunks lie back to back from the beginning or from a multiple of ``alignment``, so each position is tried with
    every length that there is, which costs one pass over the longest. After ``patience`` positions in a row without a
    chunk it gives up.
    """
    lengths = sorted(known)
    size = os.fstat(fd).st_size
    at = vain = 0
    while at < size and lengths and (patience is None or vain < patience):
        following = -(-at // alignment) * alignment
        for start in dict.fromkeys((at, following)):
            length, digest = _match(_readable(fd, lengths[-1], start), lengths, known)
            if length:
                yield digest, start, length
                at, vain = start + length, 0
                break
        else:
            at, vain = following if following > at else at + alignment, vain + 1


def _readable(fd: int, length: int, start: int) -> bytes:
    """Up to so many bytes, as far as the disk can read them."""
    try:
        return os.pread(fd, length, start)
    except OSError:
        pieces, at = [], start
        while at < start + length:
            try:
                pieces.append(os.pread(fd, min(_SECTOR - at % _SECTOR, start + length - at), at))
            except OSError:
                break
            at += _SECTOR - at % _SECTOR
        return b"".join(pieces)


def _match(raw: bytes, lengths: Sequence[int], known: dict[int, set[bytes]]) -> tuple[int, bytes]:
    """The chunk that ``raw`` begins with; length 0 if there is none."""
    view, hashed, done = memoryview(raw), hashlib.sha256(), 0
    best = (0, b"")
    for length in lengths:
        if length > len(raw):
            break
        hashed.update(view[done:length])
        done = length
        digest = hashed.copy().digest()
        if digest in known[length]:
            best = (length, digest)
            if length >= SMALL:
                break
    return best
