"""For how long a get waits for who promised everything and brings nothing, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from p2plearn.transfer.fetch import EAGER_TICK_SECONDS
from p2plearn.transfer.patience import AHEAD_SECONDS, LEAST_PATIENCE, MOST_IN_ALL, UNPROVEN_SECONDS
from p2plearn.transfer.scheduler import Arrival, Scheduler

SLOTS = 5
CHUNK = 200_000
EVERYTHING = b"\xf8"


def begun(names: list[str], answered: float) -> Scheduler[str]:
    scheduler: Scheduler[str] = Scheduler(range(SLOTS), SLOTS, lambda _: CHUNK, random.Random(1).randrange)
    for name in names:
        scheduler.joined(name, EVERYTHING, 0.0, answered)
    return scheduler


def until(
    scheduler: Scheduler[str],
    names: list[str],
    wanted: str,
    hear: Callable[[float], None] = lambda _: None,
    enough: int = SLOTS,
) -> float:
    """When ``wanted`` was asked for ``enough``, while all are asked what they may be, and none brings any."""
    now, owes = 0.0, set[int]()
    while len(owes) < enough:
        for name in names:
            wants = scheduler.next_wants(name, now)
            owes |= set(wants) if name == wanted else set()
        assert all(len(holders) <= MOST_IN_ALL for holders in scheduler._holders.values())
        now += EAGER_TICK_SECONDS
        assert now < 60.0, "never asked"
        hear(now)
        scheduler.tick(now)
    return now - EAGER_TICK_SECONDS


def test_whoever_answered_at_once_and_then_brings_nothing_is_not_waited_for():
    names = ["staller", "honest"]
    assert until(begun(names, 0.01), names, "honest") <= LEAST_PATIENCE + 2 * EAGER_TICK_SECONDS


@pytest.mark.parametrize("crowd", [1, 3, 6, 12])
def test_a_crowd_that_stalls_is_gone_through_one_after_the_other(crowd: int):
    """More of them than may owe the same slot: the earlier ones make way."""
    names = [*(f"staller{at}" for at in range(crowd)), "honest"]
    assert until(begun(names, 0.01), names, "honest") <= 0.5 * crowd


@pytest.mark.parametrize("answered", [0.1, 0.3, 5.0])
def test_on_a_long_line_everybody_gets_several_round_trips(answered: float):
    names = ["first", "second"]
    waited = until(begun(names, answered), names, "second", enough=1)
    assert min(4 * answered, 1.0) <= waited <= UNPROVEN_SECONDS + 2 * EAGER_TICK_SECONDS


def test_while_bytes_come_nobody_else_is_asked_for_the_same_so_soon():
    """A chunk takes 20 s at this pace: it is the line that is slow."""
    names = ["first", "second"]
    scheduler = begun(names, 0.01)

    def hear(now: float) -> None:
        scheduler.heard("first", now, int(10_000 * EAGER_TICK_SECONDS))

    assert until(scheduler, names, "second", hear, enough=1) >= 1.0


def test_a_byte_now_and_then_is_nothing():
    names = ["dripper", "honest"]
    scheduler = begun(names, 0.01)
    waited = until(scheduler, names, "honest", lambda now: scheduler.heard("dripper", now, 1))
    assert waited <= LEAST_PATIENCE + 2 * EAGER_TICK_SECONDS


def test_who_brought_one_chunk_takes_over_from_who_brought_none_before_its_pace_is_sure():
    scheduler = begun(["staller", "honest"], 0.01)
    owed = scheduler.next_wants("staller", 0.0)
    scheduler.missing("staller", [(owed[0], 1)])
    assert scheduler.next_wants("honest", 0.01) == [owed[0]]
    assert scheduler.arrived("honest", owed[0], 0.05) is Arrival.CHECK
    scheduler.verified(owed[0])
    assert set(scheduler.next_wants("honest", 0.2)) == set(owed[1:])


def test_what_comes_late_from_who_made_way_still_counts():
    names = [f"slow{at}" for at in range(6)]
    scheduler = begun(names, 0.01)
    until(scheduler, names, names[-1])
    assert not scheduler._peers[names[0]].asked
    assert scheduler.arrived(names[0], 0, 3.0) is Arrival.CHECK
    scheduler.verified(0)
    assert scheduler.remaining == SLOTS - 1
    assert 0 not in scheduler.next_wants(names[0], 3.1)


def test_how_long_nothing_came():
    scheduler = begun(["one"], 0.01)
    assert not scheduler.owed
    assert scheduler.dry_for(5.0) == 0.0  # nobody owes anything
    assert scheduler.next_wants("one", 5.0)
    assert scheduler.owed
    assert scheduler.dry_for(5.5) == pytest.approx(0.5)
    scheduler.heard("one", 5.5, 4_000)
    assert scheduler.dry_for(5.6) == 0.0
    assert scheduler.dry_for(8.0) == pytest.approx(3.0)
    scheduler.held_up("one", 8.0)  # the disk, not the peer
    assert scheduler.dry_for(8.5) == pytest.approx(0.5)


def test_bytes_that_came_at_once_count_for_a_moment_only():
    """Most of a chunk, and then nothing: at the pace below which bytes are none it would do for 46 s."""
    scheduler = begun(["burst"], 0.01)
    assert scheduler.next_wants("burst", 0.0)
    scheduler.heard("burst", 0.5, CHUNK - 10_000)
    assert scheduler.dry_for(0.5 + AHEAD_SECONDS - 0.1) == 0.0
    assert scheduler.dry_for(0.5 + AHEAD_SECONDS + 0.1) == pytest.approx(0.5 + AHEAD_SECONDS + 0.1)


def test_a_modem_is_not_dry():
    scheduler = begun(["modem"], 0.2)
    assert scheduler.next_wants("modem", 0.0)
    for tick in range(1, 160):
        scheduler.heard("modem", tick / 4, 900)
        assert scheduler.dry_for(tick / 4) == 0.0


def test_the_first_of_several_strangers_is_not_asked_for_all_of_a_small_course():
    scheduler = begun(["first"], 0.01)
    scheduler.company = 8
    owed = scheduler.next_wants("first", 0.0)
    assert 1 <= len(owed) <= 2
    scheduler.arrived("first", owed[0], 0.01)
    scheduler.verified(owed[0])
    assert set(scheduler.next_wants("first", 0.01)) | set(owed) == set(range(SLOTS))  # now that it brought something
    alone = begun(["only"], 0.01)
    assert len(alone.next_wants("only", 0.0)) == SLOTS
