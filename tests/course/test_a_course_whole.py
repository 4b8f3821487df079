"""A small course through every format once: built, signed, written, read back."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2plearn.course import unixfs
from p2plearn.course.index import IndexBuilder, decode_index, parts
from p2plearn.course.manifest import Manifest, Series, open_manifest, sign_manifest
from p2plearn.course.names import CourseLink, course_cid, format_link, parse_link


def test_what_was_published_is_what_is_read() -> None:
    builder = IndexBuilder()
    chunk = hashlib.sha256(b"x").digest()
    builder.add_file("b/c.txt", 1, [(chunk, 1)])
    builder.add_file("b.txt", 0, [])
    builder.add_folder("b/e")
    builder.add_file("a", 300_000, [(chunk[::-1], 262_144), (bytes(32), 300_000 - 262_144)])
    index = builder.build()
    raw = index.encode()
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    manifest = Manifest(
        kind="folder",
        title="T",
        description="two\nlines",
        author=key.public_key().public_bytes_raw(),
        tags=("x",),
        language="en",
        license="CC-BY-4.0",
        created=5,
        series=Series("T", 1, None),
        chunker="fixed;size=262144",
        bytes=index.bytes,
        files=len(index.files),
        chunks=len(index),
        root=unixfs.root_cid(index, "folder"),
        index=tuple(parts(raw)),
    )
    signed = sign_manifest(manifest, key.sign)
    assert open_manifest(signed.raw, signed.signature, signed.course) == signed
    assert signed.manifest == manifest
    assert decode_index(raw, manifest) == index
    assert [file.path for file in index.files] == ["a", "b.txt", "b/c.txt"]

    address = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW"
    assert parse_link(format_link(signed.course, [address])) == CourseLink(signed.course, (address,))
    assert parse_link(course_cid(signed.course)) == CourseLink(signed.course)
