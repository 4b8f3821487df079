"""How the command line shows what a node answers: tables and sentences for a person.

Every text that may come from a peer passes through ``terminal.plain`` (the tables do it themselves). What a node of
another version adds is shown too, by its name; what it leaves out is left out here.

Imports ``operations`` and ``terminal``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from p2plearn.operations import ExportResult, GetResult, ImportResult, LeaveResult, PublishResult, VerifyResult
from p2plearn.terminal import count, plain, size, span, table

_IN_BYTES = {"bytes", "have_bytes"}
_IN_MOMENTS = {"created", "added", "paused_until", "since"}
_PAUSED = " This node is paused: no copies are made until `p2plearn node resume`."
_NOT_SHOWN = {"schema", "event", "entries", "warnings"}


def paused(facts: Mapping[str, Any]) -> str:
    """``node pause`` and ``node resume``."""
    if not facts.get("paused"):
        return "Courses are served and fetched."
    until = facts.get("paused_until")
    how_long = "" if until is None else f" until {_value('paused_until', until)}, or"
    return f"Paused{how_long} until `p2plearn node resume`: no course is served or fetched."


def peers(rows: Sequence[Mapping[str, Any]]) -> str:
    """``node peers``."""
    if not rows:
        return "No peers are connected."
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "PEER": lambda row: str(row.get("peer_id", "?")),
        "ADDRESS": lambda row: str((row.get("addresses") or ["?"])[0]).partition("/p2p/")[0],
        "DIRECTION": lambda row: str(row.get("direction", "")),
        "WAY": lambda row: str(row.get("way", "")),
        "FOUND BY": lambda row: str(row.get("found_by", "")),
        "RTT": lambda row: f"{1000 * row['rtt']:.0f} ms" if row.get("rtt") else "",
        "FOR": lambda row: span(round(float(row.get("seconds", 0)))),
        "AGENT": lambda row: str(row.get("agent", "")),
    }
    shown = {head: cells for head, cell in columns.items() if any(cells := [cell(row) for row in rows])}
    return table(tuple(shown), list(zip(*shown.values(), strict=True)))


def courses(rows: Sequence[Mapping[str, Any]], *, said: Callable[[str], str] = str) -> str:
    """``list``; ``said`` puts the home into a command."""
    if not rows:
        return said("No courses are kept here. `p2plearn publish FOLDER` makes one, `p2plearn get HASH` fetches one.")
    cells = [
        (
            str(row["course"])[:12],
            size(int(row["bytes"])),
            _kept(row),
            copies_there(row),
            str(row.get("why", "")),
            str(row["title"]),
        )
        for row in rows
    ]
    return table(("COURSE", "SIZE", "HERE", "COPIES", "WHY", "TITLE"), cells, right=frozenset({1}))


def _kept(row: Mapping[str, Any]) -> str:
    if row.get("complete"):
        return "all"
    total = int(row["bytes"])
    # All of it may be written and not yet hashed: only what is complete is all here.
    return f"{min(99, 100 * int(row.get('have_bytes', 0)) // total)} %" if total else "in part"


def warning(one: Mapping[str, Any]) -> str:
    """A line of a list that one heeds: what is said, and by whom."""
    said = plain(str(one["reason"])) or "no reason given"
    return f"warning about the {one['target']} by {plain(str(one['by_name'])) or str(one['by'])[:12]}: {said}"


def course(facts: Mapping[str, Any]) -> str:
    """``info`` and ``get --manifest-only``: the facts, then the files."""
    entries = facts.get("entries")
    shown = "\n".join([_facts(facts), *map(warning, facts.get("warnings", ()))])
    if not isinstance(entries, list):
        return shown
    cells = [(size(int(entry.get("bytes", 0))), str(entry.get("path", "?"))) for entry in entries]
    return shown + ("\n\n" + table(("SIZE", "FILE"), cells, right=frozenset({0})) if cells else "")


def published(result: PublishResult, *, said: Callable[[str], str] = str) -> str:
    """What ``publish`` says on stderr; the hash goes to stdout. ``said`` puts the home into a command."""
    title = plain(result.title)
    facts = f"{size(result.bytes)} in {count(result.files, 'file')}, {count(result.chunks, 'chunk')}"
    lines = [f"Warning: {plain(warning)}" for warning in result.warnings]
    if result.new:
        version = f" (version {result.version})" if result.version > 1 else ""
        lines.append(f"Published {title}{version}: {facts}, in {result.seconds:.1f} s.")
    else:
        lines.append(f"{title} is published here already, just as it is: {facts}.")
    if result.copied_bytes and (result.version > 1 or not result.new):  # a first version copies all it has
        rest = "; the rest is repeated in it, or was there" if result.copied_bytes < result.bytes else ""
        lines.append(f"Copied into the store: {size(result.copied_bytes)}{rest}.")
    lines.append(said(_copies(result)))
    if result.private:
        lines.append(
            "It is private: not in the catalogue that others search, nor will a next version be. To put it in, publish "
            "it with --public."
        )
    lines.append(f"Share it: p2plearn get '{plain(result.link)}'")
    return "\n".join(lines)


def copies_there(row: Mapping[str, Any]) -> str:
    """Copies in a column: ``3``, ``1 + 2 away``; nothing where nobody knows."""
    there, away = int(row.get("copies") or 0), int(row.get("copies_away") or 0)
    if away:
        return f"{there} + {away} away"
    return str(there or "")


def copies_of(row: Mapping[str, Any], *, noun: str = "") -> str:
    """``1 of 3``, and how many more are on nodes that are away."""
    away = int(row.get("copies_away") or 0)
    more = f", {away} more on {'a node that is' if away == 1 else 'nodes that are'} away" if away else ""
    return f"{row.get('copies', '?')} of {row.get('copies_wanted', '?')}{noun}{more}"


def _copies(result: PublishResult) -> str:
    """How many copies there are, and whether this machine may go."""
    words = _copies_now(result)
    if result.paused and result.copies < result.copies_wanted:
        return words.replace(" More are made as nodes come.", "") + _PAUSED
    return words


def _copies_now(result: PublishResult) -> str:
    wanted = max(result.copies_wanted, 1)
    facts = {"copies": result.copies, "copies_wanted": wanted, "copies_away": result.copies_away}
    kept = copies_of(facts, noun=" copy" if wanted == 1 else " copies")
    if result.copies > wanted:
        more = f"{result.copies} copies, {wanted} asked for"
        if wanted == 1:
            return f"{more}: the others go in time, and then the only copy is here; keep the node running."
        return f"{more}: you may close the laptop. What is too much goes in time."
    if result.copies >= wanted > 1:
        return f"{kept}: you may close the laptop."
    if wanted == 1:
        return f"{kept}: the only copy is here, and no other is made with --copies 1; keep the node running."
    if result.copies < 2:
        away = " that is there now" if result.copies_away else ""
        return f"{kept}: the only copy{away} is here; keep the node running. More are made as nodes come."
    return f"{kept}: you may close the laptop, though more are made as nodes come."


def left(result: LeaveResult) -> str:
    """``node leave``: each course once, with the fewest copies that a part of it has."""
    noun = ("course", "courses")
    if any(row.get("segment") for row in (*result.placed, *result.unplaced)):  # parts of 256 MiB
        noun = ("course or part of a large one", "courses and parts of large ones")
    lines = [f"Handed over {len(result.placed)} of {count(result.units, *noun)} and stopped."]
    elsewhere = result.units - len(result.placed) - len(result.unplaced)
    if elsewhere > 0:
        lines.append(f"{count(elsewhere, *noun)} had enough copies elsewhere before.")
    short = _each_once(row for row in result.unplaced if row["copies"] < row["copies_wanted"])
    named = {row["course"] for row in short}
    unasked = _each_once(row for row in result.unplaced if row["course"] not in named)
    for head, rows in (("These could not be placed", short), ("There was no time to have these copies shown", unasked)):
        if rows:
            lines.append(f"{head}; they stay on this disk and are served again at the next start:")
        lines += [
            f"  {each['course'][:12]} {plain(str(each['title']))}: {copies_of(each, noun=' copies elsewhere')}"
            for each in rows
        ]
    return "\n".join(lines)


def _each_once(parts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each course the part that has the fewest copies."""
    fewest: dict[str, Mapping[str, Any]] = {}
    for row in parts:
        known = fewest.setdefault(row["course"], row)
        if row["copies"] < known["copies"]:
            fewest[row["course"]] = row
    return list(fewest.values())


