"""When a node repairs, lets go and promises: by the clock, without nodes."""

from __future__ import annotations

import hashlib

from p2plearn.dht.custody import Unit, ranked
from p2plearn.dht.duty import (
    HANDOVER_PATIENCE,
    PATIENCE,
    PROMISE_SECONDS,
    SURPLUS_GRACES,
    Duty,
    LettingGo,
    Promises,
    counted,
)
from p2plearn.dht.ledger import Entry, Ledger
from p2plearn.dht.messages import Reason

UNIT = Unit(hashlib.sha256(b"course").digest(), 0)
NODES = ranked(UNIT, (hashlib.sha256(b"node %d" % n).digest() for n in range(6)))
INTERVAL, GRACE = 10.0, 3600.0


def entry_of(*holders: bytes, copies: int = 3) -> Entry:
    """What ``holders[0]`` knows of the unit."""
    ledger = Ledger(holders[0], lambda _: b"")
    ledger.state(UNIT, 100, copies, True, 1)
    for node in holders[1:]:
        other = Ledger(node, lambda _: b"")
        ledger.merge([other.state(UNIT, 100, copies, True, 1)])
    entry = ledger.entry(UNIT)
    assert entry is not None
    return entry


def test_the_nearest_repairs_after_a_while_and_the_next_when_it_does_not() -> None:
    entry = entry_of(NODES[0], NODES[1])
    alive = set(NODES[:2])
    first, second = (Duty(node, INTERVAL, GRACE) for node in NODES[:2])
    acts: dict[str, float] = {}
    for step in range(40):
        now = 5.0 * step
        for name, duty in (("first", first), ("second", second)):
            if duty.repairs(duty.need(UNIT, entry, frozenset(alive), now), alive, now):
                acts.setdefault(name, now)
    assert acts == {"first": 20.0, "second": 100.0}


def test_a_copy_that_came_back_ends_the_wait() -> None:
    duty = Duty(NODES[0], INTERVAL, GRACE)
    short, whole = entry_of(*NODES[:2]), entry_of(*NODES[:3])
    assert not duty.repairs(duty.need(UNIT, short, short.holders, 0.0), short.holders, 0.0)
    assert not duty.repairs(duty.need(UNIT, whole, whole.holders, 30.0), whole.holders, 30.0)
    assert not duty.repairs(duty.need(UNIT, short, short.holders, 31.0), short.holders, 31.0)
    assert duty.repairs(duty.need(UNIT, short, short.holders, 52.0), short.holders, 52.0)


def test_what_is_under_way_is_not_made_twice_and_who_declined_is_left_alone_for_a_while() -> None:
    duty, entry = Duty(NODES[0], INTERVAL, GRACE), entry_of(NODES[0], NODES[1])
    duty.begun(UNIT, NODES[2])
    assert duty.need(UNIT, entry, entry.holders, 0.0).missing == 0
    duty.ended(UNIT, NODES[2])
    duty.declined(UNIT, NODES[2], Reason.NO_QUOTA, 0.0)
    duty.declined(UNIT, NODES[3], Reason.BUSY, 0.0)
    need = duty.need(UNIT, entry, entry.holders, 1.0)
    assert (need.missing, need.refused) == (1, frozenset(NODES[:4]))
    assert duty.waits_for_busy([UNIT], 1.0)
    assert duty.need(UNIT, entry, entry.holders, 3.0).refused == frozenset(NODES[:3])
    duty.keep_to([UNIT], 100.0)
    assert duty.need(UNIT, entry, entry.holders, 100.0).refused == entry.holders


def test_surplus_goes_after_four_graces_of_everybody_being_there_and_the_farthest_first() -> None:
    there = NODES[:4]
    farthest = Duty(NODES[3], INTERVAL, GRACE)
    long = SURPLUS_GRACES * GRACE
    assert not farthest.releases(UNIT, there, 3, 0.0)
    assert not farthest.releases(UNIT, there, 3, long - 1.0)
    assert farthest.releases(UNIT, there, 3, long)
    assert not farthest.releases(UNIT, there[1:], 3, long + 1.0)  # one isn't there: from the beginning
    assert not farthest.releases(UNIT, there, 3, long + 2.0)
    assert farthest.releases(UNIT, there, 3, 2 * long + 2.0)


