"""The scheduler against a model of peers in simulated time: honest ones, slow ones, and the other kinds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.errors import PeerFault
from p2plearn.transfer import patience
from p2plearn.transfer.order import Held, Order, set_bits
from p2plearn.transfer.protocol import ranges_of
from p2plearn.transfer.scheduler import MAX_REQUESTS, MAX_WINDOW, Arrival, Scheduler

STEP = 0.25
CHUNK = 256 * 1024
KINDS = ("complete", "partial", "slow", "silent", "liar", "leaver", "forgetful", "dripper", "babbler", "sleeper")


def bitmap_of(slots: int, held: set[int]) -> bytes:
    bits = bytearray((slots + 7) // 8)
    for slot in held:
        bits[slot >> 3] |= 0x80 >> (slot & 7)
    return bytes(bits)


@dataclass
class Model:
    """One peer of the simulation; ``queue`` is what it was asked for and hasn't dealt with."""

    name: str
    kind: str
    held: set[int]
    rate: float = 4e6
    queue: list[int] = field(default_factory=list)
    allowance: float = 0.0
    here: bool = True
    born: float = 0.0


@dataclass
class Simulation:
    """Runs a scheduler as ``fetch`` does, and checks at every step what must hold."""

    slots: int
    peers: list[Model]
    seed: int = 0
    size: int = CHUNK
    in_order: bool = False
    now: float = 0.0
    accepted: Counter[int] = field(default_factory=Counter)
    asked: Counter[int] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)
    lied: set[tuple[str, int]] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    late: list[tuple[float, str, int]] = field(default_factory=list)
    twice: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.scheduler: Scheduler[str] = Scheduler(
            range(self.slots), self.slots, lambda _: self.size, self.dice.randrange, in_order=self.in_order
        )
        self.models = {peer.name: peer for peer in self.peers}
        for peer in self.peers:
            self.scheduler.joined(peer.name, bitmap_of(self.slots, peer.held), 0.0)

    def run(self, seconds: float) -> bool:
        while not self.scheduler.finished and self.now < seconds:
            for peer in self.peers:
                if peer.here:
                    self._ask(peer)
            for peer in self.peers:
                if peer.here:
                    self._act(peer)
            for name in self.scheduler.tick(self.now):
                self._part(self.models[name])
            self.now += STEP
        return self.scheduler.finished

    def _part(self, peer: Model) -> None:
        peer.here = False
        self.given_up.add(peer.name)
        self.scheduler.left(peer.name)

    def _ask(self, peer: Model) -> None:
        wants = self.scheduler.next_wants(peer.name, self.now)
        who = self.scheduler._peers[peer.name]
        assert who.asked_bytes <= MAX_WINDOW + self.size
        assert len(who.asked) <= MAX_REQUESTS
        assert who.asked_bytes == len(who.asked) * self.size
        for slot in wants:
            assert not self.accepted[slot], "asked again though it was verified"
            assert (peer.name, slot) not in self.lied, "a liar was asked again for the same slot"
            assert slot in peer.held, "asked for what it never said it had"
            holders = self.scheduler._holders[slot]
            assert len(holders) <= patience.MOST_IN_ALL
            if len(holders) > 2:
                assert not any(self.scheduler._peers[other].rate for other in holders if other != peer.name)
            assert len(set(holders)) == len(holders)
            self.twice += len(holders) > 1
            self.asked[slot] += 1
        assert len(set(wants)) == len(wants)
        self.order += wants
        peer.queue += wants

    def _act(self, peer: Model) -> None:
        scheduler, name = self.scheduler, peer.name
        if peer.kind == "leaver" and self.dice.random() < 0.1:
            self._part(peer)
            return
        if peer.kind == "partial" and self.dice.random() < 0.7 and len(peer.held) < self.slots:
            fresh = set(self.dice.sample(range(self.slots), min(4, self.slots))) - peer.held
            peer.held |= fresh
            scheduler.has_more(name, list(ranges_of(sorted(fresh))))
        if peer.kind in ("dripper", "babbler"):
            scheduler.heard(name, self.now)
            if peer.kind == "babbler":
                scheduler.has_more(name, [(0, self.slots)])
            return
        if peer.kind == "silent":
            return
        if peer.kind == "sleeper" and self.now % 20 < 12:
            return
        peer.allowance = min(peer.allowance + (2e4 if peer.kind == "slow" else peer.rate) * STEP, 2 * peer.rate)
        while peer.queue and peer.here and peer.allowance >= self.size:
            peer.allowance -= self.size
            self._answer(peer, peer.queue.pop(0))
        if peer.here and peer.queue and peer.allowance:
            scheduler.heard(name, self.now)

    def _answer(self, peer: Model, slot: int) -> None:
        scheduler, name = self.scheduler, peer.name
        if slot not in peer.held or (peer.kind == "forgetful" and self.dice.random() < 0.5):
            peer.held.discard(slot)
            scheduler.missing(name, [(slot, 1)])
            self.lied.add((name, slot))
            return
        match scheduler.arrived(name, slot, self.now):
            case Arrival.UNASKED:
                raise AssertionError(f"{name} was asked for {slot}, and blamed for giving it")
            case Arrival.CHECK if peer.kind == "liar" and self.dice.random() < 0.5:
                self.lied.add((name, slot))
                if scheduler.rejected(name, slot):
                    self._part(peer)
            case Arrival.CHECK:
                self.accepted[slot] += 1
                for owing in scheduler.verified(slot):
                    model = self.models[owing]
                    if slot in model.queue and self.dice.random() < 0.5:  # the cancel came in time
                        model.queue.remove(slot)


