"""⊙ Range-based set reconciliation: two nodes find what each lacks, at a cost set by the difference.

After Aljoscha Meyer, "Range-Based Set Reconciliation" (SRDS 2023). A set is a sorted sequence of 40-byte keys (time,
id; see ``Envelope.key``). One side sends the fingerprint of all of it; where fingerprints differ the other side cuts
the range into FAN parts and sends theirs, and so on in turn; a range with few keys is sent as its ids, and whoever
reads those knows both differences. Ranges stand for themselves, so sets may change while this goes on.

A fingerprint is the first 16 bytes of the SHA-256 of the range's keys, back to back. Sums of hashes would be quicker
to update, but sets with equal sums can be made (Wagner's generalized birthday); hashing 100,000 keys takes 2 ms.

Sans-IO. Imports ``errors``.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeAlias

from p2plearn.errors import PeerFault

KEY_BYTES: Final = 40
ID_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 16
FAN: Final = 16
"""Parts that a range is cut into. More: fewer turns, more bytes for each difference."""
LEAF: Final = 32
"""A range with at most this many keys is sent as ids: 1 KiB, what two levels of fingerprints would cost."""
MAX_RANGES: Final = 4096
"""Ranges in one message; ours stop far below, at RANGE_BYTES."""
RANGE_BYTES: Final = 48 * 1024
"""About how much one message of ranges has; what is left over goes into the next turn."""
_RANGE_COST: Final = 12
"""Bytes of a range besides bound and payload, about."""

Range: TypeAlias = tuple[bytes, bytes | None]
"""(upper bound, payload): from the bound before it (the first from the beginning) up to and without this one.

A bound is a prefix of a key; empty means the end. Payload: None for nothing to say, 16 bytes a fingerprint, else ids
back to back (maybe none)."""


@dataclass(slots=True)
class Answer:
    """What follows from a message: ``ranges`` to send back, ids that we lack, keys that they lack."""

    ranges: list[Range] = field(default_factory=list)
    we_lack: list[bytes] = field(default_factory=list)
    they_lack: list[bytes] = field(default_factory=list)


def fingerprint(keys: Sequence[bytes]) -> bytes:
    """What stands for ``keys``, which are sorted."""
    return hashlib.sha256(b"".join(keys)).digest()[:FINGERPRINT_BYTES]


def opening(keys: Sequence[bytes]) -> list[Range]:
    """The first message about a set."""
    return [(b"", fingerprint(keys))]


def check_ranges(value: object) -> list[Range]:
    """``value``, as unpacked from a message, as ranges; raises PeerFault."""
    if not isinstance(value, tuple) or not 1 <= len(value) <= MAX_RANGES:
        raise PeerFault("sync: ranges are no list, or too many")
    ranges: list[Range] = []
    lower = b""
    for place, item in enumerate(value):
        if not isinstance(item, tuple) or len(item) != 2:
            raise PeerFault("sync: a range is no pair")
        upper, payload = item
        last = place == len(value) - 1
        if (
            type(upper) is not bytes
            or len(upper) > KEY_BYTES
            or (upper == b"") != last
            or (upper <= lower and not last)
        ):
            raise PeerFault("sync: bounds don't ascend to the end")
        if payload is not None:
            if type(payload) is not bytes:
                raise PeerFault("sync: a range's payload is no bytes")
            if len(payload) != FINGERPRINT_BYTES and len(payload) % ID_BYTES:
                raise PeerFault("sync: a range's payload is neither fingerprint nor ids")
        ranges.append((upper, payload))
        lower = upper
    return ranges


def answer(keys: Sequence[bytes], ranges: Iterable[Range]) -> Answer:
    """Hold ``ranges`` (checked) against our own sorted ``keys``."""
    out = _Writer(keys)
    found = Answer(out.ranges)
    start = 0
    for upper, payload in ranges:
        end = bisect_left(keys, upper, lo=start) if upper else len(keys)
        if out.full:
            out.rest(start)
            break
        if payload is None:
            out.skip(upper)
        elif len(payload) == FINGERPRINT_BYTES:
            if fingerprint(keys[start:end]) == payload:
                out.skip(upper)
            else:
                out.cut(start, end, upper)
        else:
            _compare(keys[start:end], payload, found)
            out.skip(upper)
        start = end
    out.close()
    return found


def _compare(mine: Sequence[bytes], payload: bytes, found: Answer) -> None:
    theirs = {payload[at : at + ID_BYTES] for at in range(0, len(payload), ID_BYTES)}
    ours = {key[8:] for key in mine}
    found.we_lack += sorted(theirs - ours)
    found.they_lack += [key for key in mine if key[8:] not in theirs]


class _Writer:
    """Ranges of an answer, in order, those with nothing to say melted together."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._bytes = 0
        self._skipped: bytes | None = None
        self.ranges: list[Range] = []

    @property
    def full(self) -> bool:
        return self._bytes >= RANGE_BYTES

    def skip(self, upper: bytes) -> None:
        self._skipped = upper

    def cut(self, start: int, end: int, upper: bytes) -> None:
        """Say more of our keys from ``start`` to ``end``, whose range ends at ``upper``."""
        if end - start <= LEAF:
            self._add(upper, b"".join(key[8:] for key in self._keys[start:end]))
            return
        edges = [start + (end - start) * part // FAN for part in range(FAN + 1)]
        for left, right in pairwise(edges):
            bound = upper if right == end else shortest_between(self._keys[right - 1], self._keys[right])
            self._add(bound, fingerprint(self._keys[left:right]))

    def rest(self, start: int) -> None:
        """One fingerprint for everything from ``start`` on: to be gone on with in the next turn."""
        self._add(b"", fingerprint(self._keys[start:]))

    def close(self) -> None:
        # Always to the end, so that no bound is left to guess; nothing at all when there is nothing to say.
        if self.ranges and self.ranges[-1][0] != b"":
            self.ranges.append((b"", None))

    def _add(self, upper: bytes, payload: bytes) -> None:
        if self._skipped is not None:
            self.ranges.append((self._skipped, None))
            self._skipped = None
        self.ranges.append((upper, payload))
        self._bytes += len(upper) + len(payload) + _RANGE_COST


def shortest_between(before: bytes, after: bytes) -> bytes:
    """The shortest prefix of ``after`` that is above ``before``: bounds in few bytes."""
    for length in range(1, len(after) + 1):
        if after[:length] > before[:length]:
            return after[:length]
    raise ValueError("the keys don't ascend")
