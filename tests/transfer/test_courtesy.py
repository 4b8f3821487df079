"""Manners between real hosts on loopback: rates, pauses, the cap, and what is counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio
from courses import MemoryShelf, make_course, network
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.config import KIB, MIB
from p2plearn.errors import NobodyHasIt, P2plearnError, PeerFault, Refused
from p2plearn.transfer import fetch, manners, participants
from p2plearn.transfer.channel import Channel, _slices
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.manners import Rules
from p2plearn.transfer.serve import ChunkService
from p2plearn.transfer.traffic import TrafficBook

COURSE = make_course(40, 80_000, seed=4)
SIZE = sum(map(len, COURSE.chunks))


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(fetch, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(participants, "LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(manners, "BUSY_SECONDS", 0.5)


def courtesy(folder: Path, rules: Rules | None = None, name: str = "traffic.json", **options) -> Courtesy:
    """Manners of a machine that says nothing about power and line, unless told."""
    options = {"battery": lambda: None, "metered": lambda: None, "networks": list} | options
    return Courtesy(rules or Rules(), TrafficBook.load(folder / name), **options)


class Polite:
    """An honest provider with manners."""

    def __init__(self, manners: Courtesy, course=COURSE) -> None:
        self.shelf = MemoryShelf.full(course)
        self.service = ChunkService(self._find, max_streams=16, courtesy=manners)
        self.faults: list[PeerFault] = []
        self.channels: list[Channel] = []

    async def _find(self, wanted: bytes) -> MemoryShelf | None:
        return self.shelf if wanted == self.shelf.course.hash else None

    async def __call__(self, channel: Channel) -> None:
        self.channels.append(channel)
        try:
            await self.service.serve(channel)
        except PeerFault as fault:
            self.faults.append(fault)
            raise


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 50))
def test_slices_are_the_same_bytes_a_few_at_a_time(pieces: list[bytes], size: int) -> None:
    slices = [b"".join(few) for few in _slices(pieces, size)]
    assert b"".join(slices) == b"".join(pieces)
    assert all(len(each) == size for each in slices[:-1])
    assert all(0 < len(each) <= size for each in slices[-1:])


async def test_without_rules_nobody_is_asked(tmp_path):
    polite = Polite(courtesy(tmp_path, Rules(upload=MIB, download=MIB, monthly_cap=1)))  # loopback is exempt
    async with network(COURSE, polite, courtesy=courtesy(tmp_path, Rules(download=MIB), "other.json")) as node:
        with trio.fail_after(10):
            await node.run()
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert all(channel.rules is None for channel in polite.channels)


@pytest.mark.parametrize("providers", [1, 3])
async def test_an_upload_limit_holds_over_all_peers_together(tmp_path, providers):
    # One node with one limit, at which the fetcher knocks under several names.
    limit = courtesy(tmp_path, Rules(upload=MIB, limit_lan=True))
    async with network(COURSE, *[Polite(limit) for _ in range(providers)]) as node:
        begun = trio.current_time()
        with trio.fail_after(30):
            await node.run()
        assert trio.current_time() - begun >= (SIZE / MIB - 0.25) * 0.8
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert not node.peers[0].faults


@pytest.mark.parametrize("providers", [1, 3])
async def test_a_download_limit_holds_over_all_peers_together(tmp_path, providers):
    polite = [Polite(courtesy(tmp_path, name=f"{at}.json")) for at in range(providers)]
    mine = courtesy(tmp_path, Rules(download=MIB, limit_lan=True))
    async with network(COURSE, *polite, courtesy=mine) as node:
        begun = trio.current_time()
        with trio.fail_after(30):
            await node.run()
        assert trio.current_time() - begun >= (SIZE / MIB - 0.25) * 0.8
        assert node.landing.content() == b"".join(COURSE.chunks)
        assert len(node.fetch.tally.gave) == providers
        assert not any(each.faults for each in polite)


async def test_two_gets_share_a_download_limit(tmp_path):
    mine = courtesy(tmp_path, Rules(download=MIB, limit_lan=True))
    ended: list[float] = []

    async def get() -> None:
        polite = Polite(courtesy(tmp_path, name=f"{len(ended)}.json"))
        async with network(COURSE, polite, courtesy=mine) as node:
            await node.run()
            assert node.landing.content() == b"".join(COURSE.chunks)
        ended.append(trio.current_time())

    begun = trio.current_time()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            nursery.start_soon(get)
    assert ended[1] - begun >= (2 * SIZE / MIB - 0.25) * 0.8
    assert ended[0] - begun >= 0.6 * (ended[1] - begun)  # neither had to wait for the other's end


async def test_chunks_larger_than_a_second_of_the_rate_pass(tmp_path):
    course = make_course(3, 200_000, seed=5)
    polite = Polite(courtesy(tmp_path, Rules(upload=128 * KIB, limit_lan=True)), course)
    async with network(course, polite, courtesy=courtesy(tmp_path, Rules(download=160 * KIB, limit_lan=True))) as node:
        with trio.fail_after(30):
            await node.run()
        assert node.landing.content() == b"".join(course.chunks)


async def test_a_provider_that_pauses_is_busy_and_goes_on_later(tmp_path):
    theirs = courtesy(tmp_path, Rules(upload=MIB, limit_lan=True))
    polite = Polite(theirs)
    async with network(COURSE, polite) as node, trio.open_nursery() as nursery:
        with trio.fail_after(30):
            nursery.start_soon(node.run)
            while not node.fetch.standing.verified_bytes:
                await trio.sleep(0.01)
            await theirs.pause(math.inf)
            while not node.fetch.tally.busy:
                await trio.sleep(0.01)
            kept = node.fetch.standing.verified_bytes
            await trio.sleep(1)  # it asks again meanwhile
            assert node.fetch.standing.verified_bytes <= kept + 200_000
            assert "1 busy for now" in node.fetch.standing.waiting_for
            await theirs.resume()
            while node.fetch.standing.verified_bytes < SIZE:
                await trio.sleep(0.05)
        assert len(polite.channels) > 2
        assert not polite.faults
        assert not node.peers[0].faults
        assert not node.fetch.tally.busy


async def test_a_paused_node_says_what_it_has_not(tmp_path):
    theirs = courtesy(tmp_path)
    await theirs.pause(math.inf)
    async with network(make_course(3, seed=77), Polite(theirs)) as node:
        with trio.fail_after(20), pytest.raises(NobodyHasIt, match="no longer has it"):
            await node.run()


async def test_a_pause_ends_by_itself(tmp_path):
    mine = courtesy(tmp_path)
    await mine.pause(0.7)
    assert mine.paused
    async with network(COURSE, Polite(courtesy(tmp_path, name="b.json")), courtesy=mine) as node:
        begun = trio.current_time()
        with trio.fail_after(10):
            await node.run()
        assert trio.current_time() - begun > 0.5


async def test_a_paused_get_says_so_asks_for_nothing_and_goes_on(tmp_path):
    mine = courtesy(tmp_path, Rules(download=MIB, limit_lan=True))
    polite = Polite(courtesy(tmp_path, name="b.json"))
    async with network(COURSE, polite, courtesy=mine) as node, trio.open_nursery() as nursery:
        with trio.fail_after(30):
            nursery.start_soon(node.run)
            while not node.fetch.standing.verified_bytes:
                await trio.sleep(0.01)
            await mine.pause(math.inf)
            await trio.sleep(0.5)
            read = len(polite.shelf.reads)
            await trio.sleep(1)
            assert len(polite.shelf.reads) == read < 40
            assert node.fetch.standing.waiting_for.startswith("paused")
            await mine.resume()
            while node.fetch.standing.verified_bytes < SIZE:
                await trio.sleep(0.05)


async def test_a_get_that_begins_paused_waits(tmp_path):
    mine = courtesy(tmp_path)
    await mine.pause(math.inf)
    polite = Polite(courtesy(tmp_path, name="b.json"))
    async with network(COURSE, polite, courtesy=mine) as node, trio.open_nursery() as nursery:
        with trio.fail_after(30):
            nursery.start_soon(node.run)
            await trio.sleep(0.5)
            assert node.fetch.standing.waiting_for.startswith("paused")
            assert not polite.channels
            await mine.resume()


async def test_a_pause_outlives_the_node(tmp_path):
    await courtesy(tmp_path).pause(math.inf)
    again = courtesy(tmp_path)
    assert again.paused
    assert again.figures()["manners"] == ["paused (`p2plearn node resume` goes on)"]
    await again.resume()
    assert not courtesy(tmp_path).paused


async def test_a_pause_that_can_not_be_written_is_an_error_in_words(tmp_path):
    mine = courtesy(tmp_path / "nowhere")
    with pytest.raises(P2plearnError, match="can't be written"):
        await mine.pause(math.inf)
    assert mine.paused


async def test_at_the_cap_nothing_is_fetched_and_what_came_is_kept(tmp_path):
    mine = courtesy(tmp_path, Rules(monthly_cap=MIB, limit_lan=True, download=2 * MIB))
    async with network(COURSE, Polite(courtesy(tmp_path, name="b.json")), courtesy=mine) as node:
        with (
            trio.fail_after(30),
            pytest.raises(Refused, match=r"monthly data cap of 1 MiB is used up until 20") as told,
        ):
            await node.run()
        assert "What was fetched is kept" in told.value.hint
        assert 0 < node.landing.good < 40
        assert mine.moved().lan_received >= MIB
        assert mine.figures()["manners"] == [
            "the monthly data cap is used up: nothing is served or fetched, on the LAN neither"
        ]
        assert mine.figures()["limits"]["cap_left"] == 0


async def test_what_is_relayed_counts_for_the_cap_in_and_out_and_ends_there(tmp_path):
    polite = courtesy(tmp_path, Rules(monthly_cap=10_000))
    assert polite.may_lend()
    assert polite.relayed(["127.0.0.1", "127.0.0.1"], 50_000)  # this machine is no line to anywhere
    assert polite.relayed(["192.0.2.1", "127.0.0.1"], 4_000)
    assert not polite.relayed(["192.0.2.1", "198.51.100.7"], 3_000)
    assert not polite.may_lend()
    figures = polite.figures()
    assert (figures["month"]["wan_relayed"], figures["month"]["lan_relayed"]) == (10_000, 104_000)
    assert figures["limits"]["cap_left"] == 0
    await polite.pause(3600.0)
    again = courtesy(tmp_path, Rules())
    assert again.moved().wan_relayed == 10_000
    assert not again.may_lend()  # paused


async def test_at_the_cap_peers_are_told_busy(tmp_path):
    theirs = courtesy(tmp_path, Rules(monthly_cap=MIB, limit_lan=True, upload=2 * MIB))
    async with network(COURSE, Polite(theirs)) as node, trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        with trio.fail_after(30):
            while not node.fetch.tally.busy:
                await trio.sleep(0.05)
        assert MIB <= theirs.moved().lan_sent < 1.5 * MIB
        nursery.cancel_scope.cancel()


async def test_both_ends_count_what_was_moved(tmp_path):
    theirs, mine = courtesy(tmp_path, name="a.json"), courtesy(tmp_path, name="b.json")
    async with network(COURSE, Polite(theirs), courtesy=mine) as node:
        await node.run()
        with trio.fail_after(5):
            while theirs._lines:
                await trio.sleep(0.01)
        sent, received = theirs.moved(), mine.moved()
        assert SIZE < sent.lan_sent < SIZE * 1.05
        assert SIZE < received.lan_received < SIZE * 1.05
        assert sent.wan == received.wan == 0
        assert 0 < sent.lan_received < 10_000


async def test_what_was_moved_is_written_when_the_node_stops(tmp_path):
    mine = courtesy(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(mine.run)
        mine.count(lan=False, sent=5, received=7)
        nursery.cancel_scope.cancel()
    assert courtesy(tmp_path).moved().wan == 12


@pytest.mark.parametrize(
    ("limit_lan", "words"),
    [
        (True, ["nothing is served or fetched, on the LAN neither", "no peer is served"]),
        (False, ["peers on the LAN only", "peers beyond the LAN are not served"]),
    ],
)
async def test_what_is_held_back_is_said_as_it_is(tmp_path, limit_lan, words):
    mine = courtesy(tmp_path, Rules(monthly_cap=1, limit_lan=limit_lan), metered=lambda: True)
    mine.count(lan=False, sent=1, received=0)
    await mine.look()
    assert [said.partition(": ")[2] for said in mine.figures()["manners"]] == words


async def test_a_machine_on_battery_and_a_metered_line(tmp_path, monkeypatch):
    asked: list[bool] = []

    def stand_back(*, back: bool, usual: int) -> bool:
        asked.append(back)
        return True

    monkeypatch.setattr("p2plearn.transfer.courtesy.stand_back", stand_back)
    power = {"battery": True, "metered": True}
    mine = courtesy(
        tmp_path,
        Rules(battery_upload=64 * KIB),
        battery=lambda: power["battery"],
        metered=lambda: power["metered"],
    )
    await mine.look()
    assert mine.figures()["power"] == {"on_battery": True, "metered": True}
    assert mine.figures()["limits"]["upload"] == 64 * KIB
    assert len(mine.figures()["manners"]) == 2
    power.update(battery=False, metered=False)
    await mine.look()
    assert mine.figures()["limits"]["upload"] is None
    assert mine.figures()["manners"] == []
    assert asked == [True, False]
