"""Two families of errors, never mixed up.

``P2plearnError`` is ours or the user's: it carries words for a person (what went wrong, what to do next) and an
exit code that scripts may rely on. ``PeerFault`` is another node's: it costs that peer its standing and never
reaches a user as such. Anything else that is raised is a bug.

Imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, TypeVar

E = TypeVar("E", bound=Exception)


class P2plearnError(Exception):
    """Something a person has to know about.

    ``message`` says what happened and why, in one sentence; ``hint`` what to do next (may be empty). ``code`` is a
    stable word for programs, ``exit_code`` what the command line exits with (README, "Exit codes").
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageProblem(P2plearnError):
    """The request itself is off: a typo in a hash, a path that isn't there, an option out of range."""

    code = "usage"
    exit_code = 2
    http_status = 400


class NoNode(P2plearnError):
    """No node is running for this home."""

    code = "no-node"
    exit_code = 3
    http_status = 503


class AlreadyRunning(P2plearnError):
    """Another process holds this home; the message says which."""

    code = "already-running"
    http_status = 409


class NobodyHasIt(P2plearnError):
    """No reachable peer has what was asked for; says how many were found, tried, unreachable."""

    code = "nobody-has-it"
    exit_code = 4
    http_status = 404


class OutOfTime(P2plearnError):
    """The deadline passed; what was fetched is kept and the same command goes on from there."""

    code = "timed-out"
    exit_code = 5
    http_status = 504


class TooBusy(P2plearnError):
    """The node has as many calls as it takes at once; the same command works in a moment."""

    code = "busy"
    exit_code = 5
    http_status = 503


class IntegrityProblem(P2plearnError):
    """Bytes are not what their hash says, here or at every peer that was asked."""

    code = "integrity"
    exit_code = 6
    http_status = 422


class NoSpace(P2plearnError):
    """The quota or the disk has no room; nothing was written."""

    code = "no-space"
    exit_code = 7
    http_status = 507


class Refused(P2plearnError):
    """Policy says no: a destination with other files in it, a blocked course, keys open to others."""

    code = "refused"
    exit_code = 8
    http_status = 403


class LastCopy(Refused):
    """Nobody else shows a copy of what was to be removed: it may be gone for good then."""

    code = "last-copy"
    http_status = 409


class LeaveIncomplete(P2plearnError):
    """Some courses could not be handed over before leaving."""

    code = "leave-incomplete"
    exit_code = 9
    http_status = 409


class HomeGone(P2plearnError):
    """The folder in which a running node keeps everything was deleted or moved, or its disk unplugged."""

    code = "home-gone"
    exit_code = 10


class Interrupted(P2plearnError):
    """The person pressed Ctrl-C; what was done is kept."""

    code = "interrupted"
    exit_code = 130
    http_status = 499


class StoreProblem(P2plearnError):
    """The store can't be used as it is: a newer format, a damaged catalogue, a disk that fails."""

    code = "store"
    http_status = 500


class PeerFault(Exception):
    """A peer broke a format or a protocol: refuse the input, count it against the peer, carry on."""


def did_you_mean(word: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str:
    """A question that names what ``word`` may be a misspelling of, for a hint; empty when nothing known is like it.

    ``also``: other words that it may be, and what is to be said instead.
    """
    import difflib  # late: only a mistake needs it

    meant = {**(also or {}), **{name: name for name in known}}
    near = difflib.get_close_matches(word, list(meant), 1)
    return f"Did you mean {meant[near[0]]!r}?" if near else ""


def first_error(group: BaseExceptionGroup[E]) -> E:
    """The first exception of a group, however deep: what nurseries raise when one task failed."""
    for error in group.exceptions:
        return first_error(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
