"""How long a sweep keeps others from a store of very many chunks: CPU seconds of its longest hold, and of all of it.

    python benchmarks/sweep.py [--chunks 1000000] [--extents 2000]

Half of the chunks, and of the extents that they lie in, belong to courses that are here; nobody needs the other half.
The extents are empty files: what is looked at is the catalogue's work. A hold is the time between taking a lock that
others wait for (the gate of the store, the catalogue's connection) and letting go of it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from array import array
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2plearn.course.index import IndexBuilder, parts
from p2plearn.course.manifest import Manifest, Series, sign_manifest
from p2plearn.store.catalogue import add_chunks, add_extent
from p2plearn.store.publish import add_course
from p2plearn.store.store import Store

LENGTH = 65_536
COURSES = 8


class Timed:
    """A lock that notes the longest time, of its thread's CPU, for which it was held."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._depth = 0
        self._since = 0.0
        self.holds = 0
        self.longest = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._since = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.holds += 1
            self.longest = max(self.longest, time.thread_time() - self._since)
        self._lock.release()


def fill(store: Store, chunks: int, extents: int) -> None:
    """Put chunks and extents into the catalogue, every other extent's with the courses they make up."""
    dice, key = random.Random(1), Ed25519PrivateKey.generate()
    each = chunks // extents
    live: list[bytes] = []
    with store._parts.catalogue.writing() as db:
        rows: list[tuple[bytes, int, int, int]] = []
        for number in range(extents):
            name = f"{number:032x}"
            (store._parts.extents / name).touch()
            extent = add_extent(db, name, each * LENGTH)
            digests = [dice.randbytes(32) for _ in range(each)]
            live += digests if number % 2 else []
            rows += [(digest, extent, at * LENGTH, LENGTH) for at, digest in enumerate(digests)]
        add_chunks(db, rows)
        del rows
        for number in range(COURSES):
            mine = live[number::COURSES]
            builder = IndexBuilder()
            builder.add_run("all", len(mine) * LENGTH, b"".join(mine), array("I", [LENGTH] * len(mine)))
            index = builder.build()
            raw = bytes(index.encode())
            manifest = Manifest(
                kind="folder", title=f"Course {number}", description="", author=key.public_key().public_bytes_raw(),
                tags=(), language="", license="", created=0, series=Series(f"{number}", 1, None), chunker="none",
                bytes=index.bytes, files=1, chunks=len(index), root=bytes.fromhex("01701220") + bytes(32),
                index=tuple(parts(raw)),
            )  # fmt: skip
            signed = sign_manifest(manifest, key.sign)
            store._parts.course_files.write(signed, raw)
            add_course(db, signed, why="published", now=0, indexed=True)


def main() -> None:
    """Fill a store, sweep it, say how long that took."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--chunks", type=int, default=1_000_000)
    given.add_argument("--extents", type=int, default=2_000)
    said = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        fill(store, said.chunks, said.extents)
        gate = store._parts.gate = Timed(threading.RLock())  # type: ignore[assignment]
        lock = store._parts.catalogue._database.lock = Timed(threading.RLock())  # type: ignore[assignment]
        began = time.process_time()
        swept = store.gc()
        spent = time.process_time() - began
        store.close()
    print(f"{said.chunks:,} chunks in {said.extents:,} extents: {swept.unlinked:,} extents unlinked.")
    print(f"CPU in all {spent:.1f} s; longest hold: gate {gate.longest:.2f} s of {gate.holds:,}, ", end="")
    print(f"catalogue {lock.longest:.2f} s of {lock.holds:,}.")


if __name__ == "__main__":
    main()
