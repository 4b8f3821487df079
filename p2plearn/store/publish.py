"""From what was read to a course: the manifest, the series, the commit point.

Publishing what the author's newest version under that title already is returns that version, wherever it was published
(``series``). Anything else under the same title becomes the next of its series. (Going back to what an earlier version
was is a new version, too: the head of a series is what its readers see.)

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from p2plearn.course.chunking import ChunkerKind, chunker
from p2plearn.course.index import Index, IndexBuilder, parts
from p2plearn.course.manifest import Kind, Manifest, Series, SignedManifest, sign_manifest
from p2plearn.course.paths import BadPath
from p2plearn.course.titles import READ_AT_MOST, is_telling, title_from
from p2plearn.course.unixfs import Unrepresentable, root_cid
from p2plearn.database import CommitInDoubt
from p2plearn.errors import Refused, UsageProblem
from p2plearn.store import series, users_files
from p2plearn.store.catalogue import add_extent, add_slots
from p2plearn.store.ingest import KNOWN, Ingest, Report
from p2plearn.store.originals import Original, Originals
from p2plearn.store.parts import StoreParts
from p2plearn.store.past_cache import LEAST
from p2plearn.store.problems import disk_problem
from p2plearn.store.scan import Scan, scan


@dataclass(frozen=True, slots=True)
class PublishMeta:
    """What the author says about a course. An empty ``title`` or ``language`` is looked for in the folder."""

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    language: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What came of a publish. ``new`` is false when the newest version was this very course already; of it, ``copied``
    bytes came into the store.
    """

    signed: SignedManifest
    new: bool
    index_len: int
    warnings: tuple[str, ...]
    copied: int

    @property
    def course(self) -> bytes:
        """The course hash."""
        return self.signed.course

    @property
    def manifest(self) -> Manifest:
        """The course's manifest."""
        return self.signed.manifest


@dataclass(frozen=True, slots=True)
class Author:
    """Whose course it is: the public key (32 bytes), and what signs with the private one. ``seen``: of a series of
    theirs, by its name, the newest version known from elsewhere (blocks briefly).
    """

    key: bytes
    sign: Callable[[bytes], bytes]
    seen: Callable[[str], SignedManifest | None] = lambda _: None


def publish(
    store: StoreParts,
    source: Path,
    meta: PublishMeta,
    author: Author,
    *,
    now: int,
    chunker_kind: str,
    follow_symlinks: bool,
    no_copy: bool,
    skip_special: bool,
    report: Report,
    cancelled: Callable[[], bool],
) -> Published:
    """See ``Store.publish``."""
    if chunker_kind not in ("", "fastcdc", "fixed"):
        raise UsageProblem(f"There is no chunker {chunker_kind!r}.", "Choose fastcdc or fixed.")
    source = Path(os.path.abspath(source))
    _refuse_own_home(store, source)
    found = scan(source, follow_symlinks=follow_symlinks, skip_special=skip_special, cancelled=cancelled)
    meta = _complete(meta, source, found)
    seen = author.seen(meta.title)
    head = series.newest(store.catalogue, author.key, meta.title, seen)
    if head is not None:
        meta = _as_before(meta, head.manifest)
        chunker_kind = chunker_kind or head.manifest.chunker.partition(";")[0].partition("-")[0]
    cutter = chunker(cast(ChunkerKind, chunker_kind if chunker_kind == "fixed" else "fastcdc"))
    _refuse_early(store, found, no_copy, meta, author)
    ingest = Ingest(store, found, cutter, no_copy=no_copy)
    try:
        ingest.run(report, cancelled)
        index = _index(found, ingest)
        ingest.settle(index)
        published = _commit(store, found, ingest, index, meta, author, now, cutter.name, seen)
    except CommitInDoubt:
        ingest.release()  # what was written stays until the next opening tells whether the course does
        raise
    except BaseException:
        ingest.abandon()
        raise
    ingest.release()
    return published


def _as_before(meta: PublishMeta, before: Manifest) -> PublishMeta:
    """What the author didn't say this time, as it was in the version before."""
    return dataclasses.replace(
        meta,
        description=meta.description or before.description,
        tags=meta.tags or before.tags,
        language=meta.language or before.language,
        license=meta.license or before.license,
    )


