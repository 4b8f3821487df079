"""The newest version of a series that this home has seen, whichever way it came: what a publish goes on from.

A person may publish from more than one machine, from a new one, or from a home restored from an older backup. Counting
only what was published in this very home would then make a second version 2, which no reader ever sees.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

from collections.abc import Iterator

from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.errors import PeerFault
from p2plearn.store.catalogue import Catalogue

_LOOKED_AT = 8
"""Newest courses of a series that are tried, in case the row of the first is damaged."""


def newest(catalogue: Catalogue, author: bytes, series: str, seen: SignedManifest | None) -> SignedManifest | None:
    """The version with the highest number: of those published here, those that are here (fetched, imported, kept for
    others) and ``seen``, which is known from elsewhere. Of two that share a number see ``rank``.

    None if there is no such version; what isn't signed by ``author``, or is of another series, doesn't count.
    """
    found: SignedManifest | None = None
    for signed in (*_kept(catalogue, author, series), *((seen,) if seen is not None else ())):
        facts = signed.manifest
        if (facts.author, facts.series.name) == (author, series) and (found is None or rank(signed) > rank(found)):
            found = signed
    return found


def rank(signed: SignedManifest) -> tuple[int, int, bytes]:
    """What orders the versions of a series the same for everybody: of two with one number the one created later is the
    newer, of two of the same second the one with the higher hash.
    """
    return signed.manifest.series.seq, signed.manifest.created, signed.course


def elsewhere(catalogue: Catalogue, head: SignedManifest) -> str:
    """Words for a publish that goes on from a version of which this node has nothing; empty if it has it, or had it."""
    if catalogue.course(head.course) is not None:
        return ""
    kept = catalogue.head(head.manifest.author, head.manifest.series.name)
    if kept is not None and kept[0] == head.raw:
        return ""  # published here, and removed since
    number = head.manifest.series.seq
    return (
        f"Version {number}, signed with your key, was published from another home (or before a backup was restored "
        f"here): this is version {number + 1}. To see what it had: p2plearn get {head.course.hex()}"
    )


def _kept(catalogue: Catalogue, author: bytes, series: str) -> Iterator[SignedManifest]:
    published = catalogue.head(author, series)
    with catalogue.reading() as db:
        rows = db.execute(
            "SELECT manifest, signature FROM courses WHERE author = ? AND series = ? ORDER BY seq DESC LIMIT ?",
            (author, series, _LOOKED_AT),
        ).fetchall()
    for raw, signature in ([published] if published is not None else []) + rows:
        try:
            yield open_manifest(raw, signature)
        except PeerFault:
            continue  # damaged here: the next best
