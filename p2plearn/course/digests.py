"""Looking through the digests of a course, 32 bytes each, back to back: in order, and for those that come twice.

A course may have two million: an object for each would take a third of a GB. So they are dealt out by their first byte,
as numbers, and one deal of 256 is looked at closely at a time.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

DIGEST = 32


def each(digests: bytes) -> Iterator[bytes]:
    """The digests, one after the other, slot by slot."""
    return (digests[at : at + DIGEST] for at in range(0, len(digests), DIGEST))


def dealt(digests: bytes | bytearray, slots: Iterable[int] | None = None) -> list[array[int]]:
    """The slots (all of them, or those given), in the order they come, by the first byte of their digests."""
    deals: list[array[int]] = [array("I") for _ in range(256)]
    if slots is None:
        for slot, byte in enumerate(digests[::DIGEST]):
            deals[byte].append(slot)
    else:
        for slot in slots:
            deals[digests[DIGEST * slot]].append(slot)
    return deals


def in_order(digests: bytes | bytearray, slots: Iterable[int] | None = None) -> Iterator[tuple[bytes, int]]:
    """(digest, slot) of the slots, all of them or those given, by their digests."""
    for deal in dealt(digests, slots):
        yield from sorted((bytes(digests[DIGEST * slot : DIGEST * (slot + 1)]), slot) for slot in deal)


def repeated(digests: bytes | bytearray) -> Iterator[list[int]]:
    """For each digest that is in several slots these slots, ascending."""
    for deal in dealt(digests):
        keys = [bytes(digests[DIGEST * slot : DIGEST * (slot + 1)]) for slot in deal]
        if len(set(keys)) == len(keys):
            continue
        groups: dict[bytes, list[int]] = {}
        for key, slot in zip(keys, deal, strict=True):
            groups.setdefault(key, []).append(slot)
        yield from (group for group in groups.values() if len(group) > 1)