def _refuse_own_home(store: StoreParts, source: Path) -> None:
    """The home holds private keys, and a store that changes while it is read."""
    real = os.path.realpath(source)
    for own in (os.path.realpath(store.home), os.path.realpath(store.directory)):
        if own == real or own.startswith(real.rstrip("/") + "/") or real.startswith(own + "/"):
            raise Refused(
                f"{source} is, holds or lies in this node's own home {store.home}, with its private keys.",
                "Publish a folder without it, or move the home elsewhere (--home DIR).",
            )


def _refuse_early(store: StoreParts, found: Scan, no_copy: bool, meta: PublishMeta, author: Author) -> None:
    """Before the first byte: a course of which nothing is known to be here already must fit as a whole."""
    if not no_copy and store.catalogue.head(author.key, meta.title) is None:
        quota, held = store.budget.limits.quota, store.catalogue.held_bytes()
        # With other courses here part of it may be stored already; then the check is made while it is read.
        if held == 0 or (quota is not None and found.bytes > quota):
            store.budget.check(found, held=held, more=found.bytes, what=f"The course {meta.title!r}")


def _complete(meta: PublishMeta, source: Path, found: Scan) -> PublishMeta:
    """The title and language that the author gave, else what the folder says of itself."""
    if meta.title and meta.language:
        return meta
    telling: dict[str, bytes] = {}
    for number, path in enumerate(found.files.paths()) if found.kind == "folder" else ():
        if is_telling(path):
            # One that can't be read is named when its turn to be published comes.
            with contextlib.suppress(OSError), open(found.files[number].source, "rb") as opened:
                telling[path] = opened.read(READ_AT_MOST)
    about = title_from(telling, source.name)
    return dataclasses.replace(meta, title=meta.title or about.title, language=meta.language or about.language)


def _index(found: Scan, ingest: Ingest) -> Index:
    """The course's index; slots are numbered in it as they were read, since files were read in its order."""
    builder = IndexBuilder()
    lengths, slot = ingest.lengths, 0
    with memoryview(ingest.digests) as digests:
        try:
            for file, count in zip(found.files, ingest.counts, strict=True):
                end = slot + count
                builder.add_run(file.path, file.size, digests[32 * slot : 32 * end], lengths[slot:end])
                slot = end
            for folder in found.folders:
                builder.add_folder(folder)
            index = builder.build()
        except BadPath as error:
            raise Refused(f"This can't be published: {error}.") from None
    if index.digests != ingest.digests:
        raise AssertionError("the places of chunks are noted by slots")
    return index


def _commit(  # noqa: PLR0917 - the end of a pipeline: everything meets here
    store: StoreParts,
    found: Scan,
    ingest: Ingest,
    index: Index,
    meta: PublishMeta,
    author: Author,
    now: int,
    chunker_name: str,
    seen: SignedManifest | None,
) -> Published:
    kind = cast(Kind, found.kind)
    try:
        root = root_cid(index, kind)
    except Unrepresentable as error:
        raise Refused(f"This can't be published: {error}.") from None
    raw = index.encode()
    with store.gate:
        # One at a time from looking for the newest version to being it.
        head = series.newest(store.catalogue, author.key, meta.title, seen)
        manifest = Manifest(
            kind=kind,
            title=meta.title,
            description=meta.description,
            author=author.key,
            tags=meta.tags,
            language=meta.language,
            license=meta.license,
            created=now,
            series=Series(meta.title, 1, None),
            chunker=chunker_name,
            bytes=index.bytes,
            files=len(index.files),
            chunks=len(index),
            root=root,
            index=tuple(parts(raw)),
        )
        new, warnings = True, found.warnings
        if head is not None:
            before = head.manifest
            manifest = dataclasses.replace(manifest, series=Series(meta.title, before.series.seq + 1, head.course))
            new = dataclasses.replace(manifest, created=before.created, series=before.series) != before
            if new and (words := series.elsewhere(store.catalogue, head)):
                warnings = [*warnings, words]
        signed = sign_manifest(manifest, author.sign) if new or head is None else head
        _record(store, found, ingest, signed, index, raw, now)
    copied = sum(index.lengths[slot] for slot in ingest.new()) if ingest.extent_name else 0
    return Published(signed, new, len(raw), tuple(warnings), copied)


