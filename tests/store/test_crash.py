"""kill -9 before the n-th write, fsync, rename, unlink, … of each operation; then the store is opened and asked.

The oracle, whatever the moment: the store opens; what was acknowledged before is complete and true to its hashes; no
file is left that nothing refers to; the same operation run again succeeds; what a download had put needn't be put
again. A sample runs always, every moment with ``P2PLEARN_ALL_CRASHES=1``.
"""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import EVERY, chosen, meddled, moments, needs_strace, run
from stores import begin, fetch, noise, parcel, publish, read_tree, write_tree

from p2plearn.store.durable import TEMPORARY
from p2plearn.store.follow import LARGE
from p2plearn.store.store import Store
from p2plearn.store.tree import PART

KEPT = {"x.bin": noise(LARGE + 5, 6), "y/z.bin": noise(LARGE, 7), "small": b"small"}


@dataclass
class Scene:
    """A home with two courses in it, and what the operations work on."""

    root: Path
    home: Path
    folder: Path
    parcel: Path
    first: bytes
    third: bytes
    fourth: bytes


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("crash")
    folder = write_tree(root / "folder", {"a": noise(900_000, 1), "b/c": noise(5000, 2), "b/d": b""}, ("void",))
    home = root / "home"
    store = Store.open(home)
    first = publish(store, folder, title="first").course
    write_tree(folder, {"e": noise(20_000_000, 4), "b/c": noise(5001, 3)})
    publish(store, folder, title="second")
    store.close()
    (folder / "e").unlink()
    # A third course, fetched: part of it is here already.
    source = Store.open(root / "elsewhere")
    write_tree(folder, {"f": noise(2_500_000, 5), "g": noise(2_500_000, 5)})
    third = publish(source, folder).course
    holding = source.holding(third)
    assert holding is not None
    signed, index_raw, index = parcel(source, third)
    chunks = {slot: holding.read(slot) for slot in range(len(index))}
    (root / "parcel").write_bytes(pickle.dumps((signed.raw, signed.signature, index_raw, chunks)))
    # And one with files that are worth an extent each.
    kept = publish(source, write_tree(root / "kept", KEPT), title="kept").course
    holding = source.holding(kept)
    assert holding is not None
    signed, index_raw, index = parcel(source, kept)
    chunks = {slot: holding.read(slot) for slot in range(len(index))}
    (root / "keep").mkdir()
    (root / "keep" / "parcel").write_bytes(pickle.dumps((signed.raw, signed.signature, index_raw, chunks)))
    source.close()
    return Scene(root, home, folder, root / "parcel", first, third, kept)


def check_store(store: Store, scene: Scene) -> None:
    """The oracle's part that holds after any crash."""
    row = store.course(scene.first)
    assert row is not None
    assert row.complete
    assert store.verify() == []
    held = {extent.name for extent in store._parts.catalogue.extents()}
    assert set(os.listdir(store._parts.extents)) <= held
    kept = {row.course.hex() + ".course" for row in store.courses() if row.indexed}
    assert set(os.listdir(store._parts.course_files.directory)) == kept
    assert not [path for path in store._parts.directory.rglob("*") if TEMPORARY in path.name]


def kept_at(scene: Scene, work: Path) -> Path:
    shutil.copytree(scene.root / "keep", work / "keep", dirs_exist_ok=True)
    return work / "keep"


@needs_strace
@pytest.mark.timeout(3600 if EVERY else 240)
@pytest.mark.parametrize("operation", ["publish", "download", "checkout", "remove", "keep"])
def test_killed_at(scene: Scene, tmp_path: Path, operation: str) -> None:
    def extra(work: Path) -> Path:
        if operation == "keep":
            return kept_at(scene, work)
        return {"publish": scene.folder, "download": scene.parcel}.get(operation, work / "out")

    tried = 0
    every = moments(operation, scene.home, tmp_path, extra(tmp_path))
    for call, number in chosen(every):
        work = tmp_path / f"{call}-{number}"
        shutil.copytree(scene.home, work / "home")
        code, said = run(meddled(call, number, "signal=KILL"), operation, work / "home", extra(work))
        killed = code == -9 or "closed" not in said
        tried += killed
        acknowledged = any(line.startswith("ack") for line in said)
        store = Store.open(work / "home")
        try:
            check_store(store, scene)
            run_again(store, scene, operation, extra(work), acknowledged, said)
            check_store(store, scene)
        finally:
            store.close()
        shutil.rmtree(work)
    assert tried
    print(f"{operation}: killed at {tried} of {len(every)} calls")


def read_files(folder: Path) -> dict[str, bytes | None]:
    return {path: raw for path, raw in read_tree(folder).items() if raw is not None}


def run_again(store: Store, scene: Scene, operation: str, extra: Path, acknowledged: bool, said: list[str]) -> None:
    if operation == "publish":
        complete = [row for row in store.courses() if row.title == "A course"]
        assert all(row.complete for row in complete)
        assert len(complete) == 1 or not acknowledged
        assert publish(store, extra).new == (not complete)
    elif operation == "download":
        row = store.course(scene.third)
        assert row is not None or not acknowledged
        assert (row is not None and row.complete) or not acknowledged
        source = Store.open(scene.root / "elsewhere")
        try:
            download = begin(source, store, scene.third)
            put = {int(line.split()[1]) for line in said if line.startswith("put")}
            assert not put & set(download.missing())
            fetch(source, download)
            download.close()
        finally:
            source.close()
        row = store.course(scene.third)
        assert row is not None
        assert row.complete
        assert store._parts.catalogue.plans(scene.third) == []
    elif operation == "checkout":
        expected = {"a", "b", "b/c", "b/d", "void"}
        assert not extra.exists() or set(read_tree(extra)) == expected
        store.checkout(scene.first, extra)
        assert set(read_tree(extra)) == expected
        assert [path.name for path in extra.parent.iterdir() if PART in path.name] == []
    elif operation == "keep":
        row, dest = store.course(scene.fourth), extra / "out"
        assert (row is not None and row.complete) or not acknowledged
        assert not dest.exists() or read_files(dest) == KEPT
        if dest.exists():  # whatever its person does there now, the store has what it says
            store.gc()
            (dest / "x.bin").unlink()
            (dest / "y" / "z.bin").write_bytes(b"mine")
            assert all(one.path in KEPT for one in store.verify())
            shutil.rmtree(dest)
        source = Store.open(scene.root / "elsewhere")
        try:
            download = begin(source, store, scene.fourth)
            fetch(source, download)
            download.close()
        finally:
            source.close()
        store.checkout(scene.fourth, dest)
        assert read_files(dest) == KEPT
        assert store.verify() == []
    else:
        left = [row for row in store.courses() if row.title == "second"]
        assert not (left and acknowledged)
        for row in left:
            store.remove(row.course)
        store.gc()
        assert store.usage().bytes < 2_000_000
