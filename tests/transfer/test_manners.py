"""Rates, months, refusals: what manners decide, on made-up clocks."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.config import KIB, MIB
from p2plearn.transfer.manners import BUCKET_SECONDS, FOREVER, STREAM_RATE, Bucket, Manners, Rules, month_of

RATES = st.integers(16 * KIB, 1 << 30)
SIZES = st.integers(1, MIB)
PAUSES = st.floats(0, 20, allow_nan=False)
DATES = st.dates(datetime.date(1970, 1, 2), datetime.date(9990, 12, 31))


@given(RATES, st.lists(st.tuples(SIZES, PAUSES), min_size=1, max_size=60))
def test_no_more_passes_than_rate_bucket_and_one_piece(rate: int, wishes: list[tuple[int, float]]) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for size, idle in wishes:
        now += idle
        while wait := bucket.wait(now):
            now += wait
        bucket.take(size, now)
        taken.append((now, size))
    for first in range(len(taken)):
        span = taken[-1][0] - taken[first][0]
        # All but the last were taken against tokens that the rate and one bucket had brought.
        passed = sum(size for _, size in taken[first:-1])
        assert passed <= rate * span + rate * BUCKET_SECONDS + MIB + len(taken)


@given(RATES, SIZES, st.floats(0, 1e6))
def test_whoever_waits_as_told_is_let_through(rate: int, size: int, start: float) -> None:
    bucket = Bucket(rate, start)
    bucket.take(size, start)
    wait = bucket.wait(start)
    assert wait <= size / rate
    assert bucket.wait(start - 5) == wait  # a clock that goes back takes nothing away
    assert bucket.wait(start + wait + 1e-9) <= 1e-6


@given(RATES, st.integers(0, 50))
def test_the_rate_is_used_up_too(rate: int, count: int) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    for _ in range(count):
        now += bucket.wait(now)
        bucket.take(200_000, now)
    assert now <= count * 200_000 / rate + 1e-6


@given(RATES, RATES, st.integers(0, 10 * MIB))
def test_another_rate_keeps_a_debt_no_longer_than_it_was(rate: int, other: int, taken: int) -> None:
    bucket = Bucket(rate, 0.0)
    bucket.take(taken, 0.0)
    before = bucket.wait(0.0)
    bucket.set_rate(other, 0.0)
    assert bucket.wait(0.0) <= before + 1e-9
    assert bucket.level(0.0) <= bucket.size


@given(DATES, st.integers(1, 31))
def test_months_of_counting_cover_every_day_once(today: datetime.date, cap_day: int) -> None:
    first, end = month_of(today, cap_day)
    assert first <= today < end
    assert 28 <= (end - first).days <= 34 or cap_day > 28
    assert 25 <= (end - first).days <= 34
    assert month_of(end, cap_day)[0] == end
    assert month_of(end - datetime.timedelta(1), cap_day) == (first, end)


@given(DATES)
def test_a_month_that_begins_on_the_first_is_the_calendar_s(today: datetime.date) -> None:
    first, end = month_of(today, 1)
    assert (first.year, first.month, first.day, end.day) == (today.year, today.month, 1, 1)


def test_a_month_without_that_day_begins_on_its_last() -> None:
    february = datetime.date(2027, 2, 27), datetime.date(2027, 2, 28)
    assert month_of(february[0], 31) == (datetime.date(2027, 1, 31), february[1])
    assert month_of(february[1], 31) == (february[1], datetime.date(2027, 3, 31))
    assert month_of(datetime.date(2026, 12, 31), 15)[1] == datetime.date(2027, 1, 15)


@pytest.mark.parametrize("day", [datetime.date.min, datetime.date.max])
def test_a_clock_at_the_end_of_time_breaks_nothing(day: datetime.date) -> None:
    for cap_day in (1, 15, 31):
        first, end = month_of(day, cap_day)
        assert first <= day <= end


ALL = Rules(upload=MIB, download=MIB, monthly_cap=100 * MIB)


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 200 * MIB), st.booleans())
def test_the_lan_is_left_alone_unless_told(
    limit_lan: bool, metered: bool, battery: bool, counted: int, lan: bool
) -> None:
    rules = Rules(upload=MIB, download=MIB, monthly_cap=100 * MIB, limit_lan=limit_lan, battery_upload=64 * KIB)
    manners = Manners(rules, 0.0)
    manners.circumstances(0.0, on_battery=battery, metered=metered)
    exempt = lan and not limit_lan
    assert manners.concerns(lan=lan, wall=0.0) is not exempt
    served = manners.why_not_serve(lan=lan, wall=0.0, counted=counted, others=0) is None
    assert served == (exempt or (counted < 100 * MIB and not metered))
    fetched = manners.why_not_fetch(lan=lan, counted=counted) is None
    assert fetched == (exempt or counted < 100 * MIB)
    assert (manners.slice(lan=lan) == 0) == exempt
    room, wait = manners.may_ask(0.0, lan=lan, committed=counted)
    assert math.isinf(room) == exempt
    assert (room > 0) == (wait == 0) == (exempt or counted < 100 * MIB)
    assert exempt or room <= max(0, 100 * MIB - counted)


@given(st.booleans(), st.floats(0, 1e10), st.floats(0, 1e10))
def test_a_pause_holds_for_everybody_and_no_longer(lan: bool, until: float, wall: float) -> None:
    manners = Manners(Rules(), 0.0, paused_until=until)
    assert manners.paused(wall) == (wall < until)
    assert manners.concerns(lan=lan, wall=wall) == (wall < until)
    refusal = manners.why_not_serve(lan=lan, wall=wall, counted=0, others=0)
    assert (refusal is not None) == (wall < until)
    assert refusal is None or 1 <= refusal.seconds <= 30
    manners.paused_until = FOREVER
    assert manners.paused(1e300)


def test_nothing_set_concerns_nobody() -> None:
    manners = Manners(Rules(battery_upload=64 * KIB), 0.0)
    assert not manners.concerns(lan=False, wall=0.0)
    assert manners.slice(lan=False) == 0
    manners.circumstances(0.0, on_battery=False, metered=False)
    assert not manners.concerns(lan=False, wall=0.0)


def test_on_battery_the_lower_rate_holds_and_afterwards_the_one_before() -> None:
    manners = Manners(Rules(upload=MIB, battery_upload=64 * KIB), 0.0)
    rates = []
    for battery in (None, True, False):
        manners.circumstances(0.0, on_battery=battery, metered=None)
        assert manners.upload is not None
        rates.append(manners.upload.rate)
    assert rates == [MIB, 64 * KIB, MIB]
    without = Manners(Rules(battery_upload=64 * KIB), 0.0)
    without.circumstances(0.0, on_battery=True, metered=None)
    assert without.concerns(lan=False, wall=0.0)
    without.circumstances(0.0, on_battery=False, metered=None)
    assert without.upload is None


def test_a_small_rate_is_shared_by_few_so_that_none_is_taken_for_stuck() -> None:
    manners = Manners(Rules(upload=4 * STREAM_RATE), 0.0)
    told = [manners.why_not_serve(lan=False, wall=0.0, counted=0, others=others) for others in range(6)]
    assert [refusal is None for refusal in told] == [True] * 4 + [False] * 2
    assert manners.why_not_serve(lan=True, wall=0.0, counted=0, others=99) is None
    least = Manners(Rules(upload=16 * KIB), 0.0)
    assert least.why_not_serve(lan=False, wall=0.0, counted=0, others=0) is None


def test_a_metered_line_is_for_what_somebody_here_asked_for() -> None:
    manners = Manners(Rules(), 0.0)
    manners.circumstances(0.0, on_battery=None, metered=True)
    told = {
        (lan, for_others): manners.why_not_fetch(lan=lan, counted=0, for_others=for_others) is None
        for lan in (True, False)
        for for_others in (True, False)
    }
    assert told == {(True, True): True, (True, False): True, (False, True): False, (False, False): True}


def test_the_words_name_the_cap_as_it_was_written() -> None:
    refusal = Manners(ALL, 0.0).why_not_fetch(lan=False, counted=100 * MIB)
    assert refusal is not None
    assert refusal.words == "the monthly data cap of 100 MiB is used up"
