"""Hostile and unlucky providers by name: each answers a chunk stream in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import trio
from courses import Course, MemoryShelf, make_course

from p2plearn.transfer import protocol
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.protocol import (
    Cancel,
    Chunk,
    Have,
    HaveMore,
    IndexPart,
    ManifestIs,
    Message,
    Missing,
    Open,
    Want,
    WantIndex,
)


@dataclass
class Adversary:
    """Says what an honest provider would; each kind below departs from it in one place."""

    course: Course
    gave: list[int] = field(default_factory=list)
    conversations: int = 0

    async def __call__(self, channel: Channel) -> None:
        self.conversations += 1
        while True:
            for message in await channel.receive():
                await self.hear(channel, message)

    async def hear(self, channel: Channel, message: Message) -> None:
        match message:
            case Open(_, want_manifest):
                if want_manifest:
                    await channel.send(self.manifest())
                await channel.send(self.have())
            case WantIndex(first, count):
                for part in range(first, first + count):
                    await channel.send(self.index_part(part))
            case Want(ranges):
                for first, count in ranges:
                    for slot in range(first, first + count):
                        await self.give(channel, slot)
            case Cancel():
                pass

    def manifest(self) -> Message:
        return ManifestIs(self.course.signed.signature, self.course.signed.raw)

    def have(self) -> Message:
        return Have(len(self.course.chunks), MemoryShelf.full(self.course).have)

    def index_part(self, part: int) -> IndexPart:
        raw = MemoryShelf.full(self.course).index_part(part)
        assert raw is not None
        return IndexPart(part, raw)

    async def give(self, channel: Channel, slot: int) -> None:
        self.gave.append(slot)
        body = self.body(slot)
        await channel.send(Chunk(slot, (memoryview(body),), len(body)))

    def body(self, slot: int) -> bytes:
        return self.course.chunks[slot]


class Liar(Adversary):
    """Right lengths, wrong bytes."""

    def body(self, slot: int) -> bytes:
        right = super().body(slot)
        return right[:-1] + bytes([right[-1] ^ 1])


class HitAndRun(Liar):
    """One wrong chunk, then it hangs up before anybody can have looked at it."""

    async def give(self, channel: Channel, slot: int) -> None:
        await super().give(channel, slot)
        await channel.close()


class Silent(Adversary):
    """Never says a word."""

    async def hear(self, channel: Channel, message: Message) -> None:
        pass


class IndexStaller(Adversary):
    """Says what it has, and never what it is made of."""

    async def hear(self, channel: Channel, message: Message) -> None:
        if not isinstance(message, WantIndex):
            await super().hear(channel, message)


class Staller(Adversary):
    """Promises everything, gives nothing."""

    async def give(self, channel: Channel, slot: int) -> None:
        self.gave.append(slot)
        await trio.sleep_forever()


class Dripper(Adversary):
    """Begins a chunk and sends a byte of it now and then."""

    async def give(self, channel: Channel, slot: int) -> None:
        self.gave.append(slot)
        body = self.body(slot)
        await channel.send_pieces([protocol.chunk_header(slot, len(body))])
        for at in range(len(body)):
            await channel.send_pieces([body[at : at + 1]])
            await trio.sleep(0.05)


class Babbler(Adversary):
    """Has news all the time, and nothing else to say."""

    async def hear(self, channel: Channel, message: Message) -> None:
        if isinstance(message, Open):
            await super().hear(channel, message)
            while True:
                await channel.send(HaveMore(((0, len(self.course.chunks)),)))
                await trio.sleep(0.001)


class LateBabbler(Adversary):
    """Gives the index, then has only news."""

    async def give(self, channel: Channel, slot: int) -> None:
        self.gave.append(slot)
        while True:
            await channel.send(HaveMore(((0, len(self.course.chunks)),)))
            await trio.sleep(0.01)


class Repeater(Adversary):
    """Sends its manifest again and again."""

    async def hear(self, channel: Channel, message: Message) -> None:
        while True:
            await channel.send(self.manifest())


class Denier(Adversary):
    """Says that it has everything, and when asked that it has not, and then that it has."""

    async def give(self, channel: Channel, slot: int) -> None:
        self.gave.append(slot)
        await channel.send(Missing(((slot, 1),)), HaveMore(((slot, 1),)))


class HalfGiver(Adversary):
    """Gives ``most`` chunks and dies."""

    most = 15

    async def give(self, channel: Channel, slot: int) -> None:
        if len(self.gave) >= self.most:
            await channel.reset()
        await super().give(channel, slot)


class Slow(Adversary):
    """Honest, and slow."""

    pause = 0.05

    async def give(self, channel: Channel, slot: int) -> None:
        await trio.sleep(self.pause)
        await super().give(channel, slot)


class WrongManifest(Adversary):
    """Another course's manifest, soundly signed."""

    def manifest(self) -> Message:
        other = make_course(4, 100, seed=99).signed
        return ManifestIs(other.signature, other.raw)


class ForgedSignature(Adversary):
    """The right manifest under a signature that isn't its author's."""

    def manifest(self) -> Message:
        return ManifestIs(bytes(64), self.course.signed.raw)


class WrongIndex(Adversary):
    """An index with a bit flipped."""

    def index_part(self, part: int) -> IndexPart:
        right = super().index_part(part)
        return replace(right, raw=right.raw[:-1] + bytes([right.raw[-1] ^ 1]))


class WrongBitmap(Adversary):
    """A bitmap of another course."""

    def have(self) -> Message:
        return Have(3, b"\xe0")


class Pusher(Adversary):
    """Chunks that nobody asked for."""

    async def give(self, channel: Channel, slot: int) -> None:
        await super().give(channel, slot)
        await super().give(channel, slot)


class WrongLength(Adversary):
    """A byte more than the index says."""

    def body(self, slot: int) -> bytes:
        return super().body(slot) + b"x"


class Garbler(Adversary):
    """Random bytes for an answer."""

    async def hear(self, channel: Channel, message: Message) -> None:
        await channel.send_pieces([b"\xff" * 1000])


class Echo(Adversary):
    """Sends back what only a fetcher may say."""

    async def hear(self, channel: Channel, message: Message) -> None:
        await channel.send(message)


class CutShort(Adversary):
    """Ends its stream in the middle of a chunk."""

    async def give(self, channel: Channel, slot: int) -> None:
        body = self.body(slot)
        await channel.send_pieces([protocol.chunk_header(slot, len(body)), body[: len(body) // 2]])
        await channel.close()
        await trio.sleep_forever()
