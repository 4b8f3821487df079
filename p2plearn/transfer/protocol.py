"""``/p2plearn/chunk/1``: the messages by which one node fetches a course from another. ⊙

One stream is one conversation about one course, opened by the node that fetches. A message is a header of five
bytes (type, length of the body, big-endian) and a body; ``docs/protocol.md`` has the layout of each. Chunks travel
raw, so that their bytes are never copied between the stream and the disk.

What must hold, whatever a peer sends and however its bytes are split: decoding raises PeerFault or returns a
message that was checked; no memory is set aside for a length before it was held against the cap of its type; a
message that the other end may not send is a fault.

Imports nothing that does I/O.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from p2plearn.course.manifest import MAX_CHUNK, MAX_MANIFEST
from p2plearn.errors import PeerFault

PROTOCOL: Final = "/p2plearn/chunk/1"

Bytes = bytes | bytearray | memoryview


class Kind(enum.IntEnum):
    """Message types; the first five are the fetching end's, the rest the serving end's."""

    OPEN = 1
    WANT_INDEX = 2
    WANT = 3
    CANCEL = 4
    MANIFEST = 16
    INDEX = 17
    HAVE = 18
    HAVE_MORE = 19
    CHUNK = 20
    MISSING = 21
    NOT_HERE = 22
    BUSY = 23


HEADER: Final = struct.Struct("!BI")
_U32: Final = struct.Struct("!I")
_RANGE: Final = struct.Struct("!II")

INDEX_PART: Final = 256 * 1024
"""Bytes of an index part at most (docs/protocol.md, "Index")."""

MAX_RANGES: Final = 2048
"""Ranges in one message: 16 KiB. Who wants more sends another message."""

SMALL: Final = 4 * 1024
"""Pieces of an unfinished message smaller than this are joined: a piece of one byte costs 200 as an object."""

PINNED: Final = 4
"""A piece is copied when the memory that it is a view of is larger than so many times its size."""

MAX_SLOTS: Final = 1 << 24
"""Chunk slots of one course: more than an index of 64 MiB can list."""

FROM_FETCHER: Final[Mapping[Kind, int]] = {
    Kind.OPEN: 33,
    Kind.WANT_INDEX: _RANGE.size,
    Kind.WANT: MAX_RANGES * _RANGE.size,
    Kind.CANCEL: MAX_RANGES * _RANGE.size,
}
"""What the serving end accepts: types and the longest body of each, in bytes."""

FROM_SERVER: Final[Mapping[Kind, int]] = {
    Kind.MANIFEST: 64 + MAX_MANIFEST,
    Kind.INDEX: 4 + INDEX_PART,
    Kind.HAVE: 4 + MAX_SLOTS // 8,
    Kind.HAVE_MORE: MAX_RANGES * _RANGE.size,
    Kind.CHUNK: 4 + MAX_CHUNK,
    Kind.MISSING: MAX_RANGES * _RANGE.size,
    Kind.NOT_HERE: 0,
    Kind.BUSY: 4,
}
"""What the fetching end accepts."""

Range = tuple[int, int]
"""First slot and number of slots (at least one)."""


@dataclass(frozen=True, slots=True)
class Open:
    """First message: which course, and whether its manifest should come first (or is known already)."""

    course: bytes
    want_manifest: bool


@dataclass(frozen=True, slots=True)
class WantIndex:
    """Send the index's parts ``first`` to ``first + count - 1``."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Want:
    """Send the chunks of these slots, in this order."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """No longer wanted; what is under way already may still come."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class ManifestIs:
    """The manifest's canonical bytes and the author's signature; unchecked."""

    signature: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One part of the index; unchecked."""

    part: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Have:
    """Which slots the serving end has: a bitmap, slot ``i`` is bit ``7 - i % 8`` of byte ``i // 8``."""

    slots: int
    bitmap: bytes


@dataclass(frozen=True, slots=True)
class HaveMore:
    """Slots that the serving end has got since."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's bytes as they came, in pieces; not held against its hash yet."""

    slot: int
    pieces: tuple[memoryview, ...]
    length: int


@dataclass(frozen=True, slots=True)
class Missing:
    """These wanted slots are not there (any more)."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class NotHere:
    """The course is not on this node, or not to be given."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Too much to do; ask again after so many seconds."""

    retry_after: float


