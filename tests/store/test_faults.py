"""Killed, out of room or failed by the disk at the n-th call of what test_crash leaves out; and a disk that is full.

The oracle after each: the store opens, everything acknowledged is complete and true to its hashes, no wrong byte comes
out, the same operation run again succeeds. A sample runs always, every moment with ``P2PLEARN_ALL_CRASHES=1``.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import EVERY, chosen, meddled, moments, needs_strace, run
from older import of_format_2
from stores import noise, parcel, publish, read_tree, write_tree

from p2plearn import identity
from p2plearn.store.store import Store

WRITES = "pwrite64,pwritev,pwritev2,write,ftruncate,mkdir,mkdirat,link,linkat,rename,renameat,renameat2"
SYNCS = "fsync,fdatasync,syncfs"


@dataclass
class Scene:
    """A home with three courses, one of them removed but not swept, one served in place, and one to fetch."""

    root: Path
    home: Path
    folder: Path
    parcel: Path
    kept: bytes


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("faults")
    home = root / "home"
    folder = write_tree(root / "folder", {"a": noise(10_000_000, 1), "b/c": noise(300_000, 2), "d": b"d"})
    store = Store.open(home)
    gone = publish(store, folder, title="gone").course
    (folder / "a").unlink()
    kept = publish(store, folder, title="first").course
    signed, index_raw, index = parcel(store, kept)
    holding = store.holding(kept)
    assert holding is not None
    chunks = {slot: holding.read(slot) for slot in range(len(index))}
    (root / "parcel").write_bytes(pickle.dumps((signed.raw, signed.signature, index_raw, chunks)))
    publish(store, write_tree(root / "mine", {"m": noise(300_000, 4), "n/o": b"short"}), title="mine", no_copy=True)
    # As a crash would leave it: the next sweep compacts.
    store._forget(gone)
    store._parts.course_files.remove(gone)
    store.close()
    return Scene(root, home, write_tree(root / "new", {"n": noise(700_000, 3), "o": b"o"}), root / "parcel", kept)


def harmed(home: Path) -> None:
    """Flip a bit in the course that is kept."""
    (extent,) = (home / "store" / "extents").iterdir()
    with extent.open("r+b") as file:
        file.seek(10_010_000)
        byte = file.read(1)[0]
        file.seek(10_010_000)
        file.write(bytes([byte ^ 1]))


def without_catalogue(home: Path) -> None:
    (home / "store" / "catalogue.sqlite").unlink()


PREPARED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "gc": ("gc", lambda home: None),
    "migration": ("open", of_format_2),
    "rebuild": ("open", without_catalogue),
    "verify --repair": ("mend", harmed),
    "publish": ("publish", lambda home: None),
    "download": ("download", lambda home: None),
    "checkout": ("checkout", lambda home: None),
}


def prepared(scene: Scene, place: Path, what: str) -> Path:
    home = place / "prepared"
    shutil.copytree(scene.home, home)
    PREPARED[what][1](home)
    return home


def extra(scene: Scene, what: str, work: Path) -> Path:
    return {"publish": scene.folder, "download": scene.parcel, "verify --repair": scene.parcel}.get(what, work / "out")


def check(scene: Scene, home: Path, what: str, *, acknowledged: bool) -> None:
    """The oracle."""
    store = Store.open(home)
    try:
        if what == "verify --repair":
            # The bit may not be mended yet; then nothing wrong comes out, and a course is complete or not said to be.
            holding = store.holding(scene.kept)
            assert holding is not None
            *_, chunks = pickle.loads(scene.parcel.read_bytes())
            read = holding.read_many(range(holding.slots))
            assert all(chunk is None or chunk == chunks[slot] for slot, chunk in enumerate(read))
            assert None not in read or not acknowledged
        else:
            assert store.verify() == []
        row = store.course(scene.kept)
        assert row is not None
        assert row.complete or what == "verify --repair"
        assert not acknowledged or what != "publish" or any(one.title == "A course" for one in store.courses())
        assert {one.title for one in store.courses()} <= {"first", "mine", "A course"}
        held = {extent.name for extent in store._parts.catalogue.extents()}
        assert set(os.listdir(store._parts.extents)) <= held
    finally:
        store.close()
    if what == "migration":
        assert_backup(home)


def assert_backup(home: Path) -> None:
    """The catalogue of before the migration is there, whole, and what a program of that version reads."""
    backup = home / "store" / "catalogue.sqlite.format-2"
    db = sqlite3.connect(backup)
    assert db.execute("PRAGMA user_version").fetchone() == (2,)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert sorted(db.execute("SELECT title FROM courses")) == [("first",), ("mine",)]
    assert db.execute("SELECT count(*) FROM chunks").fetchone()[0] > 40
    db.close()


@needs_strace
@pytest.mark.timeout(3600 if EVERY else 240)
@pytest.mark.parametrize("what", ["gc", "migration", "rebuild", "verify --repair"])
def test_killed_at(scene: Scene, tmp_path: Path, what: str) -> None:
    operation, home = PREPARED[what][0], prepared(scene, tmp_path, what)
    every = moments(operation, home, tmp_path, extra(scene, what, tmp_path))
    tried = 0
    for call, number in every if EVERY else chosen(every)[::2]:
        work = tmp_path / f"{call}-{number}"
        shutil.copytree(home, work / "home")
        code, said = run(meddled(call, number, "signal=KILL"), operation, work / "home", extra(scene, what, work))
        tried += code == -9 or "closed" not in said
        check(scene, work / "home", what, acknowledged=any(line.startswith("ack") for line in said))
        code, said = run(["-e", "trace=none"], operation, work / "home", extra(scene, what, work))
        assert (code, said[-1]) == (0, "closed")
        check(scene, work / "home", what, acknowledged=True)
        shutil.rmtree(work)
    assert tried
    print(f"{what}: killed at {tried} of {len(every)} calls")


@needs_strace
@pytest.mark.timeout(3600 if EVERY else 240)
def test_killed_while_a_key_is_made(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    every = moments("key", tmp_path / "home", tmp_path / "first", tmp_path)
    tried = 0
    for call, number in every if EVERY else chosen(every):
        home = tmp_path / f"{call}-{number}"
        code, said = run(meddled(call, number, "signal=KILL"), "key", home, tmp_path)
        tried += code == -9 or "closed" not in said
        key = identity.load_or_create(home / "keys" / "peer.key")
        assert not said or said[0] == f"ack {key.public.hex()}"
        assert sorted(os.listdir(home / "keys")) == ["peer.key", "peer.pub"]
        assert (home / "keys" / "peer.key").stat().st_mode & 0o777 == 0o600
    assert tried
    print(f"key: killed at {tried} of {len(every)} calls")


@needs_strace
@pytest.mark.timeout(3600 if EVERY else 240)
@pytest.mark.parametrize("what", ["publish", "download", "checkout", "gc", "migration", "rebuild", "verify --repair"])
@pytest.mark.parametrize(("calls", "fault"), [(WRITES, "error=ENOSPC"), (SYNCS, "error=EIO")])
def test_failed_at(scene: Scene, tmp_path: Path, what: str, calls: str, fault: str) -> None:
    operation, home = PREPARED[what][0], prepared(scene, tmp_path, what)
    every = moments(operation, home, tmp_path, extra(scene, what, tmp_path), calls)
    refused = 0
    picked = every if EVERY else chosen(every)[2:3]
    for call, number in picked:
        work = tmp_path / f"{call}-{number}"
        shutil.copytree(home, work / "home")
        code, said = run(meddled(call, number, fault), operation, work / "home", extra(scene, what, work))
        # Words, not a traceback; and the same process goes on: tried again, it works.
        assert (code, said[-1]) == (0, "closed"), said
        if any(line.startswith("gave up") for line in said):
            # strace counts by thread: where each try has threads of its own, each met the fault.
            assert what in ("publish", "verify --repair", "download")
            code, said = run(["-e", "trace=none"], operation, work / "home", extra(scene, what, work))
        assert any(line.startswith("ack") for line in said), said
        refused += any(line.startswith("refused") for line in said)
        check(scene, work / "home", what, acknowledged=True)
        shutil.rmtree(work)
        # The same, and it stays so: nothing is acknowledged that isn't there, nothing is lost that was.
        shutil.copytree(home, work / "home")
        options = ["-e", f"trace={calls}", "-o", os.devnull, "-e", f"inject={call}:{fault}:when={number}+"]
        code, said = run(options, operation, work / "home", extra(scene, what, work))
        check(scene, work / "home", what, acknowledged=any(line.startswith("ack") for line in said))
        if what == "checkout" and (work / "out").exists():
            assert read_tree(work / "out") == read_tree(scene.root / "folder")
        shutil.rmtree(work)
    print(f"{what}, {fault}: {len(picked)} of {len(every)} calls, {refused} refused with words, none lost")
