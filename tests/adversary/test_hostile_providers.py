"""A fetch among hostile providers: the right bytes or the right error, and the blame where it belongs."""

from __future__ import annotations

import courses
import pytest
import trio
from courses import Course, MemoryShelf, make_course
from providers import on_few_cores_and_on_many

from adversary import peers
from p2plearn.errors import IntegrityProblem, NobodyHasIt, PeerFault
from p2plearn.transfer import fetch, participants, reliance, scheduler, session
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.fetch import FetchLimits
from p2plearn.transfer.reliance import WRONG, Reliance
from p2plearn.transfer.serve import ChunkService

__all__ = ["on_few_cores_and_on_many"]

COURSE = make_course()

FAULTY = (
    peers.Liar,
    peers.HitAndRun,
    peers.Silent,
    peers.IndexStaller,
    peers.Babbler,
    peers.Repeater,
    peers.WrongManifest,
    peers.ForgedSignature,
    peers.WrongIndex,
    peers.WrongBitmap,
    peers.WrongLength,
    peers.Pusher,
    peers.Garbler,
    peers.Echo,
    peers.CutShort,
)
"""What they do can't be an accident: they are blamed, and not dialled again."""

USELESS = (peers.Staller, peers.Dripper, peers.LateBabbler, peers.Denier)
"""What they do could be a bad line: they are given up."""

HALF_HONEST = (peers.Pusher, peers.WrongManifest, peers.ForgedSignature)
"""Their chunks are right, and they may get to sending some before their fault shows."""


def honest(course: Course = COURSE) -> tuple[MemoryShelf, object]:
    shelf = MemoryShelf.full(course)

    async def find(wanted: bytes) -> MemoryShelf | None:
        return shelf if wanted == course.hash else None

    service = ChunkService(find, max_streams=16)

    async def converse(channel: Channel) -> None:
        await service.serve(channel)

    return shelf, converse


def network(course, *conversations, limits=FetchLimits(silence=0.8), **options):  # noqa: B008
    return courses.network(course, *conversations, limits=limits, **options)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    """The waits of a test: long enough for a busy machine, short enough for a person."""
    for module in (fetch, session):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 1.5)
    monkeypatch.setattr(scheduler, "DROP_SECONDS", 1.5)
    monkeypatch.setattr(scheduler, "STUCK_SECONDS", 1.5)
    monkeypatch.setattr(participants, "LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(participants, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(fetch, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(participants, "TRIES", 1)


@pytest.mark.parametrize("kind", FAULTY, ids=lambda kind: kind.__name__)
async def test_a_faulty_peer_alone_is_an_integrity_problem_and_is_blamed(kind):
    adversary = kind(COURSE)
    async with network(COURSE, adversary) as node:
        with pytest.raises(IntegrityProblem), trio.fail_after(20):
            await node.run()
        assert node.peers[0].faults
        assert adversary.conversations == 1
        assert bool(node.peers[0].poisoned) is (kind in (peers.Liar, peers.HitAndRun))
        assert not node.landing.committed


@pytest.mark.parametrize("kind", USELESS, ids=lambda kind: kind.__name__)
async def test_a_useless_peer_alone_ends_in_nobody_has_it(kind):
    adversary = kind(COURSE)
    async with network(COURSE, adversary) as node:
        with pytest.raises(NobodyHasIt, match="1 provider found"), trio.fail_after(20):
            await node.run()
        assert not node.landing.committed


@pytest.mark.parametrize("kind", FAULTY + USELESS, ids=lambda kind: kind.__name__)
async def test_beside_an_honest_peer_every_byte_is_right_and_the_honest_is_not_blamed(kind):
    _, good = honest()
    async with network(COURSE, kind(COURSE), good, kind(COURSE)) as node:
        with trio.fail_after(30):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert node.landing.committed
        assert not node.peers[1].faults
        assert node.peers[1].dialled == 1
        if kind not in HALF_HONEST:
            assert node.fetch.tally.gave == {node.peers[1].name}


async def test_two_babblers_first_do_not_keep_the_index_from_the_honest():
    _, good = honest()
    async with network(COURSE, *[peers.Babbler(COURSE) for _ in range(3)], good) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)


