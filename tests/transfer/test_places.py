"""How many peers may take part, and when there are enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.transfer.patience import LEAST_PATIENCE
from p2plearn.transfer.places import COVERED_SECONDS, MORE, OVERTAKEN_SECONDS, WIDEN_SECONDS, Places

seconds = st.floats(0.0, 1e6)


def test_while_something_comes_there_are_as_many_as_were_given():
    assert Places(8).now(0.0) == 8


@given(st.integers(1, 50), seconds, seconds)
def test_the_longer_nothing_comes_the_more_but_never_too_many(places: int, dry: float, answered: float):
    room = Places(places)
    room.answered(answered)
    assert places <= room.now(dry) <= room.now(2 * dry) <= (1 + MORE) * places
    assert room.now(1e9) == (1 + MORE) * places


def test_the_pace_is_that_of_the_quickest_answer():
    near, far, unknown = Places(8), Places(8), Places(8)
    near.answered(3.0)
    near.answered(0.01)
    far.answered(0.2)
    assert near.now(1.05) == 8 + int(1.05 / WIDEN_SECONDS[0])
    assert far.now(1.0) == 8 + 2
    assert unknown.now(1.05) == 8 + int(1.05 / WIDEN_SECONDS[1])


def test_when_all_is_asked_for_and_comes_nobody_else_is_called_for_a_while():
    places = Places(8)
    assert not places.has_enough(False, 0.0, 10.0)
    assert places.has_enough(True, 0.0, 10.0)
    assert places.has_enough(True, 0.0, 10.0 + COVERED_SECONDS / 2)
    assert not places.has_enough(True, LEAST_PATIENCE, 10.0 + COVERED_SECONDS / 2)  # it doesn't come
    assert not places.has_enough(True, 0.0, 10.0 + COVERED_SECONDS)  # it takes long
    assert not places.has_enough(False, 0.0, 11.0)
    assert places.has_enough(True, 0.0, 12.0)  # anew


def test_who_owes_its_first_answer_for_much_longer_than_another_took():
    places = Places(8)
    places.answered(0.01)
    assert not places.overtook(OVERTAKEN_SECONDS)
    assert places.overtook(OVERTAKEN_SECONDS + 0.01)
    far = Places(8)
    far.answered(0.4)
    assert not far.overtook(1.5)
    assert far.overtook(1.7)
