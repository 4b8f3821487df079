"""Fetching and serving end to end, over real hosts on loopback."""

from __future__ import annotations

import pytest
import trio
from courses import Course, MemoryShelf, Remote, fetcher, make_course, network

from p2plearn.errors import NobodyHasIt, NoSpace, PeerFault
from p2plearn.transfer import fetch, participants, scheduler, serve, session
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.fetch import FetchLimits
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
from p2plearn.transfer.serve import ChunkService

COURSE = make_course(60, 30_000, seed=2, twins=7)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    for module in (fetch, session):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(scheduler, "DROP_SECONDS", 4.0)
    monkeypatch.setattr(participants, "LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(fetch, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(serve, "NEWS_SECONDS", 0.02)


class Provider:
    """An honest provider of what is on ``shelf``."""

    def __init__(self, shelf: MemoryShelf | None, max_streams: int = 16) -> None:
        self.shelf = shelf
        self.service = ChunkService(self._find, max_streams=max_streams)
        self.faults: list[PeerFault] = []

    async def _find(self, wanted: bytes) -> MemoryShelf | None:
        return self.shelf if self.shelf is not None and wanted == self.shelf.course.hash else None

    async def __call__(self, channel: Channel) -> None:
        try:
            await self.service.serve(channel)
        except PeerFault as fault:
            self.faults.append(fault)
            raise


def full(course: Course = COURSE) -> Provider:
    return Provider(MemoryShelf.full(course))


async def test_from_one_provider_each_chunk_once():
    one = full()
    async with network(COURSE, one) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks[slot] for slot in range(60))
        assert node.landing.committed
        assert len(one.shelf.reads) == 53  # twins come once
        assert node.fetch.signed == COURSE.signed
        assert node.fetch.index_raw is None  # the landing has it
        assert node.fetch.standing.verified_bytes == node.fetch.standing.wanted_bytes
        assert not one.faults
        assert not node.peers[0].faults
        with trio.fail_after(5):
            while one.service.upload.streams:
                await trio.sleep(0.01)


async def test_from_several_providers_all_take_part_and_little_comes_twice():
    course = make_course(120, 200_000, seed=3)
    providers = [full(course) for _ in range(4)]
    async with network(course, *providers) as node:
        with trio.fail_after(30):
            await node.run()
        assert node.landing.content() == b"".join(course.chunks)
        assert node.landing.good == 120
        assert node.landing.bad == 0
        assert sum(len(each.shelf.reads) for each in providers) <= 120 + 30


async def test_in_order():
    course = make_course(100, 100_000, seed=3)
    one = full(course)
    async with network(course, one, in_order=True) as node:
        await node.run()
        assert one.shelf.reads == list(range(100))


async def test_a_course_with_nothing_in_it():
    course = make_course(0)
    async with network(course, full(course)) as node:
        with trio.fail_after(10):
            await node.run()
        assert node.landing.committed


async def test_only_the_manifest_and_the_index():
    async with network(COURSE, full()) as node:
        with trio.fail_after(10):
            await node.fetch.run(None)
        assert node.fetch.index == COURSE.index
        assert not node.landing.chunks


async def test_what_is_here_already_is_not_asked_for_again():
    one = full()
    kept = {slot: COURSE.chunks[slot] for slot in range(0, 50, 2)}
    async with network(COURSE, one, kept=kept) as node:
        await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not {bytes(COURSE.chunks[slot]) for slot in one.shelf.reads} & set(kept.values())
    everything = {slot: COURSE.chunks[slot] for slot in range(60)}
    async with network(COURSE, one, kept=everything) as node:
        one.shelf.reads.clear()
        await node.run()
        assert not one.shelf.reads