@pytest.mark.parametrize("kind", [peers.Silent, peers.Staller, peers.Dripper, peers.LateBabbler])
async def test_who_kept_one_get_waiting_is_not_asked_by_the_next_while_others_have_it(kind, monkeypatch):
    monkeypatch.setattr(reliance, "KEPT_WAITING_SECONDS", 0.1)
    adversary, memory = kind(COURSE), Reliance()
    _, serve = honest()

    async def good(channel: Channel) -> None:
        while not (adversary.gave or (kind is peers.Silent and adversary.conversations)):
            await trio.sleep(0.01)
        await trio.sleep(0.3)  # so long at least it owes what it was asked for
        await serve(channel)

    async with network(COURSE, adversary, good, reliance=memory) as node:
        with trio.fail_after(60):
            await node.run()
        assert memory.doubted(node.peers[0].name, trio.current_time())
        assert not memory.doubted(node.peers[1].name, trio.current_time())
        again = courses.fetcher(COURSE, node.host, node.peers, reliance=memory)
        with trio.fail_after(60):
            await again.run()
        assert again.landing.content() == b"".join(COURSE.chunks)
        assert [peer.dialled for peer in node.peers] == [1, 2]


async def test_who_is_doubted_is_asked_when_nobody_else_has_it():
    memory = Reliance()
    _, good = honest()
    async with network(COURSE, good, reliance=memory) as node:
        memory.failed(node.peers[0].name, WRONG, trio.current_time())
        with trio.fail_after(60):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not memory.doubted(node.peers[0].name, trio.current_time())


async def test_who_is_doubted_and_named_by_the_person_is_asked_first_all_the_same():
    memory = Reliance()
    _, good = honest()
    _, other = honest()
    async with network(COURSE, good, other, reliance=memory, limits=FetchLimits(peers=1)) as node:
        for peer in node.peers:
            memory.failed(peer.name, WRONG, trio.current_time())
        node.peers[1].named = True
        with trio.fail_after(60):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert [peer.dialled for peer in node.peers] == [0, 1]


async def test_a_course_of_one_chunk_from_a_liar_is_an_integrity_problem():
    course = make_course(1, 3000, seed=4)
    async with network(course, peers.Liar(course)) as node:
        with pytest.raises(IntegrityProblem), trio.fail_after(10):
            await node.run()


async def test_eight_useless_peers_make_room_for_the_ninth(monkeypatch):
    monkeypatch.setattr(participants, "IDLE_SECONDS", 0.2)
    shelf = MemoryShelf(COURSE, set())

    async def find(_wanted: bytes) -> MemoryShelf:
        return shelf

    service = ChunkService(find, max_streams=16)
    _, good = honest()
    async with network(COURSE, *[service.serve] * 3, good, limits=FetchLimits(peers=3)) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not any(peer.faults for peer in node.peers)


async def test_a_half_giver_then_another_and_nothing_is_fetched_twice():
    _, good = honest()
    half = peers.HalfGiver(COURSE)
    async with network(COURSE, half, good) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert node.landing.good == len(COURSE.chunks)


async def test_half_givers_that_come_back_bring_it_in_the_end():
    """Each conversation moves it on, so no number of them is too many."""

    class Fickle(peers.HalfGiver):
        async def __call__(self, channel: Channel) -> None:
            self.gave = []
            await super().__call__(channel)

        async def give(self, channel: Channel, slot: int) -> None:
            if len(self.gave) >= self.most:
                await trio.sleep(0.5)  # what it gave is read by then: a reset drops what isn't
            await super().give(channel, slot)

    async with network(COURSE, Fickle(COURSE)) as node:
        with trio.fail_after(60):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert node.peers[0].dialled >= 3
        assert not node.peers[0].faults


async def test_a_slow_peer_beside_a_quick_one_keeps_nobody_waiting():
    class Snail(peers.Slow):
        pause = 3.0

    _, good = honest()
    async with network(COURSE, Snail(COURSE), good) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not node.peers[0].faults


async def test_a_slow_peer_alone_brings_it():
    course = make_course(12)
    async with network(course, peers.Slow(course)) as node:
        with trio.fail_after(20):
            await node.run()
        assert node.landing.content() == b"".join(course.chunks)


def test_faults_and_ours_are_two_families():
    assert not issubclass(PeerFault, IntegrityProblem | NobodyHasIt)


async def test_what_came_before_says_nothing_of_who_brings_nothing_now(monkeypatch):
    """The bytes of whole chunks counted as if more were on its way: for a minute nobody else was asked sooner."""
    monkeypatch.setattr(scheduler, "STUCK_SECONDS", 60.0)

    class Fader(peers.HalfGiver):
        most = 2

        async def give(self, channel: Channel, slot: int) -> None:
            if len(self.gave) >= self.most:
                await trio.sleep_forever()
            await super().give(channel, slot)

    course = make_course(12, 200_000, seed=8)
    async with network(course, Fader(course), limits=FetchLimits()) as node, trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        with trio.fail_after(7):  # by then it would be parted with for its silence
            while node.landing.good < 2:
                await trio.sleep(0.01)
            scheduled = node.fetch.scheduler
            assert scheduled is not None
            while scheduled.dry_for(trio.current_time()) < 0.5:
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
