"""A peer's news are bounded over time, and its debts are its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.gossip.allowance import Allowance


def test_a_burst_then_a_trickle() -> None:
    tokens = Allowance(burst=100, rate=10)
    assert tokens.spend("eve", 99, 0)
    assert not tokens.spend("eve", 1, 0)
    assert tokens.spend("ada", 50, 0)  # nobody else pays for it
    assert not tokens.spend("eve", 10, 1)
    assert tokens.spend("eve", 0, 2)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 300)), max_size=60))
def test_never_more_than_the_rate_over_time(steps: list[tuple[float, int]]) -> None:
    tokens, now, brought, allowed = Allowance(burst=100, rate=10), 0.0, 0, True
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
