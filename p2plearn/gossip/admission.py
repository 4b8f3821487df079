"""⊙ Whether an envelope that came from elsewhere is for this node to keep now, before the record is asked.

In: an opened envelope (its signature was checked), the feeds that are followed here, what this node refuses, how much
an author may say, the time in seconds since 1970. Out: yes or no; if no, a count of why (``Taken``), and until when it
need not be offered again.

What must hold: an envelope is counted once, by the first rule that speaks against it; ``admit``, which counts what it
admits, is asked last.

Sans-IO. Imports siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from p2plearn.gossip.envelope import FUTURE_SECONDS, Content, Envelope

HASTY_SECONDS: Final = 30.0
"""How long an envelope waits whose author says more than anybody takes in at a time."""


@dataclass(slots=True)
class Taken:
    """What became of envelopes that came from elsewhere: ``new`` ones, and counts of the rest.

    ``faults``: reasons, one for each that no honest node would have sent.
    """

    new: list[Envelope] = field(default_factory=list)
    known: int = 0
    """Here already."""
    stale: int = 0
    """Something newer stands in their place, their author took them back, or they expired."""
    waiting: int = 0
    """Let go on purpose, or not wanted yet, as was found out before."""
    early: int = 0
    """From the future."""
    hasty: int = 0
    """Of authors who say too much at a time."""
    elsewhere: int = 0
    """Of feeds that aren't kept here."""
    blocked: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Admission:
    """What is taken in at ``now``.

    ``refuse`` says what this node doesn't keep, such as what blocked authors say; ``admit`` whether an author may say
    that much now, and counts what it admits. ``wait`` is told of ids that aren't wanted before a certain time.
    """

    follows: Collection[bytes]
    now: float
    refuse: Callable[[Content], bool]
    admit: Callable[[Content], bool]
    wait: Callable[[bytes, float], None]

    def wants(self, envelope: Envelope, taken: Taken) -> bool:
        """Whether to keep it; counts in ``taken`` why not."""
        content = envelope.content
        if content.feed not in self.follows:
            taken.elsewhere += 1
        elif self.refuse(content):
            taken.blocked += 1
        elif content.time > self.now + FUTURE_SECONDS:
            taken.early += 1
            self.wait(envelope.id, content.time - FUTURE_SECONDS)
        elif not self.admit(content):
            taken.hasty += 1
            self.wait(envelope.id, self.now + HASTY_SECONDS)
        else:
            return True
        return False
