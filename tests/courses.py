"""Small real courses in memory, shelves to serve them from, landings that really hash, and hosts to carry them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hosts import LOOPBACK, make_host
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.course.index import Index, IndexBuilder, parts
from p2plearn.course.manifest import Manifest, Series, SignedManifest, sign_manifest
from p2plearn.course.unixfs import root_cid
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.standing import Standing
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.fetch import Fetch
from p2plearn.transfer.protocol import FROM_FETCHER, FROM_SERVER, INDEX_PART, PROTOCOL
from p2plearn.transfer.session import Unreachable


@dataclass
class Course:
    """A course with all its chunks, by slot."""

    signed: SignedManifest
    index: Index
    index_raw: bytes
    chunks: list[bytes]

    @property
    def hash(self) -> bytes:
        return self.signed.course

    @property
    def bytes(self) -> int:
        return sum(map(len, self.chunks))


def make_course(chunks: int = 40, size: int = 20_000, seed: int = 1, twins: int = 0) -> Course:
    """``chunks`` slots of about ``size`` random bytes in three files; the last ``twins`` repeat the first ones."""
    dice = random.Random(seed)
    bodies = [dice.randbytes(dice.randrange(size // 2, size + 1)) for _ in range(chunks - twins)]
    bodies += bodies[:twins]
    builder = IndexBuilder()
    cuts = [0, chunks // 3, 2 * chunks // 3, chunks]
    for name, first, end in zip("abc", cuts, cuts[1:], strict=False):
        mine = bodies[first:end]
        builder.add_file(f"part/{name}.bin", sum(map(len, mine)), [(sha256(b).digest(), len(b)) for b in mine])
    builder.add_folder("empty")
    index = builder.build()
    raw = bytes(index.encode())
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed % 256]) * 32)
    manifest = Manifest(
        kind="folder",
        title=f"Course {seed}",
        description="",
        author=key.public_key().public_bytes_raw(),
        tags=(),
        language="en",
        license="CC0-1.0",
        created=1_700_000_000,
        series=Series("course", 1, None),
        chunker="fixed;262144",
        bytes=index.bytes,
        files=len(index.files),
        chunks=len(index),
        root=root_cid(index, "folder"),
        index=tuple(parts(raw)),
    )
    return Course(sign_manifest(manifest, key.sign), index, raw, bodies)


def bitmap(slots: int, held: Iterable[int]) -> bytes:
    bits = bytearray((slots + 7) // 8)
    for slot in held:
        bits[slot >> 3] |= 0x80 >> (slot & 7)
    return bytes(bits)


@dataclass
class MemoryShelf:
    """What a provider has: all of a course, or the slots in ``held``, which may grow."""

    course: Course
    held: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    reads: list[int] = field(default_factory=list)

    @classmethod
    def full(cls, course: Course) -> MemoryShelf:
        return cls(course, set(range(len(course.chunks))))

    @property
    def have(self) -> bytes:
        return bitmap(self.slots, self.held)

    @property
    def complete(self) -> bool:
        return len(self.held) == self.slots

    @property
    def slots(self) -> int:
        return len(self.course.chunks)

    def length(self, slot: int) -> int:
        return len(self.course.chunks[slot])

    def read_many(self, slots: Sequence[int]) -> list[bytes | None]:
        self.reads += slots
        return [self.course.chunks[slot] if slot in self.held - self.damaged else None for slot in slots]

    def signed_manifest(self) -> tuple[bytes, bytes]:
        return self.course.signed.raw, self.course.signed.signature

    def index_part(self, part: int) -> bytes | None:
        return self.course.index_raw[part * INDEX_PART : (part + 1) * INDEX_PART] or None


class MemoryLanding:
    """Where chunks arrive: each is held against its hash, and must come once."""

    def __init__(self, index: Index, kept: dict[int, bytes] | None = None) -> None:
        self.index = index
        self.chunks: dict[int, bytes] = dict(kept or {})
        self.good = 0
        self.bad = 0
        self.committed = False
        self.delay = 0.0

    def missing(self) -> list[int]:
        known = {bytes(self.index.digest(slot)) for slot in self.chunks}
        wanted = []
        for slot in range(len(self.index)):
            digest = bytes(self.index.digest(slot))
            if digest not in known:
                known.add(digest)
                wanted.append(slot)
        return wanted

    def is_chunk(self, slot: int, pieces: Sequence[memoryview]) -> bool:
        body = b"".join(pieces)
        good = sha256(body).digest() == self.index.digest(slot) and len(body) == self.index.length(slot)
        self.bad += not good
        return good

    def put_verified(self, chunks: Sequence[tuple[int, Sequence[memoryview]]]) -> None:
        for slot, pieces in chunks:
            assert slot not in self.chunks, "verified twice"
            self.chunks[slot] = b"".join(pieces)
            self.good += 1

    def commit(self) -> None:
        self.committed = True

    def content(self) -> bytes:
        """The whole course's bytes, in order."""
        by_digest = {bytes(self.index.digest(slot)): body for slot, body in self.chunks.items()}
        return b"".join(by_digest[bytes(self.index.digest(slot))] for slot in range(len(self.index)))


