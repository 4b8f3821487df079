"""Which files of a course a person means: patterns as shells have them, over the course's paths.

A pattern with a ``/`` is matched from the course's folder on, one without against each name in the path:
``*.csv``, ``episodes/``, ``episodes/fig/*.svg``, ``**/fig``. ``*`` and ``?`` stop at a ``/``, ``**`` does
not, ``[…]`` is a set; what matches a folder selects everything in it. Upper and lower case differ.

Sans-IO. Imports ``errors``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from p2plearn.errors import UsageProblem


def pattern(glob: str) -> re.Pattern[str]:
    """A regular expression for the whole or the beginning (up to a ``/``) of the paths that ``glob`` selects.

    Raises UsageProblem for a pattern that can't be read.
    """
    wanted = glob.removeprefix("./").strip("/")
    start = "" if "/" in glob.rstrip("/") else "(?:.*/)?"
    regex = "".join(_translated(wanted))
    # A name may hold a "[" or a "*": written out in full it is found too.
    return re.compile(f"{start}(?:{regex}|{re.escape(wanted)})" + ("/" if glob.endswith("/") else "(?:/|$)"), re.DOTALL)


def _translated(glob: str) -> Iterator[str]:
    for token in _TOKENS.findall(glob):
        if token.startswith("**"):
            yield "(?:.*/)?" if token.endswith("/") else ".*"
        elif token[0] == "[" and len(token) > 2:
            yield _set(token[1:-1])
        else:
            yield {"*": "[^/]*", "?": "[^/]"}.get(token) or re.escape(token)


_TOKENS = re.compile(r"(?:\*\*/)+|\*\*+|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)


def _set(inside: str) -> str:
    """The regular expression of a glob's ``[inside]``, written so that no character in it means anything else."""
    negated = inside[0] in "!^" and len(inside) > 1
    members: list[str] = []
    for first, last in re.findall(r"(.)(?:-(.))?", inside[negated:], re.DOTALL):
        if last and first > last:
            raise UsageProblem(f"The pattern's set [{inside}] has a range the wrong way round.")
        members.append(re.escape(first) + (f"-{re.escape(last)}" if last else ""))
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]"