everything = st.integers(1, 200).flatmap(
    lambda slots: st.tuples(
        st.just(slots),
        st.lists(st.tuples(st.sampled_from(KINDS), st.sets(st.integers(0, slots - 1), max_size=slots)), max_size=6),
    )
)


def peers_of(slots: int, others: list[tuple[str, set[int]]]) -> list[Model]:
    all_of_it, some = set(range(slots)), {"partial", "forgetful"}
    return [
        Model(f"{kind}{at}", kind, held if kind in some else set(all_of_it)) for at, (kind, held) in enumerate(others)
    ]


@given(everything, st.integers(0, 1 << 30), st.booleans(), st.sampled_from([CHUNK, 1 << 20, 40]))
@settings(max_examples=150, deadline=None)
def test_one_honest_peer_is_enough_whoever_else_takes_part(case, seed, in_order, size):
    slots, others = case
    peers = [*peers_of(slots, others), Model("honest", "complete", set(range(slots)))]
    random.Random(seed).shuffle(peers)
    simulation = Simulation(slots, peers, seed, size, in_order)
    assert simulation.run(slots * size / 4e6 * 3 + 200)
    assert simulation.accepted == Counter(range(slots))
    assert "honest" not in simulation.given_up
    assert simulation.scheduler.remaining_bytes == 0
    assert not simulation.scheduler._holders


@given(everything, st.integers(0, 1 << 30))
@settings(max_examples=80, deadline=None)
def test_each_chunk_with_some_honest_peer_is_enough(case, seed):
    slots, others = case
    dice = random.Random(seed)
    parts: list[set[int]] = [set(), set(), set()]
    for slot in range(slots):
        parts[dice.randrange(3)].add(slot)
    honest = [Model(f"honest{at}", "fixed", part) for at, part in enumerate(parts)]
    simulation = Simulation(slots, [*peers_of(slots, others), *honest], seed)
    assert simulation.run(slots * CHUNK / 4e6 * 3 + 200)
    assert simulation.accepted == Counter(range(slots))


@given(everything, st.integers(0, 1 << 30))
@settings(max_examples=80, deadline=None)
def test_whoever_takes_part_it_ends_or_says_that_it_is_starved(case, seed):
    slots, others = case
    useless = [(kind, held) for kind, held in others if kind not in ("slow", "sleeper", "partial")]
    simulation = Simulation(slots, peers_of(slots, useless), seed)
    assert simulation.run(slots * CHUNK / 4e6 + 300) or simulation.scheduler.starved


