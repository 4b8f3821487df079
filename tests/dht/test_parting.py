"""A leave's deadline holds for everything that it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.parting import AFTERWARDS, ASK_SECONDS, WITHDRAW_SECONDS, Parting

SECONDS = st.floats(0.0, 10_000.0)


@given(begun=SECONDS, seconds=SECONDS, late=st.floats(0.0, 3.0))
def test_each_part_as_long_as_it_may_be_ends_by_the_deadline(begun: float, seconds: float, late: float) -> None:
    parting = Parting(begun, seconds)
    now = begun + late  # looking at the disk took that long
    now += parting.hands_over_for(now)
    now += parting.asks_for(now)
    now += parting.withdraws_for(now)
    assert now <= max(begun + seconds, begun + late) + 1e-6


@pytest.mark.parametrize(
    ("seconds", "handing_over", "asking"), [(600.0, 594.0, 1.0), (5.0, 3.0, 1.0), (2.0, 1.2, 0.4), (0.0, 0.0, 0.0)]
)
def test_most_of_the_time_goes_to_handing_over(seconds: float, handing_over: float, asking: float) -> None:
    parting = Parting(100.0, seconds)
    assert parting.hands_over_for(100.0) == pytest.approx(handing_over)
    assert parting.asks_for(100.0 + handing_over) == pytest.approx(asking)


def test_who_is_done_early_asks_and_takes_leave_at_leisure() -> None:
    parting = Parting(100.0, 20.0)
    assert parting.asks_for(103.0) == ASK_SECONDS
    assert parting.withdraws_for(104.0) == WITHDRAW_SECONDS


def test_a_stop_long_after_a_leave_has_time_of_its_own() -> None:
    parting = Parting(100.0, 5.0)
    assert parting.withdraws_for(105.5) == 0.0
    assert parting.withdraws_for(105.5 + AFTERWARDS) == WITHDRAW_SECONDS
