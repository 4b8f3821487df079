"""Who is there, on a clock of the test's own."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.liveness import Detector, Life

P, Q = b"p", b"q"


def running(seconds: float = 60.0, *peers: bytes, start: float = 0.0) -> tuple[Detector, float]:
    """A detector that has heard each peer every second."""
    detector, now = Detector(1.0, start), start
    while now < start + seconds:
        now += 1.0
        for peer in peers:
            detector.beat(peer, now)
        assert detector.tick(now, in_touch=True) == []
    return detector, now


def until(detector: Detector, peer: bytes, life: Life, now: float, *others: bytes) -> float:
    begun = now
    while detector.life(peer) is not life:
        now += 1.0
        for other in others:
            detector.beat(other, now)
        detector.tick(now, in_touch=True)
        assert now - begun < 100.0
    return now - begun


def test_a_crash_is_suspected_within_5_seconds_and_down_within_20() -> None:
    detector, now = running(60.0, P, Q)
    assert until(detector, P, Life.SUSPECT, now, Q) <= 5.0
    assert until(detector, P, Life.DOWN, now, Q) <= 20.0
    assert detector.life(Q) is Life.ALIVE
    assert detector.gone_for(P, now + 30.0) >= 30.0
    assert detector.gone_for(Q, now + 30.0) == 0.0
    assert detector.beat(P, now + 40.0) is Life.DOWN
    assert detector.life(P) is Life.ALIVE
    assert detector.gone_for(P, now + 41.0) == 0.0


def test_who_has_stopped_is_known_sooner_than_who_is_silent() -> None:
    detector, now = running(60.0, P, Q)
    detector.refused(P)
    detector.refused(b"stranger")
    assert 2.0 <= until(detector, P, Life.DOWN, now, Q) <= 6.0
    detector.beat(P, now + 9.0)
    assert until(detector, P, Life.DOWN, now + 9.0, Q) > 10.0


@given(st.lists(st.floats(0.1, 5.0), min_size=2, max_size=20))
def test_suspicion_grows_with_silence(steps: list[float]) -> None:
    detector, now = running(30.0, P)
    seen = [detector.phi(P, now)]
    for step in steps:
        now += step
        seen.append(detector.phi(P, now))
    assert seen == sorted(seen)


def test_jittery_beats_are_no_deaths() -> None:
    rng = random.Random(4)
    detector, now, due = Detector(1.0, 0.0), 0.0, 1.0
    worst: list[Life] = []
    for _ in range(20_000):
        now += 1.0
        while due <= now:
            detector.beat(P, due)
            due += 1.0 + rng.expovariate(8.0) + (3.0 if rng.random() < 0.01 else 0.0)
        detector.tick(now, in_touch=True)
        worst.append(detector.life(P))
    assert Life.DOWN not in worst
    assert worst.count(Life.SUSPECT) <= 0.02 * len(worst)


@given(st.floats(3.0, 1e7), st.floats(0.0, 4.0))
def test_an_observer_that_slept_accuses_nobody(slept: float, later: float) -> None:
    detector, now = running(60.0, P, Q)
    now += slept
    assert detector.tick(now, in_touch=True) == []
    assert detector.unwell > 0
    assert detector.tick(now + min(later, 1.9), in_touch=True) == []
    assert detector.life(P) is detector.life(Q) is Life.ALIVE


def test_an_observer_that_reaches_nobody_accuses_nobody_until_long_after() -> None:
    detector, now = running(60.0, P, Q)
    for _ in range(1000):
        now += 1.0
        assert detector.tick(now, in_touch=False) == []
    now += 1.0
    assert detector.tick(now, in_touch=True) == []
    assert until(detector, P, Life.DOWN, now, Q) < 40.0


def test_wall_clocks_dont_matter_and_a_clock_that_goes_back_harms_nothing() -> None:
    for start in (-1e9, 0.0, 4e9):
        detector, now = running(20.0, P, start=start)
        assert until(detector, P, Life.DOWN, now) <= 20.0
    detector, now = running(20.0, P)
    assert detector.tick(now - 1000.0, in_touch=True) == []
    assert detector.beat(P, now - 1000.0) is Life.ALIVE


def test_who_leaves_has_left_until_heard_again() -> None:
    detector, now = running(20.0, P)
    detector.left(P, now)
    detector.tick(now + 1.0, in_touch=True)
    assert detector.life(P) is Life.LEFT
    assert detector.gone_for(P, now + 5.0) == 5.0
    assert detector.beat(P, now + 9.0) is Life.LEFT
    assert detector.life(P) is Life.ALIVE
    detector.forget(P)
    assert P not in detector


def test_a_peer_that_pauses_20_seconds_a_minute_comes_back_each_time() -> None:
    detector, now = Detector(1.0, 0.0), 0.0
    downs = 0
    for second in range(3600):
        now += 1.0
        if second % 60 < 40:
            detector.beat(P, now)
        detector.beat(Q, now)
        downs += (P, Life.DOWN) in detector.tick(now, in_touch=True)
        assert detector.gone_for(P, now) <= 21.0  # a grace of half a minute never begins a repair
    assert detector.life(Q) is Life.ALIVE
    assert downs <= 60
