"""Waits that grow, on a clock of the test's own."""

from __future__ import annotations

from p2plearn.net.backoff import MOST_REMEMBERED, Backoff


def test_each_failure_doubles_the_wait_up_to_the_most() -> None:
    backoff = Backoff(10.0, 60.0)
    now, waits = 0.0, []
    for _ in range(5):
        assert backoff.due("a", now)
        backoff.failed("a", now)
        begun = now
        while not backoff.due("a", now):
            now += 1.0
        waits.append(now - begun)
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_success_forgets_them() -> None:
    backoff = Backoff(10.0, 60.0)
    backoff.failed("a", 0.0)
    backoff.failed("a", 10.0)
    backoff.worked("a")
    assert backoff.due("a", 11.0)
    backoff.failed("a", 11.0)
    assert backoff.due("a", 21.0)
    backoff.worked("never failed")


def test_keys_are_apart_and_no_more_than_so_many() -> None:
    backoff = Backoff(10.0, 60.0)
    for key in range(2 * MOST_REMEMBERED):
        backoff.failed(key, 0.0)
    assert backoff.due(0, 1.0)  # forgotten: tried once too often
    assert not backoff.due(2 * MOST_REMEMBERED - 1, 1.0)