def fewer_copies(rows: Sequence[Mapping[str, Any]], unconfirmed: Sequence[str] = ()) -> str:
    """What ``node stop`` says of courses that have fewer copies than asked for without this node.

    ``unconfirmed``: peer ids of nodes that may have copies of these, but didn't answer when they were asked.
    """
    lines = ["While it is stopped there are fewer copies than asked for of:"]
    lines += [f"  {row['course'][:12]} {plain(str(row['title']))}: {copies_of(row)}" for row in rows]
    if unconfirmed:
        one = len(unconfirmed) == 1
        lines.append(
            f"{count(len(unconfirmed), 'node')} with copies of these did not answer at once, and "
            f"{'counts' if one else 'count'} as away: {', '.join(map(plain, unconfirmed))}"
        )
    return "\n".join(lines)


def swept(facts: Mapping[str, Any]) -> str:
    """``gc``."""
    lines = [f"{row['course'][:12]} {plain(str(row['title']))}: kept for nobody" for row in facts["courses"]]
    freed = size(int(facts["freed"]))
    return "\n".join([*lines, f"{freed} would be freed." if facts.get("dry_run") else f"Freed {freed}."])


def left_unfreed(facts: Mapping[str, Any]) -> list[str]:
    """What ``remove`` and ``gc`` could not free, and what becomes of it; nothing if there is none."""
    lines = [plain(str(line)) for line in facts.get("left", ())]
    if lines:
        lines.append(
            "It is tried again by `p2plearn gc`, and whenever something is removed. Where the disk fails, "
            "`p2plearn verify` says what is harmed (--repair: fetches it again)."
        )
    return lines