def test_a_bitmap_of_few_slots_is_read_to_its_last_bit():
    for slots in range(1, 18):
        for lacking in (None, *range(slots)):
            scheduler: Scheduler[str] = Scheduler(range(slots), slots, lambda _: 10, lambda n: 0)
            scheduler.joined("peer", bitmap_of(slots, set(range(slots)) - {lacking}), 0.0)
            assert sorted(scheduler.next_wants("peer", 0.0)) == [slot for slot in range(slots) if slot != lacking]


@pytest.mark.parametrize("kind", ["silent", "dripper", "babbler"])
def test_a_peer_that_completes_nothing_is_given_up(kind):
    simulation = Simulation(20, [Model("it", kind, set(range(20)))])
    assert not simulation.run(patience.STUCK_SECONDS + 5)
    assert simulation.given_up == {"it"}


def test_many_that_drip_hold_up_one_chunk_for_a_while_only():
    """Two are asked at once; each in turn gives its place to the next."""
    drippers = [Model(f"drip{at}", "dripper", {0}) for at in range(8)]
    simulation = Simulation(1, [*drippers, Model("honest", "complete", {0})])
    assert simulation.run(9 * 20.0)


def test_a_slow_peer_alone_is_waited_for():
    simulation = Simulation(8, [Model("slow", "slow", set(range(8)))])
    assert simulation.run(8 * CHUNK / 2e4 + 30)


def test_a_peer_that_sleeps_now_and_then_is_never_blamed_and_brings_everything():
    simulation = Simulation(100, [Model("sleeper", "sleeper", set(range(100)))])
    assert simulation.run(400)
    assert not simulation.given_up


def test_what_our_own_disk_holds_up_is_no_silence():
    scheduler: Scheduler[str] = Scheduler(range(9), 9, lambda _: CHUNK, lambda n: 0)
    scheduler.joined("peer", bitmap_of(9, set(range(9))), 0.0)
    assert scheduler.next_wants("peer", 0.0)
    for second in range(1, 400):
        scheduler.held_up("peer", float(second))
        assert not scheduler.tick(float(second))
    assert scheduler.arrived("peer", 0, 400.0) is Arrival.CHECK


def test_a_chunk_that_nobody_asked_for():
    scheduler: Scheduler[str] = Scheduler(range(9), 9, lambda _: CHUNK, lambda n: 0)
    scheduler.joined("a", bitmap_of(9, set(range(9))), 0.0)
    scheduler.joined("b", bitmap_of(9, set(range(9))), 0.0)
    assert scheduler.arrived("b", 3, 0.0) is Arrival.UNASKED
    assert 3 in scheduler.next_wants("a", 0.0)
    assert scheduler.arrived("b", 3, 0.0) is Arrival.UNASKED
    assert scheduler.arrived("a", 3, 0.0) is Arrival.CHECK
    assert scheduler.arrived("a", 3, 0.0) is Arrival.UNASKED


def test_asked_twice_after_a_silence_it_may_answer_twice():
    scheduler: Scheduler[str] = Scheduler(range(4), 4, lambda _: CHUNK, lambda n: 0)
    scheduler.joined("peer", b"\xf0", 0.0)
    copies: Counter[int] = Counter(scheduler.next_wants("peer", 0.0))
    for silence in (10.0, 20.0):
        assert not scheduler.tick(silence)
        assert not scheduler.next_wants("peer", silence)
        slot = next(slot for slot in sorted(copies) if copies[slot])
        copies[slot] -= 1
        assert scheduler.arrived("peer", slot, silence) is Arrival.CHECK
        scheduler.verified(slot)
        copies.update(scheduler.next_wants("peer", silence))
    for slot in copies.elements():
        assert scheduler.arrived("peer", slot, 21.0) is not Arrival.UNASKED
        scheduler.verified(slot)
    assert scheduler.finished


def test_missing_more_than_was_asked_for_is_a_fault():
    scheduler: Scheduler[str] = Scheduler(range(65536), 65536, lambda _: 100, lambda n: 0)
    scheduler.joined("peer", b"\xff" * 8192, 0.0)
    asked = scheduler.next_wants("peer", 0.0)
    with pytest.raises(PeerFault):
        scheduler.missing("peer", [(0, 65536)])
    scheduler.missing("peer", ranges_of(asked))
    with pytest.raises(PeerFault):
        scheduler.missing("peer", [(asked[0], 1)])


