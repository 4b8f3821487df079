"""Two nodes end with the union, at a cost of the difference, whatever they had and whatever goes wrong between."""

from __future__ import annotations

import hashlib
import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course import msgpacking
from p2plearn.errors import PeerFault
from p2plearn.gossip.reconcile import answer, check_ranges, opening, shortest_between


def key(number: int, time: int | None = None) -> bytes:
    at = number if time is None else time
    return at.to_bytes(8, "big") + hashlib.sha256(number.to_bytes(8, "big")).digest()


def reconcile(one: set[bytes], other: set[bytes]) -> tuple[int, int]:
    """Run it to the end, both sets becoming the union; (turns, bytes of ranges)."""
    sides = [sorted(one), sorted(other)]
    got: list[set[bytes]] = [set(), set()]  # keys told to each side
    wanted: list[set[bytes]] = [set(), set()]
    message = opening(sides[0])
    turns = size = 0
    me = 1
    while message:
        packed = msgpacking.pack([list(item) for item in message])
        size += len(packed)
        turns += 1
        result = answer(sides[me], check_ranges(msgpacking.unpack(packed, longest=1 << 20, most=4096)))
        got[1 - me] |= set(result.they_lack)
        wanted[me] |= set(result.we_lack)
        message = result.ranges
        me = 1 - me
        assert turns < 10_000
    for side in (0, 1):
        theirs = {held[8:]: held for held in sides[1 - side]}
        got[side] |= {theirs[name] for name in wanted[side]}
    one |= got[0]
    other |= got[1]
    return turns, size


numbers = st.sets(st.integers(0, 3000), max_size=400)


@settings(deadline=None)
@given(both=numbers, left=numbers, right=numbers, times=st.sampled_from([1, 7, 1000]))
def test_both_end_with_the_union(both: set[int], left: set[int], right: set[int], times: int) -> None:
    one = {key(n, n // times) for n in both | left}
    other = {key(n, n // times) for n in both | right}
    union = one | other
    reconcile(one, other)
    assert one == union
    assert other == union


def test_nothing_to_say_costs_one_fingerprint() -> None:
    same = {key(n) for n in range(50_000)}
    turns, size = reconcile(same, set(same))
    assert (turns, size < 40) == (1, True)


def test_cost_follows_the_difference_not_the_size() -> None:
    rng = random.Random("cost")
    costs = []
    for total in (1_000, 10_000, 100_000):
        everything = [key(n) for n in range(total)]
        missing = set(rng.sample(everything, 10))
        one, other = set(everything) - missing, set(everything)
        turns, size = reconcile(one, other)
        assert one == other
        assert turns <= 6  # the last one only tells ids: with the envelopes, three and a half round trips
        costs.append(size)
    assert costs[-1] < 64 * 1024
    assert costs[-1] < 5 * costs[0]  # for a hundredfold set: the logarithm


def test_a_difference_larger_than_a_message_takes_more_messages() -> None:
    one, other = {key(n) for n in range(0, 40_000, 2)}, {key(n) for n in range(1, 40_000, 2)}
    union = one | other
    reconcile(one, other)
    assert one == other == union


def test_a_month_away_is_one_exchange() -> None:
    old = {key(n) for n in range(20_000)}
    new = {key(n) for n in range(20_000, 24_000)}
    one, other = set(old), old | new
    _, size = reconcile(one, other)
    assert one == other
    assert size < 4_000 * 40 * 2  # ids of what is new, and little more


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_ranges_or_the_peers_fault(raw: bytes) -> None:
    try:
        value = msgpack.unpackb(raw, use_list=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException, TypeError):
        return
    try:
        ranges = check_ranges(value)
    except PeerFault:
        return
    answer([key(n) for n in range(100)], ranges)


@pytest.mark.parametrize(
    "value",
    [
        (), None, 5, ((b"", None), (b"", None)), ((b"a", None),), ((b"b", None), (b"a", None), (b"", None)),
        ((b"", b"x"),), ((b"", 5),), ((b"x" * 41, None), (b"", None)), ((b"",),), (b"", None), ((b"a", None, 1),),
    ],
)  # fmt: skip
def test_ranges_that_are_off(value: object) -> None:
    with pytest.raises(PeerFault):
        check_ranges(value)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_bounds_are_short_and_between(left: int, right: int) -> None:
    before, after = sorted((key(left, left // 9), key(right, right // 9)))
    if before == after:
        with pytest.raises(ValueError, match="ascend"):
            shortest_between(before, after)
        return
    bound = shortest_between(before, after)
    assert before < bound <= after
