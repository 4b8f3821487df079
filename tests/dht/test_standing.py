"""How a course stands, from what is known of its segments: plain values in, plain values out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.custody import Node
from p2plearn.dht.standing import Known, Standing, Whereabouts, standing

THERE, AWAY, GONE = Whereabouts.THERE, Whereabouts.AWAY, Whereabouts.GONE
A, B, C, ME = (bytes([number]) * 32 for number in range(4))


def known(wanted: int, spare: Node | None = None, *, searched: bool = True, **holders: Whereabouts) -> Known:
    nodes = {"a": A, "b": B, "c": C, "me": ME}
    return Known({nodes[name]: at for name, at in holders.items()}, wanted, spare, searched)


def test_who_is_gone_is_not_counted_as_away() -> None:
    stands = standing({0: known(3, me=THERE, a=AWAY, b=GONE)}, 1)
    assert (stands.copies, stands.away, stands.wanted) == (1, 1, 3)
    assert stands.where == {A: (AWAY, (0,)), B: (GONE, (0,)), ME: (THERE, (0,))}


def test_what_is_lost_has_nobody_away_and_what_may_come_back_is_not_lost() -> None:
    assert standing({0: known(2, a=GONE)}, 1).lost == (0,)
    assert standing({0: known(2, a=GONE, b=AWAY)}, 1).lost == ()
    assert standing({0: known(2, searched=False)}, 1).lost == ()
    assert standing({}, 1).lost == ()


def test_a_large_course_has_as_many_copies_as_the_segment_that_is_worst_off() -> None:
    segments = {0: known(2, me=THERE, a=THERE), 1: known(2, me=THERE, b=THERE), 2: known(2, me=THERE, c=AWAY)}
    stands = standing(segments, 3)
    assert (stands.copies, stands.away, stands.wanted, stands.short) == (1, 1, 2, True)
    assert stands.where[A] == (THERE, (0,))
    assert stands.where[ME] == (THERE, (0, 1, 2))
    # A node that stops takes with it only what it has.
    assert stands.without(A).segments[2] == stands.segments[2]
    assert stands.without(ME).copies == 0
    assert not standing({0: segments[0], 1: segments[1]}, 3).short


def test_what_was_fetched_counts_only_where_others_have_too_few() -> None:
    assert standing({0: known(2, ME, a=THERE, b=THERE)}, 1).copies == 2
    assert standing({0: known(2, ME, a=THERE, b=AWAY)}, 1).copies == 2
    assert standing({0: known(0, ME)}, 1).copies == 1
    assert ME not in standing({0: known(2, ME, a=THERE, b=THERE)}, 1).where


holders = st.dictionaries(st.sampled_from([A, B, C, ME]), st.sampled_from(Whereabouts))
segments = st.dictionaries(
    st.integers(0, 3), st.builds(Known, holders, st.integers(0, 4), st.sampled_from([None, ME]), st.booleans())
)


@given(segments)
def test_it_never_says_that_what_is_lost_has_copies(told: dict[int, Known]) -> None:
    stands: Standing = standing(told, 4)
    for number in stands.lost:
        each = stands.segments[number]
        assert not each.there
        assert not each.away
    assert all(stands.copies <= len(each.there) or each.missing <= stands.worst.missing
               for each in stands.segments.values())  # fmt: skip
    assert stands.without(ME).copies <= stands.copies or stands.worst.missing <= stands.without(ME).worst.missing
