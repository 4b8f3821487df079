"""⊙ Commands in hints, so that a pasted line acts on the home that was meant: ``--home DIR`` stands in them as well.

In: words for a person, which name commands as ``p2plearn node stop``, from the node too, which doesn't know how it was
called; and the home that the command line gave. Out: the same words with ``p2plearn --home DIR node stop``. Commands
for others stay as they are: what somebody says elsewhere, or said before, has another home.

To be given sentences of ours: a title that reads like a command would be taken for one. Imports the list of commands.
"""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Final

_HOMELESS: Final = frozenset({"demo", "plan", "completion"})
"""Commands that no home matters to."""

_FOR_OTHERS: Final = r"(?P<others>(?:Elsewhere|Share it|Try): |Over there, `|\bits `)?"
_OF_OTHERS: Final = r"(?![^`'\n]*[`'] (?:over there|printed|prints|wrote)\b)"


def with_home(text: str, home: Path | None) -> str:
    """``text`` with ``--home`` in every command of it that is for this machine; unchanged without a ``home``."""
    if home is None:
        return text
    named = f"p2plearn --home {shlex.quote(str(home))} "
    return _commands().sub(lambda found: found[0] if found["others"] else named, text)


@functools.cache
def _commands() -> re.Pattern[str]:
    """Where a command of this program stands, up to its name."""
    from p2plearn.commands.assembly import ROWS  # late: it imports who imports this

    names = "|".join(name for name in ROWS if name not in _HOMELESS)
    return re.compile(rf"{_FOR_OTHERS}(?<![\w/.~-])p2plearn (?=(?:{names})\b){_OF_OTHERS}")
