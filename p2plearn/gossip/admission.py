"""⊙ Whether an envelope that came from elsewhere is for this node to keep now, before the record is asked.

In: an opened envelope (its signature was checked), the feeds that are followed here, what this node refuses, how much
an author may say, the time in seconds since 1970. Out: yes or no; if no, a count of why (``Taken``), and until when it
need not be offered again.

What must hold: an envelope is counted once, by the first rule that speaks against it; ``admit``, which counts what it
admits, is asked last.

Sans-IO. Imports siblings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from p2plearn.gossip.envelope import FUTURE_SECONDS, Content, Envelope

HASTY_SECONDS: Final = 30.0
"""How long an envelope waits whose author says more than anybody takes in at a time."""


Reason = Literal["known", "stale", "waiting", "early", "hasty", "elsewhere", "blocked", "bad", "flood"]
"""Why an envelope that was brought isn't kept.

known: here already. stale: something newer stands in its place, its author took it back, or it expired. waiting: let go
on purpose, or not wanted yet, as was found out before. early: from the future. hasty: its author says too much at a
time. elsewhere: of a feed that isn't kept here. blocked: of what is refused here. bad: what no honest node would have
sent. flood: unread, for who brought it brings more than anybody takes in (``intake``).
"""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


@dataclass(slots=True)
class Taken:
    """What became of envelopes that came from elsewhere: ``new`` ones, and counts of the rest by reason.

    ``faults``: what is wrong with each that is counted as bad, in words.
    """

    new: list[Envelope] = field(default_factory=list)
    dropped: Counter[Reason] = field(default_factory=Counter)
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
            taken.dropped["elsewhere"] += 1
        elif self.refuse(content):
            taken.dropped["blocked"] += 1
        elif content.time > self.now + FUTURE_SECONDS:
            taken.dropped["early"] += 1
            self.wait(envelope.id, content.time - FUTURE_SECONDS)
        elif not self.admit(content):
            taken.dropped["hasty"] += 1
            self.wait(envelope.id, self.now + HASTY_SECONDS)
        else:
            return True
        return False