async def test_cancelled_and_taken_up_again_nothing_is_lost_or_fetched_twice():
    class Paced(MemoryShelf):
        def read_many(self, slots):
            trio.from_thread.run(trio.sleep, 0.05)
            return super().read_many(slots)

    course = make_course(80, 300_000, seed=6)
    one = Provider(Paced(course, set(range(80))))
    async with network(course, one) as node:
        with trio.move_on_after(60) as scope, trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run)
                while len(node.landing.chunks) < 20:
                    await trio.sleep(0.005)
                scope.cancel()
        first = dict(node.landing.chunks)
        assert 20 <= len(first) < 80
        assert not node.landing.committed
        again = fetcher(course, node.host, node.peers, kept=first)
        with trio.fail_after(20):
            await again.run()
        assert again.landing.content() == b"".join(course.chunks)
        assert again.landing.good == 80 - len(first)
        with trio.fail_after(5):
            while one.service.upload.streams:
                await trio.sleep(0.01)
        assert not one.faults
        assert not node.peers[0].faults


async def test_a_provider_that_lacks_what_it_promised_says_so_and_another_brings_it():
    broken = Provider(MemoryShelf(COURSE, set(range(60)), damaged=set(range(0, 60, 3))))
    async with network(COURSE, broken, full()) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not node.peers[0].faults


async def test_two_halves_make_a_whole():
    left, right = (Provider(MemoryShelf(COURSE, held)) for held in (set(range(35)), set(range(25, 60))))
    async with network(COURSE, left, right) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not node.peers[0].faults + node.peers[1].faults


async def test_parts_that_do_not_make_a_whole_are_said_to_be_parts(monkeypatch):
    monkeypatch.setattr(participants, "PATIENCE_SECONDS", 0.3)
    part = Provider(MemoryShelf(COURSE, set(range(35))))
    async with network(COURSE, part) as node:
        with pytest.raises(NobodyHasIt, match="don't have all of it between them"), trio.fail_after(20):
            await node.run()
        assert len(node.landing.chunks) == 35


async def test_providers_that_are_fetching_themselves_are_waited_for():
    """Their news are written between chunks, never into one."""
    course = make_course(90, 200_000, seed=8)
    shelves = [MemoryShelf(course, set()), MemoryShelf(course, set())]

    async def grow() -> None:
        for slot in range(90):
            await trio.sleep(0.01)
            shelves[slot % 2].held.add(slot)
            shelves[slot % 2].held.add((slot * 7) % 90)

    providers = [Provider(shelf) for shelf in shelves]
    async with network(course, *providers) as node, trio.open_nursery() as nursery:
        nursery.start_soon(grow)
        with trio.fail_after(30):
            await node.run()
        assert node.landing.content() == b"".join(course.chunks)
        assert not node.peers[0].faults + node.peers[1].faults
        assert not providers[0].faults + providers[1].faults


async def test_busy_is_waited_out():
    crowded = Provider(MemoryShelf.full(COURSE), max_streams=0)

    async def relax() -> None:
        await trio.sleep(0.3)
        crowded.service._max_streams = 4

    async with network(COURSE, crowded) as node, trio.open_nursery() as nursery:
        nursery.start_soon(relax)
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert node.peers[0].dialled == 2
        assert not node.peers[0].faults


async def test_who_is_busy_for_ever_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(participants, "BUSY_SECONDS", 1.0)
    monkeypatch.setattr(participants, "LOOK_AGAIN_SECONDS", 0.1)
    async with network(COURSE, Provider(MemoryShelf.full(COURSE), max_streams=0)) as node:
        with pytest.raises(NobodyHasIt, match="1 busy for now"), trio.fail_after(60):
            await node.run()
        assert not node.peers[0].faults


async def test_nobody_has_it_says_how_many_were_found_and_how_it_went():
    async with network(COURSE, Provider(None), full(make_course(3, seed=77))) as node:
        gone = node.peers[0].info
        with pytest.raises(NobodyHasIt, match="2 providers found, 2 no longer have it"), trio.fail_after(20):
            await node.run()
    async with network(COURSE) as node:
        with pytest.raises(NobodyHasIt, match="0 providers found"), trio.fail_after(20):
            await node.run()
        node.peers.append(Remote(node.host, gone))
        again = fetcher(COURSE, node.host, node.peers)
        with pytest.raises(NobodyHasIt, match="1 provider found, 1 unreachable"), trio.fail_after(20):
            await again.run()