def fetched(result: GetResult) -> str:
    """What ``get`` says on stderr; the path goes to stdout."""
    title = plain(result.title)
    kept = plain(result.replaced_into)
    lines = [f"Replaced {plain(path)}; your version is in {kept}" for path in result.replaced]
    if result.fetched_bytes:
        rate = result.fetched_bytes / max(result.seconds, 0.001)
        lines.append(
            f"Fetched {title}: {size(result.bytes)} in {count(result.files, 'file')}; {size(result.fetched_bytes)} "
            f"came from {count(result.providers, 'provider')} in {span(result.seconds)} ({size(rate)}/s)."
        )
    else:
        lines.append(f"{title} was here already: {size(result.bytes)} in {count(result.files, 'file')}.")
    if result.found_bytes:
        lines.append(f"{size(result.found_bytes)} lay in that folder already, and were taken from there.")
    if not result.written_files:
        lines.append("Every file was in its place already.")
    lines += map(warning, result.warnings)
    return "\n".join(lines)


def _mended_from(one: Mapping[str, Any]) -> str:
    """Where what a course lacked came from."""
    nodes = f"from {count(one['providers'], 'node')}" if one["providers"] else ""
    folder = "from a folder it was written to" if one.get("found_bytes") else ""
    return " and ".join(filter(None, (nodes, folder))) or "that came for another course"


def verified(result: VerifyResult) -> str:
    """``verify``."""
    lines = [_finding(each) for each in result.damaged]
    checked = f"{count(result.courses, 'course')}, {size(result.bytes)}, in {span(result.seconds)}"
    lines.append(f"Checked {checked}: " + ("all good." if not lines else f"{len(lines)} damaged."))
    lines += [
        f"Mended {plain(str(each['title']))}: {size(each['bytes'])} {_mended_from(each)}." for each in result.repaired
    ]
    lines += [f"Still damaged: {_finding(each)}. {plain(str(each['why']))}" for each in result.left]
    return "\n".join(lines)


def _finding(each: Mapping[str, Any]) -> str:
    words = (
        each.get("title") or each.get("course", "?"),
        each.get("path") or "the course itself",
        each.get("what", "damaged"),
    )
    return ": ".join(plain(str(word)) for word in words)


def verify_advice(result: VerifyResult, *, repair: bool) -> str:
    """What to do after ``verify``; empty when there is nothing to do."""
    if not repair:
        if not result.damaged:
            return ""
        return (
            f"p2plearn: {count(len(result.damaged), 'damage')} found; nothing damaged is served or shown.\n"
            "  `p2plearn verify --repair` fetches it again from nodes that have it; publishing it again mends a course "
            "of your own."
        )
    lines = []
    if result.left:
        lines.append(
            f"p2plearn: {count(len(result.left), 'damage')} left; nothing damaged is served or shown.\n"
            "  Run it again when a node that has the course is up (or name one with --from ADDR); publish a course of "
            "your own again; `p2plearn remove HASH` lets go of it."
        )
    folders = [(each["course"], place) for each in result.repaired for place in each.get("checkouts", ())]
    if folders:
        lines.append("p2plearn: folders made from these courses are yours and stay as they are. To compare and mend:")
        lines += [f"  p2plearn get {course} -o {shlex.quote(plain(str(place)))}" for course, place in folders]
    return "\n".join(lines)


