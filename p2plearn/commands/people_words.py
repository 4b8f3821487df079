"""What people said, as a terminal shows it. Every text of a peer passes through ``terminal.plain``, line by line.

Imports ``terminal`` and ``views``.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from p2plearn.terminal import plain, size, span, table
from p2plearn.views import warning


def person(facts: Mapping[str, Any]) -> str:
    """A name with the key's fingerprint, which no impostor can have, and what is known against them."""
    name = plain(str(facts.get("name") or facts.get("author_name") or ""))
    shown = f"{name} ({facts['fingerprint']})" if name else str(facts["fingerprint"])
    if facts.get("impostor"):
        shown += " [not the one you trust by that name]"
    if facts.get("two_faced"):
        shown += " [signed contradictory things]"
    return shown + "".join(f" [{warning(one)}]" for one in facts.get("warnings", ()))


def _figure(label: str, figure: Mapping[str, Any]) -> str:
    if not figure["count"]:
        return f"{label} (0): no ratings"
    most = max(figure["histogram"].values())
    bars = "  ".join(
        f"{stars}★ {'▇' * max(round(8 * number / most), int(number > 0))} {number}"
        for stars, number in sorted(figure["histogram"].items(), reverse=True)
    )
    mean = f"{figure['mean']:.1f} ± {figure['spread']:.1f}, cautiously {figure['bayesian']:.1f}"
    return f"{label} ({figure['count']}): {mean}\n  {bars}"


def ratings(facts: Mapping[str, Any]) -> str:
    """``ratings``: both figures, then reviews."""
    lines = [plain(str(facts["title"]))] if facts.get("title") else []
    lines.append(_figure("People you trust", facts["trusted"]))
    lines.append(_figure("Everyone", facts["everyone"]))
    if facts.get("mine"):
        lines.append(f"You: {'★' * int(facts['mine'])}")
    for review in facts["reviews"]:
        version = f", version {review['version']}" if review.get("version") and facts.get("versions", 1) > 1 else ""
        trusted = ", trusted" if review["weight"] > 0 else ""
        head = f"{'★' * int(review['stars'])} {person(review)}{trusted}{version}, {_day(review['time'])}"
        lines += ["", head, *_text(review["review"], "  ")]
    return "\n".join(lines)


def found(courses: Sequence[Mapping[str, Any]]) -> str:
    """``search``."""
    if not courses:
        return "No course of the catalogue matches. What is new elsewhere comes when peers are connected."
    cells = [
        (
            str(course["course"])[:12],
            _short(course["ratings"]["trusted"]),
            _short(course["ratings"]["everyone"]),
            _copies_said(course),
            size(int(course["bytes"])),
            str(course["language"]),
            person({**course, "name": course["author_name"], "warnings": ()}),
            str(course["title"]),
        )
        for course in courses
    ]
    lines = [table(("COURSE", "TRUSTED", "EVERYONE", "COPIES SAID", "SIZE", "LANG", "AUTHOR", "TITLE"), cells)]
    for course in courses:
        said = [*course["warnings"], *course["author_warnings"]]
        lines += [f"{str(course['course'])[:12]}: {warning(one)}" for one in said]
    return "\n".join(lines)


def _copies_said(course: Mapping[str, Any]) -> str:
    """How many copies there were when somebody last said so, and how long ago that was: ``4 (3 h ago)``."""
    at = course.get("copies_at")
    return f"{course['copies']} ({span(max(time.time() - at, 0.0))} ago)" if at else str(course["copies"])


def _short(figure: Mapping[str, Any]) -> str:
    return f"{figure['mean']:.1f} ({figure['count']})" if figure["count"] else "-"


def discussion(facts: Mapping[str, Any], *, said: Callable[[str], str] = str) -> str:
    """``discussion``: threads, replies indented."""
    threads = facts["threads"]
    if not threads:
        return said("Nothing was said about this course yet, as far as this node knows. Begin: p2plearn ask HASH")
    return "\n\n".join("\n".join(_thread(one, 0)) for one in threads)


def _thread(one: Mapping[str, Any], depth: int) -> Iterator[str]:
    yield item(one, depth)
    for reply in one["replies"]:
        yield from _thread(reply, depth + 1)


def item(one: Mapping[str, Any], depth: int) -> str:
    """One post, without its replies."""
    indent = "  " * min(depth, 8)
    marks = [word for word in ("pinned", "accepted") if one[word]]
    marks += ["course author"] if one["course_author"] else []
    marks += ["edited"] if one["edited"] else []
    head = f"{indent}{one['role']} {str(one['id'])[:12]} by {person(one)}, {_day(one['time'])}"
    if marks:
        head += f" [{', '.join(marks)}]"
    if one["file"]:
        head += f" on {plain(str(one['file']))}"
    if one["hidden"]:
        return f"{head}\n{indent}  ({plain(str(one['hidden']))})"
    return "\n".join([head, *_text(str(one["text"]), indent + "  ")])


def state(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a post can change, to tell whether it has."""
    return tuple(one[name] for name in ("text", "hidden", "accepted", "pinned"))


def flat(threads: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Every post of some threads."""
    for one in threads:
        yield one
        yield from flat(one["replies"])


def trusted(facts: Mapping[str, Any], *, said: Callable[[str], str] = str) -> str:
    """``trust list``."""
    if not facts["trusted"]:
        return said("You trust nobody yet: p2plearn trust add AUTHOR")
    rows = [(person(row), "you", f"{row['weight']:.2f}") for row in facts["trusted"]]
    rows += [(person(row), "people you trust", f"{row['weight']:.2f}") for row in facts["vouched"]]
    return table(("AUTHOR", "CHOSEN BY", "WEIGHT"), rows)


def profile(facts: Mapping[str, Any]) -> str:
    """``profile``."""
    rows = [("name", str(facts["name"]) or "(none)"), ("about", str(facts["about"])), ("key", str(facts["author"]))]
    if not facts["self"]:
        rows.append(("weight for you", f"{facts['weight']:.2f}"))
    if facts["impostor"]:
        rows.append(("", "not the one you trust by that name"))
    return table(("", ""), [row for row in rows if row[1]])


def shunned(rows: Sequence[Mapping[str, Any]]) -> str:
    """``mute --list``, ``block --list``."""
    if not rows:
        return "Nothing."
    cells = [(row["target"], str(row["subject"])[:12], str(row["by"])[:12], str(row["reason"])) for row in rows]
    return table(("WHAT", "KEY", "BY", "REASON"), cells)


def hidden(rows: Sequence[Mapping[str, Any]]) -> str:
    """``hidden``: the log, a line each."""
    if not rows:
        return "Nothing was hidden here so far."
    cells = [
        (
            _day(row["time"]),
            str(row["action"]),
            str(row["target"]),
            str(row["subject"])[:12],
            "you" if row["by"] == "you" else str(row["by_name"]) or str(row["by"])[:12],
            str(row["reason"]),
        )
        for row in rows
    ]
    return table(("WHEN", "DONE", "TO", "KEY", "BY", "REASON"), cells)


def _text(text: str, indent: str) -> list[str]:
    return [indent + plain(line) for line in text.split("\n")]


def _day(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
