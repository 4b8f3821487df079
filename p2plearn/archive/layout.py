"""⊙ What of p2plearn's own is in a CAR file besides the files' blocks: which courses, and what people said.

The *bundle* is a DAG-CBOR block, the last root: for each course its manifest, its author's signature, the parts of its
index, and its UnixFS root. A *page* is a DAG-CBOR block before the envelopes that it names. The blocks' order is
in docs/protocol.md; a reader that meets another reads the file more than once.

Sans-IO. Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from p2plearn.archive.car import DAG_CBOR_CID, MAX_BLOCK
from p2plearn.archive.dagcbor import BadCbor, Link, decode, encode
from p2plearn.course.manifest import INDEX_PART, MAX_INDEX, SIGNATURE_BYTES
from p2plearn.course.names import CID_BYTES, DAG_PB_CID, RAW_CID
from p2plearn.errors import UsageProblem

BUNDLE: Final = "p2plearn courses"
PAGE: Final = "p2plearn people"
VERSION: Final = 1
PAGE_LINKS: Final = 1024
"""Envelopes of a page of ours."""
_MAX_PARTS: Final = MAX_INDEX // INDEX_PART


class NotOurs(ValueError):
    """A block that is no bundle, or no page; the message says why."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A course in a file: its hash, its author's signature, the digests of its index's parts, its UnixFS root."""

    course: bytes
    signature: bytes
    parts: tuple[bytes, ...]
    root: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Ids of envelopes whose blocks follow; ``last`` says that no page comes after it."""

    ids: tuple[bytes, ...]
    last: bool


def block_cid(block: bytes) -> bytes:
    """The binary CID of a DAG-CBOR block."""
    return DAG_CBOR_CID + hashlib.sha256(block).digest()


def encode_bundle(courses: Sequence[Packed]) -> bytes:
    """The bundle's bytes; raises UsageProblem for more courses than one file can name."""
    rows = [[_raw(one.course), one.signature, [_raw(part) for part in one.parts], Link(one.root)] for one in courses]
    block = encode({"v": VERSION, "kind": BUNDLE, "courses": rows})
    if len(block) > MAX_BLOCK:
        raise UsageProblem(f"{len(courses)} courses are too many for one file.", "Export them into several files.")
    return block


def decode_bundle(block: bytes) -> tuple[Packed, ...]:
    """The courses that a bundle names, none twice; raises NotOurs."""
    value = _decoded(block, BUNDLE, {"v", "kind", "courses"})
    if value["v"] != VERSION:
        raise NotOurs(f"it is of version {value['v']!r:.20}, and version {VERSION} is read")
    rows = value["courses"]
    if not isinstance(rows, list) or not rows:
        raise NotOurs("it names no courses")
    courses = [_packed(row) for row in rows]
    if len({one.course for one in courses}) != len(courses):
        raise NotOurs("it names a course twice")
    return tuple(courses)


def encode_page(page: Page) -> bytes:
    """A page's bytes."""
    return encode({"kind": PAGE, "last": page.last, "links": [_raw(name) for name in page.ids]})


def decode_page(block: bytes) -> Page:
    """The page in ``block``; raises NotOurs."""
    value = _decoded(block, PAGE, {"kind", "last", "links"})
    if not isinstance(value["last"], bool) or not isinstance(value["links"], list):
        raise NotOurs("its fields are of other kinds")
    return Page(tuple(_digest(link) for link in value["links"]), value["last"])


def _decoded(block: bytes, kind: str, fields: set[str]) -> dict[str, Any]:
    try:
        value = decode(block)
    except BadCbor as wrong:
        raise NotOurs(str(wrong)) from None
    if not isinstance(value, dict) or value.get("kind") != kind:
        raise NotOurs("it is of another kind")
    if set(value) != fields:
        raise NotOurs("it has other fields")
    return value


def _packed(row: Any) -> Packed:
    if not isinstance(row, list) or len(row) != 4:
        raise NotOurs("a course's row has other fields")
    course, signature, parts, root = row
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise NotOurs("a signature has another length")
    if not isinstance(parts, list) or not 0 < len(parts) <= _MAX_PARTS:
        raise NotOurs("a course has no index, or one too large")
    if not isinstance(root, Link) or len(root.cid) != CID_BYTES or root.cid[:4] not in {RAW_CID, DAG_PB_CID}:
        raise NotOurs("a root is no UnixFS root")
    return Packed(_digest(course), signature, tuple(map(_digest, parts)), root.cid)


def _raw(digest: bytes) -> Link:
    return Link(RAW_CID + digest)


def _digest(link: Any) -> bytes:
    if not isinstance(link, Link) or len(link.cid) != CID_BYTES or link.cid[:4] != RAW_CID:
        raise NotOurs("a link to something else than a raw block by SHA-256")
    return link.cid[4:]
