"""The lookup as a machine: networks made of plain values, time made by the test."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.dht.lookup import MAX_CANDIDATES, MAX_QUERIES, WIDTH, Lookup, place

Network = dict[bytes, list[bytes]]


def make_network(size: int, seed: int, width: int = WIDTH) -> Network:
    """Peers that know those nearest to them and a few others, as after a join."""
    chance = random.Random(seed)
    names = [chance.randbytes(34) for _ in range(size)]
    network: Network = {}
    for name in names:
        others = sorted((n for n in names if n != name), key=lambda n: place(n) ^ place(name))
        network[name] = list({*others[:width], *chance.sample(others, min(8, len(others)))})
    return network


def run(lookup: Lookup, network: Network, target: bytes, dead: frozenset[bytes] = frozenset()) -> float:
    """Answer everything a tenth of a second later, ``dead`` never; returns when it was finished."""
    now = 0.0
    under_way: list[bytes] = []
    while not lookup.finished(now):
        under_way += lookup.next(now)
        now += 0.1
        if now > 60:
            raise AssertionError("it does not end")
        for name in [n for n in under_way if n not in dead]:
            nearer = sorted(network[name], key=lambda n: place(n) ^ place(target))[:WIDTH]
            lookup.answered(name, nearer, now)
            under_way.remove(name)
    return now


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000))
def test_it_finds_the_nearest_of_all(size: int, seed: int) -> None:
    network = make_network(size, seed)
    target = b"course"
    lookup = Lookup(target, [next(iter(network))])
    run(lookup, network, target)
    best = sorted(network, key=lambda n: place(n) ^ place(target))[:WIDTH]
    assert lookup.nearest() == best


def test_nobody_known_is_finished_at_once() -> None:
    lookup = Lookup(b"x", [])
    assert lookup.finished(0.0)
    assert lookup.next(0.0) == lookup.nearest() == []


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 60), st.integers(0, 100))
def test_those_that_never_answer_cost_a_second_and_hide_nobody(size: int, seed: int) -> None:
    network = make_network(size, seed)
    target = b"course"
    dead = frozenset(random.Random(seed).sample(sorted(network), size // 4))
    alive = [n for n in network if n not in dead]
    lookup = Lookup(target, [alive[0]])
    assert run(lookup, network, target, dead) < 12.0
    assert set(lookup.nearest()) <= set(alive)
    if size < WIDTH:
        assert set(lookup.nearest()) == set(alive)


def test_on_a_slow_line_everybody_is_waited_for() -> None:
    lookup = Lookup(b"x", [b"a", b"b"])
    assert set(lookup.next(0.0)) == {b"a", b"b"}
    assert not lookup.finished(3.0)
    assert lookup.wake_at(3.0) == float("inf")
    lookup.answered(b"a", [], 3.0)
    assert not lookup.finished(3.1)
    assert lookup.slow(3.1) == []
    assert lookup.finished(9.0)  # thrice the slowest
    assert lookup.slow(9.0) == [b"b"]


def test_a_question_that_waits_here_is_nobody_elses_slowness() -> None:
    lookup = Lookup(b"x", [b"a", b"b"])
    assert set(lookup.next(0.0)) == {b"a", b"b"}
    lookup.held_up(b"b")
    lookup.answered(b"a", [], 0.1)
    assert not lookup.finished(9.0)
    assert lookup.slow(9.0) == []
    assert lookup.wake_at(9.0) == float("inf")
    lookup.begun(b"b", 9.0)
    assert not lookup.finished(9.5)
    assert lookup.finished(10.0)
    assert lookup.slow(10.0) == [b"b"]


def test_a_liar_that_names_thousands_costs_a_bounded_number_of_questions() -> None:
    chance = random.Random(3)
    lookup = Lookup(b"x", [b"liar"])
    now, asked = 0.0, 0
    while not lookup.finished(now):
        now += 0.01
        for name in lookup.next(now):
            asked += 1
            lookup.answered(name, [chance.randbytes(34) for _ in range(1000)], now)
            assert len(lookup._candidates) <= MAX_CANDIDATES
        assert now < 60
    assert asked <= MAX_QUERIES


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=2)), max_size=80))
def test_nobody_is_asked_twice_whatever_happens(events: list[tuple[int, bytes]]) -> None:
    lookup = Lookup(b"x", [b"seed"])
    asked: list[bytes] = []
    for now, (what, name) in enumerate(events):
        if what == 0:
            asked += lookup.next(float(now))
        elif what == 1:
            lookup.answered(name, [name + b"1", name + b"2"], float(now))
        elif what == 2:
            lookup.failed(name)
        else:
            lookup.finished(float(now))
            lookup.wake_at(float(now))
    assert len(asked) == len(set(asked))


def test_a_narrow_one_asks_the_nearest_it_knows_and_no_more() -> None:
    names = [bytes([n]) * 8 for n in range(20)]
    lookup = Lookup(b"target", names, width=4)
    asked = lookup.next(0.0)
    assert asked == sorted(names, key=lambda name: place(name) ^ place(b"target"))[:4]
    for name in asked:
        assert not lookup.finished(0.1)
        lookup.answered(name, names, 0.1)
    assert lookup.finished(0.1)
    assert lookup.next(0.1) == []
