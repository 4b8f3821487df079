"""Plans to copy: what holds for every snapshot, and a leave and a repair carried out on paper."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.custody import Unit
from p2plearn.dht.handoff import Need, may_drop, plan

NODES = [hashlib.sha256(b"node %d" % n).digest() for n in range(12)]
UNITS = [Unit(hashlib.sha256(b"course %d" % n).digest(), 0) for n in range(10)]
SOME = st.frozensets(st.sampled_from(NODES), max_size=5)


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[list[Need], dict[bytes, int]]:
    units = draw(st.lists(st.sampled_from(UNITS), unique=True))
    needs = [
        Need(unit, draw(st.integers(0, 50)), draw(st.integers(1, 5)), draw(SOME), draw(SOME), draw(SOME))
        for unit in units
    ]
    return needs, draw(st.dictionaries(st.sampled_from(NODES), st.integers(0, 120)))


@given(snapshots(), st.randoms())
def test_every_plan_is_sound(snapshot: tuple[list[Need], dict[bytes, int]], rng: random.Random) -> None:
    needs, free = snapshot
    made = plan(needs, free)
    by_unit = {need.unit: need for need in needs}
    sent: dict[bytes, int] = {}
    to: dict[Unit, list[bytes]] = {}
    for transfer in made.transfers:
        sent[transfer.to] = sent.get(transfer.to, 0) + by_unit[transfer.unit].size
        to.setdefault(transfer.unit, []).append(transfer.to)
    assert all(total <= free[node] for node, total in sent.items())
    for need in needs:
        receivers = to.get(need.unit, [])
        assert len(receivers) == len(set(receivers))
        assert not set(receivers) & (need.holders | need.coming | need.refused)
        assert len(receivers) + made.unplaceable.get(need.unit, 0) == need.missing
    # Nothing that has no room is said to have none while there is some.
    for unit in made.unplaceable:
        need = by_unit[unit]
        could = {n for n, room in free.items() if room - sent.get(n, 0) >= need.size}
        assert could <= need.holders | need.coming | need.refused | set(to.get(unit, []))
    rng.shuffle(needs)
    items = list(free.items())
    rng.shuffle(items)
    assert plan(needs, dict(items)) == made


@given(snapshots())
def test_what_has_the_fewest_copies_goes_first(snapshot: tuple[list[Need], dict[bytes, int]]) -> None:
    needs, free = snapshot
    have = {need.unit: len(need.holders | need.coming) for need in needs}
    levels = []
    for transfer in plan(needs, free).transfers:
        levels.append(have[transfer.unit])
        have[transfer.unit] += 1
    assert levels == sorted(levels) or any(plan(needs, free).unplaceable.values())


@given(st.integers(4, 12), st.integers(1, 4), st.data())
def test_one_leaver_moves_only_what_it_kept_and_drops_nothing_before_it_is_acknowledged(
    nodes: int, copies: int, data: st.DataObject
) -> None:
    there = NODES[:nodes]
    holders = {
        unit: {t.to for t in plan([Need(unit, 1, copies, frozenset())], dict.fromkeys(there, 99)).transfers}
        for unit in UNITS
    }
    leaver = data.draw(st.sampled_from(sorted(set().union(*holders.values()))))
    others = {node: 99 for node in there if node != leaver}
    moves = 0
    while True:
        needs = [Need(unit, 1, copies, frozenset(held - {leaver})) for unit, held in holders.items() if leaver in held]
        steps = plan(needs, others).transfers
        for need in needs:
            assert may_drop(copies, holders[need.unit], leaver) == (need.missing == 0)
        if not steps:
            break
        step = data.draw(st.sampled_from(steps))  # only one of them comes to its end before the next plan
        holders[step.unit].add(step.to)
        moves += 1
    possible = min(copies, nodes - 1)
    for held in holders.values():
        assert len(held - {leaver}) >= possible
    assert moves <= sum(leaver in held for held in holders.values())
