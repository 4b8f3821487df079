"""Whom to call next: decisions on a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.net.candidates import GIVE_UP, LONELY, LONGEST_WAIT, Candidates, Source


def make(target: int = 3) -> Candidates:
    return Candidates(lambda: 0.5, target=target)


def test_named_ones_go_first_and_no_more_than_are_needed() -> None:
    candidates = make(target=2)
    candidates.add("book", Source.BOOK, 0.0)
    candidates.add("far", Source.NETWORK, 0.0)
    candidates.add("named", Source.NAMED, 0.0)
    assert candidates.call(0.0, set(), 8) == ["named", "book"]
    assert candidates.call(0.0, set(), 8) == []
    candidates.reached("named", 1.0)
    candidates.failed("book", 1.0, alone=False)
    assert candidates.call(1.0, {"named"}, 8) == ["far"]


def test_a_failed_call_waits_longer_each_time_but_not_long_while_alone() -> None:
    candidates = make()
    candidates.add("x", Source.NAMED, 0.0)
    now, waits = 0.0, []
    for _ in range(12):
        assert candidates.call(now, set(), 8) == ["x"]
        candidates.failed("x", now, alone=True)
        then = candidates.next_call(set())
        waits.append(then - now)
        now = then
    assert waits[:4] == [2.0, 4.0, 8.0, 16.0]
    assert all(abs(w - LONELY) < 0.01 for w in waits[4:])
    assert LONGEST_WAIT - 1.0 < candidates.next_call({"somebody"}) - (now - waits[-1]) <= LONGEST_WAIT + LONELY


def test_those_on_the_lan_are_called_even_in_company() -> None:
    candidates = make(target=1)
    candidates.add("far", Source.NETWORK, 0.0)
    candidates.add("near", Source.LAN, 0.0)
    assert candidates.call(0.0, {"other"}, 8) == ["near"]
    assert candidates.next_call({"other"}) == float("inf")


def test_one_found_by_hearsay_is_given_up_and_one_that_was_named_never() -> None:
    candidates = make()
    candidates.add("hearsay", Source.NETWORK, 0.0)
    candidates.add("named", Source.NAMED, 0.0)
    for _ in range(GIVE_UP):
        candidates.call(1e9, set(), 8)
        candidates.failed("hearsay", 0.0, alone=False)
        candidates.failed("named", 0.0, alone=False)
    assert len(candidates) == 1
    assert candidates.call(1e9, set(), 8) == ["named"]


def test_a_weekend_offline_gives_nobody_up() -> None:
    candidates = make()
    candidates.add("book", Source.BOOK, 0.0)
    for _ in range(10 * GIVE_UP):
        candidates.call(1e9, set(), 8)
        candidates.failed("book", 0.0, alone=True)
    assert candidates.call(1e9, set(), 8) == ["book"]


def test_after_a_change_of_network_all_are_due() -> None:
    candidates = make()
    candidates.add("x", Source.NAMED, 0.0)
    for _ in range(6):
        candidates.call(1e6, set(), 8)
        candidates.failed("x", 1e6, alone=False)
    assert candidates.call(1e6, {"y"}, 8) == []
    candidates.network_changed(1e6)
    assert candidates.call(1e6, {"y"}, 8) == ["x"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.sampled_from(list(Source))), max_size=200))
def test_never_more_calls_at_a_time_than_allowed_and_never_to_the_connected(
    events: list[tuple[int, int, Source]],
) -> None:
    candidates = make(target=6)
    busy: set[str] = set()
    connected: set[str] = set()
    for now, (what, who, source) in enumerate(events):
        peer = str(who)
        if what <= 1:
            candidates.add(peer, source, float(now))
        elif what == 2:
            called = candidates.call(float(now), connected, 4)
            assert not connected.intersection(called)
            assert not busy.intersection(called)
            busy.update(called)
            assert len(busy) <= 4
        elif what == 3 and busy:
            done = busy.pop()
            candidates.reached(done, float(now))
            connected.add(done)
        elif what == 4 and busy:
            candidates.failed(busy.pop(), float(now), alone=not connected)
        elif what == 5 and connected:
            gone = connected.pop()
            candidates.gone(gone, float(now))
