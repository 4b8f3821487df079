"""The question behind `p2plearn plan` and its answer: a network in figures, what to expect of it. Sans-IO.

Imports ``config`` and ``planning.durability``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2plearn.config import MOST_COPIES
from p2plearn.planning import durability
from p2plearn.planning.durability import DAY

SHOWN: Final = 8
"""Numbers of copies that a table has at least: what few and many cost is seen at a glance."""


@dataclass(frozen=True, slots=True)
class Question:
    """Rates are shares of the nodes per second, times seconds, sizes bytes; shares 0..1."""

    nodes: int
    leave_rate: float
    copies: int
    join_rate: float
    graceful: float
    online: float
    courses: int
    course_bytes: int
    period: float
    grace: float
    detection: float
    transfer: float
    goal: float
    mass: float

    @property
    def crash_rate(self) -> float:
        """Of nodes that leave without a word."""
        return self.leave_rate * (1.0 - self.graceful)

    @property
    def window(self) -> float:
        """Until a lost copy is made again."""
        return durability.repair_window(self.grace, self.online, self.detection, self.transfer)


@dataclass(frozen=True, slots=True)
class Row:
    """What a number of copies means: chances for one course, shares, and the cost for one node."""

    copies: int
    loss: float
    expected_lost: float
    none_lost: float
    mass_loss: float
    reachable: float
    disk_bytes: float
    repair_bytes_per_day: float


@dataclass(frozen=True, slots=True)
class Answer:
    """``asked`` is the row of the copies asked about; ``enough`` the fewest that meet the goal, None if none do."""

    question: Question
    asked: Row
    enough: int | None
    rows: tuple[Row, ...]
    nodes_at_end: float


def row(question: Question, copies: int, *, deserted: bool = False) -> Row:
    """What ``copies`` of each course mean; in a network that is ``deserted`` before the time is over none is kept."""
    q = question
    chance = 1.0 if deserted else durability.loss(copies, q.crash_rate, q.window, q.period)
    disk = q.courses * q.course_bytes * copies / q.nodes
    return Row(
        copies,
        chance,
        q.courses * chance,
        durability.none_lost(q.courses, chance),
        durability.mass_loss(q.nodes, copies, round(q.mass * q.nodes)),
        durability.reachable(copies, q.online),
        disk,
        # Whoever leaves, with or without a word, has what it kept copied once; of an only copy, without a word, nobody.
        disk * (q.leave_rate if copies > 1 else q.leave_rate - q.crash_rate) * DAY,
    )


def answer(question: Question) -> Answer:
    """What to expect and what to ask for."""
    most = min(question.nodes, MOST_COPIES)
    q = question
    at_end = durability.population(q.nodes, q.join_rate, q.leave_rate, q.period)
    deserted = at_end < 1.0
    enough = None if deserted else durability.enough_copies(
        q.goal, most, leave_rate=q.crash_rate, window=q.window, period=q.period
    )  # fmt: skip
    shown = sorted({*range(1, min(SHOWN, most) + 1), q.copies, enough or q.copies})
    rows = tuple(row(q, copies, deserted=deserted) for copies in shown)
    return Answer(q, row(q, q.copies, deserted=deserted), enough, rows, at_end)
