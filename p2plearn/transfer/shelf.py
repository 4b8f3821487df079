"""What the store holds of a course, as the serving end wants to see it."""

from __future__ import annotations

from collections.abc import Sequence

from p2plearn.store.holding import Holding
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.transfer.protocol import INDEX_PART


class StoreShelf:
    """One course of the store, to be served; every method that reads may block."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._index_raw: bytes | None = None

    @property
    def have(self) -> bytes:
        """Bitmap of the slots that are here now."""
        return self._holding.have

    @property
    def complete(self) -> bool:
        """Every slot is here."""
        return self._holding.complete

    @property
    def slots(self) -> int:
        """Number of slots of the course."""
        return len(self._holding.index)

    def length(self, slot: int) -> int:
        """Bytes of a slot's chunk."""
        return self._holding.index.length(slot)

    def read_many(self, slots: Sequence[int]) -> list[bytes | memoryview | None]:
        """The chunks, true to their hashes; None for each that isn't here, or turned out damaged."""
        try:
            return list(self._holding.read_many(slots))
        except (ChunkMissing, StoreDamage):
            return [self._read(slot) for slot in slots]

    def _read(self, slot: int) -> bytes | None:
        try:
            return self._holding.read(slot)
        except (ChunkMissing, StoreDamage):
            return None

    def signed_manifest(self) -> tuple[bytes, bytes]:
        """The manifest's canonical bytes and its signature."""
        return self._holding.signed.raw, self._holding.signed.signature

    def index_part(self, part: int) -> bytes | None:
        """A part of the index; None beyond its last."""
        if self._index_raw is None:
            self._index_raw = self._holding.index.encode()
        return self._index_raw[part * INDEX_PART : (part + 1) * INDEX_PART] or None
