"""Courses whose holders are away: named once they are searched for in vain, until somebody has them again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.watch import REMEMBERED, Watch

X, Y = b"x" * 32, b"y" * 32
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def make() -> Watch:
    return Watch(period=10.0, grace=100.0)


def away(watch: Watch, now: float, *nodes: bytes) -> None:
    for node in nodes:
        watch.answered(node, False, now)


def test_lost_is_what_nobody_has_had_for_the_grace_period_and_the_network_does_not_find() -> None:
    watch = make()
    watch.see({X: {A, B}, Y: {B, C}}, 0.0)
    away(watch, 0.0, A)
    away(watch, 50.0, B)
    assert watch.away(60.0) == {X: 10.0}
    assert watch.to_search(149.0) is None
    assert watch.to_search(150.0) == X
    assert watch.lost(150.0) == {}  # not before it was searched for
    watch.searched(X, [], 150.0)
    assert watch.lost(150.0) == {X: 100.0}
    assert watch.to_search(155.0) is None
    assert watch.to_search(160.0) == X
    watch.answered(A, True, 161.0)
    assert watch.lost(161.0) == {}


def test_found_elsewhere_it_is_not_lost_as_long_as_that_one_is_there() -> None:
    watch = make()
    watch.see({X: {A}}, 0.0)
    away(watch, 0.0, A)
    watch.searched(X, [C], 100.0)
    assert watch.lost(200.0) == {}
    watch.see({X: {A}}, 201.0)
    assert watch.away(201.0) == {}
    assert C in watch.due(202.0, 9)
    away(watch, 203.0, C)
    assert watch.away(204.0) == {X: 1.0}


def test_it_stays_named_when_records_run_out_and_across_restarts_for_a_month() -> None:
    watch = make()
    watch.see({X: {A}}, 0.0)
    away(watch, 0.0, A)
    watch.searched(X, [], 100.0)
    watch.see({}, 200.0)
    assert watch.lost(200.0) == {X: 200.0}
    again = make()
    again.restore([(c, list(holders), s) for c, (holders, s) in watch.export(200.0).items()], 0.0)
    assert again.lost(0.0) == {X: 200.0}
    again.see({}, 1.0)
    assert again.due(1.0, 9) == [A]
    assert again.lost(1.0) == {X: 201.0}
    again.see({}, REMEMBERED)
    assert again.lost(REMEMBERED) == {}


def test_a_short_absence_that_nobody_told_of_any_more_is_forgotten() -> None:
    watch = make()
    watch.see({X: {A}}, 0.0)
    away(watch, 0.0, A)
    watch.see({}, 50.0)
    assert watch.away(50.0) == {}


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.floats(0.0, 30.0)), max_size=60))
def test_no_course_is_named_while_one_of_its_holders_is_there(events: list[tuple[bytes, bool, float]]) -> None:
    watch = make()
    records = {X: {A, B}, Y: {B, C}}
    there = dict.fromkeys([A, B, C], True)
    now = 0.0
    watch.see(records, now)
    for node, is_there, wait in events:
        now += wait
        there[node] = is_there
        watch.answered(node, is_there, now)
        if (course := watch.to_search(now)) is not None:
            watch.searched(course, [], now)
        watch.see(records, now)
        for course, holders in records.items():
            assert (course in watch.away(now)) == (not any(there[node] for node in holders))
            assert course not in watch.lost(now) or course in watch.away(now)
    assert len(watch.due(now + 1000.0, 2)) == 2
    assert len(watch.due(now + 1000.0, 2)) == 1  # each once a period
