"""Bytes to chunks: where a file is cut.

Readers don't depend on it: the index says how long each chunk is. Two ways to cut:

- ``fastcdc``, the default: where the content says so (FastCDC, Xia et al., "The Design of Fast Content-Defined
  Chunking for Data Deduplication Based Storage Systems", IEEE TPDS 2020), so that an insertion changes the chunks
  around it and no others, and a new version of a course moves only what changed.
- ``fixed``: every 262,144 bytes, as IPFS programs do, for a root CID equal to theirs.

A chunker is handed a file in buffers of any size and cuts it the same whatever these are. pyfastcdc does the
scanning, releases the GIL while it does, and copies nothing; tests/course/test_chunking.py pins its cuts.

Sans-IO. Imports nothing of ours but the largest chunk's size.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pyfastcdc import FastCDC

from p2plearn.course.manifest import MAX_CHUNK

ChunkerKind = Literal["fastcdc", "fixed"]

FIXED_CHUNK = 256 * 1024
"""What Kubo has cut at by default for most of its life; bytes."""

MIN_SIZE = 64 * 1024
AVG_SIZE = 192 * 1024
MAX_SIZE = MAX_CHUNK
NORMALIZATION: Literal[2] = 2
"""FastCDC's parameters (bytes; the last is the paper's NC level). On random bytes they make chunks of 246 KiB on
average (standard deviation 75 KiB, hardly any of the largest size): about what the fixed ones have."""


class Chunker(Protocol):
    """One way to cut. Not to be shared by threads; one object may cut any number of files after another."""

    @property
    def name(self) -> str:
        """The method and all its parameters, for the manifest."""
        ...

    def cut(self, buffer: memoryview, last: bool) -> list[int]:
        """Lengths of the chunks at the head of ``buffer`` that further bytes can't change.

        What they leave over (less than ``MAX_CHUNK``) has to stand at the head of the next call's buffer. With
        ``last``, the file ends where the buffer does, and the chunks cover all of it. Keeps no reference to it.
        """
        ...


def chunker(kind: ChunkerKind) -> Chunker:
    """A new chunker of this kind."""
    return _Fixed() if kind == "fixed" else _ContentDefined()


class _Fixed:
    name = f"fixed;size={FIXED_CHUNK}"

    def cut(self, buffer: memoryview, last: bool) -> list[int]:
        whole, rest = divmod(len(buffer), FIXED_CHUNK)
        return [FIXED_CHUNK] * whole + ([rest] if last and rest else [])


class _ContentDefined:
    name = f"fastcdc-2020;min={MIN_SIZE};avg={AVG_SIZE};max={MAX_SIZE};nc={NORMALIZATION}"

    def __init__(self) -> None:
        self._scanner = FastCDC(AVG_SIZE, min_size=MIN_SIZE, max_size=MAX_SIZE, normalized_chunking=NORMALIZATION)

    def cut(self, buffer: memoryview, last: bool) -> list[int]:
        lengths = [chunk.length for chunk in self._scanner.cut_buf(buffer)]
        # The scanner ends its last chunk where the buffer ends; only one of the largest size had to end there.
        if lengths and not last and lengths[-1] < MAX_SIZE:
            del lengths[-1]
        return lengths
