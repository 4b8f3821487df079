"""How a fetch goes and who took part, in numbers and in words for a person. ⊙"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from p2plearn.course.file_table import FileTable
from p2plearn.course.index import Index
from p2plearn.errors import IntegrityProblem, NobodyHasIt, P2plearnError, Refused


@dataclass(slots=True)
class Tally:
    """Who was asked, with what outcome; by peer id."""

    found: set[str] = field(default_factory=set)
    unreachable: dict[str, str] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    """Of the unreachable, those that may be at another address by now, or answer in a moment."""
    not_here: set[str] = field(default_factory=set)
    faulty: dict[str, str] = field(default_factory=dict)
    gave: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    declined: dict[str, str] = field(default_factory=dict)
    """Not asked, by our own rules; with the words why."""

    def words(self, *, why: bool = True) -> str:
        """How it stands, for a person; with ``why`` also the reason for which somebody isn't asked."""
        # Who called here counts as found, too; each is counted once, by what is surest of it.
        found = self.found | self.faulty.keys() | self.busy | self.declined.keys()
        parts = [f"{len(found)} provider{'' if len(found) == 1 else 's'} found"]
        declined = set(self.declined)
        faulty = self.faulty.keys() - declined
        gone = self.not_here & self.found - declined - faulty
        busy = self.busy - declined - faulty - gone
        unreachable = self.unreachable.keys() & self.found - declined - faulty - gone - busy
        reason = f": {next(iter(self.declined.values()), '')}" if why else ""
        for names, word in (
            (unreachable, "unreachable"),
            (gone, "no longer has it" if len(gone) == 1 else "no longer have it"),
            (faulty, "sent something wrong"),
            (busy, "busy for now"),
            (declined, f"not asked{reason}"),
        ):
            if names:
                parts.append(f"{len(names)} {word}")
        return ", ".join(parts)

    def hopes(self) -> str:
        """The same, with what is done about it while nobody helps."""
        if self.moved:
            them = "it" if len(self.moved) == 1 else "them"
            they = "it" if len(self.moved) == 1 else "they"
            return f"{self.words()}; {they} may answer in a moment, or be at another address: looking {them} up again"
        return f"{self.words()}; looking again"

    def why_not(self, *, partly: bool, kept: bool) -> P2plearnError:
        """Why a fetch can't go on; ``partly``: some take part, who lack something, ``kept``: something has come."""
        keeps = " What was fetched is kept; the same command goes on from there." if kept else ""
        for why in self.declined.values():
            return Refused(
                f"{why}, and nobody who may be asked has what is lacking here ({self.words(why=False)})",
                "Change that in config.toml and restart the node; without limit_lan peers on the LAN may be asked."
                + keeps,
            )
        guilty = [fault for name, fault in self.faulty.items() if name in self.found]
        if guilty and self.found <= self.faulty.keys() | self.not_here:
            return IntegrityProblem(
                f"Every peer that has this course sent something wrong ({guilty[0]}); none of that was kept",
                "Check the hash with whoever gave it to you, or name another provider with --from." + keeps,
            )
        if partly:
            return NobodyHasIt(
                f"The peers that take part don't have all of it between them ({self.words()})",
                "Try again when more peers are up." + keeps,
            )
        why = next(iter(self.unreachable.values()), "")
        return NobodyHasIt(
            f"Nobody who has this course can be reached: {self.words()}" + (f" ({why})" if why else ""),
            "Check the hash, try again later, or name a provider with --from ADDRESS." + keeps,
        )


class FileCount:
    """How many of a course's files still lack something that is fetched; ``wanted`` are the slots that are."""

    def __init__(self, index: Index | None = None, wanted: Sequence[int] = ()) -> None:
        self._files = FileTable() if index is None else index.files
        self._lacks: array[int] = array("I", bytes(4 * len(self._files)))  # slots, by file
        for slot in wanted:
            self._lacks[self._files.number_of(slot)] += 1
        self.lacking = len(self._lacks) - self._lacks.count(0)
        """Files that lack something."""

    def verified(self, slot: int) -> None:
        """A wanted slot has come."""
        file = self._files.number_of(slot)
        if self._lacks[file]:
            self._lacks[file] -= 1
            self.lacking -= not self._lacks[file]


@dataclass(slots=True)
class Standing:
    """How a fetch goes, read by whoever shows progress.

    ``total_bytes`` are all that is asked for, ``wanted_bytes`` what of it was not here at the start,
    ``verified_bytes`` what has come since.
    """

    fetched_bytes: int = 0
    verified_bytes: int = 0
    wanted_bytes: int = 0
    total_bytes: int = 0
    files: FileCount = field(default_factory=FileCount)
    total_files: int = 0
    peers: int = 0
    waiting_for: str = "a provider"
    stage: str = "finding"
