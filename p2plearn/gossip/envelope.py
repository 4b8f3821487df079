"""⊙ The envelope: one thing that one person said, signed, so that anyone can prove it years later.

An envelope's bytes are 64 of an Ed25519 signature (RFC 8032) and the *content*, canonical msgpack. Its id is the
SHA-256 of these bytes, signature included. ``open_envelope`` is the only way in: what it returns passed every check,
what doesn't pass raises PeerFault, and the cheap checks come first (length, shape, rules, then the signature).

Two envelopes about the same thing by the same author share a *slot*; of a slot only the highest *rank* is kept, by
everyone, so that nodes that heard the same things in whatever order keep the same set.

Sans-IO. Imports ``errors`` and ``course``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import types
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias, get_args, get_type_hints

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2plearn.course import msgpacking
from p2plearn.course.manifest import MAX_MANIFEST, MAX_TIME, SIGNATURE_BYTES, open_manifest
from p2plearn.course.paths import BadPath, check_path
from p2plearn.errors import PeerFault, UsageProblem

VERSION: Final = 1
SIGNED_PREFIX: Final = b"p2plearn envelope v1\n"
"""Put before the content when signing, so that no signature of ours is ever valid for something else."""

ID_BYTES: Final = 32
CATALOGUE: Final = bytes(ID_BYTES)
"""The feed that every node follows; also the ``course`` of what is about no course."""

MAX_ENVELOPE: Final = 16 * 1024
"""Bytes of an envelope: a long answer with code in it, and small enough to be passed on without a thought."""
MAX_ENTRY: Final = MAX_MANIFEST + 1024
"""Bytes of a catalogue entry, which carries a manifest."""
MAX_TEXT: Final = 8_000
MAX_REVIEW: Final = 2_000
MAX_REASON: Final = 300
MAX_NAME: Final = 60
MAX_ABOUT: Final = 300
"""Characters of what people write."""
MAX_SEQ: Final = 2**53
"""Sequence numbers begin near the clock in milliseconds; 2**53 is what JSON readers can hold, for ages to come."""
MAX_COPIES: Final = 1_000_000

FUTURE_SECONDS: Final = 600
"""How far ahead of this node's clock an envelope may be: clocks of laptops are minutes off. Refused, not forgotten:
it is offered again when its time has come."""
ENTRY_SECONDS: Final = 30 * 86400
"""A catalogue entry is forgotten after this unless a node that has the course renews it."""
EARLIEST: Final = 1_704_067_200
"""No envelope is older than p2plearn (1 January 2024): a clock at zero is told at once, not hidden at the bottom."""

ROLES: Final = ("question", "answer", "comment")
ACTIONS: Final = ("hide", "pin", "clear")
LABELS: Final = ("deny", "warn", "clear")
TARGETS: Final = ("course", "author")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
"""Terminal codes as a whole (ECMA-48: control sequences, strings such as window titles, the rest), not ESC alone."""
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


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
_NAMES: Final = {kind: name for name, kind in KINDS.items()}
_ABOUT_NO_COURSE: Final = (Profile, Trust, Label)
_IN_CATALOGUE: Final = (Entry, Rating, Profile, Trust, Label)


class _Bad(ValueError):
    """An envelope breaks a rule; the message is the reason. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is signed. ``course`` is 32 bytes (CATALOGUE for what is about none), ``time`` in seconds since 1970."""

    author: bytes
    body: Body
    course: bytes
    seq: int
    time: int

    @property
    def kind(self) -> str:
        """The kind's name on the wire."""
        return _NAMES[type(self.body)]

    @property
    def feed(self) -> bytes:
        """The feed it belongs to: CATALOGUE, which all follow, or its course's."""
        return CATALOGUE if isinstance(self.body, _IN_CATALOGUE) else self.course

    @property
    def slot(self) -> bytes | None:
        """What at most one envelope is kept of; None for a post, which has no like."""
        body = self.body
        match body:
            case Entry():
                return b"entry" + self.course  # whoever announces: one entry a course
            case Rating():
                return b"rating" + self.author + self.course
            case Profile():
                return b"profile" + self.author
            case Trust():
                return b"trust" + self.author + body.subject
            case Label():
                return b"label" + self.author + body.target.encode() + body.subject
            case Edit() | Withdraw() | Moderate():
                return self.kind.encode() + self.author + self.course + body.post
            case Accept():
                return b"accept" + self.author + self.course + body.question
            case Post():
                return None

    @property
    def number(self) -> int:
        """First half of the rank in a slot: an author's own numbers, but the time where authors share the slot."""
        return self.time if isinstance(self.body, Entry) else self.seq

    @property
    def expires(self) -> int | None:
        """When every node forgets it, in seconds since 1970; None for never."""
        return self.time + ENTRY_SECONDS if isinstance(self.body, Entry) else None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A content with the bytes it was read from; the signature was checked."""

    raw: bytes
    id: bytes
    content: Content

    @property
    def key(self) -> bytes:
        """Its place in a feed: time (8 bytes, big-endian) and id; 40 bytes."""
        return self.content.time.to_bytes(8, "big") + self.id

    @property
    def rank(self) -> tuple[int, bytes]:
        """The highest of a slot is kept."""
        return (self.content.number, self.id)


def envelope_id(raw: bytes) -> bytes:
    """The id of an envelope's bytes, whatever they are."""
    return hashlib.sha256(raw).digest()