async def test_a_provider_that_moved_is_looked_up_again_until_it_is_found_and_the_person_is_told(monkeypatch):
    monkeypatch.setattr(participants, "LOOKUPS", 1)  # without hope it is over at once
    monkeypatch.setattr(participants, "MOVED_EVERY", 0.05)
    said = set()
    async with network(COURSE, full()) as node:
        node.peers[0].away_for = 4

        async def listen() -> None:
            while True:
                said.add(node.fetch.standing.waiting_for)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with trio.fail_after(60):
                await node.run()
            nursery.cancel_scope.cancel()
        assert node.peers[0].dialled == 5
        assert node.landing.committed
    looking = "a provider (1 provider found, 1 unreachable; it may be at another address by now: looking it up again)"
    assert looking in said


async def test_a_provider_that_moved_for_good_is_not_looked_up_for_ever(monkeypatch):
    monkeypatch.setattr(participants, "MOVED_SECONDS", 1.0)
    monkeypatch.setattr(participants, "MOVED_EVERY", 0.2)
    async with network(COURSE, full()) as node:
        node.peers[0].away_for = 1_000_000
        with pytest.raises(NobodyHasIt, match="1 provider found, 1 unreachable"), trio.fail_after(60):
            await node.run()
        assert node.peers[0].dialled > 2


async def test_a_peer_that_comes_late_is_found():
    async with network(COURSE, full()) as node:
        late = node.peers.pop()

        async def appear() -> None:
            await trio.sleep(0.15)
            node.peers.append(late)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(appear)
            with trio.fail_after(20):
                await node.run()
        assert node.landing.committed


async def test_no_space_ends_the_fetch_as_such():
    async with network(COURSE, full()) as node:

        async def land(*_args):
            raise NoSpace("the disk is full", "free some")

        with pytest.raises(NoSpace), trio.fail_after(10):
            await node.fetch.run(land)


async def test_a_slow_disk_is_nobodys_fault(monkeypatch):
    monkeypatch.setattr(fetch, "WRITE_BATCH", 100_000)
    monkeypatch.setattr(scheduler, "DROP_SECONDS", 0.3)
    course = make_course(30, 200_000, seed=9)
    async with network(course, full(course), limits=FetchLimits(pending=100_000, silence=0.2)) as node:
        put = node.landing.put_many
        stalls = iter([0.6])

        def put_slowly(chunks):
            trio.from_thread.run(trio.sleep, next(stalls, 0))
            return put(chunks)

        node.landing.put_many = put_slowly
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(course.chunks)
        assert node.peers[0].dialled == 1


async def test_peers_asked_on_the_off_chance_are_counted_only_when_they_have_it():
    async with network(COURSE, Provider(None), full()) as node:
        for peer in node.peers:
            peer.guess = True
        with trio.fail_after(20):
            await node.run()
        assert node.fetch.tally.found == {node.peers[1].name}
        assert not node.fetch.tally.not_here


# -- the serving end, spoken to by hand ----------------------------------------------------------------------------


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


@pytest.mark.parametrize("early", [True, False], ids=["before it has begun", "later"])
async def test_who_asks_for_the_course_is_asked_for_it_too(early):
    one, other = Provider(MemoryShelf(COURSE, set(range(30)))), Provider(MemoryShelf(COURSE, set(range(20, 60))))
    async with network(COURSE, one, other) as node:
        caller = node.peers.pop()
        async with trio.open_nursery() as nursery:
            if early:
                node.fetch.called_by(caller)
            nursery.start_soon(node.run)
            with trio.fail_after(60):
                await node.fetch.begun.wait()
                if not early:
                    node.fetch.called_by(caller)
        assert node.landing.content() == b"".join(COURSE.chunks[slot] for slot in range(60))
    assert node.fetch.tally.gave == {node.peers[0].name, caller.name}


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
