"""The serving end of a fetch, spoken to by hand."""

from __future__ import annotations

import pytest
import trio
from courses import MemoryShelf, make_course
from providers import COURSE, Provider, full, in_a_hurry

from p2plearn.errors import PeerFault
from p2plearn.transfer import serve
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.protocol import (
    FROM_FETCHER,
    FROM_SERVER,
    MAX_RANGES,
    Busy,
    Cancel,
    Chunk,
    Decoder,
    Have,
    HaveMore,
    IndexPart,
    ManifestIs,
    Message,
    Missing,
    NotHere,
    Open,
    Want,
    WantIndex,
    encode,
)

__all__ = ["in_a_hurry"]


class Loop:
    """A channel's stream in memory; what the service says is decoded by the test."""

    def __init__(self) -> None:
        self.to_service, self._incoming = trio.open_memory_channel[bytes](1000)
        self.said: list[bytes] = []
        self.reading = trio.Event()
        self.reading.set()
        self.closed = False

    async def read(self, _n: int) -> bytes:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            return b""

    async def write(self, data: bytes) -> None:
        await self.reading.wait()
        await trio.lowlevel.checkpoint()
        self.said.append(data)

    async def close(self) -> None:
        self.closed = True

    async def reset(self) -> None:
        self.closed = True

    def say(self, *messages: Message) -> None:
        self.to_service.send_nowait(b"".join(map(encode, messages)))

    def heard(self) -> list[Message]:
        return list(Decoder(FROM_SERVER).feed(b"".join(self.said)))


async def converse(provider: Provider, *messages: Message, then: float = 0.2) -> list[Message]:
    """What the provider answers; raises its PeerFault."""
    loop = Loop()
    loop.say(*messages)
    with trio.move_on_after(then):
        await provider.service.serve(Channel(loop, FROM_FETCHER))
    return loop.heard()


OPEN = Open(COURSE.hash, True)


async def test_an_honest_conversation():
    manifest, have, part, *chunks = await converse(full(), OPEN, WantIndex(0, 1), Want(((3, 2), (0, 1))))
    assert manifest == ManifestIs(COURSE.signed.signature, COURSE.signed.raw)
    assert have == Have(60, MemoryShelf.full(COURSE).have)
    assert part == IndexPart(0, COURSE.index_raw)
    assert [(c.slot, b"".join(c.pieces)) for c in chunks] == [(s, COURSE.chunks[s]) for s in (3, 4, 0)]


async def test_an_unknown_course_and_a_full_house():
    assert await converse(full(), Open(bytes(32), True)) == [NotHere()]
    assert await converse(Provider(MemoryShelf.full(COURSE), max_streams=0), OPEN) == [Busy(2.0)]


async def test_what_is_not_there_is_said_to_be_missing():
    shelf = MemoryShelf(COURSE, set(range(60)), damaged={4, 5})
    *_, chunk, missing = await converse(Provider(shelf), OPEN, Want(((3, 3),)))
    assert isinstance(chunk, Chunk)
    assert missing == Missing(((4, 2),))


