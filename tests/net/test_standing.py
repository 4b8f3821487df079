"""Faults, points and bans on a clock of the test's own."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.net.standing import BAN_POINTS, Fault, Standing

HOUR = 3600.0


def test_two_poisoned_chunks_are_an_hour() -> None:
    standing = Standing()
    assert not standing.fault("x", Fault.POISON, 0.0, "chunk 3")
    assert standing.fault("x", Fault.POISON, 60.0, "chunk 9")
    assert standing.banned("x", 60.0 + HOUR - 1.0)
    assert not standing.banned("x", 60.0 + HOUR)


def test_two_poisoned_chunks_a_day_apart_are_forgiven() -> None:
    standing = Standing()
    standing.fault("x", Fault.POISON, 0.0)
    assert not standing.fault("x", Fault.POISON, 24 * HOUR)


def test_a_protocol_error_is_milder_and_many_of_them_are_not() -> None:
    standing = Standing()
    banned = [standing.fault("x", Fault.PROTOCOL, float(i)) for i in range(10)]
    assert banned.index(True) == 8
    assert not standing.banned("x", 8.0 + Fault.PROTOCOL.ban)


def test_whoever_does_it_again_waits_longer() -> None:
    standing = Standing()
    now, bans = 0.0, []
    for _ in range(3):
        while not standing.fault("x", Fault.POISON, now):
            now += 1.0
        start = now
        while standing.banned("x", now):
            now += 60.0
        bans.append(now - start)
    assert bans[0] < bans[1] < bans[2]


def test_the_summary_is_json_with_the_worst_first() -> None:
    standing = Standing()
    standing.fault("mild", Fault.SLOW, 0.0)
    standing.fault("bad", Fault.POISON, 0.0, "chunk 1")
    standing.fault("bad", Fault.POISON, 0.0, "chunk 2")
    rows = json.loads(json.dumps(standing.summary(10.0)))
    assert [r["peer"] for r in rows] == ["bad", "mild"]
    assert rows[0]["faults"] == {"poison": 2}
    assert rows[0]["banned_for"] == 3590
    assert standing.summary(1000 * HOUR) == []


def test_a_flood_of_fresh_identities_lifts_no_ban() -> None:
    standing = Standing(capacity=50)
    for _ in range(2):
        standing.fault("bad", Fault.POISON, 0.0)
    for number in range(500):
        standing.fault(f"sybil {number}", Fault.PROTOCOL, 1.0)
    assert standing.banned("bad", 2.0)
    assert len(standing) == 50


@given(st.lists(st.tuples(st.sampled_from(list(Fault)), st.floats(0, 1000)), max_size=60))
def test_points_only_fall_by_themselves_and_a_ban_needs_a_hundred(events: list[tuple[Fault, float]]) -> None:
    standing = Standing()
    now, given_points = 0.0, 0.0
    for kind, wait in events:
        before = standing.points("x", now)
        now += wait
        assert standing.points("x", now) <= before + 1e-9
        banned = standing.fault("x", kind, now)
        given_points += kind.points
        if banned:
            assert given_points >= BAN_POINTS - 1e-6
