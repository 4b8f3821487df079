"""Ratings: one vote an author, order and repetition mean nothing, identities without weight change nothing."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.gossip.ratings import (
    DECAY,
    PRIOR_MEAN,
    Vote,
    everyone_figure,
    latest,
    order_score,
    sway,
    trust_weights,
    trusted_figure,
)


def author(number: int) -> bytes:
    return hashlib.sha256(b"author %d" % number).digest()


votes = st.lists(
    st.builds(
        lambda who, stars, seq: Vote(author(who), stars, seq, hashlib.sha256(b"%d%d%d" % (who, stars, seq)).digest()),
        st.integers(0, 12), st.integers(0, 5), st.integers(1, 6),
    ),
    max_size=40,
)  # fmt: skip
weights = st.dictionaries(st.integers(0, 12).map(author), st.sampled_from([0.0, 0.05, 0.5, 1.0]))


@given(votes, weights, st.randoms())
def test_order_and_repetition_mean_nothing(given_: list[Vote], weigh: dict[bytes, float], rng: random.Random) -> None:
    shuffled = given_ + given_[: len(given_) // 2]
    rng.shuffle(shuffled)
    assert latest(shuffled) == latest(given_)
    assert trusted_figure(shuffled, weigh) == trusted_figure(given_, weigh)


@given(votes, weights)
def test_one_author_has_one_vote(given_: list[Vote], weigh: dict[bytes, float]) -> None:
    figure = trusted_figure(given_, weigh)
    assert figure.count == sum(figure.histogram)
    assert figure.count <= len({vote.author for vote in given_})


@given(votes, weights, st.integers(1, 60), st.integers(1, 5))
def test_identities_of_no_weight_change_nothing(
    given_: list[Vote], weigh: dict[bytes, float], number: int, stars: int
) -> None:
    sybils = [Vote(author(1000 + n), stars, 1, author(n)) for n in range(number)]
    assert trusted_figure(given_ + sybils, weigh) == trusted_figure(given_, weigh)


@given(votes.filter(bool), st.integers(1, 5))
def test_the_last_word_counts(given_: list[Vote], stars: int) -> None:
    who = given_[0].author
    last = Vote(who, stars, 100, bytes(32))
    assert [vote for vote in latest([*given_, last]) if vote.author == who] == [last]
    assert not [v for v in latest([*given_, last, Vote(who, 0, 101, bytes(32))]) if v.author == who]


def test_figures() -> None:
    figure = everyone_figure({5: 2, 4: 1, 1: 1})
    assert (figure.count, figure.mean, figure.histogram) == (4, 3.75, (1, 0, 0, 1, 2))
    assert figure.spread == pytest.approx(1.6394, abs=1e-4)
    assert figure.bayesian == pytest.approx((15 + 15) / 9)
    nobody = everyone_figure({})
    assert (nobody.count, nobody.mean, nobody.spread, nobody.bayesian) == (0, None, None, PRIOR_MEAN)


def test_trust_goes_two_hops_and_no_further() -> None:
    me, ada, bob, cleo, dan = (author(n) for n in range(5))
    edges = {ada: [bob, cleo, me, ada], bob: [dan], me: [dan]}
    got = trust_weights([ada], edges, me)
    assert got == {ada: 1.0, bob: pytest.approx(DECAY / 3), cleo: pytest.approx(DECAY / 3)}
    assert trust_weights([], edges, me) == {}
    assert trust_weights([me, ada], edges, me)[ada] == 1.0


@given(st.integers(1, 500), st.integers(0, 5))
def test_a_seed_gives_away_no_more_than_its_share(sybils: int, friends: int) -> None:
    seed = author(0)
    edges = {seed: [author(10 + n) for n in range(sybils + friends)]}
    given_away = sum(trust_weights([seed], edges, author(9)).values()) - 1.0
    assert given_away <= DECAY + 1e-9


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.1, 0.5, 1.0])), max_size=20),
    st.dictionaries(st.integers(1, 5), st.integers(0, 30)),
    st.dictionaries(st.integers(1, 5), st.integers(0, 100_000)),
)
def test_strangers_move_the_order_by_no_more_than_is_said(
    trusted: list[tuple[int, float]], before: dict[int, int], sybils: dict[int, int]
) -> None:
    after = {stars: before.get(stars, 0) + sybils.get(stars, 0) for stars in range(1, 6)}
    assert abs(order_score(trusted, after) - order_score(trusted, before)) <= sway() + 1e-9
    assert sway() < 0.37
