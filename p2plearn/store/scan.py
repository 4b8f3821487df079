"""What would be published: every file and folder under a path, or every reason why not.

Nothing is opened for reading and nothing stored. All problems are collected, so that a person mends them in one go.

A file system's names are bytes; a course's are Unicode in composed form (NFC). A name in decomposed form, as macOS
writes them, is published in composed form; two names that then are one are a problem.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import heapq
import os
import stat
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import overload

from p2plearn.course.paths import BadPath, check_path
from p2plearn.errors import Interrupted, Refused, UsageProblem

NAMED_PROBLEMS = 20
"""Problems named one by one; of the rest only the number is."""

_KINDS = {
    stat.S_IFLNK: "is a symbolic link",
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to publish: its path in the course, where it is, and how it looked when it was found."""

    path: str
    source: str
    size: int
    mtime_ns: int
    inode: int


class SourceFiles(Sequence[SourceFile]):
    """Files to publish below ``root``, in flat arrays: there may be a million."""

    def __init__(self, root: str) -> None:
        self.below = root.rstrip("/") + "/"
        """What they are below, but for those that links lead to."""
        self._paths = bytearray()
        self._ends: array[int] = array("Q", [0])  # of file i's path is item i + 1
        self._facts: array[int] = array("q")  # size, time and, as a signed number, inode of each
        self._elsewhere: dict[str, str] = {}  # by path, those that aren't where their path says

    def add(self, path: str, source: str, facts: os.stat_result) -> None:
        """One more; ``path`` is one that a course may have."""
        if source != self.below + path:
            self._elsewhere[path] = source
        self._paths += path.encode()
        self._ends.append(len(self._paths))
        self._facts.extend((facts.st_size, facts.st_mtime_ns, facts.st_ino - (facts.st_ino >> 63 << 64)))

    def __len__(self) -> int:
        """How many."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> SourceFile: ...

    @overload
    def __getitem__(self, at: slice) -> list[SourceFile]: ...

    def __getitem__(self, at: int | slice) -> SourceFile | list[SourceFile]:
        """The file with that number from 0, or some of them."""
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        path = self.path(at)
        size, mtime_ns, inode = self._facts[3 * at : 3 * at + 3]
        return SourceFile(path, self._elsewhere.get(path) or self.below + path, size, mtime_ns, inode % (1 << 64))

    def path(self, number: int) -> str:
        """The path of a file in the course."""
        return self._paths[self._ends[number] : self._ends[number + 1]].decode()

    def paths(self) -> Iterator[str]:
        """The path of each."""
        return map(self.path, range(len(self)))

    @property
    def bytes(self) -> int:
        """Their size together."""
        return sum(self._facts[::3])

    def sort(self) -> None:
        """By their paths."""
        found, facts, ends = self._paths, self._facts, self._ends
        order = array("I", sorted(range(len(self)), key=self.path))
        self._paths, self._facts, self._ends = bytearray(), array("q"), array("Q", [0])
        for number in order:
            self._paths += found[ends[number] : ends[number + 1]]
            self._ends.append(len(self._paths))
            self._facts += facts[3 * number : 3 * number + 3]


@dataclass(slots=True)
class Scan:
    """What was found. ``files`` and ``folders`` (the empty ones) are in the order of a course."""

    kind: str
    files: SourceFiles
    folders: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return self.files.bytes


def scan(
    source: Path, *, follow_symlinks: bool, skip_special: bool, cancelled: Callable[[], bool] = lambda: False
) -> Scan:
    """Find everything under ``source``. Raises UsageProblem if it isn't there, Refused naming what can't be published.

    ``follow_symlinks`` takes links that lead to something under ``source``; ``skip_special`` leaves out, with a
    warning each, links (but those it follows), pipes, sockets, devices and what can't be read.
    """
    return _Scanner(source, follow_symlinks, skip_special, cancelled).run()


class _Scanner:
    def __init__(self, source: Path, follow: bool, skip: bool, cancelled: Callable[[], bool]) -> None:
        self._source = source
        self._follow = follow
        self._skip = skip
        self._cancelled = cancelled
        self._problems: list[str] = []
        self._root = os.path.realpath(source)

    def run(self) -> Scan:
        source = self._source
        try:
            facts = os.stat(source)
        except OSError as error:
            raise UsageProblem(f"{source} can't be published: {_reason(error)}.") from None
        if stat.S_ISREG(facts.st_mode):
            self._found = Scan("file", SourceFiles(self._root))
            # What the user names is meant, link or not.
            self._add(source.name, self._root, facts)
        elif stat.S_ISDIR(facts.st_mode):
            self._found = Scan("folder", SourceFiles(self._root))
            self._walk()
        else:
            raise UsageProblem(f"{source} can't be published: it is neither a folder nor a file.")
        self._found.files.sort()
        self._found.folders.sort()
        self._check_names()
        if self._problems:
            self._refuse()
        return self._found

    def _walk(self) -> None:
        # (path in the course, where it is, real paths of the folders above it)
        pending: list[tuple[str, str, tuple[str, ...]]] = [("", self._root, ())]
        while pending:
            if self._cancelled():
                raise Interrupted("Publishing was interrupted; nothing was stored.")
            prefix, directory, above = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    listed = list(entries)
            except OSError as error:
                if prefix:
                    self._report(prefix[:-1], _cannot(error))
                else:
                    self._problems.append(f"{directory} {_cannot(error)}")
                continue
            kept = 0
            for entry in listed:
                path = prefix + unicodedata.normalize("NFC", entry.name)
                where, facts = self._resolve(entry, path)
                if facts is None:
                    continue
                if stat.S_ISDIR(facts.st_mode):
                    if self._follow and os.path.realpath(where) in (*above, directory):
                        self._report(path, "is a link to a folder that it is in")
                        continue
                    pending.append((path + "/", where, (*above, directory) if self._follow else ()))
                    kept += 1
                elif stat.S_ISREG(facts.st_mode):
                    kept += self._add(path, where, facts)
                else:
                    self._special(path, facts)
            if not kept and prefix and self._proper(prefix[:-1]):
                self._found.folders.append(prefix[:-1])

    def _resolve(self, entry: os.DirEntry[str], path: str) -> tuple[str, os.stat_result | None]:
        """Where an entry really is, and what; None if it was reported instead."""
        try:
            facts = entry.stat(follow_symlinks=False)
            if not stat.S_ISLNK(facts.st_mode):
                return entry.path, facts
            if self._follow:
                real = os.path.realpath(entry.path)
                if real != self._root and not real.startswith(self._root.rstrip("/") + "/"):
                    self._report(path, f"is a link that leads outside, to {real}")
                    return "", None
                return real, os.stat(real)
        except OSError as error:
            self._report(path, _cannot(error))
            return "", None
        self._special(path, facts)
        return "", None

    def _special(self, path: str, facts: os.stat_result) -> None:
        self._report(path, _KINDS.get(stat.S_IFMT(facts.st_mode), "is neither a file nor a folder"))

    def _report(self, path: str, what: str) -> None:
        """Something that can't be published: a warning where the user said to leave such things out."""
        if self._skip:
            self._found.warnings.append(f"{_printable(path)} was left out: it {what}")
        else:
            self._problems.append(f"{path} {what}")

    def _proper(self, path: str) -> bool:
        try:
            check_path(path)
        except BadPath as error:
            self._problems.append(f"{_printable(path)} has a name that courses can't have: {error}")
            return False
        return True

    def _add(self, path: str, where: str, facts: os.stat_result) -> bool:
        path = unicodedata.normalize("NFC", path)
        if not self._proper(path):
            return False
        if not os.access(where, os.R_OK):
            self._report(path, "can't be read (permission denied)")
            return False
        self._found.files.add(path, where, facts)
        return True

    def _check_names(self) -> None:
        for path, following in pairwise(heapq.merge(self._found.files.paths(), self._found.folders)):
            if path == following:
                self._problems.append(f"{path} is there twice, in two spellings of the same characters")

    def _refuse(self) -> None:
        problems = sorted(_printable(problem) for problem in self._problems)
        named = "".join(f"\n  {problem}" for problem in problems[:NAMED_PROBLEMS])
        more = len(problems) - NAMED_PROBLEMS
        if more > 0:
            named += f"\n  and {more} more"
        raise Refused(
            f"{self._source} can't be published as it is; nothing was stored:{named}",
            "Mend or move them. Links that stay inside can be followed (--follow-symlinks); links, pipes, sockets, "
            "devices and what can't be read can be left out (--skip-special).",
        )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _cannot(error: OSError) -> str:
    return f"can't be read ({_reason(error)})"


def _printable(text: str) -> str:
    """A message with names that may hold anything, safe for a terminal and for UTF-8."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)