def seal(content: Content, sign: Callable[[bytes], bytes]) -> Envelope:
    """``content`` under the signature that ``sign`` makes with its author's key.

    Raises UsageProblem when it breaks a rule: what fails here is what a person typed.
    """
    try:
        _check(content)
        packed = _pack(content)
        signature = sign(SIGNED_PREFIX + packed)
        raw = signature + packed
        _check_size(raw, content.body)
    except _Bad as wrong:
        raise UsageProblem(f"This can't be sent: {wrong}.") from None
    if not _is_signed(content.author, signature, packed):
        raise ValueError("the key that signs is not the author's")
    return Envelope(raw, envelope_id(raw), content)


def open_envelope(raw: bytes) -> Envelope:
    """The envelope in ``raw`` once each rule and then the signature holds. Raises PeerFault if one doesn't."""
    try:
        if not SIGNATURE_BYTES < len(raw) <= MAX_ENTRY:
            raise _Bad(f"it has {len(raw)} bytes")
        packed = raw[SIGNATURE_BYTES:]
        content = _unpack(packed)
        _check_size(raw, content.body)
        _check(content)
        if _pack(content) != packed:
            raise _Bad("it is not spelled canonically")
        if not _is_signed(content.author, raw[:SIGNATURE_BYTES], packed):
            raise _Bad("the signature is not its author's")
        if isinstance(content.body, Entry):
            open_manifest(content.body.manifest, content.body.signature, content.course)
    except ValueError as wrong:
        raise PeerFault(f"bad envelope: {wrong}") from None
    return Envelope(raw, envelope_id(raw), content)


def reopen(raw: bytes) -> Envelope:
    """The envelope in ``raw``, which went through ``open_envelope`` or ``seal`` before: nothing is checked again."""
    return Envelope(raw, envelope_id(raw), _unpack(raw[SIGNATURE_BYTES:]))


def next_seq(last: int, milliseconds: int) -> int:
    """An author's next number: above ``last``, and near the clock so that a node that lost its disk repeats none."""
    return max(last + 1, milliseconds)


def tidy_text(text: str) -> str:
    """As an envelope takes it: NFC, no terminal codes, no controls but line ends and tabs, no blanks around."""
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    text = _CONTROL_BUT_LINES.sub("", _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))
    return unicodedata.normalize("NFC", text.strip())


