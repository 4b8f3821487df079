"""What tests of the store share: an author, folders to publish, ways to move a course between two stores."""

from __future__ import annotations

import random
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index, decode_index
from p2plearn.course.manifest import SignedManifest
from p2plearn.store.download import Download
from p2plearn.store.publish import Published, PublishMeta
from p2plearn.store.store import Store

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
AUTHOR = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(text: bytes) -> bytes:
    return KEY.sign(text)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that don't compress or repeat, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def write_tree(root: Path, files: dict[str, bytes], folders: tuple[str, ...] = ()) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for path, raw in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(raw)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root


def read_tree(root: Path) -> dict[str, bytes | None]:
    """Every file's bytes, None for each folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
    }


def publish(
    store: Store, source: Path, title: str = "A course", now: int = 1_700_000_000, **options: object
) -> Published:
    return store.publish(source, PublishMeta(title=title), sign=sign, author=AUTHOR, now=now, **options)  # type: ignore[arg-type]


def parcel(store: Store, course: bytes) -> tuple[SignedManifest, bytes, Index]:
    """What travels ahead of the chunks: manifest, index bytes, index."""
    signed, raw = store.signed_manifest(course), store.index_bytes(course)
    assert signed is not None
    assert raw is not None
    return signed, raw, decode_index(raw, signed.manifest)


def begin(source: Store, target: Store, course: bytes, wanted: list[FileEntry] | None = None) -> Download:
    return target.begin_download(*parcel(source, course), wanted)


def fetch(source: Store, download: Download, slots: list[int] | None = None) -> int:
    """Put chunks (all that are missing) from one store into a download of another; returns their bytes."""
    holding = source.holding(download.course)
    assert holding is not None
    total = 0
    for slot in download.missing() if slots is None else slots:
        chunk = holding.read(slot)
        half = len(chunk) // 2
        assert download.put(slot, [chunk[:half], memoryview(chunk)[half:]])
        total += len(chunk)
    return total


def copy(source: Store, target: Store, course: bytes) -> None:
    """Fetch a whole course from one store into another."""
    download = begin(source, target, course)
    fetch(source, download)
    download.close()


FILES = {
    "README.md": b"# About\n",
    "empty.txt": b"",
    "one": b"1",
    "a/b/c/deep.bin": noise(300_000, 1),
    "a-b/near": noise(5000, 2),
    "a/near": noise(4096, 3),
    "large.bin": noise(3_000_000, 4),
    "copy of large.bin": noise(3_000_000, 4),
    "ελληνικά/中文/العربية.txt": "ü".encode(),
}
FOLDERS = ("nothing here", "a/nothing/here")
