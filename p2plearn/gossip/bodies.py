"""⊙ What can be said: each kind of body, and the rules for what is in it.

Sans-IO. Imports ``course``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, TypeAlias, get_args

from p2plearn.course import text as text_rules
from p2plearn.course.manifest import SIGNATURE_BYTES
from p2plearn.course.paths import BadPath, check_path

ID_BYTES: Final = 32
MAX_TEXT: Final = 8_000
MAX_REVIEW: Final = 2_000
MAX_REASON: Final = 300
MAX_NAME: Final = 60
MAX_ABOUT: Final = 300
"""Characters of what people write."""
MAX_COPIES: Final = 1_000_000

ROLES: Final = ("question", "answer", "comment")
ACTIONS: Final = ("hide", "pin", "clear")
LABELS: Final = ("deny", "warn", "clear")
TARGETS: Final = ("course", "author")


class BadEnvelope(ValueError):
    """A body, or the envelope around it, breaks a rule; the message is the reason. ``envelope`` turns it into others'
    or the user's error.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """A course for the catalogue: its manifest with its author's signature, and copies the announcer knows of.

    The envelope's author is who announces, which may be any node that has the course.
    """

    copies: int
    manifest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Rating:
    """``stars`` 1 to 5 for a course; 0 takes the author's rating back."""

    review: str
    stars: int


@dataclass(frozen=True, slots=True)
class Post:
    """A question, answer or comment on a course, or on its file ``path`` (empty: all of it); Markdown."""

    path: str
    reply: bytes | None
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """The text that stands in place of a post's from here on."""

    post: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Takes a post back: its text goes, its place (``reply``) stays, so that what answered it still hangs together."""

    post: bytes
    reply: bytes | None


@dataclass(frozen=True, slots=True)
class Accept:
    """Who asked ``question`` takes ``answer`` for the one that helped (None: none did)."""

    answer: bytes | None
    question: bytes


@dataclass(frozen=True, slots=True)
class Moderate:
    """The course's author hides or pins a post, or clears that again."""

    action: str
    post: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Profile:
    """How an author wants to be called. Names are never unique."""

    about: str
    name: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether the author takes ``subject`` for someone whose judgement counts."""

    subject: bytes
    trusted: bool


@dataclass(frozen=True, slots=True)
class Label:
    """A line of a moderator's list: what is said of a course or an author, for those who subscribe to the moderator."""

    label: str
    reason: str
    subject: bytes
    target: str


Body: TypeAlias = Entry | Rating | Post | Edit | Withdraw | Accept | Moderate | Profile | Trust | Label

KINDS: Final[dict[str, type[Body]]] = {kind.__name__.lower(): kind for kind in get_args(Body)}
"""By their names on the wire."""
NAMES: Final = {kind: name for name, kind in KINDS.items()}
FIELDS: Final = {kind: sorted(field.name for field in dataclasses.fields(kind)) for kind in NAMES}
"""The names of each kind's fields, in the order they are written in."""


def check(body: Body, author: bytes) -> None:
    """Every rule for what ``author`` says; types were seen to. Raises BadEnvelope."""
    for name in ("post", "subject", "question", "reply", "answer"):
        value = getattr(body, name, None)
        if value is not None:
            check_key(name, value)
    match body:
        case Entry():
            if not 0 <= body.copies <= MAX_COPIES or len(body.signature) != SIGNATURE_BYTES:
                raise BadEnvelope("its copies or signature are out of range")
        case Rating():
            if not 0 <= body.stars <= 5:
                raise BadEnvelope(f"{body.stars} is no number of stars")
            _check_text("review", body.review, MAX_REVIEW, least=0)
            if body.review and not body.stars:
                raise BadEnvelope("a withdrawn rating has a review")
        case Post():
            _check_post(body)
        case Edit():
            _check_text("text", body.text, MAX_TEXT)
        case Moderate():
            _check_word(body.action, ACTIONS)
            _check_text("reason", body.reason, MAX_REASON, least=0)
        case Profile():
            _check_text("name", body.name, MAX_NAME, lines=False)
            _check_text("about", body.about, MAX_ABOUT, least=0, lines=False)
        case Trust():
            if body.subject == author:
                raise BadEnvelope("nobody vouches for themselves")
        case Label():
            _check_word(body.label, LABELS)
            _check_word(body.target, TARGETS)
            _check_text("reason", body.reason, MAX_REASON, least=0)
        case Withdraw() | Accept():
            pass  # ids alone, which were checked above


def _check_post(post: Post) -> None:
    _check_word(post.role, ROLES)
    _check_text("text", post.text, MAX_TEXT)
    if (post.role == "question" and post.reply is not None) or (post.role == "answer" and post.reply is None):
        raise BadEnvelope("a question replies to nothing, an answer to a question")
    if post.path:
        try:
            check_path(post.path)
        except BadPath as wrong:
            raise BadEnvelope(f"its path: {wrong}") from None


def check_key(what: str, value: bytes) -> None:
    """Whether an id or a public key is as long as one. Raises BadEnvelope."""
    if len(value) != ID_BYTES:
        raise BadEnvelope(f"its {what} has not {ID_BYTES} bytes")


def _check_word(word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise BadEnvelope(f"{word!r:.40} is none of {', '.join(known)}")


def _check_text(what: str, text: str, most: int, *, least: int = 1, lines: bool = True) -> None:
    if not least <= len(text) <= most:
        raise BadEnvelope(f"the {what} has {len(text)} characters; there may be {least} to {most:,}")
    if least and not text.strip():
        raise BadEnvelope(f"the {what} is blank")
    if wrong := text_rules.fault(text, lines=lines):
        raise BadEnvelope(f"the {what} {wrong}")
