"""Whoever removes a copy by relying on another's: whatever the order of events, somebody keeps theirs."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.custody import Unit
from p2plearn.dht.duty import Removal, Removals

UNIT = Unit(hashlib.sha256(b"course").digest(), 0)
OTHER = Unit(UNIT.course, 1)
SMALL, LARGE = b"\1" * 32, b"\2" * 32


def test_of_two_that_ask_each_other_the_one_with_the_larger_key_yields() -> None:
    small, large = Removals(SMALL), Removals(LARGE)
    heard: list[str] = []
    with (
        small.of([UNIT, OTHER], lambda: heard.append("small")) as first,
        large.of([UNIT], lambda: heard.append("large")) as second,
    ):
        assert not small.vouches(UNIT, LARGE)
        assert large.vouches(UNIT, SMALL)
        assert (first.yielded, second.yielded, heard) == (False, True, ["large"])
        assert large.vouches(OTHER, SMALL)  # which it isn't removing
    assert small.vouches(UNIT, LARGE)  # it is over, however it ended


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_never_are_all_gone(events: list[tuple[int, int]]) -> None:
    """Each event is one node beginning, asking another, or, when it has a copy to rely on, deciding."""
    nodes = [bytes([number + 1]) * 32 for number in range(4)]
    removals = {node: Removals(node) for node in nodes}
    keeps = set(nodes)
    under_way: dict[bytes, tuple[Removal, ExitStack]] = {}
    relies: set[bytes] = set()
    for who, whom in events:
        me, other = nodes[who], nodes[whom]
        if me not in keeps:
            continue
        if me not in under_way:
            stack = ExitStack()
            under_way[me] = stack.enter_context(removals[me].of([UNIT], lambda: None)), stack
            relies.discard(me)
        elif other != me:
            if other in keeps and removals[other].vouches(UNIT, me):
                relies.add(me)
        else:
            removal, stack = under_way.pop(me)
            if me in relies and not removal.yielded:
                keeps.discard(me)
            stack.close()
        assert keeps
