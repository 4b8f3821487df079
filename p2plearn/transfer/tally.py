"""How a fetch goes and who took part, in numbers and in words for a person. ⊙"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Who was asked, with what outcome; by peer id."""

    found: set[str] = field(default_factory=set)
    unreachable: dict[str, str] = field(default_factory=dict)
    not_here: set[str] = field(default_factory=set)
    faulty: dict[str, str] = field(default_factory=dict)
    gave: set[str] = field(default_factory=set)

    def words(self) -> str:
        """How it stands, for a person."""
        parts = [f"{len(self.found)} provider{'' if len(self.found) == 1 else 's'} found"]
        for count, word in (
            (len(self.unreachable), "unreachable"),
            (len(self.not_here), "no longer has it" if len(self.not_here) == 1 else "no longer have it"),
            (len(self.faulty), "sent something wrong"),
        ):
            if count:
                parts.append(f"{count} {word}")
        return ", ".join(parts)


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
    peers: int = 0
    waiting_for: str = "a provider"
    stage: str = "finding"
