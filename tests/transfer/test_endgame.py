"""How a get ends when its peers are of different speed, in simulated time: every chunk arrives at its own moment."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping

import pytest

from p2plearn.transfer.fetch import TICK_SECONDS
from p2plearn.transfer.scheduler import Arrival, Scheduler

CHUNK = 512 * 1024
SLOTS = 512
FAST = 350e6

Pace = Callable[[float], float]
"""Bytes a second at a time."""


def got(paces: Mapping[str, Pace], seed: int) -> tuple[float, int]:
    """Seconds until everything is here, and how many chunks came twice."""
    dice = random.Random(seed)
    scheduler: Scheduler[str] = Scheduler(range(SLOTS), SLOTS, lambda _: CHUNK, dice.randrange)
    owed: dict[str, deque[int]] = {name: deque() for name in paces}
    events: list[tuple[float, str]] = [(TICK_SECONDS, "")]
    arrivals = 0

    def next_chunk(name: str, now: float) -> None:
        noise = dice.uniform(0.75, 1.25)
        heapq.heappush(events, (now + noise * CHUNK / paces[name](now), name))

    def ask(name: str, now: float) -> None:
        wants, idle = scheduler.next_wants(name, now), not owed[name]
        owed[name].extend(wants)
        if idle and wants:
            next_chunk(name, now)

    for name in paces:
        scheduler.joined(name, b"\xff" * (SLOTS // 8), 0.0)
        ask(name, 0.0)
    while True:
        now, name = heapq.heappop(events)
        if not name:
            for each in paces:
                ask(each, now)
            heapq.heappush(events, (now + TICK_SECONDS, ""))
            continue
        arrivals += 1
        slot = owed[name].popleft()
        if scheduler.arrived(name, slot, now) is Arrival.CHECK:
            for other in scheduler.verified(slot):
                if slot in list(owed[other])[1:]:  # the first is on its way already
                    owed[other].remove(slot)
        if scheduler.finished:
            return now, arrivals - SLOTS
        if owed[name]:
            next_chunk(name, now)
        ask(name, now)


def steady(rate: float) -> Pace:
    return lambda _: rate


def first_then(first: float, seconds: float, rate: float) -> Pace:
    return lambda now: first if now < seconds else rate


SLOW = {
    "ten times slower": steady(FAST / 10),
    "thirty times": steady(FAST / 30),
    "a hundred times": steady(FAST / 100),
    "at first nearly as fast": first_then(200e6, 0.1, FAST / 10),
    "for longer nearly as fast": first_then(200e6, 0.2, FAST / 20),
}


@pytest.mark.parametrize("pace", SLOW.values(), ids=SLOW.keys())
@pytest.mark.parametrize("seed", range(5))
def test_a_slow_peer_beside_a_fast_one_costs_next_to_nothing(pace: Pace, seed: int) -> None:
    alone, _ = got({"fast": steady(FAST)}, seed)
    beside, twice = got({"slow": pace, "fast": steady(FAST)}, seed)
    assert beside < 1.1 * alone
    assert twice <= 2


@pytest.mark.parametrize("seed", range(5))
def test_peers_of_one_speed_are_hardly_asked_twice(seed: int) -> None:
    seconds, twice = got({name: steady(FAST / 4) for name in "abcd"}, seed)
    assert seconds < 1.05 * SLOTS * CHUNK / FAST
    assert twice <= 1
