"""What the tests of this room share: the vectors, and courses made from content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from p2plearn.course import unixfs
from p2plearn.course.chunking import ChunkerKind, chunker
from p2plearn.course.index import Index, IndexBuilder, parts
from p2plearn.course.manifest import Kind, Manifest, Series

VECTORS = Path(__file__).parents[1] / "vectors"
COURSES = Path(__file__).parents[3] / "shared" / "courses" / "python-novice-inflammation"


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    return lambda name: json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def real_course() -> Callable[[str], Path]:
    """The folder of the lesson at a date, where the course material is at hand."""

    def find(date: str) -> Path:
        if not (COURSES / date).is_dir():
            pytest.skip(f"the course material is not here ({COURSES / date})")
        return COURSES / date

    return find


@pytest.fixture(scope="session")
def index_of() -> Callable[..., Index]:
    """An index from (path, content) pairs and the empty folders beside them."""

    def build(files: Iterable[tuple[str, bytes]], folders: Sequence[str] = (), kind: ChunkerKind = "fixed") -> Index:
        builder = IndexBuilder()
        cutter = chunker(kind)
        for path, content in files:
            view = memoryview(content)
            chunks = []
            for length in cutter.cut(view, last=True):
                chunks.append((hashlib.sha256(view[:length]).digest(), length))
                view = view[length:]
            builder.add_file(path, len(content), chunks)
        for path in folders:
            builder.add_folder(path)
        return builder.build()

    return build


@pytest.fixture(scope="session")
def manifest_for() -> Callable[..., Manifest]:
    """A manifest that goes with an index; fields can be set."""

    def build(index: Index, raw: bytes | None = None, kind: Kind = "folder", **fields: Any) -> Manifest:
        told: dict[str, Any] = {
            "kind": kind,
            "title": "T",
            "description": "",
            "author": bytes(32),
            "tags": (),
            "language": "",
            "license": "",
            "created": 1_800_000_000,
            "series": Series("T", 1, None),
            "chunker": "fixed;size=262144",
            "bytes": index.bytes,
            "files": len(index.files),
            "chunks": len(index),
            "index": tuple(parts(index.encode() if raw is None else raw)),
            **fields,
        }
        if "root" not in told:
            told["root"] = unixfs.root_cid(index, kind)
        return Manifest(**told)

    return build
