"""Who failed is asked last for a while, and what is remembered stays within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.transfer.reliance import (
    CAPACITY,
    DOUBTED,
    HALF_LIFE,
    KEPT_WAITING_SECONDS,
    LATE,
    MOST,
    STALLED,
    WRONG,
    Reliance,
)


def test_a_peer_that_never_failed_is_not_doubted() -> None:
    assert not Reliance().doubted("a", 0.0)


def test_who_failed_is_doubted_for_a_while() -> None:
    memory = Reliance()
    for points in (LATE, STALLED, WRONG):
        memory.failed("a", points, 0.0)
        assert memory.doubted("a", 1.0)
        memory.ended("a", 1.0, wrong=False, gave=True, waited=0.0, patience=8.0)
        assert not memory.doubted("a", 1.0)
    memory.failed("a", STALLED, 0.0)
    assert memory.doubted("a", HALF_LIFE - 1)
    assert not memory.doubted("a", HALF_LIFE + 1)


@pytest.mark.parametrize(
    ("wrong", "gave", "waited", "points"),
    [
        (True, True, 0.0, WRONG),
        (False, True, 9.0, STALLED),
        (False, False, KEPT_WAITING_SECONDS + 0.1, LATE),
        (False, False, 0.0, 0.0),
        (False, True, 0.0, 0.0),
    ],
)
def test_how_a_conversation_ended_says_how_much_it_is_doubted(wrong, gave, waited, points) -> None:
    memory = Reliance()
    memory.ended("a", 0.0, wrong=wrong, gave=gave, waited=waited, patience=8.0)
    assert memory.doubt("a", 0.0) == points


def test_who_could_not_be_reached_is_tried_last_until_it_gives_something() -> None:
    memory = Reliance()
    memory.ended("a", 0.0, wrong=False, gave=False, waited=0.0, patience=8.0, unreachable=True)
    assert memory.doubted("a", 1.0)
    memory.ended("a", 2.0, wrong=False, gave=True, waited=0.0, patience=8.0)
    assert not memory.doubted("a", 2.0)


def test_whom_others_overtook_is_doubted_the_second_time() -> None:
    memory = Reliance()
    for _ in range(2):
        assert not memory.doubted("a", 0.0)
        memory.ended("a", 0.0, wrong=False, gave=False, waited=0.2, patience=8.0, overtaken=True)
    assert memory.doubted("a", 0.0)
    memory.ended("a", 1.0, wrong=False, gave=True, waited=0.2, patience=8.0, overtaken=True)
    assert not memory.doubted("a", 1.0)


@given(st.lists(st.tuples(st.sampled_from([LATE, STALLED, WRONG]), st.floats(0, 1e6)), max_size=50))
def test_doubt_is_bounded_and_ends(failures: list[tuple[float, float]]) -> None:
    memory, now = Reliance(), 0.0
    for points, passed in failures:
        now += passed
        memory.failed("a", points, now)
        assert 0 < memory.doubt("a", now) <= MOST
    assert memory.doubt("a", now + 4 * HALF_LIFE) < DOUBTED


def test_the_table_is_bounded_and_the_worst_stay() -> None:
    memory = Reliance()
    memory.failed("worst", WRONG, 0.0)
    for number in range(CAPACITY * 2):
        memory.failed(str(number), LATE, 0.0)
    assert len(memory) == CAPACITY
    assert memory.doubted("worst", 0.0)
