"""What a person sees: words, sizes, tables, and where a long operation stands.

Texts from peers (titles, paths) pass through ``plain`` before they are shown: a course must not be able to move the
cursor, recolour the screen or turn the reading direction. Data goes to stdout, progress and messages to stderr; a
bar and colours appear only on a terminal, and never under ``NO_COLOR``.

Imports ``operations``; ``rich`` late, only when there is a bar to draw.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from p2plearn.operations import SCHEMA, Progress

# -- texts ------------------------------------------------------------------------------------------------------------

_TURNING: Final = frozenset(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Characters that change the direction of what follows: with them ``gnp.exe`` reads ``exe.png``."""

_WINDOWS_DEVICES: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
)
_MOST_NAME_BYTES: Final = 120


def plain(text: str) -> str:
    """``text`` on one line and harmless to a terminal: blanks for line ends and tabs, nothing for other controls."""
    kept: list[str] = []
    for char in text:
        if char in "\t\n\r\v\f\x85\u2028\u2029":
            kept.append(" ")
        elif char in _TURNING or unicodedata.category(char) == "Cc":
            continue
        elif unicodedata.category(char) == "Cs":
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(char)
    return "".join(kept)


def folder_name(title: str, course: str) -> str:
    """A folder's name made of a course's title, good on any system; from the hash when nothing is left of it."""
    name = unicodedata.normalize("NFC", plain(title))
    name = "".join("-" if char in '/\\:*?"<>|' else char for char in name)
    name = " ".join(name.split()).strip(". -")
    name = name.encode("utf-8")[:_MOST_NAME_BYTES].decode("utf-8", "ignore").rstrip(". ")
    if not name or name.partition(".")[0].strip().lower() in _WINDOWS_DEVICES:
        return f"course-{course[:12]}"
    return name


def size(count: float) -> str:
    """Bytes in words: ``812 B``, ``1.5 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def span(seconds: float) -> str:
    """A length of time in words, two units at most: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 d 5 h``."""
    if 0 < seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    for big, small, big_word, small_word in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {big_word}" + (f" {rest} {small_word}" if rest else "")
    raise AssertionError(whole)


def count(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


# -- columns ----------------------------------------------------------------------------------------------------------


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal: two for wide characters (UAX #11), none for combining marks."""
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def cut(text: str, columns: int) -> str:
    """``text`` in at most ``columns`` columns, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for char in text:
        used += _char_width(char)
        if used > columns - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Aligned columns, two blanks apart; the columns of ``right`` are aligned right. Cells pass through ``plain``.

    On a terminal too narrow the widest column of words gives way; elsewhere nothing is ever cut.
    """
    cells = [[plain(cell) for cell in row] for row in ([heads, *rows] if any(heads) else rows)]
    if not cells:
        return ""
    widths = [max(width(row[column]) for row in cells) for column in range(len(heads))]
    if sys.stdout.isatty():
        import shutil  # late: without a terminal it isn't needed

        room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
        widest = max(range(len(widths)), key=lambda column: (column not in right, widths[column]))
        widths[widest] = max(12, min(widths[widest], room - sum(widths) + widths[widest]))
    lines = []
    for row in cells:
        parts = []
        for column, cell in enumerate(row):
            fitted = cut(cell, widths[column])
            blank = " " * (widths[column] - width(fitted))
            parts.append(blank + fitted if column in right else fitted + blank)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


# -- where an operation stands ----------------------------------------------------------------------------------------


def words(progress: Progress) -> list[str]:
    """What is worth saying of a progress, the most important first."""
    said = []
    if progress.bytes_total:
        said.append(f"{size(progress.bytes)} of {size(progress.bytes_total)}")
    elif progress.bytes:
        said.append(size(progress.bytes))
    if progress.waiting_for:
        paused = is_pause(progress.waiting_for)
        said.append(plain(progress.waiting_for) if paused else f"waiting for {plain(progress.waiting_for)}")
    else:
        if progress.rate > 0:
            said.append(f"{size(progress.rate)}/s")
        if progress.eta >= 0:
            said.append(f"{span(round(progress.eta))} left")
    if progress.peers:
        said.append(count(progress.peers, "peer"))
    if progress.files_total:
        said.append(f"{progress.files:,} of {count(progress.files_total, 'file')}")
    elif progress.files:
        said.append(count(progress.files, "file"))
    if progress.files_there:
        said.append(f"{progress.files_there:,} can be opened")
    return said