Message = Open | WantIndex | Want | Cancel | ManifestIs | IndexPart | Have | HaveMore | Chunk | Missing | NotHere | Busy


# -- encoding ----------------------------------------------------------------------------------------------------


def _message(kind: Kind, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def _pack_ranges(ranges: Sequence[Range]) -> bytes:
    if len(ranges) > MAX_RANGES:
        raise ValueError(f"at most {MAX_RANGES} ranges go into one message")
    return b"".join(_RANGE.pack(first, count) for first, count in ranges)


def encode(message: Message) -> bytes:
    """A message's bytes. Chunks are better sent as ``chunk_header`` and their bytes, which copies nothing."""
    match message:
        case Open(course, want_manifest):
            return _message(Kind.OPEN, course + bytes([want_manifest]))
        case WantIndex(first, count):
            return _message(Kind.WANT_INDEX, _RANGE.pack(first, count))
        case Want(ranges):
            return _message(Kind.WANT, _pack_ranges(ranges))
        case Cancel(ranges):
            return _message(Kind.CANCEL, _pack_ranges(ranges))
        case ManifestIs(signature, raw):
            return _message(Kind.MANIFEST, signature + raw)
        case IndexPart(part, raw):
            return _message(Kind.INDEX, _U32.pack(part) + raw)
        case Have(slots, bitmap):
            return _message(Kind.HAVE, _U32.pack(slots) + bitmap)
        case HaveMore(ranges):
            return _message(Kind.HAVE_MORE, _pack_ranges(ranges))
        case Chunk(slot, pieces, length):
            return chunk_header(slot, length) + b"".join(pieces)
        case Missing(ranges):
            return _message(Kind.MISSING, _pack_ranges(ranges))
        case NotHere():
            return _message(Kind.NOT_HERE, b"")
        case Busy(retry_after):
            return _message(Kind.BUSY, _U32.pack(min(round(retry_after * 1000), 0xFFFFFFFF)))


def chunk_header(slot: int, length: int) -> bytes:
    """What goes before the ``length`` bytes of a chunk."""
    return HEADER.pack(Kind.CHUNK, 4 + length) + _U32.pack(slot)


def ranges_of(slots: Iterable[int]) -> Iterator[Range]:
    """Runs of consecutive slots, in the order given."""
    first = count = -1
    for slot in slots:
        if count > 0 and slot == first + count:
            count += 1
        else:
            if count > 0:
                yield first, count
            first, count = slot, 1
    if count > 0:
        yield first, count


def messages_of(kind: type[Want | Cancel | Missing | HaveMore], slots: Iterable[int]) -> Iterator[bytes]:
    """Encoded messages that name all of ``slots``, as many as it takes."""
    ranges: list[Range] = []
    for item in ranges_of(slots):
        ranges.append(item)
        if len(ranges) == MAX_RANGES:
            yield encode(kind(tuple(ranges)))
            ranges.clear()
    if ranges:
        yield encode(kind(tuple(ranges)))


# -- decoding ----------------------------------------------------------------------------------------------------


class Decoder:
    """Bytes of one direction in, checked messages out, whatever the pieces they come in.

    ``accepts`` is ``FROM_FETCHER`` or ``FROM_SERVER``.
    """

    def __init__(self, accepts: Mapping[Kind, int]) -> None:
        self._accepts = accepts
        self._header = bytearray()
        self._kind = Kind.NOT_HERE
        self._left = -1  # of the body; -1: reading a header
        self._pieces: list[memoryview | bytearray] = []  # as they came; small ones joined in a bytearray
        self.chunk_bytes = 0
        """Bytes of chunks that came, whole ones or not."""

    @property
    def idle(self) -> bool:
        """Nothing of an unfinished message is held."""
        return self._left < 0 and not self._header

    def feed(self, data: Bytes) -> Iterator[Message]:
        """The messages that ``data`` completes; raises PeerFault at the first thing that is off.

        A chunk's larger pieces are views of ``data``, which the caller must not change afterwards.
        """
        view = memoryview(data)
        at, end = 0, len(view)
        while True:
            if self._left < 0:
                if at == end:
                    return
                if not self._header and end - at >= HEADER.size:
                    kind, length = HEADER.unpack_from(view, at)
                    at += HEADER.size
                else:
                    piece = view[at : at + HEADER.size - len(self._header)]
                    self._header += piece
                    at += len(piece)
                    if len(self._header) < HEADER.size:
                        return
                    kind, length = HEADER.unpack(self._header)
                    self._header.clear()
                self._begin(kind, length)
            if self._left:
                if at == end:
                    return
                piece = view[at : at + self._left]
                self._keep(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._kind is Kind.CHUNK:
                    self.chunk_bytes += len(piece)
            if not self._left:
                pieces, self._pieces, self._left = self._pieces, [], -1
                yield _parse(self._kind, [memoryview(piece) for piece in pieces])

    def _keep(self, piece: memoryview) -> None:
        """Hold a piece of the body in memory that its size accounts for, whatever the peer cuts it into."""
        if len(piece) >= SMALL and len(piece) * PINNED >= len(piece.obj):  # type: ignore[arg-type]
            self._pieces.append(piece)
        elif self._pieces and isinstance(last := self._pieces[-1], bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def _begin(self, kind: int, length: int) -> None:
        cap = self._accepts.get(kind)  # type: ignore[call-overload]
        if cap is None:
            raise PeerFault(f"chunk protocol: message type {kind} is not for this end")
        if length > cap:
            raise PeerFault(f"chunk protocol: {Kind(kind).name} of {length} bytes, at most {cap}")
        self._kind, self._left = Kind(kind), length


def _parse(kind: Kind, pieces: list[memoryview]) -> Message:
    if kind is Kind.CHUNK:
        return _parse_chunk(pieces)
    body = b"".join(pieces)
    match kind:
        case Kind.OPEN:
            if len(body) != 33 or body[32] > 1:
                raise PeerFault("chunk protocol: malformed OPEN")
            return Open(body[:32], bool(body[32]))
        case Kind.WANT_INDEX:
            ((first, count),) = _parse_ranges(body, exactly_one=True)
            return WantIndex(first, count)
        case Kind.WANT:
            return Want(_parse_ranges(body))
        case Kind.CANCEL:
            return Cancel(_parse_ranges(body))
        case Kind.HAVE_MORE:
            return HaveMore(_parse_ranges(body))
        case Kind.MISSING:
            return Missing(_parse_ranges(body))
        case Kind.MANIFEST:
            if len(body) <= 64:
                raise PeerFault("chunk protocol: MANIFEST without a manifest")
            return ManifestIs(body[:64], body[64:])
        case Kind.INDEX:
            return IndexPart(_number(body), body[4:])
        case Kind.HAVE:
            slots, bitmap = _number(body), body[4:]
            if slots > MAX_SLOTS or len(bitmap) != (slots + 7) // 8:
                raise PeerFault("chunk protocol: the bitmap's length is not that of its slots")
            return Have(slots, bitmap)
        case Kind.BUSY:
            if len(body) != 4:
                raise PeerFault("chunk protocol: malformed BUSY")
            return Busy(_number(body) / 1000)
    return NotHere()


def _parse_chunk(pieces: list[memoryview]) -> Chunk:
    """Split the slot's four bytes off the first piece or pieces."""
    head = b""
    while len(head) < 4:
        if not pieces:
            raise PeerFault("chunk protocol: CHUNK without a slot")
        take = 4 - len(head)
        head += bytes(pieces[0][:take])
        rest = pieces[0][take:]
        pieces = [rest, *pieces[1:]] if rest else pieces[1:]
    length = sum(map(len, pieces))
    if not length:
        raise PeerFault("chunk protocol: empty chunk")
    return Chunk(_number(head), tuple(pieces), length)


def _number(body: bytes) -> int:
    if len(body) < 4:
        raise PeerFault("chunk protocol: message cut short")
    value: int = _U32.unpack_from(body)[0]
    return value


def _parse_ranges(body: bytes, *, exactly_one: bool = False) -> tuple[Range, ...]:
    if len(body) % _RANGE.size or (exactly_one and len(body) != _RANGE.size):
        raise PeerFault("chunk protocol: malformed ranges")
    ranges = tuple(_RANGE.iter_unpack(body))
    for first, count in ranges:
        if not count or first + count > MAX_SLOTS:
            raise PeerFault(f"chunk protocol: {count} slots from {first} on make no sense")
    return ranges
