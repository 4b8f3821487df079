"""When courses are told: decisions on a clock of the test's own."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.schedule import INTERVAL, LATE, RETRY, SETTLE, Schedule

A, B, C = b"a", b"b", b"c"


def make() -> Schedule:
    return Schedule(lambda: 0.5)


def test_new_ones_go_before_those_that_only_repeat() -> None:
    schedule = make()
    schedule.add(A, 0.0, urgent=False)
    schedule.add(B, 1.0)
    assert schedule.take(2.0, 1) == [B]
    assert schedule.take(2.0, 9) == [A]
    assert schedule.take(2.0, 9) == []


def test_told_it_rests_for_half_a_day_more_or_less() -> None:
    for chance, wait in ((0.0, 0.9), (0.5, 1.0), (0.999999, 1.1)):
        schedule = Schedule(lambda chance=chance: chance)
        schedule.add(A, 0.0)
        schedule.take(0.0, 9)
        schedule.told(A, [b"p"], [], 10.0, "")
        assert abs(schedule.next_due() - 10.0 - wait * INTERVAL) < 1.0
        assert schedule.figures(10.0).announced == 1


def test_published_alone_it_waits_and_goes_as_soon_as_somebody_comes() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    schedule.take(0.0, 9)
    schedule.told(A, [], [], 0.0, "nobody there")
    assert schedule.figures(0.0).waiting == 1
    assert schedule.figures(0.0).last_error == "nobody there"
    assert abs(schedule.next_due() - RETRY) < 0.1
    schedule.peers_came(5.0)
    assert schedule.next_due() == 5.0 + SETTLE
    assert schedule.take(5.0 + SETTLE, 9) == [A]


def test_a_newcomer_is_told_and_the_others_are_not_told_again() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    schedule.take(0.0, 9)
    schedule.told(A, [b"p", b"q"], [], 0.0, "")
    schedule.peers_came(100.0)
    assert schedule.take(101.0, 9) == [A]
    assert not schedule.wants(A, b"p", 101.0)
    assert schedule.wants(A, b"new", 101.0)
    schedule.told(A, [b"new"], [b"p", b"new"], 101.0, "")  # q is gone
    assert set(schedule.holders(A)) == {b"p", b"new"}
    assert schedule.wants(A, b"p", INTERVAL * 0.6)


def test_enough_holders_need_no_newcomer() -> None:
    schedule = Schedule(lambda: 0.5, enough=2)
    schedule.add(A, 0.0)
    schedule.take(0.0, 9)
    schedule.told(A, [b"p", b"q"], [], 0.0, "")
    schedule.peers_came(1.0)
    assert schedule.next_due() > 1000.0


def test_a_record_that_got_lost_is_told_again_at_once() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    schedule.take(0.0, 9)
    schedule.told(A, [b"p"], [], 0.0, "")
    schedule.lost(A, b"p", 50.0)
    assert schedule.take(50.0, 9) == [A]
    assert schedule.wants(A, b"p", 50.0)


def test_withdrawn_it_is_told_no_more_even_while_being_told() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    schedule.take(0.0, 9)
    schedule.remove(A)
    schedule.told(A, [b"p"], [], 1.0, "")
    assert A not in schedule
    assert schedule.next_due() == float("inf")


def test_other_addresses_mean_telling_everything_anew() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    schedule.take(0.0, 9)
    schedule.told(A, [b"p"], [], 0.0, "")
    schedule.addresses_changed(10.0)
    assert schedule.next_due() == 10.0 + SETTLE
    assert schedule.wants(A, b"p", 11.0)


def test_after_a_sleep_what_others_are_about_to_forget_is_told_and_the_rest_when_it_is_due() -> None:
    schedule = make()
    for course, at in ((A, 0.0), (B, INTERVAL / 2)):
        schedule.add(course, at)
        schedule.take(at, 9)
        schedule.told(course, [b"p"], [], at, "")
    schedule.slept(3600.0)
    assert schedule.take(INTERVAL / 2, 9) == []
    schedule.slept(INTERVAL / 2)
    assert schedule.take(INTERVAL / 2, 9) == [A]
    assert schedule.wants(A, b"p", INTERVAL / 2)
    assert schedule.next_due() == INTERVAL - 3600.0


def test_late_is_what_should_have_been_told_long_ago() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    assert schedule.figures(LATE).late == 0
    assert schedule.figures(LATE + 1.0).late == 1


def test_neighbours_are_told_together_and_stay_together() -> None:
    chance = random.Random(3)
    schedule = Schedule(chance.random)
    courses = [n.to_bytes(2, "big") for n in range(100)]
    for course in random.Random(5).sample(courses, len(courses)):
        schedule.add(course, 0.0, urgent=False)
    batches = [schedule.take(0.0, 10) for _ in range(10)]
    assert [course for batch in batches for course in batch] == courses
    for batch in batches:
        now = chance.random()
        for course in batch:
            schedule.told(course, [b"p"], [], now, "")
    for _ in range(10):
        now = schedule.next_due()
        assert schedule.take(now, 10) in batches


def test_what_lies_among_them_and_is_due_soon_goes_along() -> None:
    schedule = make()
    for course, at in ((A, 0.0), (C, 0.0), (B, INTERVAL / 20)):
        schedule.add(course, at, urgent=False)
        schedule.take(at, 9)
        schedule.told(course, [b"p"], [], at, "")
    assert sorted(schedule.take(INTERVAL, 9)) == [A, B, C]
    for course in (A, B, C):
        schedule.told(course, [b"p"], [], INTERVAL, "")
    schedule.add(b"new", INTERVAL)
    assert schedule.take(INTERVAL, 9) == [b"new"]  # whoever waits for it waits for nothing else


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([A, B, C]), st.floats(0, 50_000)), max_size=120))
def test_nothing_is_handed_out_twice_and_everything_comes_round(events: list[tuple[int, bytes, float]]) -> None:
    schedule = make()
    busy: set[bytes] = set()
    now = 0.0
    for what, course, wait in events:
        now += wait
        if what == 0:
            schedule.add(course, now)
        elif what == 1:
            schedule.remove(course)
            busy.discard(course)
        elif what == 2:
            taken = schedule.take(now, 2)
            assert not busy.intersection(taken)
            busy.update(taken)
        elif what == 3 and course in busy:
            busy.discard(course)
            schedule.told(course, [b"p"], [], now, "")
        elif what == 4 and course in busy:
            busy.discard(course)
            schedule.told(course, [], [], now, "why")
        elif what == 5:
            schedule.peers_came(now)
        else:
            schedule.addresses_changed(now)
    for course in busy:
        schedule.told(course, [], [], now, "why")
    assert set(schedule.take(now + 2 * INTERVAL, 99)) == {c for c in (A, B, C) if c in schedule}


def provide_for_days(courses: int, seconds_a_batch: float, days: float) -> tuple[dict[bytes, list[float]], Schedule]:
    """When each of many courses was told, one batch of 50 after the other, each taking so long, on a virtual clock."""
    chance = random.Random(7)
    schedule = Schedule(chance.random)
    told: dict[bytes, list[float]] = {n.to_bytes(32, "big"): [] for n in range(courses)}
    holders = [bytes([n]) for n in range(20)]
    now = 0.0
    for course in told:
        schedule.add(course, now, urgent=False)
    while now < days * 86400.0:
        batch = schedule.take(now, 50)
        if not batch:
            now = max(schedule.next_due(), now + 60.0)  # a busy node comes to it later
            continue
        now += seconds_a_batch
        for course in batch:
            told[course].append(now)
            schedule.told(course, holders, [], now, "")
    return told, schedule


def test_ten_thousand_courses_are_all_told_again_within_their_period_and_evenly() -> None:
    told, schedule = provide_for_days(10_000, 6.0, 2.0)
    longest = INTERVAL * 1.1 + 200 * 6.0 + 60.0  # a wait of its own, and at worst everybody else first
    for moments in told.values():
        assert len(moments) >= 4
        assert moments[0] <= 200 * 6.0
        assert all(later - earlier <= longest for earlier, later in itertools.pairwise(moments))
        assert moments[-1] >= 2 * 86400.0 - longest
    figures = schedule.figures(2 * 86400.0)
    assert (figures.announced, figures.waiting, figures.late) == (10_000, 0, 0)
    # After two days they no longer come as one shout: no hour has more than half of all.
    hours = Counter(int(moments[-1] // 3600) for moments in told.values())
    assert max(hours.values()) < 10_000 / 2


def test_a_node_that_can_not_keep_up_says_how_many_are_late_and_for_how_long() -> None:
    _, schedule = provide_for_days(10_000, 300.0, 1.5)  # all of them take 17 hours
    figures = schedule.figures(1.5 * 86400.0)
    assert figures.late > 1_000
    assert figures.lateness > 3600.0


def test_what_nobody_takes_is_late_though_it_is_tried_again_and_again() -> None:
    schedule = make()
    schedule.add(A, 0.0)
    assert schedule.take(0.0, 9) == [A]
    schedule.told(A, [b"p"], [], 0.0, "")
    now = INTERVAL * 1.1
    while now < 3 * INTERVAL:
        for course in schedule.take(now, 9):
            schedule.told(course, [], [], now, "nobody took it")
        now = schedule.next_due()
    figures = schedule.figures(now)
    assert (figures.announced, figures.late, figures.last_error) == (0, 1, "nobody took it")
    assert figures.lateness > INTERVAL
    schedule.peers_came(now)
    schedule.take(now + 60.0, 9)
    schedule.told(A, [b"q"], [], now + 60.0, "")
    assert schedule.figures(now + 61.0).lateness == 0.0
