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


def search(fd: int, known: dict[int, set[bytes]], alignment: int) -> Iterator[Entry]:
    """Chunks of an extent without a list, found by their hashes alone; ``known`` has digests by length.

    Chunks lie back to back from the beginning or from a multiple of ``alignment``, so each position is tried with
    every length that there is, which costs one pass over the longest. Raises OSError.
    """
    lengths = sorted(known)
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        following = -(-at // alignment) * alignment
        for start in dict.fromkeys((at, following)):
            length, digest = _match(os.pread(fd, lengths[-1], start) if lengths else b"", lengths, known)
            if length:
                yield digest, start, length
                at = start + length
                break
        else:
            at = following if following > at else at + alignment


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
