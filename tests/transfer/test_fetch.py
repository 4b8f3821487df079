"""Fetching end to end, over real hosts on loopback."""

from __future__ import annotations

import pytest
import trio
from courses import MemoryShelf, Remote, fetcher, make_course, network
from providers import COURSE, Provider, full, in_a_hurry, on_few_cores_and_on_many

from p2plearn.errors import NobodyHasIt, NoSpace
from p2plearn.transfer import fetch, participants, scheduler
from p2plearn.transfer.fetch import FetchLimits

__all__ = ["in_a_hurry", "on_few_cores_and_on_many"]


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
    monkeypatch.setattr(participants, "LOOKUPS", 3)  # fewer than it is away for: without hope it would be over
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
    hope = "it may answer in a moment, or be at another address: looking it up again"
    looking = f"a provider (1 provider found, 1 unreachable; {hope})"
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
        put = node.landing.put_verified
        stalls = iter([0.6])

        def put_slowly(chunks):
            trio.from_thread.run(trio.sleep, next(stalls, 0))
            put(chunks)

        node.landing.put_verified = put_slowly
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


async def test_it_flows_while_several_take_part_who_have_what_is_lacking():
    async def nobody(_offer):
        return

    one = fetch.Fetch(COURSE.hash, nobody, signed=None, index=None, roll=lambda count: 0)
    assert not one.flows
    for bitmap, flows in ((b"\xff", True), (b"\x00", False)):
        one.scheduler = scheduler.Scheduler(range(8), 8, lambda _slot: 100, lambda _count: 0)
        one.scheduler.joined("a", bitmap, 0.0)
        assert not one.flows
        one.scheduler.joined("b", bitmap, 0.0)
        assert one.flows is flows
