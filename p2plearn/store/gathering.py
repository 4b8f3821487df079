"""Verified chunks laid side by side in memory, as they will lie on the disk.

What comes off the wire is in pieces. Copied once into memory that is aligned like its place, a run of them is written
past the page cache as it lies, to the store's extent and to the checkout alike: files begin on a block in both.

Imports siblings and the standard library.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from p2plearn.store.durable import Piece
from p2plearn.store.past_cache import BLOCK, aligned

Offer = tuple[int, Sequence[Piece]]
"""A slot and the pieces its chunk came in."""

_TRAY: Final = 5 * 1024 * 1024
"""Bytes of a piece of memory that is kept for the next batch: ``transfer`` hands on batches of 4 MiB and a chunk."""


class Gathering:
    """Lays batches out; thread-safe. Holds as much memory as batches were ever laid out at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[memoryview] = []

    @contextlib.contextmanager
    def laid(self, offers: Sequence[Offer], place: Callable[[int], tuple[int, int]]) -> Iterator[list[Offer]]:
        """The same chunks by slot, each in one piece that is good inside the context only.

        ``place`` says in which extent, and where in it, a slot's chunk will lie.
        """
        offers = sorted(offers, key=lambda offer: offer[0])
        begins: list[int] = []
        end, before = 0, (-1, -1)
        for slot, pieces in offers:
            extent, offset = place(slot)
            if (extent, offset) != before:
                end = -(-end // BLOCK) * BLOCK + offset % BLOCK
            begins.append(end)
            length = sum(map(len, pieces))
            end += length
            before = (extent, offset + length)
        with self._tray(end) as tray:
            laid: list[Offer] = []
            for (slot, pieces), begin in zip(offers, begins, strict=True):
                at = begin
                for piece in pieces:
                    tray[at : at + len(piece)] = piece
                    at += len(piece)
                laid.append((slot, [tray[begin:at]]))
            yield laid

    @contextlib.contextmanager
    def _tray(self, size: int) -> Iterator[memoryview]:
        if size > _TRAY:
            yield aligned(size)
            return
        with self._lock:
            tray = self._free.pop() if self._free else aligned(_TRAY)
        try:
            yield tray
        finally:
            with self._lock:
                self._free.append(tray)