def test_having_more_than_there_is_is_a_fault_and_news_are_told_from_noise():
    scheduler: Scheduler[str] = Scheduler(range(20), 20, lambda _: 100, lambda n: 0)
    scheduler.joined("peer", bytes(3), 0.0)
    with pytest.raises(PeerFault):
        scheduler.has_more("peer", [(10, 11)])
    assert scheduler.has_more("peer", [(3, 14)])
    assert not scheduler.has_more("peer", [(5, 3)])
    assert sorted(scheduler.next_wants("peer", 0.0)) == list(range(3, 17))


@given(st.lists(st.tuples(st.integers(0, 299), st.integers(1, 300)), max_size=10))
def test_setting_runs_of_bits(runs):
    bits, expected = bytearray(38), set()
    for first, count in runs:
        end = min(first + count, 300)
        set_bits(bits, first, end)
        expected |= set(range(first, end))
    assert bytes(bits) == bitmap_of(300, expected).ljust(38, b"\0")


def test_in_order_with_one_peer_is_the_order_of_the_course():
    simulation = Simulation(500, [Model("seed", "complete", set(range(500)))], in_order=True)
    assert simulation.run(100)
    assert simulation.order == list(range(500))


@pytest.mark.parametrize("in_order", [True, False])
def test_in_order_with_several_is_nearly_so(in_order):
    held = set(range(0, 500, 2))
    peers = [Model("seed", "complete", set(range(500))), Model("half", "fixed", held)]
    simulation = Simulation(500, peers, in_order=in_order, seed=5)
    assert simulation.run(100)
    backwards = max(a - b for a, b in pairwise(simulation.order))
    window = 2 * MAX_WINDOW // CHUNK
    assert (backwards <= window) is in_order  # rarest first jumps about, in order doesn't