def _record(  # noqa: PLR0917
    store: StoreParts, found: Scan, ingest: Ingest, signed: SignedManifest, index: Index, index_raw: bytes, now: int
) -> None:
    """The commit point: chunks and course, in one transaction. Writes nothing if there is nothing new."""
    row = store.catalogue.course(signed.course)
    anything = next(ingest.new(), None) is not None
    if row is None or not row.indexed:
        try:
            store.course_files.write(signed, index_raw)
        except OSError as error:
            raise disk_problem(error, "keeping the course's index") from error
    elif row.complete and not anything and row.why == "published":
        return
    places, lengths = ingest.places, index.lengths
    extents: dict[int, int] = {}
    with store.catalogue.writing() as db:
        if ingest.extent_name:
            extent = add_extent(db, ingest.extent_name, ingest.extent_bytes)
            add_slots(db, index.digests, ingest.new(), lambda slot: (extent, places[slot], lengths[slot]))
        elif anything:
            extents = _in_place(db, found, index, ingest.new())
            number_of = index.files.number_of
            add_slots(
                db, index.digests, ingest.new(), lambda slot: (extents[number_of(slot)], places[slot], lengths[slot])
            )
        add_course(db, signed, why="published", now=now, indexed=True)
        db.execute("UPDATE courses SET have_bytes = bytes, why = 'published' WHERE course = ?", (signed.course,))
        head = (signed.manifest.author, signed.manifest.series.name, signed.raw, signed.signature)
        db.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?)", head)
    store.forget(signed.course)
    placement = store.placement_of(signed, index)
    # What this publish read it has hashed; what was here before is hashed when it is first read.
    placement.just_written(ingest.new())
    for number, extent in extents.items():
        store.files.left_alone(extent, found.files[number].source, now)
    if ingest.extent_name:
        store.files.copied_from(ingest.extent_name, Originals(_copied(found, index, places), now))


def _copied(found: Scan, index: Index, places: array[int]) -> Iterator[Original]:
    """The files all of whose chunks lie one after the other in the new extent."""
    for number, entry in enumerate(index.files):
        if entry.size < LEAST:
            continue
        start = at = places[entry.first]
        for slot in range(entry.first, entry.first + entry.count):
            if places[slot] == KNOWN or places[slot] != at:
                break
            at += index.lengths[slot]
        else:
            file = found.files[number]
            yield Original(start, file.source, file.size, file.mtime_ns, file.inode)


def _in_place(db: sqlite3.Connection, found: Scan, index: Index, slots: Iterable[int]) -> dict[int, int]:
    """By the number of the file in the course, the numbers under which the user's files are noted that ``slots`` lie
    in.
    """
    chosen = dict.fromkeys(map(index.files.number_of, slots))
    files = map(found.files.__getitem__, chosen)
    looks = ((os.fsencode(file.source), file.size, file.mtime_ns, file.inode) for file in files)
    return dict(zip(chosen, users_files.add(db, os.fsencode(found.files.below), looks), strict=True))


def add_course(db: sqlite3.Connection, signed: SignedManifest, *, why: str, now: int, indexed: bool) -> None:
    """Insert a course's row, or note that its index is here now."""
    manifest = signed.manifest
    db.execute(
        "INSERT INTO courses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (course) DO UPDATE SET indexed = max(indexed, excluded.indexed), "
        "why = CASE why WHEN 'seen' THEN excluded.why ELSE why END",
        (
            signed.course,
            manifest.author,
            manifest.series.name,
            manifest.series.seq,
            manifest.title,
            manifest.bytes,
            manifest.files,
            manifest.chunks,
            why,
            now,
            signed.raw,
            signed.signature,
            int(indexed),
            0,
            0,
        ),
    )