def test_if_the_farthest_keeps_its_copy_the_next_lets_go() -> None:
    """Its person may want it; found by the simulator, where such a copy kept every other surplus one in place."""
    duties = [Duty(node, INTERVAL, GRACE) for node in NODES[:4]]
    long, patience = SURPLUS_GRACES * GRACE, PATIENCE * INTERVAL
    for duty in duties:
        assert not duty.releases(UNIT, NODES[:4], 3, 0.0)
    assert [duty.releases(UNIT, NODES[:4], 3, long) for duty in duties] == [False, False, False, True]
    later = [duty.releases(UNIT, NODES[:4], 3, long + patience) for duty in duties]
    assert later == [False, False, True, True]


def test_nothing_is_remembered_of_units_that_went() -> None:
    duty, entry = Duty(NODES[3], INTERVAL, GRACE), entry_of(*NODES[:2])
    duty.repairs(duty.need(UNIT, entry, entry.holders, 0.0), entry.holders, 0.0)
    duty.releases(UNIT, NODES[:4], 3, 0.0)
    duty.keep_to([], 1.0)
    assert not duty.repairs(duty.need(UNIT, entry, entry.holders, 99.0), entry.holders, 99.0)
    assert not duty.releases(UNIT, NODES[:4], 3, 1e9)


def test_a_copy_counts_until_its_grace_is_over() -> None:
    entry = entry_of(*NODES[:3])
    gone = {NODES[0]: 9e9, NODES[1]: GRACE - 1.0, NODES[2]: GRACE}
    assert counted(entry, NODES[0], gone.__getitem__, GRACE) == set(NODES[:2])


def test_one_promise_at_a_time() -> None:
    promises = Promises()
    assert promises.grant(UNIT, NODES[1], 0.0)
    assert promises.holds(UNIT, 1.0)
    assert promises.grant(UNIT, NODES[1], 1.0)
    assert not promises.grant(UNIT, NODES[2], 2.0)
    promises.gone(UNIT, NODES[2])
    assert not promises.grant(UNIT, NODES[2], 2.0)
    promises.gone(UNIT, NODES[1])
    assert promises.grant(UNIT, NODES[2], 2.0)
    assert not promises.holds(UNIT, 2.0 + PROMISE_SECONDS)


def test_letting_go_takes_as_many_promises_as_copies_and_stops_at_who_is_busy() -> None:
    going = LettingGo(2, NODES[1:5])
    assert going.next() == NODES[1]
    going.answered(NODES[1], None)
    assert not going.may_drop(NODES[0])
    going.answered(NODES[2], Reason.NOT_HELD)
    assert going.next() == NODES[3]
    going.answered(NODES[3], None)
    assert going.next() is None
    assert going.may_drop(NODES[0])
    assert going.failed == {NODES[2]: Reason.NOT_HELD}
    going = LettingGo(2, NODES[1:5])
    going.answered(NODES[1], Reason.BUSY)
    assert going.next() is None
    assert not going.may_drop(NODES[0])


def test_what_others_placed_meanwhile_is_not_placed_once_more() -> None:
    duty, entry = Duty(NODES[0], INTERVAL, GRACE), entry_of(NODES[0])
    for to in NODES[1:3]:
        duty.begun(UNIT, to)
    need = duty.need(UNIT, entry, entry.holders, 0.0)
    assert Duty.still_wanted(need, NODES[1])
    assert Duty.still_wanted(need, NODES[2])
    # Another holder found NODES[1] busy and placed a copy elsewhere: one of the two planned here is enough.
    more = entry_of(NODES[0], NODES[4])
    assert not Duty.still_wanted(duty.need(UNIT, more, more.holders, 1.0), NODES[1])
    duty.ended(UNIT, NODES[1])
    assert Duty.still_wanted(duty.need(UNIT, more, more.holders, 1.0), NODES[2])
    assert not Duty.still_wanted(duty.need(UNIT, more, more.holders, 1.0), NODES[4])


def test_of_several_leavers_the_nearest_places_a_unit_and_the_next_when_it_does_not() -> None:
    first, second = (Duty(node, INTERVAL, GRACE) for node in NODES[:2])
    entry, leavers = entry_of(*NODES[:2]), NODES[:2]

    def acts(duty: Duty, now: float) -> bool:
        return duty.hands_over(duty.need(UNIT, entry, frozenset(), now), leavers, now)

    assert acts(first, 0.0)
    assert not acts(second, 0.0)
    assert not acts(second, HANDOVER_PATIENCE - 1.0)
    assert acts(second, HANDOVER_PATIENCE)
    # Alone it begins at once; and what has its copies needs none.
    assert Duty(NODES[1], INTERVAL, GRACE).hands_over(second.need(UNIT, entry, frozenset(), 0.0), (), 0.0)
    assert not first.hands_over(first.need(UNIT, entry, frozenset(NODES[2:5]), 1.0), leavers, 1.0)