def test_the_rare_goes_first_when_partial_peers_take_part():
    """What only the seed has is fetched while what everybody has waits."""
    slots = 400
    common = set(range(slots // 2))
    peers = [Model("seed", "complete", set(range(slots)))]
    simulation = Simulation(slots, peers + [Model(f"part{at}", "fixed", common) for at in range(4)], seed=3)
    wants = simulation.scheduler.next_wants("seed", 0.0)
    assert wants
    assert sum(slot >= slots // 2 for slot in wants) >= 0.9 * len(wants)


def test_fetchers_that_start_together_ask_for_different_things():
    slots = 400
    first = []
    for seed in (1, 2):
        scheduler: Scheduler[str] = Scheduler(range(slots), slots, lambda _: CHUNK, random.Random(seed).randrange)
        scheduler.joined("seed", bitmap_of(slots, set(range(slots))), 0.0)
        scheduler.joined("other", bitmap_of(slots, set()), 0.0)
        first.append(set(scheduler.next_wants("seed", 0.0)))
    assert len(first[0] & first[1]) < len(first[0]) / 2


@pytest.mark.parametrize("seed", range(4))
def test_endgame_asks_little_twice(seed):
    slots = 400
    peers = [Model(f"quick{at}", "complete", set(range(slots)), rate=8e6) for at in range(3)]
    simulation = Simulation(slots, [*peers, Model("slow", "complete", set(range(slots)), rate=1e5)], seed)
    assert simulation.run(60)
    assert simulation.now < 8  # not the 20 s that the slow one needs for what it was asked first
    assert 0 < simulation.twice <= 24
    assert max(simulation.asked.values()) <= 3
    assert sum(simulation.asked.values()) <= slots + 30


def test_two_that_promise_and_do_nothing_hold_up_a_third_for_seconds_only():
    """Two babblers are heard of all the time, and no proof that they stall: the third is asked all the same."""
    slots = 6
    scheduler: Scheduler[str] = Scheduler(range(slots), slots, lambda _: CHUNK, random.Random(3).randrange)
    everything = bitmap_of(slots, set(range(slots)))
    for name in ("one", "two"):
        scheduler.joined(name, everything, 0.0)
    assert scheduler.next_wants("one", 0.0)
    assert scheduler.next_wants("two", 3.0)
    scheduler.joined("honest", everything, 3.0)
    assert not set(scheduler.next_wants("honest", 3.1)) & set(scheduler._peers["two"].asked)
    now = 3.1
    while not scheduler.finished:
        now += STEP
        assert now < 3.0 + 2 * patience.UNPROVEN_SECONDS
        for name in ("one", "two"):
            scheduler.heard(name, now)
        assert scheduler.tick(now) == []
        scheduler.next_wants("honest", now)
        for slot in list(scheduler._peers["honest"].asked):
            assert scheduler.arrived("honest", slot, now) is Arrival.CHECK
            scheduler.verified(slot)
    assert scheduler.owes_for("one", now) == now  # though others brought it all
    assert scheduler.owes_for("honest", now) == 0.0


@pytest.mark.parametrize("crowd", [4, 6, 7])
def test_a_crowd_that_drips_keeps_nothing_from_one_that_brought_something(crowd: int):
    """Each of them is heard of all the time, and as many as may be asked for the same slot owe it."""
    slots = 6
    scheduler: Scheduler[str] = Scheduler(range(slots), slots, lambda _: 60_000, random.Random(3).randrange)
    drips = [f"drip{at}" for at in range(crowd)]
    for name in [*drips, "honest"]:
        scheduler.joined(name, bitmap_of(slots, set(range(slots))), 0.0)
    now, first = 0.0, True
    while not scheduler.finished:
        now += STEP
        assert now < 12.0
        for name in drips:
            scheduler.heard(name, now)
            scheduler.next_wants(name, now)
        assert scheduler.tick(now) == []
        owing = max((len(holders) for holders in scheduler._holders.values()), default=0)
        if first and owing < min(crowd, patience.MOST_ASKED):
            continue  # it comes when they have all that they may
        if first:  # one slot is left to it by chance, and it brings that
            slot = next(iter(scheduler._holders))
            for name in list(scheduler._holders[slot]):
                scheduler.missing(name, [(slot, 1)])
        scheduler.next_wants("honest", now)
        for slot in list(scheduler._peers["honest"].asked):
            assert scheduler.arrived("honest", slot, now) is Arrival.CHECK
            scheduler.verified(slot)
            first = False


def test_honest_peers_of_one_speed_are_hardly_asked_twice():
    peers = [Model(f"peer{at}", "complete", set(range(600))) for at in range(4)]
    simulation = Simulation(600, peers)
    assert simulation.run(100)
    assert simulation.twice <= 12


@pytest.mark.parametrize("partial", [False, True], ids=["complete", "partial"])
@pytest.mark.parametrize(("slots", "chunk"), [(8192, 1 << 20), (16384, 256 * 1024), (65536, 512)])
def test_a_decision_stays_cheap_however_many_slots(partial, slots, chunk, monkeypatch):
    looks: Counter[str] = Counter()
    dice = random.Random(7)
    has, offers = Held.has, Order._offers

    def counting_has(self, slot):
        looks["has"] += 1
        return has(self, slot)

    def counting_offers(who, todo):
        looks["offers"] += 1
        return offers(who, todo)

    monkeypatch.setattr(Held, "has", counting_has)
    monkeypatch.setattr(Order, "_offers", staticmethod(counting_offers))

    def length(_slot):
        looks["length"] += 1
        return chunk

    def roll(n):
        looks["roll"] += 1
        return dice.randrange(n)

    scheduler: Scheduler[str] = Scheduler(range(slots), slots, length, roll)
    scheduler.joined("seed", b"\xff" * (slots // 8), 0.0)
    if partial:
        scheduler.joined("part", bytes(dice.randrange(256) for _ in range(slots // 8)), 0.0)
        scheduler.joined("other", bytes(slots // 8), 0.0)
    looks.clear()
    now = 0.0
    while not scheduler.finished:
        now += 0.01
        for peer in scheduler.peers:
            scheduler.next_wants(peer, now)
            for slot in list(scheduler._peers[peer].asked):
                if scheduler.arrived(peer, slot, now) is Arrival.CHECK:
                    scheduler.verified(slot)
    assert sum(looks.values()) / slots < (150 if partial else 12), looks
