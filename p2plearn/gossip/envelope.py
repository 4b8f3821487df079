"""⊙ The envelope: one thing that one person said, signed, so that anyone can prove it years later.

An envelope's bytes are 64 of an Ed25519 signature (RFC 8032) and the *content*, canonical msgpack. Its id is the
SHA-256 of these bytes, signature included. ``open_envelope`` is the only way in: what it returns passed every check,
what doesn't pass raises PeerFault, and the cheap checks come first (length, shape, rules, then the signature).

Two envelopes about the same thing by the same author share a *slot*; of a slot only the highest *rank* is kept, by
everyone, so that nodes that heard the same things in whatever order keep the same set.

What is in a content's body is the matter of ``bodies``, whose names can be had from here, too.

Sans-IO. Imports ``errors``, ``course`` and siblings.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args, get_type_hints

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2plearn.course import msgpacking
from p2plearn.course.manifest import MAX_MANIFEST, MAX_TIME, SIGNATURE_BYTES, open_manifest
from p2plearn.errors import PeerFault, UsageProblem
from p2plearn.gossip import bodies
from p2plearn.gossip.bodies import (
    ACTIONS,
    FIELDS,
    ID_BYTES,
    KINDS,
    LABELS,
    NAMES,
    TARGETS,
    Accept,
    BadEnvelope,
    Body,
    Edit,
    Entry,
    Label,
    Moderate,
    Post,
    Profile,
    Rating,
    Trust,
    Withdraw,
)

VERSION: Final = 1
SIGNED_PREFIX: Final = b"p2plearn envelope v1\n"
"""Put before the content when signing, so that no signature of ours is ever valid for something else."""
CATALOGUE: Final = bytes(ID_BYTES)
"""The feed that every node follows; also the ``course`` of what is about no course."""

MAX_ENVELOPE: Final = 16 * 1024
"""Bytes of an envelope: a long answer with code in it, and small enough to be passed on without a thought."""
MAX_ENTRY: Final = MAX_MANIFEST + 1024
"""Bytes of a catalogue entry, which carries a manifest."""
MAX_SEQ: Final = 2**53
"""Sequence numbers begin near the clock in milliseconds; 2**53 is what JSON readers can hold, for ages to come."""

FUTURE_SECONDS: Final = 600
"""How far ahead of this node's clock an envelope may be: clocks of laptops are minutes off. Refused, not forgotten:
it is offered again when its time has come."""
ENTRY_SECONDS: Final = 30 * 86400
"""A catalogue entry is forgotten after this unless a node that has the course renews it."""
EARLIEST: Final = 1_704_067_200
"""No envelope is older than p2plearn (1 January 2024): a clock at zero is told at once, not hidden at the bottom."""

_ABOUT_NO_COURSE: Final = (Profile, Trust, Label)
_IN_CATALOGUE: Final = (Entry, Rating, Profile, Trust, Label)


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
        return NAMES[type(self.body)]

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
    except BadEnvelope as wrong:
        raise UsageProblem(f"This can't be sent: {wrong}.") from None
    if not _is_signed(content.author, signature, packed):
        raise ValueError("the key that signs is not the author's")
    return Envelope(raw, envelope_id(raw), content)


def open_envelope(raw: bytes) -> Envelope:
    """The envelope in ``raw`` once each rule and then the signature holds. Raises PeerFault if one doesn't."""
    try:
        if not SIGNATURE_BYTES < len(raw) <= MAX_ENTRY:
            raise BadEnvelope(f"it has {len(raw)} bytes")
        packed = raw[SIGNATURE_BYTES:]
        content = _unpack(packed)
        _check_size(raw, content.body)
        _check(content)
        if _pack(content) != packed:
            raise BadEnvelope("it is not spelled canonically")
        if not _is_signed(content.author, raw[:SIGNATURE_BYTES], packed):
            raise BadEnvelope("the signature is not its author's")
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


def _is_signed(author: bytes, signature: bytes, packed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(author).verify(signature, SIGNED_PREFIX + packed)
    except (InvalidSignature, ValueError):
        return False
    return True


_TYPES: Final[dict[type, dict[str, Any]]] = {kind: get_type_hints(kind) for kind in (Content, *NAMES)}


def _pack(content: Content) -> bytes:
    body = {name: getattr(content.body, name) for name in FIELDS[type(content.body)]}
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
        raise BadEnvelope("it is no map of an envelope's fields")
    if type(value["v"]) is not int or value["v"] != VERSION:
        raise BadEnvelope("its version is not 1")
    kind = KINDS.get(value["kind"]) if type(value["kind"]) is str else None
    if kind is None:
        raise BadEnvelope("there is no such kind")
    body = value["body"]
    if type(body) is not dict or list(body) != FIELDS[kind]:
        raise BadEnvelope(f"its body is no {NAMES[kind]}")
    for fields, hints in ((value, _TYPES[Content]), (body, _TYPES[kind])):
        for name, hint in hints.items():
            allowed = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            if name != "body" and type(fields[name]) not in allowed:  # not isinstance: True is an int to Python
                raise BadEnvelope(f"{name} is of another type")
    return Content(value["author"], kind(**body), value["course"], value["seq"], value["time"])


def _check_size(raw: bytes, body: Body) -> None:
    most = MAX_ENTRY if isinstance(body, Entry) else MAX_ENVELOPE
    if len(raw) > most:
        raise BadEnvelope(f"it has {len(raw)} bytes, more than {most}")


def _check(content: Content) -> None:
    """Every rule but spelling, size and signatures. Raises BadEnvelope."""
    bodies.check_key("author", content.author)
    bodies.check_key("course", content.course)
    if (content.course == CATALOGUE) != isinstance(content.body, _ABOUT_NO_COURSE):
        raise BadEnvelope("it names a course and should not, or should and doesn't")
    if not EARLIEST <= content.time <= MAX_TIME:
        raise BadEnvelope(f"its time {content.time} is out of range")
    if not 1 <= content.seq <= MAX_SEQ:
        raise BadEnvelope(f"its number {content.seq} is out of range")
    bodies.check(content.body, content.author)


__all__ = [
    "ACTIONS", "CATALOGUE", "EARLIEST", "ENTRY_SECONDS", "FUTURE_SECONDS", "ID_BYTES", "KINDS", "LABELS",
    "MAX_ENTRY", "MAX_ENVELOPE", "MAX_SEQ", "SIGNED_PREFIX", "TARGETS", "VERSION",
    "Accept", "Body", "Content", "Edit", "Entry", "Envelope", "Label", "Moderate", "Post", "Profile", "Rating", "Trust",
    "Withdraw", "envelope_id", "next_seq", "open_envelope", "reopen", "seal",
]  # fmt: skip