def exported(result: ExportResult) -> str:
    """What ``export`` says on stderr."""
    lines = [f"Warning: {plain(warning)}" for warning in result.warnings]
    titles = [_version(course) for course in result.courses]
    lines += [f"  {title}, {size(int(row.get('bytes', 0)))}" for title, row in zip(titles, result.courses, strict=True)]
    kept = f", {size(result.kept)} of it from before" if result.kept > 4096 else ""
    said = f" and {count(result.people, 'record')} of what people said" if result.people else ""
    head = f"Exported {count(len(titles), 'course')}{said}: {size(result.size)}{kept}, in {span(result.seconds)}."
    return "\n".join([head, *lines, "Elsewhere: p2plearn import FILE. IPFS programs read it too (ipfs dag import)."])


def imported(result: ImportResult, *, said: Callable[[str], str] = str) -> str:
    """``import``: a line for each course, then what was learnt of people; ``said`` puts the home into a command."""
    lines = []
    for row in result.courses:
        state, name = str(row.get("state")), _version(row)
        if state == "complete":
            new, folder = int(row.get("stored", 0)), plain(str(row.get("folder", "")))
            if folder and not new:
                lines.append(
                    f"{name}: was here already, in {folder}, and is served from there: what you change in it is gone "
                    "from this node. For a copy of its own:"
                )
                lines.append(said(f"  p2plearn get {row.get('course')}"))
                continue
            if new:
                lines.append(f"{name}: complete, {size(new)} of it new.")
            elif row.get("was_here", True):
                lines.append(f"{name}: was here already.")
            else:
                lines.append(f"{name}: is new here, and complete; all of its content was here already.")
            lines.append(said(f"  p2plearn get {row.get('course')}"))
        elif state == "incomplete":
            here = f"{size(int(row.get('have_bytes', 0)))} of {size(int(row.get('bytes', 0)))}"
            files = int(row.get("missing_files", 0))
            lines.append(f"{name}: {here} here" + (f"; {count(files, 'file')} missing or cut:" if files else "."))
            named = [f"  {plain(str(path))}" for path in row.get("missing", ())]
            lines += named
            if files > len(named) > 0:
                lines.append(f"  and {files - len(named):,} more")
        elif state in {"refused", "no-room"}:
            lines.append(f"{name}: not taken in: {plain(str(row.get('problem', ''))).rstrip('.')}.")
        else:
            lines.append(f"{name}: nothing of it is in this copy of the file.")
    lines.append(f"{count(result.people_new, 'new record')} of what people said, {result.people_known:,} known.")
    if result.people_refused:
        lines.append(
            f"{count(result.people_refused, 'record')} passed over: blocked, of a course not kept here, or not valid."
        )
    if not result.people_whole:
        lines.append("What people said is not in this copy, or not all of it.")
    return "\n".join(lines)


def _version(row: Mapping[str, Any]) -> str:
    """A course by title, later versions with their number; by its hash where no title is known."""
    name = plain(str(row.get("title") or "")) or str(row.get("course", "?"))[:12]
    number = int(row.get("version", 1))
    return f"{name} (version {number})" if number > 1 else name


def _facts(facts: Mapping[str, Any], prefix: str = "") -> str:
    """Names and values in two columns; lists one item a line, objects flattened, what is empty left out."""
    return table(("", ""), _fact_rows(facts, prefix))


def _fact_rows(facts: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if name in _NOT_SHOWN or value in ("", [], ()):
            continue
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _fact_rows(value, f"{label} ")
        elif isinstance(value, list | tuple):
            say = _IN_WORDS.get(name)
            items = [say(item) if say and isinstance(item, Mapping) else _value(name, item) for item in value]
            rows += [(label if not place else "", item) for place, item in enumerate(items)]
        else:
            rows.append((label, _value(name, value)))
    return rows


def _holder(each: Mapping[str, Any]) -> str:
    """Who has a copy, or which segments of a large course, how that node is, and since when it has said so."""
    parts = ", ".join(str(number) for number in each.get("segments", ()))
    of = f", segment{'s' * (',' in parts)} {parts}" if parts else ""
    since = f", keeps it since {_value('since', each['since'])}" if "since" in each else ""
    return f"{each.get('peer_id', '?')}: {each.get('life', '?')}{of}{since}"


_IN_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "where": _holder,
    "segments": lambda each: f"{each.get('segment', '?')}: {copies_of(each)}",
}
"""Lists of objects, and how one of each is said."""


def _value(name: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name in _IN_BYTES:
            return size(value)
        if name in _IN_MOMENTS:
            import datetime

            return datetime.datetime.fromtimestamp(value, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(str(key), item)}" for key, item in value.items())
    return str(value)
