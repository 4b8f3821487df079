"""The manifest: what a course is, in at most 64 KiB, under its author's signature.

Whoever has these bytes can show a course, search it, decide about it and ask for the rest. Its SHA-256 is the
course hash, so it is canonical: one course, one spelling. ``decode_manifest`` and ``open_manifest`` return only
what passed every check, and raise PeerFault for everything else; ``Manifest.encode`` runs the same checks and
raises UsageProblem, because what fails there is what the author typed.

The signature travels beside the manifest: the hash then names content and author, and nothing that can be made anew.

Sans-IO. Imports ``errors`` and ``course``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2plearn.course import msgpacking
from p2plearn.course import text as text_rules
from p2plearn.course.names import CID_BYTES, DAG_PB_CID, HASH_BYTES, RAW_CID
from p2plearn.errors import PeerFault, UsageProblem

VERSION = 1
Kind = Literal["folder", "file"]
Binary = bytes
"""``bytes`` by another name, for a class that has a field called so."""

MAX_MANIFEST = 64 * 1024
"""Bytes of a manifest. One frame, fetched before anything is known about the peer, so small; 64 MiB of index need
only 10 KiB of it."""
MAX_INDEX = 64 * 1024 * 1024
"""Bytes of an index. Held in memory while a course is fetched; enough for a million files or 400 GiB."""
INDEX_PART = 256 * 1024
"""Bytes of an index part but the last. Fixed, so that an index has one manifest; the size of a chunk, so that
parts travel like chunks."""
MAX_CHUNK = 1024 * 1024
"""Bytes of a chunk. What a peer may make us buffer before its hash can be checked."""
MAX_FILES = 1_000_000
"""Files of a course: a million entries cost a reader some 200 MB of memory."""
MAX_CHUNKS = MAX_INDEX // (HASH_BYTES + 4)
"""Chunk slots of a course: no index has room for more."""
MAX_BYTES = MAX_CHUNKS * MAX_CHUNK
"""Bytes of a course's files: what that many chunks can hold."""

MAX_TITLE = 200
MAX_DESCRIPTION = 16 * 1024
MAX_TAGS = 32
MAX_TAG = 64
MAX_LANGUAGE = 35
MAX_LICENSE = 128
MAX_CHUNKER = 128
"""Characters (of tags also the number) of what an author writes. MAX_MANIFEST holds for all of it together."""
MAX_TIME = 253_402_300_799
"""The last second of the year 9999, past which calendars of many languages fail."""
MAX_SEQ = 2**32 - 1

SIGNATURE_BYTES = 64
SIGNED_PREFIX = b"p2plearn manifest v1\n"
"""Put before the manifest's bytes when signing, so that no signature of ours is ever valid for something else."""

# BCP 47 as far as its shape goes: subtags of 1 to 8 letters and digits, the first a language.
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]*")


class BadManifest(ValueError):
    """A manifest breaks a rule; the message is the reason. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an index's bytes: its SHA-256 and length."""

    digest: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Series:
    """The line of versions a course belongs to: ``seq`` counts from 1, ``prev`` is the version before (32 bytes)."""

    name: str
    seq: int
    prev: bytes | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A course in short. ``created`` is in seconds since 1970, ``author`` an Ed25519 public key (32 bytes), ``root``
    the binary CIDv1 of its UnixFS form, ``bytes``, ``files`` and ``chunks`` the totals of its index, ``index`` the
    parts that the index's bytes are cut into.
    """

    kind: Kind
    title: str
    description: str
    author: Binary
    tags: tuple[str, ...]
    language: str
    license: str
    created: int
    series: Series
    chunker: str
    bytes: int
    files: int
    chunks: int
    root: Binary
    index: tuple[Part, ...]

    @property
    def index_bytes(self) -> int:
        """Length of the index."""
        return sum(part.length for part in self.index)

    def encode(self) -> Binary:
        """The canonical bytes. Raises UsageProblem when this is no manifest that others would accept."""
        try:
            _check(self)
            raw = _pack(self)
            _check_size(raw)
        except BadManifest as wrong:
            raise UsageProblem(f"This can't be published: {wrong}.") from None
        return raw


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest with the bytes it was read from and its author's signature over them, which was checked."""

    raw: bytes
    signature: bytes
    manifest: Manifest

    @property
    def course(self) -> bytes:
        """The course hash."""
        return hashlib.sha256(self.raw).digest()


