"""A power cut: of what was written and not synced any sectors may be on the disk, in any order, and the rest as before.

What a sync covered stays. The catalogue is SQLite's, which promises the same of itself; so the cut leaves it as it is
and tears the extents: each sector of 512 bytes that differs from the last sync is the old one or the new one by lot.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from stores import noise, parcel, publish, write_tree

from p2plearn.store import download as download_module
from p2plearn.store import ingest as ingest_module
from p2plearn.store.durable import sync_file
from p2plearn.store.store import Store

SECTOR = 512


class Disk:
    """What the extents held at their last sync."""

    def __init__(self) -> None:
        self.synced: dict[int, bytes] = {}

    def sync(self, fd: int) -> None:
        sync_file(fd)
        self.synced[os.fstat(fd).st_ino] = os.pread(fd, os.fstat(fd).st_size, 0)

    def cut(self, home: Path, copy: Path, roll: random.Random) -> None:
        """What the next start finds, if the power went now."""
        shutil.copytree(home, copy)
        for extent in (home / "store" / "extents").iterdir():
            new = extent.read_bytes()
            old = self.synced.get(extent.stat().st_ino, b"").ljust(len(new), b"\0")
            sectors = range(0, len(new), SECTOR)
            torn = b"".join(roll.choice((old, new))[at : at + SECTOR] for at in sectors)
            (copy / "store" / "extents" / extent.name).write_bytes(torn)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(download_module, "sync_file", disk.sync)
    monkeypatch.setattr(ingest_module, "sync_file", disk.sync)
    return disk


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_during_a_download_costs_what_was_not_committed_at_most(
    store: Store, disk: Disk, tmp_path: Path, seed: int
) -> None:
    roll = random.Random(seed)
    files = {f"{n}": noise(roll.randrange(1, 400_000), n) for n in range(12)}
    before = publish(store, write_tree(tmp_path / "b", {"kept": noise(300_000, 99)}), title="before").course
    other = Store.open(tmp_path / "other")
    what = parcel(other, publish(other, write_tree(tmp_path / "s", files)).course)
    source = other.holding(what[0].course)
    assert source is not None
    download = store.begin_download(*what)
    slots = download.missing()
    roll.shuffle(slots)
    committed: set[int] = set()
    for number, slot in enumerate(slots):
        assert download.put(slot, [source.read(slot)])
        if roll.random() < 0.3:
            download.commit()
            committed = set(slots[: number + 1])
        if roll.random() < 0.3:
            disk.cut(tmp_path / "home", tmp_path / "cut", roll)
            check(tmp_path / "cut", what, before, committed, source)
            shutil.rmtree(tmp_path / "cut")
    download.close()
    disk.cut(tmp_path / "home", tmp_path / "cut", roll)
    check(tmp_path / "cut", what, before, set(slots), source)
    other.close()


def check(home: Path, what: tuple, before: bytes, committed: set[int], source: object) -> None:  # type: ignore[type-arg]
    """The oracle: what was acknowledged is there and right; what is missing can be fetched, and then all is."""
    after = Store.open(home)
    try:
        assert after.verify() == []
        row = after.course(before)
        assert row is not None
        assert row.complete
        download = after.begin_download(*what)
        assert not committed & set(download.missing())
        for slot in download.missing():
            assert download.put(slot, [source.read(slot)])  # type: ignore[attr-defined]
        download.close()
        row = after.course(what[0].course)
        assert row is not None
        assert row.complete
        assert after.verify() == []
    finally:
        after.close()


def test_a_power_cut_after_a_publish_costs_nothing(store: Store, disk: Disk, tmp_path: Path) -> None:
    roll = random.Random(7)
    for number in range(4):
        publish(store, write_tree(tmp_path / "s", {"a": noise(500_000, number), "b": noise(3000, number)}))
        disk.cut(tmp_path / "home", tmp_path / "cut", roll)
        after = Store.open(tmp_path / "cut")
        assert after.verify() == []
        assert [row.complete for row in after.courses()] == [True] * (number + 1)
        after.close()
        shutil.rmtree(tmp_path / "cut")
