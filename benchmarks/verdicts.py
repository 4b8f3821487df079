"""Whether figures meet a target. ⊙

In: what is asked of a figure, by itself or as a ratio to somebody else's, and what was measured. Out: a table's line.
What must hold: nothing is called met that wasn't measured, on either side.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

MET, MISSED, NOT_MEASURED, NO_TARGET = "met", "missed", "not measured", "no target"

Relation = Literal["at least", "at most", "under"]
_HOLDS = {"at least": operator.ge, "at most": operator.le, "under": operator.lt}


class Target(NamedTuple):
    """What is asked."""

    work: str
    """What was done."""
    relation: Relation | None
    """How the figure has to stand to ``bound``; None: it is shown and not judged."""
    bound: float = 0.0
    unit: str = ""
    """Of the figure."""
    beside: str = ""
    """Whose figure it is divided by; "": the bound is of the figure itself."""
    digits: int = 2

    def words(self) -> str:
        """As a reader is told."""
        if self.relation is None:
            return "-"
        return f"{self.relation} {self.bound:g} {f'x {self.beside}' if self.beside else self.unit}".rstrip()


class Line(NamedTuple):
    """One row of the table."""

    work: str
    target: str
    measured: str
    beside: str
    ratio: str
    verdict: str


HEAD = Line("work", "target", "measured", "beside", "ratio, run by run", "verdict")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (least-most)``."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def judge(target: Target, ours: Sequence[float], other: Sequence[float] = (), *, missing: str = "") -> Line:
    """The line of a target: one value a run, and the other's of the same runs.

    A ratio is the median of the runs' own ratios, since those were taken next to each other. ``missing`` says why there
    is nothing to judge by. Raises ValueError for figures that aren't of the same runs.
    """
    measured = f"{spread(ours, target.digits)} {target.unit}".rstrip() if ours else "-"
    beside = f"{target.beside} {spread(other, target.digits)}" if other else "-"
    ratios = [a / b for a, b in zip(ours, other, strict=True)] if ours and other else []
    values = ratios if target.beside else ours
    if not values:
        verdict, ratio = NOT_MEASURED, missing or "-"
    else:
        ratio = spread(ratios) if ratios else "-"
        if target.relation is None:
            verdict = NO_TARGET
        else:
            verdict = MET if _HOLDS[target.relation](statistics.median(values), target.bound) else MISSED
    return Line(target.work, target.words(), measured, beside, ratio, verdict)


def count(work: str, seen: Sequence[bool]) -> Line:
    """The line of what has to be so in every run."""
    verdict = NOT_MEASURED if not seen else MET if all(seen) else MISSED
    return Line(work, "every run", f"{sum(seen)} of {len(seen)} runs", "-", "-", verdict)


def not_measured(work: str, why: str) -> Line:
    """The line of what could not be done."""
    return Line(work, "-", "-", "-", why, NOT_MEASURED)


def table(lines: Iterable[Line]) -> str:
    """All lines in columns, in Markdown."""
    rows = [HEAD, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    shown = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    shown.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(f"| {row} |" if number != 1 else f"|-{row}-|" for number, row in enumerate(shown))
