"""What names a course, kept beside the catalogue: one file a course with its manifest, signature and index.

Written before the catalogue mentions the index, and never changed: the manifest's hash is the file's name and the
manifest names the hashes of the index, so a file that was harmed is noticed when it is read.

Layout: ``MAGIC``, u32 big-endian length of the manifest, the manifest, the signature (64 bytes), the index.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgpack

from p2plearn.course.index import Index, decode_index, parts
from p2plearn.course.manifest import MAX_INDEX, MAX_MANIFEST, SIGNATURE_BYTES, Manifest, SignedManifest, open_manifest
from p2plearn.errors import PeerFault
from p2plearn.store.durable import TEMPORARY, write_atomic

MAGIC = b"p2plearn course 1\n"
SUFFIX = ".course"


class CourseFileDamaged(Exception):
    """A course's file is gone or not what its name says; the message says how."""


class CourseFiles:
    """The directory of these files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, course: bytes) -> Path:
        """Where a course's file is."""
        return self.directory / (course.hex() + SUFFIX)

    def write(self, signed: SignedManifest, index_raw: bytes) -> None:
        """Keep a course's manifest and index; durable when it returns. Raises OSError."""
        head = MAGIC + len(signed.raw).to_bytes(4, "big") + signed.raw + signed.signature
        write_atomic(self.path(signed.course), [head, index_raw])

    def read_raw(self, course: bytes) -> tuple[SignedManifest, bytes]:
        """(manifest, index bytes), the manifest checked, the index not. Raises CourseFileDamaged."""
        try:
            with self.path(course).open("rb") as file:
                if os.fstat(file.fileno()).st_size > len(MAGIC) + 4 + MAX_MANIFEST + SIGNATURE_BYTES + MAX_INDEX:
                    raise CourseFileDamaged("its index file is too long")
                if file.read(len(MAGIC)) != MAGIC:
                    raise CourseFileDamaged("its index file is overwritten")
                raw = file.read(min(int.from_bytes(file.read(4), "big"), MAX_MANIFEST))
                signature = file.read(SIGNATURE_BYTES)
                index_raw = file.read()
            return open_manifest(raw, signature, course), index_raw
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise CourseFileDamaged(f"its index file can't be read ({reason})") from error
        except PeerFault as error:
            raise CourseFileDamaged(f"its index file is damaged ({error})") from error

    def index_part(self, course: bytes, manifest: Manifest, part: int) -> bytes | None:
        """One part of a course's index, true to its hash; None beyond the last and if the file was harmed."""
        if not 0 <= part < len(manifest.index):
            return None
        start = len(MAGIC) + 4 + SIGNATURE_BYTES + sum(each.length for each in manifest.index[:part])
        try:
            with self.path(course).open("rb") as file:
                head = file.read(len(MAGIC) + 4)
                file.seek(start + int.from_bytes(head[len(MAGIC) :], "big"))
                raw = file.read(manifest.index[part].length)
        except OSError:
            return None
        return raw if hashlib.sha256(raw).digest() == manifest.index[part].digest else None

    def read(self, course: bytes) -> tuple[SignedManifest, Index]:
        """(manifest, index), both checked. Raises CourseFileDamaged."""
        signed, index_raw = self.read_raw(course)
        try:
            return signed, decode_index(index_raw, signed.manifest)
        except PeerFault as error:
            raise CourseFileDamaged(f"its index file is damaged ({error})") from error

    def digests(self, course: bytes) -> bytes:
        """The digests of a course's slots, 32 bytes each: all that a sweep has to know. Raises CourseFileDamaged."""
        signed, index_raw = self.read_raw(course)
        if tuple(parts(index_raw)) != signed.manifest.index:
            raise CourseFileDamaged("its index file is damaged")  # a sweep would take what it doesn't name for dead
        try:
            # The first field of an index; the rest needn't be read.
            reader = msgpack.Unpacker(raw=False, max_buffer_size=len(index_raw) + 1)
            reader.feed(index_raw)
            reader.read_map_header()
            if reader.unpack() != "digests":
                raise CourseFileDamaged("its index file is damaged")
            digests = reader.unpack()
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise CourseFileDamaged("its index file is damaged") from error
        if not isinstance(digests, bytes):
            raise CourseFileDamaged("its index file is damaged")
        return digests

    def remove(self, course: bytes) -> None:
        """Delete a course's file; it being gone already is fine."""
        self.path(course).unlink(missing_ok=True)

    def sweep(self, known: set[bytes]) -> None:
        """Delete what crashes left: temporary files, and files of courses that the catalogue doesn't have."""
        names = {course.hex() + SUFFIX for course in known}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith((TEMPORARY, SUFFIX)) and entry.name not in names:
                    os.unlink(entry.path)
