"""⊙ What ratings are worth: one vote an author, two figures, and trust that begins with the user's own choice.

Trust follows EigenTrust (Kamvar, Schlosser, Garcia-Molina, WWW 2003) as far as a person can check it: the
pre-trusted peers are the authors that the user named (*seeds*); each of them passes trust on to those that it named,
in equal shares; and it ends there, after two hops, with DECAY lost on the second. So all that one seed can give away
is DECAY votes, to however many identities.

Two figures, never one: *trusted* weighs votes by trust (an identity that no chain of at most two reaches has weight
0, whatever its number), *everyone* counts each vote once. For the order of search results a vote nobody vouches for
counts a little, all such votes together at most STRANGERS; ``sway`` states what that can move.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

DECAY: Final = 0.5
"""What a seed passes on, all its choices together, against 1 for the seed itself."""
PRIOR_MEAN: Final = 3.0
"""What a course without ratings is taken for: the middle of the scale."""
PRIOR_VOTES: Final = 5.0
"""How many votes that assumption weighs. One vote of 5 then makes 3.3, ten make 4.3: few votes say little."""
STRANGER: Final = 0.05
"""Weight of a vote nobody vouches for, in the order of search results."""
STRANGERS: Final = 0.5
"""Most that such votes weigh together: half of one trusted person."""
STARS: Final = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Vote:
    """An author's rating of a course: ``stars`` 0 to 5 (0: taken back); the highest (``seq``, ``id``) counts."""

    author: bytes
    stars: int
    seq: int
    id: bytes


@dataclass(frozen=True, slots=True)
class Figure:
    """Votes summed up. ``histogram`` counts votes of 1, 2, 3, 4, 5 stars; ``mean`` (weighted) and ``spread`` (standard
    deviation) are None without votes; ``bayesian`` is the mean with the prior's votes thrown in.
    """

    count: int
    mean: float | None
    spread: float | None
    bayesian: float
    histogram: tuple[int, int, int, int, int]


def trust_weights(seeds: Iterable[bytes], edges: Mapping[bytes, Iterable[bytes]], me: bytes) -> dict[bytes, float]:
    """Weight by author: 1 for a seed, for others what seeds pass on to them (at most DECAY a seed), never ``me``.

    ``edges``: whom each author says to trust. Authors that nobody reaches are left out.
    """
    chosen = set(seeds) - {me}
    weights: dict[bytes, float] = {}
    for seed in sorted(chosen):
        friends = set(edges.get(seed, ())) - {seed}
        for friend in friends - chosen - {me}:
            weights[friend] = weights.get(friend, 0.0) + DECAY / len(friends)
    weights = {author: min(weight, 1.0) for author, weight in weights.items()}
    return weights | dict.fromkeys(chosen, 1.0)


def latest(votes: Iterable[Vote]) -> list[Vote]:
    """Each author's last word, those who took theirs back left out; in the order of authors."""
    last: dict[bytes, Vote] = {}
    for vote in votes:
        known = last.get(vote.author)
        if known is None or (vote.seq, vote.id) > (known.seq, known.id):
            last[vote.author] = vote
    return [last[author] for author in sorted(last) if last[author].stars]


def trusted_figure(votes: Iterable[Vote], weights: Mapping[bytes, float]) -> Figure:
    """The votes of those who have weight, weighed by it."""
    counted = [(vote.stars, weights[vote.author]) for vote in latest(votes) if weights.get(vote.author, 0.0) > 0]
    return _figure(counted)


def everyone_figure(histogram: Mapping[int, int]) -> Figure:
    """Each author's vote once; ``histogram`` maps stars to how many gave them."""
    return _figure([(stars, float(histogram[stars])) for stars in STARS if histogram.get(stars)], counts=histogram)


def order_score(trusted: Iterable[tuple[int, float]], strangers: Mapping[int, int]) -> float:
    """What a course is worth in the order of search results, 1 to 5.

    ``trusted``: (stars, weight) of each vote with weight; ``strangers``: stars to number of all others' votes.
    """
    total, weight = PRIOR_MEAN * PRIOR_VOTES, PRIOR_VOTES
    for stars, own in trusted:
        total, weight = total + stars * own, weight + own
    number = sum(strangers.values())
    if number:
        share = min(number * STRANGER, STRANGERS)
        mean = sum(stars * many for stars, many in strangers.items()) / number
        total, weight = total + mean * share, weight + share
    return total / weight


def sway() -> float:
    """The most that identities nobody vouches for can move ``order_score``, however many they are."""
    # From a score of 1 (the lowest) towards 5, at the least weight that can stand against them.
    return (STARS[-1] - STARS[0]) * STRANGERS / (PRIOR_VOTES + STRANGERS)


def _figure(votes: list[tuple[int, float]], counts: Mapping[int, int] | None = None) -> Figure:
    """A figure of (stars, weight), in a fixed order so that sums come out the same for everyone."""
    histogram = [0, 0, 0, 0, 0]
    for stars, _ in votes:
        histogram[stars - 1] += counts[stars] if counts is not None else 1
    ordered = sorted(votes)
    weight = math.fsum(own for _, own in ordered)
    total = math.fsum(stars * own for stars, own in ordered)
    bayesian = (PRIOR_MEAN * PRIOR_VOTES + total) / (PRIOR_VOTES + weight)
    tally = (histogram[0], histogram[1], histogram[2], histogram[3], histogram[4])
    if not weight:
        return Figure(0, None, None, bayesian, tally)
    mean = total / weight
    spread = math.sqrt(math.fsum(own * (stars - mean) ** 2 for stars, own in ordered) / weight)
    return Figure(sum(histogram), mean, spread, bayesian, tally)