Conversation = Callable[[Channel], Awaitable[None]]


@asynccontextmanager
async def provider(converse: Conversation) -> AsyncIterator[PeerInfo]:
    """A host on loopback that answers chunk streams with ``converse``."""
    host = make_host()
    guard_streams(host, Standing())

    async def handle(stream: Any) -> None:
        channel = Channel(stream, FROM_FETCHER)
        try:
            await converse(channel)
        except StreamOver:
            pass
        except BaseException:
            with trio.CancelScope(shield=True):
                await channel.reset()
            raise

    host.set_stream_handler(PROTOCOL, handle)
    async with host.run([LOOPBACK]):
        yield PeerInfo(host.get_id(), host.get_transport_addrs())


class Remote:
    """A provider as the fetch dials it; remembers what it was blamed for."""

    def __init__(self, host: Any, info: PeerInfo) -> None:
        self.host = host
        self.info = info
        self.faults: list[str] = []
        self.poisoned = 0
        self.dialled = 0
        self.away_for = 0
        """Dials that find nobody where it was said to be, from now on."""

    guess = False
    named = False

    @property
    def name(self) -> str:
        return str(self.info.peer_id)

    async def open(self) -> Channel:
        self.dialled += 1
        if self.away_for:
            self.away_for -= 1
            raise Unreachable("nothing listens there", moved=True)
        try:
            await connect(self.host, self.info, 5.0)
            with trio.fail_after(5):
                stream = await self.host.new_stream(self.info.peer_id, [PROTOCOL])
        except (ConnectFailed, trio.TooSlowError) as error:
            raise Unreachable(str(error)) from error
        except Exception as error:
            raise Unreachable(type(error).__name__) from error
        return Channel(stream, FROM_SERVER)

    def blame(self, fault: str, *, poisoned: bool = False) -> None:
        self.faults.append(fault)
        self.poisoned += poisoned


@dataclass
class Fetcher:
    """A node that fetches ``course`` from whoever is in ``peers``."""

    course: Course
    host: Any
    peers: list[Remote]
    landing: MemoryLanding
    fetch: Fetch

    async def run(self) -> None:
        async def land(_signed: SignedManifest, _raw: bytes | None, index: Index) -> MemoryLanding:
            self.landing.index = index
            return self.landing

        await self.fetch.run(land)


def fetcher(
    course: Course, host: Any, peers: list[Remote], kept: dict[int, bytes] | None = None, **options: Any
) -> Fetcher:
    async def candidates(offer: Callable[[Remote], Awaitable[None]]) -> None:
        for peer in list(peers):
            await trio.lowlevel.checkpoint()
            await offer(peer)

    fetch = Fetch(course.hash, candidates, signed=None, index=None, roll=random.Random(5).randrange, **options)
    return Fetcher(course, host, peers, MemoryLanding(course.index, kept), fetch)


@asynccontextmanager
async def network(course: Course, *conversations: Conversation, **options: Any) -> AsyncIterator[Fetcher]:
    """A fetcher and a provider for each conversation, all running."""
    async with AsyncExitStack() as stack:
        infos = [await stack.enter_async_context(provider(each)) for each in conversations]
        host = make_host()
        guard_streams(host, Standing())
        await stack.enter_async_context(host.run([LOOPBACK]))
        yield fetcher(course, host, [Remote(host, info) for info in infos], **options)
