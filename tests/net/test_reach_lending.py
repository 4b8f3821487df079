"""What a relay lends: bounded in places, calls, bytes, time and rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.net.reach.lending import RESERVATION_SECONDS, Circuit, Lending, LendingLimits
from p2plearn.net.reach.wire import Status

SMALL = LendingLimits(reservations=3, per_ip=2, circuits=2, per_peer=1, seconds=60, data=1000, rate=1000)


def test_places_are_bounded_in_all_and_for_one_address() -> None:
    lending = Lending(SMALL)
    assert lending.reserve("a", "1.1.1.1", 0.0) is Status.OK
    assert lending.reserve("b", "1.1.1.1", 0.0) is Status.OK
    assert lending.reserve("c", "1.1.1.1", 0.0) is Status.RESERVATION_REFUSED
    assert lending.reserve("c", "2.2.2.2", 0.0) is Status.OK
    assert lending.reserve("d", "3.3.3.3", 0.0) is Status.RESERVATION_REFUSED
    assert lending.reserve("a", "1.1.1.1", 1.0) is Status.OK  # to renew takes no other place
    lending.gone("b")
    assert lending.reserve("d", "3.3.3.3", 1.0) is Status.OK
    assert lending.reserve("e", "4.4.4.4", 2.0 + RESERVATION_SECONDS) is Status.OK  # the others' hour is over
    assert lending.takers == ["e"]


def test_calls_need_a_place_and_are_bounded_in_all_and_for_one_peer() -> None:
    lending = Lending(SMALL)
    assert lending.connect("x", "a", 0.0) is Status.NO_RESERVATION
    for name in ("a", "b", "c"):
        lending.reserve(name, name, 0.0)
    assert lending.connect("a", "a", 0.0) is Status.PERMISSION_DENIED
    first = lending.connect("x", "a", 0.0)
    assert isinstance(first, Circuit)
    assert lending.connect("y", "a", 0.0) is Status.RESOURCE_LIMIT_EXCEEDED
    assert lending.connect("x", "b", 0.0) is Status.RESOURCE_LIMIT_EXCEEDED
    assert isinstance(lending.connect("y", "b", 0.0), Circuit)
    assert lending.connect("z", "c", 0.0) is Status.RESOURCE_LIMIT_EXCEEDED
    lending.over(first)
    lending.over(first)
    assert isinstance(lending.connect("z", "c", 0.0), Circuit)
    assert lending.connect("x", "a", RESERVATION_SECONDS + 1.0) is Status.NO_RESERVATION


def test_a_call_moves_its_bytes_each_way_and_no_more() -> None:
    lending = Lending(SMALL)
    lending.reserve("a", "a", 0.0)
    circuit = lending.connect("x", "a", 5.0)
    assert isinstance(circuit, Circuit)
    assert circuit.until == 65.0
    assert circuit.may_move("x", 1000)
    assert circuit.may_move("a", 999)
    assert not circuit.may_move("x", 1)


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=60))
def test_all_calls_together_keep_to_the_rate(pieces: list[tuple[int, float]]) -> None:
    lending = Lending(SMALL)
    now = 0.0
    for amount, pause in pieces:
        now += pause
        now += lending.pace(amount, now)
    moved = sum(amount for amount, _ in pieces)
    # A second's worth may go at once, and the last piece has gone when its wait is over.
    assert moved <= SMALL.rate * (now + 1.0) + 1e-3
    assert lending.moved == moved
    assert now == pytest.approx(max(now, moved / SMALL.rate - 1.0))
