"""A peer's news are bounded over time, and its debts are its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.gossip.allowance import Allowance


def test_a_burst_then_a_trickle() -> None:
    tokens = Allowance(burst=100, rate=10, capacity=64)
    assert tokens.spend("eve", 99, 0)
    assert not tokens.spend("eve", 1, 0)
    assert tokens.spend("ada", 50, 0)  # nobody else pays for it
    assert not tokens.spend("eve", 10, 1)
    assert tokens.spend("eve", 0, 2)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 300)), max_size=60))
def test_never_more_than_the_rate_over_time(steps: list[tuple[float, int]]) -> None:
    tokens, now, brought, allowed = Allowance(burst=100, rate=10, capacity=64), 0.0, 0, True
    for wait, number in steps:
        now += wait
        allowed = tokens.spend("eve", 0, now)
        if allowed:
            tokens.spend("eve", number, now)
            brought += number
    assert brought <= 100 + 10 * now + 300  # what one turn may overdraw


def test_the_table_is_bounded_and_keeps_debtors() -> None:
    tokens = Allowance(burst=100, rate=10, capacity=8)
    tokens.spend("eve", 10_000, 0)
    for n in range(100):
        tokens.spend(f"sybil {n}", 1, 1)
    assert not tokens.spend("eve", 0, 2)


def test_one_at_a_time_is_admitted_while_there_are_tokens_and_refusals_cost_nothing() -> None:
    tokens = Allowance(burst=3, rate=1, capacity=64)
    assert [tokens.admit(b"eve", 0) for _ in range(5)] == [True, True, True, False, False]
    assert [tokens.admit(b"eve", 1) for _ in range(2)] == [True, False]
    assert tokens.admit(b"ada", 1)


def test_how_far_below_nothing() -> None:
    tokens = Allowance(burst=100, rate=10, capacity=64)
    assert tokens.overdrawn("eve", 0) == 0
    tokens.spend("eve", 130, 0)
    assert tokens.overdrawn("eve", 0) == 30
    assert tokens.overdrawn("eve", 2) == 10
    assert tokens.overdrawn("eve", 9) == 0


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    tokens = Allowance(burst=10, rate=1, capacity=64)
    tokens.spend("ada", 5, 1000)
    assert tokens.spend("ada", 4, 0)
