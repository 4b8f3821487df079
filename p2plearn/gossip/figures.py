"""Figures of courses out of the record: votes by author, both figures, and the worth that orders search results.

Functions on a connection; how votes are weighed is ``ratings``'s.

Imports siblings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from p2plearn.gossip.ratings import Figure, Vote, everyone_figure, latest, order_score, trusted_figure

_BATCH: Final = 500


def figure_json(figure: Figure) -> dict[str, Any]:
    """A figure as it is shown to programs."""
    return {
        "count": figure.count,
        "mean": None if figure.mean is None else round(figure.mean, 4),
        "spread": None if figure.spread is None else round(figure.spread, 4),
        "bayesian": round(figure.bayesian, 4),
        "histogram": {str(stars): number for stars, number in enumerate(figure.histogram, 1)},
    }


def vote(row: Sequence[Any]) -> Vote:
    return Vote(row[0], row[1], row[2], row[3])


def histogram_of(db: sqlite3.Connection, courses: Sequence[bytes]) -> dict[int, int]:
    """Stars to number of authors whose latest rating in any of ``courses`` they are."""
    if len(courses) == 1:
        rows = db.execute(
            "SELECT stars, count(*) FROM ratings WHERE course = ? AND stars > 0 GROUP BY stars", (courses[0],)
        )
        return dict(rows.fetchall())
    marks = ",".join("?" * len(courses))
    # max(seq) makes SQLite take the other columns from that very row.
    rows = db.execute(
        "SELECT stars, count(*) FROM (SELECT author, stars, max(seq) FROM ratings "  # noqa: S608 - only "?"s
        f"WHERE course IN ({marks}) GROUP BY author) WHERE stars > 0 GROUP BY stars",
        tuple(courses),
    )
    return dict(rows.fetchall())


def trusted_votes(db: sqlite3.Connection, courses: Sequence[bytes], weights: dict[bytes, float]) -> list[Vote]:
    votes: list[Vote] = []
    authors = sorted(weights)
    for course in courses:
        for start in range(0, len(authors), _BATCH):
            batch = authors[start : start + _BATCH]
            marks = ",".join("?" * len(batch))
            votes += map(
                vote,
                db.execute(
                    f"SELECT author, stars, seq, id FROM ratings WHERE course = ? AND author IN ({marks})",  # noqa: S608
                    (course, *batch),
                ),
            )
    return votes


def figures(db: sqlite3.Connection, courses: Sequence[bytes], weights: dict[bytes, float]) -> tuple[Figure, Figure]:
    return (
        trusted_figure(trusted_votes(db, courses, weights), weights),
        everyone_figure(histogram_of(db, courses)),
    )


def scored(
    db: sqlite3.Connection, courses: Sequence[bytes], weights: dict[bytes, float]
) -> tuple[Figure, Figure, float]:
    votes = latest(trusted_votes(db, courses, weights))
    everyone = histogram_of(db, courses)
    strangers = dict(everyone)
    for vote in votes:
        strangers[vote.stars] -= 1
    score = order_score([(vote.stars, weights[vote.author]) for vote in votes], strangers)
    return trusted_figure(votes, weights), everyone_figure(everyone), score
