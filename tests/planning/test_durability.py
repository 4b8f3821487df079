"""The formulas behind `p2plearn plan`: against known figures, against chance itself, and how they must run."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.planning import durability
from p2plearn.planning.durability import DAY


@pytest.mark.parametrize(("copies", "percent"), [(3, 10.5), (5, 1.6), (8, 0.04)])
def test_half_of_20_nodes_vanish(copies: int, percent: float) -> None:
    assert 100 * durability.mass_loss(20, copies, 10) == pytest.approx(percent, rel=0.11, abs=0.05)
    assert durability.mass_loss(20, copies, 10) == pytest.approx(
        math.comb(20 - copies, 10 - copies) / math.comb(20, 10)
    )


def test_fewer_vanish_than_there_are_copies() -> None:
    assert durability.mass_loss(20, 3, 2) == 0.0
    assert durability.mass_loss(3, 3, 3) == 1.0


def played(copies: int, leave_rate: float, window: float, period: float, times: int) -> float:
    """The share of lost courses when each copy comes and goes by dice: the model itself, without a formula."""
    rng, lost = random.Random(f"{copies} {leave_rate}"), 0
    for _ in range(times):
        events = [(rng.expovariate(leave_rate), copy) for copy in range(copies)]
        heapq.heapify(events)
        there = [True] * copies
        while events[0][0] < period:
            at, copy = heapq.heappop(events)
            there[copy] = not there[copy]
            if not any(there):
                lost += 1
                break
            heapq.heappush(events, (at + (rng.expovariate(leave_rate) if there[copy] else window), copy))
    return lost / times


@pytest.mark.parametrize(("copies", "a_day"), [(1, 0.1), (2, 0.2), (3, 0.2), (3, 0.5), (4, 0.8)])
def test_the_formula_agrees_with_dice(copies: int, a_day: float) -> None:
    window, period, times = DAY / 2, 7 * DAY, 5000
    seen = played(copies, a_day / DAY, window, period, times)
    said = durability.loss(copies, a_day / DAY, window, period)
    assert said == pytest.approx(seen, abs=3.5 * math.sqrt(seen * (1 - seen) / times), rel=0.03)


RATES = st.floats(1e-10, 1e-4)


@given(st.integers(1, 32), RATES, st.floats(1.0, 1e6), st.floats(1.0, 1e9))
def test_more_copies_and_quicker_repair_lose_less_and_more_time_loses_more(
    copies: int, rate: float, window: float, period: float
) -> None:
    chance = durability.loss(copies, rate, window, period)
    assert 0.0 <= chance <= 1.0
    assert durability.loss(copies + 1, rate, window, period) <= chance * (1 + 1e-9)
    assert durability.loss(copies, rate, window, 2 * period) >= chance * (1 - 1e-9)
    if rate * window < 0.3:
        assert durability.loss(copies, rate, window / 2, period) <= chance * (1 + 1e-9)


@given(st.integers(1, 32), RATES, st.floats(1.0, 1e6), st.floats(1e-15, 0.5))
def test_enough_copies_are_the_fewest_that_are_enough(most: int, rate: float, window: float, goal: float) -> None:
    found = durability.enough_copies(goal, most, leave_rate=rate, window=window, period=30 * DAY)
    chances = [durability.loss(copies, rate, window, 30 * DAY) for copies in range(1, most + 1)]
    assert found == next((copies for copies, chance in enumerate(chances, 1) if chance <= goal), None)


def test_small_chances_are_not_rounded_away() -> None:
    chance = durability.loss(8, 0.001 / DAY, 3600.0, 30 * DAY)
    assert 1e-35 < chance < 1e-25
    assert durability.loss(8, 0.0, 3600.0, 30 * DAY) == 0.0
    assert durability.loss(1, 1.0 / DAY, 0.0, DAY) == pytest.approx(1 - math.exp(-1))


def test_nodes_courses_and_who_is_there() -> None:
    assert durability.population(100, 0.02 / DAY, 0.01 / DAY, 10 * DAY) == pytest.approx(100 * math.exp(0.1))
    assert durability.population(100, 1.0, 0.0, 1e9) > 1e300
    assert durability.there(1.0 / DAY, DAY) == 0.5
    assert durability.none_lost(100, 0.01) == pytest.approx(0.99**100)
    assert durability.none_lost(100, 1.0) == 0.0
    assert durability.reachable(3, 0.4) == pytest.approx(1 - 0.6**3)
    assert durability.reachable(3, 1.0) == 1.0
    assert durability.repair_window(3600.0, 0.5, 30.0, 60.0) == 2 * 3630.0 + 60.0
