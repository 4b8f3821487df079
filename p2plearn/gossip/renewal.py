"""⊙ When a node that has a course says its catalogue entry again: before it expires, and when its copies changed.

In: the age of the entry that stands, what it says, what this node knows, a number thrown. Out: whether to say it now.
Every holder asks about once in LOOK_SECONDS, and mostly only one of them should act; the older an entry is, the surer
each becomes. Nobody who has the course: nobody renews, and the entry expires with everyone.

Sans-IO. Imports ``envelope``.
"""

from __future__ import annotations

from typing import Final

from p2plearn.gossip.envelope import ENTRY_SECONDS

RENEW_SECONDS: Final = 20 * 86400
"""An entry as old as this is said again by some node that has the course: ten days before it expires."""
LOOK_SECONDS: Final = 3600.0
"""How often each holder looks, more or less."""
SURE_SECONDS: Final = 12 * LOOK_SECONDS
"""An entry with this much left is said again by whoever looks."""
CORRECT_SECONDS: Final = 6 * 3600
"""An entry younger than this isn't said again for another number of copies: they change while nodes come and go."""


def due(told: int, said: int, copies: int, now: float, roll: float) -> bool:
    """Whether to say an entry again that was told at ``told`` (seconds since 1970) with ``said`` copies.

    ``copies``: as this node knows them, 0 if it doesn't; ``roll``: from 0 up to 1, thrown anew each time.
    """
    age = now - told
    if age >= RENEW_SECONDS:
        return roll * (ENTRY_SECONDS - age) <= SURE_SECONDS
    return copies not in (0, said) and age >= CORRECT_SECONDS and roll * copies < 1.0