def signed_text(raw: bytes) -> bytes:
    """What an author signs for the manifest ``raw``."""
    return SIGNED_PREFIX + raw


def sign_manifest(manifest: Manifest, sign: Callable[[bytes], bytes]) -> SignedManifest:
    """``manifest`` under the signature that ``sign`` makes with the author's key.

    Raises UsageProblem when the manifest breaks a rule, ValueError when the signature is not the author's.
    """
    raw = manifest.encode()
    signature = sign(signed_text(raw))
    if not _is_signed(raw, signature, manifest.author):
        raise ValueError("the key that signs is not the author's")
    return SignedManifest(raw, signature, manifest)


def open_manifest(raw: bytes, signature: bytes, expected_course: bytes | None = None) -> SignedManifest:
    """The manifest in ``raw`` once its hash, its rules and its signature hold. Raises PeerFault if one doesn't."""
    if len(raw) > MAX_MANIFEST:
        raise PeerFault(f"manifest of {len(raw)} bytes")
    if expected_course is not None and hashlib.sha256(raw).digest() != expected_course:
        raise PeerFault("this manifest is another course's: its hash differs")
    manifest = decode_manifest(raw)
    if not _is_signed(raw, signature, manifest.author):
        raise PeerFault("the manifest's signature is not its author's")
    return SignedManifest(raw, signature, manifest)


