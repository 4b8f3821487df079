"""`p2plearn plan`: how many copies for what loss, from formulas; no node is asked.

Imports click, ``planning`` and light modules only.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import Any, Final

import click

from p2plearn.commands.scope import Command, Scope, pass_scope, seconds_of
from p2plearn.config import COPIES, MOST_COPIES, Settings, parse_size
from p2plearn.errors import UsageProblem
from p2plearn.planning.answer import Answer, Question, Row, answer
from p2plearn.planning.durability import DAY

_RATE: Final = re.compile(
    r"\s*([0-9]{1,9}(?:\.[0-9]{1,12})?)\s*(%?)\s*(?:(?:/|a |per )\s*([a-z]+))?\s*", re.ASCII | re.IGNORECASE
)
_LONG: Final = re.compile(r"\s*([0-9.]{1,12})\s*(weeks?|months?|years?|w|y)\s*", re.ASCII | re.IGNORECASE)
_SPANS: Final = {"hour": 3600.0, "day": DAY, "week": 7 * DAY, "month": 30 * DAY, "year": 365 * DAY}
_SPANS_SHORT: Final = {"h": "hour", "d": "day", "w": "week", "y": "year"}

GRACEFUL_HELP: Final = "Share of those who leave that use `node leave`."
MOST_NODES: Final = 10_000_000
LEAST_ONLINE: Final = 0.001


def _rate(text: str | float) -> float:
    """A share of the nodes in a span of time, ``5%/week``, per second; a bare number is a share a day."""
    if isinstance(text, float):
        return text
    match = _RATE.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no rate; write it like 2%/day, 30%/year or 0.05/week.")
    word = (match[3] or "day").lower()
    span = _SPANS.get(_SPANS_SHORT.get(word, word))
    if span is None:
        raise click.BadParameter(f"{match[3]!r} is no span of time here; take hour, day, week, month or year.")
    if not match[2] and not match[3] and float(match[1]) > 1.0:
        raise click.BadParameter(f"{text!r} alone is {match[1]} times all nodes a day. Did you mean '{match[1]}%/day'?")
    return float(match[1]) * (0.01 if match[2] else 1.0) / span


def _share(text: str | float) -> float:
    """``40%`` or ``0.4``: between 0 and 1."""
    if isinstance(text, float):
        return text
    words = text.strip()
    try:
        share = float(words.removesuffix("%")) * (0.01 if words.endswith("%") else 1.0)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise click.BadParameter(f"{text!r} is no share; write it like 40% or 0.4.")
    return share


def _some(text: str | float) -> float:
    share = _share(text)
    if share < LEAST_ONLINE:
        raise click.BadParameter(f"{text!r} is too little: nodes that are never on keep nothing.")
    return share


def _span(text: str | float) -> float:
    """Seconds, with weeks and years too."""
    match = _LONG.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return seconds_of(text)
    try:
        number = float(match[1])
    except ValueError:
        raise click.BadParameter(f"{text!r} is no length of time; write it like 30d, 8 weeks or 2y.") from None
    word = match[2].lower().rstrip("s")
    return number * _SPANS[_SPANS_SHORT.get(word, word)]


def _size(text: str | int) -> int:
    try:
        return text if isinstance(text, int) else parse_size(text)
    except ValueError as problem:
        raise click.BadParameter(f"{problem}.") from None


@click.command(cls=Command)
@click.option("--nodes", type=click.IntRange(1, MOST_NODES), required=True, metavar="N", help="Nodes in the network.")
@click.option(
    "--leave-rate",
    type=_rate,
    required=True,
    metavar="R",
    help="Share of them that goes for good, as 2%/day, 30%/year.",
)
@click.option(
    "--copies",
    type=click.IntRange(1, MOST_COPIES),
    default=None,
    metavar="r",
    help="Copies of each course.  [default: 3, or as many as there are nodes]",
)
@click.option("--graceful", type=_share, default=0.0, metavar="SHARE", help=GRACEFUL_HELP + "  [default: 0]")
@click.option(
    "--online",
    type=_some,
    default=1.0,
    metavar="SHARE",
    help="Share of the time that a node is on.  [default: 1]",
)
@click.option(
    "--join-rate",
    type=_rate,
    default=None,
    metavar="R",
    help="Share of nodes that comes.  [default: as many as leave]",
)
@click.option(
    "--courses",
    type=click.IntRange(1, 10**9),
    default=None,
    metavar="C",
    help="Courses kept.  [default: one for each node]",
)
@click.option(
    "--course-size", type=_size, default="100 MiB", show_default=True, metavar="SIZE", help="Mean size of one."
)
@click.option(
    "--period", type=_span, default="1y", show_default=True, metavar="TIME", help="For how long to look ahead."
)
@click.option(
    "--goal",
    type=_share,
    default=0.001,
    metavar="SHARE",
    help="Chance to lose a course that is acceptable.  [default: 0.1%]",
)
@click.option(
    "--grace",
    type=_span,
    default=None,
    metavar="TIME",
    help="Silence before a copy is remade.  [default: custody.grace]",
)
@click.option(
    "--repair-time",
    type=_span,
    default="10min",
    show_default=True,
    metavar="TIME",
    help="What making a copy takes then.",
)
@click.option(
    "--mass-loss",
    type=_share,
    default=0.5,
    metavar="SHARE",
    help="Share of nodes that vanishes at one moment.  [default: 50%]",
)
@pass_scope
def plan(
    scope: Scope, *, nodes: int, leave_rate: float, copies: int | None, graceful: float, online: float,
    join_rate: float | None, courses: int | None, course_size: int, period: float, goal: float,
    grace: float | None, repair_time: float, mass_loss: float,
) -> None:  # fmt: skip
    """What loss to expect when nodes come and go, and how many copies to ask for.

    It needs no node and asks none: the figures come from formulas that the simulator of this project is held against.
    Failures that hit many nodes at one moment are beyond them, but for the one of --mass-loss.

    \b
    p2plearn plan --nodes 20 --leave-rate 5%/day --goal 0.1%
    """
    from p2plearn.terminal import count

    if copies is None:
        copies = min(COPIES, nodes)
    if copies > nodes:
        raise UsageProblem(
            f"{count(nodes, 'node')} can't keep {copies} copies: each keeps one.",
            f"Say --copies {nodes}{' or fewer' if nodes > 1 else ''}.",
        )
    settings = Settings.load(scope.home.path)
    question = Question(
        nodes=nodes,
        leave_rate=leave_rate,
        copies=copies,
        join_rate=leave_rate if join_rate is None else join_rate,
        graceful=graceful,
        online=online,
        courses=nodes if courses is None else courses,
        course_bytes=course_size,
        period=period,
        grace=settings.seconds("custody.grace") if grace is None else grace,
        detection=3.0 * settings.seconds("custody.heartbeat"),
        transfer=repair_time,
        goal=goal,
        mass=mass_loss,
    )
    found = answer(question)
    if scope.as_json:
        scope.emit(_facts(found))
    else:
        click.echo(_words(found))


def _facts(found: Answer) -> dict[str, Any]:
    facts = asdict(found)
    facts["question"] |= {"crash_rate": found.question.crash_rate, "window": found.question.window}
    return facts


def percent(share: float) -> str:
    """A chance in words: ``12 %``, ``0.04 %``, ``1 in 12,000,000``."""
    if share <= 0.0:
        return "0"
    if share < 0.0001:
        return f"1 in {_rounded(1.0 / share)}" if share > 1e-15 else "under 1 in 10^15"
    return f"{100 * share:.3g} %" if share < 0.9995 else f"{100 * share:.0f} %"


def _rounded(number: float) -> str:
    digits = max(0, math.floor(math.log10(number)) - 1)
    return f"{round(number / 10**digits) * 10**digits:,.0f}"


def _words(found: Answer) -> str:
    from p2plearn.terminal import count, size, span, table

    q, asked = found.question, found.asked
    rate = q.leave_rate * DAY
    leaving = f"{percent(rate)} of them leaving for good a day" if rate else "none of them ever leaving"
    if q.graceful:
        leaving += f" ({percent(q.graceful)} of those hand over first)"
    lines = [
        f"{count(q.nodes, 'node')}, {leaving}; "
        f"{count(q.courses, 'course')} in {count(q.copies, 'copy', 'copies')} each.",
        f"A copy whose node is gone is made again after {span(q.window)}.",
        "",
        f"Expect to lose a course within {span(q.period)} with a chance of {percent(asked.loss)}: "
        f"{_amount(asked.expected_lost)} of {count(q.courses, 'course')}."
        if asked.loss > 0.0
        else f"No course is expected to be lost within {span(q.period)}.",
    ]
    if found.nodes_at_end >= 1:
        lines += _advice(found)
    if found.nodes_at_end < max(q.copies, 0.9 * q.nodes):
        left = f"{found.nodes_at_end:,.0f}" if found.nodes_at_end >= 1 else "no"
        lines.append(f"More leave than come: {left} nodes are left by then, which no number of copies makes up for.")
    lines += ["", table(
        ("COPIES", "LOST IN TIME", f"IF {percent(q.mass)} VANISH", "THERE NOW", "DISK A NODE", "REPAIR A DAY"),
        [_cells(row, size) for row in found.rows],
        frozenset(range(6)),
    )]  # fmt: skip
    return "\n".join(lines)


def _advice(found: Answer) -> list[str]:
    from p2plearn.terminal import count

    q = found.question
    if found.enough is None:
        return [
            f"No number of copies brings that to {percent(q.goal)}: a shorter --grace may, or nodes that stay longer."
        ]
    better = next(row for row in found.rows if row.copies == found.enough)
    if found.enough > q.copies:
        return [f"Ask for {found.enough} copies to bring that to {percent(better.loss)} (goal: {percent(q.goal)})."]
    if found.enough == q.copies:
        return [f"{q.copies} copies are the fewest that meet the goal of {percent(q.goal)}."]
    chance = f" ({percent(better.loss)})" if better.loss > 0.0 else ""
    return [f"That meets the goal of {percent(q.goal)}; {count(found.enough, 'copy', 'copies')} would, too{chance}."]


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}" if number >= 0.001 else "next to none"


def _cells(row: Row, size: Any) -> tuple[str, ...]:
    return (
        str(row.copies), percent(row.loss), percent(row.mass_loss), percent(row.reachable), size(row.disk_bytes),
        size(row.repair_bytes_per_day),
    )  # fmt: skip