def is_pause(waiting_for: str) -> bool:
    """Whether what is waited for, as its words begin, is the end of a pause of this node."""
    return waiting_for.startswith("paused")


_VERBS: Final = {"checking out": "Writing", "waiting": "Waiting"}
"""Stages that a person wants to tell from the main one."""


class Display(Protocol):
    """Shows progress while it is open."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, however the operation ended."""
        ...

    def show(self, progress: Progress) -> None:
        """The newest progress."""
        ...


class _Quiet:
    """Nothing to begin or to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonLines(_Quiet):
    """Each progress as a JSON line on stdout, unless it is what the line before said."""

    def __init__(self) -> None:
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Write it at once."""
        if progress == self._last:
            return
        self._last = progress
        write_json({"event": "progress", **progress.as_json()})


class RareLines(_Quiet):
    """A line now and then, for logs and for ``NO_COLOR``: the first after two seconds, then one each ten."""

    _FIRST: Final = 2.0
    _APART: Final = 10.0

    def __init__(self, verb: str, stream: TextIO | None = None) -> None:
        self._verb = verb
        self._stream = stream or sys.stderr
        self._next = time.monotonic() + self._FIRST

    def show(self, progress: Progress) -> None:
        """Write a line if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._APART
        said = ", ".join(words(progress)) or plain(progress.stage)
        print(f"{_VERBS.get(progress.stage, self._verb)}: {said}", file=self._stream, flush=True)


class Bar:
    """One live line on a terminal: a bar, and as many of the words as fit."""

    _BAR_COLUMNS: Final = 24

    def __init__(self, verb: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._verb = verb
        self._title = ""
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console, transient=True, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        """Take the line."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the line back, empty."""
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Draw it at the next refresh."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        self._title = plain(progress.title) or self._title  # later stages may leave it out
        room = self._console.width
        head = cut(f"{_VERBS.get(progress.stage, self._verb)} {self._title}".rstrip(), max(10, room // 3))
        bar_columns = self._BAR_COLUMNS if room >= 70 else 8
        left = room - width(head) - bar_columns - 2
        said = ""
        for part in words(progress):
            longer = f"{said} · {part}" if said else part
            if width(longer) > left:
                break
            said = longer
        said = said or cut(next(iter(words(progress)), plain(progress.stage)), max(0, left))
        bar = ProgressBar(
            total=progress.bytes_total or None,
            completed=progress.bytes,
            width=bar_columns,
            pulse=not progress.bytes_total,
        )
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(head, no_wrap=True), bar, Text(said, no_wrap=True))
        self._live.update(line)


class _Saying:
    """A display to which a pause is told as ``said`` has it: with the command that ends it."""

    def __init__(self, shown: Display, said: Callable[[str], str]) -> None:
        self._shown = shown
        self._said = said

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, problem, trace)

    def show(self, progress: Progress) -> None:
        if is_pause(progress.waiting_for):  # what else is waited for may have words of a peer's in it
            progress = dataclasses.replace(progress, waiting_for=self._said(progress.waiting_for))
        self._shown.show(progress)


def display(verb: str, *, as_json: bool, said: Callable[[str], str] = str) -> Display:
    """The right way to show progress here and now; ``said`` puts the home into commands."""
    if as_json:
        return _Saying(JsonLines(), said)
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return _Saying(RareLines(verb), said)
    return _Saying(Bar(verb), said)


# -- output -----------------------------------------------------------------------------------------------------------


def write_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, ``schema`` first; ASCII, so that any locale can carry it."""
    print(json.dumps({"schema": SCHEMA, **value}, ensure_ascii=True), flush=True)


def note(text: str) -> None:
    """A message for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def prepare_streams() -> None:
    """Let stdout and stderr carry any text: odd file names as their own bytes, what the locale lacks as escapes."""
    import io

    # A closed stream (`>&-`) has no object at all: what is written there goes nowhere.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            known = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if known else "backslashreplace")