async def test_news_are_told():
    shelf = MemoryShelf(COURSE, {1, 2})
    loop = Loop()
    loop.say(Open(COURSE.hash, False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Provider(shelf).service.serve, Channel(loop, FROM_FETCHER))
        with trio.fail_after(5):
            while not loop.said:
                await trio.sleep(0.01)
            shelf.held |= {3, 4, 30}
            while HaveMore(((3, 2), (30, 1))) not in loop.heard():
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_much_news_is_told_at_once(monkeypatch):
    monkeypatch.setattr(serve, "NEWS_SECONDS", 1000.0)
    monkeypatch.setattr(serve, "PROMPT_BYTES", len(COURSE.chunks[3]) + len(COURSE.chunks[30]))
    shelf, loop, called = MemoryShelf(COURSE, {1, 2}), Loop(), []
    loop.say(Open(COURSE.hash, False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Provider(shelf).service.serve, Channel(loop, FROM_FETCHER), called.append)
        with trio.fail_after(60):
            while not loop.said:
                await trio.sleep(0.01)
            shelf.held |= {3}
            await trio.sleep(3 * serve.PROMPT_SECONDS)
            shelf.held |= {30}
            while not any(isinstance(message, HaveMore) for message in loop.heard()):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert HaveMore(((3, 1), (30, 1))) in loop.heard()
    assert called == [COURSE.hash]


async def test_news_are_never_written_into_a_chunk(monkeypatch):
    """Both want to write all the time, on a line that takes a piece at a time."""
    monkeypatch.setattr(serve, "NEWS_SECONDS", 0.001)
    shelf, loop = MemoryShelf(COURSE, set(range(0, 60, 2))), Loop()
    write = loop.write

    async def write_slowly(data: bytes) -> None:
        await trio.sleep(0.002)
        await write(data)

    loop.write = write_slowly
    loop.say(Open(COURSE.hash, False), Want(tuple((slot, 1) for slot in range(0, 60, 2))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Provider(shelf).service.serve, Channel(loop, FROM_FETCHER))
        with trio.fail_after(60):
            while not loop.said:  # it has said what it had
                await trio.sleep(0.001)
        for slot in range(1, 60, 2):
            await trio.sleep(0.005)
            shelf.held.add(slot)
        with trio.fail_after(60):
            while not any(isinstance(message, HaveMore) for message in loop.heard()):
                await trio.sleep(0.02)
            while sum(isinstance(message, Chunk) for message in loop.heard()) < 30:
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    heard = loop.heard()
    assert any(isinstance(message, HaveMore) for message in heard)
    for message in heard:
        if isinstance(message, Chunk):
            assert b"".join(message.pieces) == COURSE.chunks[message.slot]


@pytest.mark.parametrize(
    "messages",
    [
        [Want(((0, 1),))],  # before OPEN
        [OPEN, OPEN],
        [OPEN, Want(((59, 2),))],  # beyond the course
        [OPEN, WantIndex(1, 1)],  # beyond the index
        [OPEN, WantIndex(0, 257)],
        [OPEN, Cancel(((0, 1 << 23),))],  # more than anybody can have asked for
    ],
    ids=str,
)
async def test_what_breaks_the_protocol(messages):
    with pytest.raises(PeerFault):
        await converse(full(), *messages, then=5)


async def test_wanting_the_same_again_is_not_more_work_and_more_than_makes_sense_is_a_fault(monkeypatch):
    course = make_course(300, 100, seed=5)
    provider, many = Provider(MemoryShelf.full(course)), Want(((0, 300),))
    heard = await converse(provider, Open(course.hash, False), *[many] * 20)
    assert sum(isinstance(message, Chunk) for message in heard) == 300
    monkeypatch.setattr(serve, "MAX_QUEUED", 200)
    with pytest.raises(PeerFault, match="at once"):
        await converse(provider, Open(course.hash, False), many, then=5)


async def test_taken_back_and_wanted_again_comes_once():
    loop = Loop()
    loop.reading = trio.Event()  # the peer isn't reading yet: nothing goes out
    loop.say(Open(COURSE.hash, False), Want(((0, 60),)), Cancel(((5, 55),)), Want(((10, 1),)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full().service.serve, Channel(loop, FROM_FETCHER))
        await trio.sleep(0.05)
        loop.reading.set()
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    assert [m.slot for m in loop.heard() if isinstance(m, Chunk)] == [0, 1, 2, 3, 4, 10]


async def test_a_cancel_of_many_ranges_costs_little():
    """2,048 ranges against 16,000 slots were 33 million steps before their sum was bounded."""
    course = make_course(2000, 20, seed=5)
    provider = Provider(MemoryShelf.full(course))
    ranges = tuple((at % 1000, 8) for at in range(MAX_RANGES))
    with trio.fail_after(20):
        await converse(provider, Open(course.hash, False), *[Cancel(ranges)] * 20, then=0.1)


async def test_a_peer_that_says_nothing_is_cut(monkeypatch):
    monkeypatch.setattr(serve, "OPEN_SECONDS", 0.05)
    with pytest.raises(PeerFault, match="said nothing"):
        await full().service.serve(Channel(Loop(), FROM_FETCHER))


async def test_a_peer_that_asks_and_does_not_read_is_cut_and_one_that_reads_slowly_is_not(monkeypatch):
    monkeypatch.setattr(serve, "STALL_SECONDS", 0.15)
    loop = Loop()
    loop.say(Open(COURSE.hash, False), Want(((0, 60),)))
    async with trio.open_nursery() as nursery:
        outcome: list[PeerFault] = []

        async def serve_it() -> None:
            try:
                await full().service.serve(Channel(loop, FROM_FETCHER))
            except PeerFault as fault:
                outcome.append(fault)

        nursery.start_soon(serve_it)
        while len(loop.said) < 3:
            await trio.sleep(0.001)
        slow, write = 0, loop.write

        async def write_slowly(data: bytes) -> None:
            nonlocal slow
            slow += 1
            await trio.sleep(0.02)
            await write(data)

        loop.write = write_slowly
        await trio.sleep(0.5)
        assert not outcome
        loop.reading = trio.Event()
        loop.say(Want(((0, 60),)))
        with trio.fail_after(5):
            while not outcome:
                await trio.sleep(0.01)
        assert "doesn't read" in str(outcome[0])


async def test_a_conversation_in_which_nothing_is_wanted_is_closed(monkeypatch):
    monkeypatch.setattr(serve, "IDLE_SECONDS", 0.05)
    loop = Loop()
    loop.say(OPEN)
    with trio.fail_after(5):
        await full().service.serve(Channel(loop, FROM_FETCHER))
    assert loop.closed


async def test_a_peer_that_leaves_is_no_fault_and_its_place_is_free():
    loop, provider = Loop(), full()
    loop.say(OPEN, Want(((0, 60),)))
    loop.to_service.close()
    await provider.service.serve(Channel(loop, FROM_FETCHER))
    assert provider.service.upload.streams == 0
    assert loop.closed


async def test_a_stream_cut_within_a_message_is_a_fault():
    loop = Loop()
    loop.to_service.send_nowait(encode(OPEN)[:-3])
    loop.to_service.close()
    with pytest.raises(PeerFault, match="within a message"):
        await Channel(loop, FROM_FETCHER).receive()
    quiet = Loop()
    quiet.to_service.close()
    with pytest.raises(StreamOver):
        await Channel(quiet, FROM_FETCHER).receive()