def _is_signed(raw: bytes, signature: bytes, author: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(author).verify(signature, signed_text(raw))
    except (InvalidSignature, ValueError):
        return False
    return True


def decode_manifest(raw: bytes) -> Manifest:
    """The manifest in ``raw``, whatever its signature. Raises PeerFault unless each rule holds."""
    try:
        _check_size(raw)
        manifest = _unpack(msgpacking.unpack(raw, longest=MAX_MANIFEST, most=MAX_INDEX // INDEX_PART))
        _check(manifest)
        if _pack(manifest) != raw:
            raise BadManifest("it is not spelled canonically")
    except ValueError as wrong:
        raise PeerFault(f"bad manifest: {wrong}") from None
    return manifest


_T = TypeVar("_T")
_FIELDS = ("v", *(field.name for field in dataclasses.fields(Manifest)))
_ORDER = sorted(_FIELDS)


def _pack(manifest: Manifest) -> bytes:
    series = {"name": manifest.series.name, "prev": manifest.series.prev, "seq": manifest.series.seq}
    special = {
        "v": VERSION,
        "series": series,
        "index": [{"digest": part.digest, "length": part.length} for part in manifest.index],
    }
    return msgpacking.pack({name: special[name] if name in special else getattr(manifest, name) for name in _ORDER})


def _unpack(value: Any) -> Manifest:
    """A manifest from what msgpack read; sees to types and names, ``_check`` to the rest."""
    fields = _record(value, "it", _ORDER)
    if type(fields["v"]) is not int or fields["v"] != VERSION:
        raise BadManifest(f"its version is {fields['v']!r:.40}, not {VERSION}")
    series = _record(fields["series"], "its series", ("name", "prev", "seq"))
    prev = series["prev"]
    if type(fields["index"]) is not tuple or type(fields["tags"]) is not tuple:
        raise BadManifest("its index or its tags are no list")
    parts = [_record(part, "an index part", ("digest", "length")) for part in fields["index"]]
    return Manifest(
        kind=cast(Kind, _typed(fields, "kind", str)),
        title=_typed(fields, "title", str),
        description=_typed(fields, "description", str),
        author=_typed(fields, "author", bytes),
        tags=fields["tags"],
        language=_typed(fields, "language", str),
        license=_typed(fields, "license", str),
        created=_typed(fields, "created", int),
        series=Series(
            _typed(series, "name", str),
            _typed(series, "seq", int),
            None if prev is None else _typed(series, "prev", bytes),
        ),
        chunker=_typed(fields, "chunker", str),
        bytes=_typed(fields, "bytes", int),
        files=_typed(fields, "files", int),
        chunks=_typed(fields, "chunks", int),
        root=_typed(fields, "root", bytes),
        index=tuple(Part(_typed(part, "digest", bytes), _typed(part, "length", int)) for part in parts),
    )


def _record(value: Any, what: str, names: tuple[str, ...] | list[str]) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise BadManifest(f"{what} is no map")
    if sorted(map(str, value)) != sorted(names):
        raise BadManifest(f"{what} has other fields than {', '.join(names)}")
    return value


def _typed(fields: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    value = fields[name]
    if type(value) is not kind:  # not isinstance: True is an int to Python
        raise BadManifest(f"{name} is no {kind.__name__}")
    return value


def _check_size(raw: bytes) -> None:
    if len(raw) > MAX_MANIFEST:
        raise BadManifest(f"the manifest has {len(raw)} bytes, more than {MAX_MANIFEST}")


def _check(manifest: Manifest) -> None:
    """Every rule but the spelling. Raises BadManifest."""
    if manifest.kind not in ("folder", "file"):
        raise BadManifest(f"its kind is {manifest.kind!r:.40}")
    _check_text("title", manifest.title, MAX_TITLE)
    if not manifest.title.strip():
        raise BadManifest("the title is empty")
    _check_text("description", manifest.description, MAX_DESCRIPTION, lines=True)
    _check_text("license", manifest.license, MAX_LICENSE)
    _check_text("series name", manifest.series.name, MAX_TITLE)
    if len(manifest.tags) > MAX_TAGS:
        raise BadManifest(f"there are {len(manifest.tags)} tags, more than {MAX_TAGS}")
    for tag in manifest.tags:
        if type(tag) is not str or not tag:
            raise BadManifest("a tag is empty or no text")
        _check_text("tag", tag, MAX_TAG)
    if len(set(manifest.tags)) != len(manifest.tags):
        raise BadManifest("a tag is there twice")
    if manifest.language and (len(manifest.language) > MAX_LANGUAGE or not _LANGUAGE.fullmatch(manifest.language)):
        raise BadManifest(f"the language {manifest.language!r:.60} is no BCP 47 tag such as 'en' or 'pt-BR'")
    if len(manifest.chunker) > MAX_CHUNKER or not _PRINTABLE_ASCII.fullmatch(manifest.chunker):
        raise BadManifest("the chunker's name is too long or not plain ASCII")
    if len(manifest.author) != HASH_BYTES:
        raise BadManifest("the author's key has not 32 bytes")
    if len(manifest.root) != CID_BYTES or not manifest.root.startswith((RAW_CID, DAG_PB_CID)):
        raise BadManifest("the root is no CIDv1 of a SHA-256")
    _check_number("created", manifest.created, 0, MAX_TIME)
    _check_number("series seq", manifest.series.seq, 1, MAX_SEQ)
    if manifest.series.prev is not None and len(manifest.series.prev) != HASH_BYTES:
        raise BadManifest("the previous course hash has not 32 bytes")
    if manifest.series.prev is not None and manifest.series.seq == 1:
        raise BadManifest("the first of a series has no previous one")
    _check_totals(manifest)


def _check_totals(manifest: Manifest) -> None:
    _check_number("bytes", manifest.bytes, 0, MAX_BYTES)
    _check_number("files", manifest.files, 0, MAX_FILES)
    _check_number("chunks", manifest.chunks, 0, MAX_CHUNKS)
    if not manifest.chunks <= manifest.bytes <= manifest.chunks * MAX_CHUNK:
        raise BadManifest(f"{manifest.bytes} bytes don't fit {manifest.chunks} chunks")
    if manifest.kind == "file" and manifest.files != 1:
        raise BadManifest(f"a course of kind 'file' has {manifest.files} files")
    if not manifest.index:
        raise BadManifest("it has no index")
    for part in manifest.index:
        if len(part.digest) != HASH_BYTES:
            raise BadManifest("an index part's digest has not 32 bytes")
    if any(part.length != INDEX_PART for part in manifest.index[:-1]):
        raise BadManifest(f"an index part but the last has not {INDEX_PART} bytes")
    _check_number("last index part's length", manifest.index[-1].length, 1, INDEX_PART)
    _check_number("index's length", manifest.index_bytes, 1, MAX_INDEX)
    if manifest.index_bytes < manifest.chunks * (HASH_BYTES + 4):
        raise BadManifest(f"{manifest.chunks} chunks don't fit an index of {manifest.index_bytes} bytes")


def _check_number(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BadManifest(f"its {what} {value} is not between {least} and {most}")


def _check_text(what: str, text: str, limit: int, *, lines: bool = False) -> None:
    if len(text) > limit:
        raise BadManifest(f"the {what} has {len(text)} characters, more than {limit}")
    if wrong := text_rules.fault(text, lines=lines):
        raise BadManifest(f"the {what} {wrong}")
