"""What became of a file that was taken in, and what its reader keeps to. Imports ``course`` and siblings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

from p2plearn.archive.layout import Packed
from p2plearn.course.manifest import SignedManifest
from p2plearn.gossip.envelope import Content

State = Literal["waiting", "open", "done", "refused", "no-room"]


@dataclass(slots=True)
class Arrival:
    """What became of one course of the file. ``problem``: words, empty while nothing is wrong. ``folder``: the user's
    own that it is served from, where it was here already and isn't all in the store.
    """

    packed: Packed
    state: State = "waiting"
    signed: SignedManifest | None = None
    parts: dict[bytes, bytes] = field(default_factory=dict)
    stored: int = 0
    was_here: bool = False
    """All of it was here before."""
    problem: str = ""
    folder: str = ""


@dataclass(slots=True)
class Arrived:
    """What became of a file. ``damaged``: blocks that weren't what their hash says; ``problem``: where
    framing was lost; ``beyond``: where bytes begin behind which no block came, 0 if there are none.
    """

    courses: list[Arrival] = field(default_factory=list)
    read: int = 0
    damaged: int = 0
    unknown: int = 0
    cut: bool = False
    beyond: int = 0
    problem: str = ""
    people_new: int = 0
    people_known: int = 0
    people_refused: int = 0
    people_whole: bool = False


@dataclass(frozen=True, slots=True)
class House:
    """What this node keeps to: ``refusal`` says why a course (of an author) is blocked, ``follows`` whose feeds are
    kept, ``refuses`` which envelopes aren't, ``clock`` the time; ``began`` is told of each course that is taken in.
    """

    refusal: Callable[[bytes, bytes | None], str]
    follows: Callable[[], Collection[bytes]]
    refuses: Callable[[Content], bool]
    clock: Callable[[], float]
    began: Callable[[bytes], None]