def _is_signed(author: bytes, signature: bytes, packed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(author).verify(signature, SIGNED_PREFIX + packed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _fields(kind: type[Body]) -> list[str]:
    return sorted(field.name for field in dataclasses.fields(kind))


@cache
def _hints(name: str) -> dict[str, Any]:
    return get_type_hints(globals()[name])


def _pack(content: Content) -> bytes:
    body = {name: getattr(content.body, name) for name in _fields(type(content.body))}
    return msgpacking.pack(
        {
            "author": content.author,
            "body": body,
            "course": content.course,
            "kind": content.kind,
            "seq": content.seq,
            "time": content.time,
            "v": VERSION,
        }
    )


def _unpack(packed: bytes) -> Content:
    value = msgpacking.unpack(packed, longest=MAX_ENTRY, most=16)
    if type(value) is not dict or list(value) != ["author", "body", "course", "kind", "seq", "time", "v"]:
        raise _Bad("it is no map of an envelope's fields")
    if type(value["v"]) is not int or value["v"] != VERSION:
        raise _Bad("its version is not 1")
    kind = KINDS.get(value["kind"]) if type(value["kind"]) is str else None
    if kind is None:
        raise _Bad("there is no such kind")
    body = value["body"]
    if type(body) is not dict or list(body) != _fields(kind):
        raise _Bad(f"its body is no {_NAMES[kind]}")
    for fields, hints in ((value, _hints(Content.__name__)), (body, _hints(kind.__name__))):
        for name, hint in hints.items():
            allowed = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            if name != "body" and type(fields[name]) not in allowed:  # not isinstance: True is an int to Python
                raise _Bad(f"{name} is of another type")
    return Content(value["author"], kind(**body), value["course"], value["seq"], value["time"])


def _check_size(raw: bytes, body: Body) -> None:
    most = MAX_ENTRY if isinstance(body, Entry) else MAX_ENVELOPE
    if len(raw) > most:
        raise _Bad(f"it has {len(raw)} bytes, more than {most}")


def _check(content: Content) -> None:
    """Every rule but spelling, size and signatures. Raises _Bad."""
    body = content.body
    _check_key("author", content.author)
    _check_key("course", content.course)
    if (content.course == CATALOGUE) != isinstance(body, _ABOUT_NO_COURSE):
        raise _Bad("it names a course and should not, or should and doesn't")
    if not EARLIEST <= content.time <= MAX_TIME:
        raise _Bad(f"its time {content.time} is out of range")
    if not 1 <= content.seq <= MAX_SEQ:
        raise _Bad(f"its number {content.seq} is out of range")
    for name in ("post", "subject", "question", "reply", "answer"):
        value = getattr(body, name, None)
        if value is not None:
            _check_key(name, value)
    match body:
        case Entry():
            if not 0 <= body.copies <= MAX_COPIES or len(body.signature) != SIGNATURE_BYTES:
                raise _Bad("its copies or signature are out of range")
        case Rating():
            if not 0 <= body.stars <= 5:
                raise _Bad(f"{body.stars} is no number of stars")
            _check_text("review", body.review, MAX_REVIEW, least=0)
            if body.review and not body.stars:
                raise _Bad("a withdrawn rating has a review")
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
            if body.subject == content.author:
                raise _Bad("nobody vouches for themselves")
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
        raise _Bad("a question replies to nothing, an answer to a question")
    if post.path:
        try:
            check_path(post.path)
        except BadPath as wrong:
            raise _Bad(f"its path: {wrong}") from None


def _check_key(what: str, value: bytes) -> None:
    if len(value) != ID_BYTES:
        raise _Bad(f"its {what} has not {ID_BYTES} bytes")


def _check_word(word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise _Bad(f"{word!r:.40} is none of {', '.join(known)}")


def _check_text(what: str, text: str, most: int, *, least: int = 1, lines: bool = True) -> None:
    if not least <= len(text) <= most:
        raise _Bad(f"the {what} has {len(text)} characters; there may be {least} to {most:,}")
    if least and not text.strip():
        raise _Bad(f"the {what} is blank")
    if (_CONTROL_BUT_LINES if lines else _CONTROL).search(text):
        raise _Bad(f"the {what} holds a control character")
    if not unicodedata.is_normalized("NFC", text):
        raise _Bad(f"the {what} is not in Unicode's composed form (NFC)")
