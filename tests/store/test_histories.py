"""Random histories of a download against a model: what was put can be read, what was committed survives.

A history puts good and bad chunks in any order, commits, closes, is killed (with or without what the disk hadn't got
yet), sweeps, and begins again. The model is two sets of slots.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stores import noise, parcel, publish, write_tree

from p2plearn.course.index import Index
from p2plearn.store.download import Download
from p2plearn.store.store import Store

SLOT = st.integers(0, 10**6)


class History(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="p2plearn-history-"))
        files = {
            f"{n}": noise(size, n % 5) for n, size in enumerate([1, 70_000, 0, 4096, 5000, 300_000, 1, 150_000, 70_000])
        }
        folder = write_tree(self.place / "folder", files)
        self.source = Store.open(self.place / "source")
        self.parcel = parcel(self.source, publish(self.source, folder).course)
        self.index: Index = self.parcel[2]
        holding = self.source.holding(self.parcel[0].course)
        assert holding is not None
        self.chunks = [holding.read(slot) for slot in range(len(self.index))]
        self.store = Store.open(self.place / "home")
        self.download: Download | None = None
        self.written: set[bytes] = set()  # digests put, whether committed or not
        self.committed: set[bytes] = set()

    def slot(self, number: int) -> int:
        return number % len(self.index)

    @precondition(lambda self: self.download is None)
    @rule(some=st.one_of(st.none(), st.lists(SLOT, max_size=3)))
    def start(self, some: list[int] | None) -> None:
        wanted = None if some is None else [self.index.files[number % len(self.index.files)] for number in some]
        self.download = self.store.begin_download(*self.parcel, wanted)
        assert not {self.index.digest(slot) for slot in self.download.missing()} & self.written
        self.committed = set(self.written)  # a resume commits what it found

    @precondition(lambda self: self.download is not None)
    @rule(numbers=st.lists(SLOT, min_size=1, max_size=5), good=st.booleans())
    def put(self, numbers: list[int], good: bool) -> None:
        assert self.download is not None
        missing = self.download.missing()
        if not missing:
            return
        slots = [missing[number % len(missing)] for number in numbers]
        offers = [(slot, [self.chunks[slot][:7], self.chunks[slot][7:] if good else b"?" * 9]) for slot in slots]
        assert self.download.put_many(offers) == [good] * len(slots)
        if good:
            self.written |= {self.index.digest(slot) for slot in slots}

    @precondition(lambda self: self.download is not None)
    @rule()
    def commit(self) -> None:
        assert self.download is not None
        self.download.commit()
        self.committed = set(self.written)

    @precondition(lambda self: self.download is not None)
    @rule()
    def close(self) -> None:
        assert self.download is not None
        self.download.close()
        self.download = None
        self.committed = set(self.written)

    @rule()
    def sweep(self) -> None:
        self.store.gc()

    @rule(power=st.booleans())
    def die(self, power: bool) -> None:
        """SIGKILL; with ``power``, what wasn't committed turns to zeros on the disk, too."""
        parts = self.store._parts
        lost = []
        if power and self.download is not None:
            for slot in range(len(self.index)):
                digest = self.index.digest(slot)
                if digest in self.written - self.committed:
                    extent = parts.catalogue.extent(self.download.placement.extents[slot])
                    assert extent is not None
                    lost.append((extent.file_name, self.download.placement.offsets[slot], self.index.length(slot)))
            self.written = set(self.committed)
        os.close(self.store._lock_fd)
        parts.files.close()
        parts.catalogue.close()
        if self.download is not None:
            self.download._plan.close()
        for name, offset, length in lost:
            with (parts.extents / name).open("r+b") as file:
                file.seek(offset)
                file.write(bytes(length))
        self.download = None
        self.store = Store.open(self.place / "home")

    @invariant()
    def what_was_put_can_be_read(self) -> None:
        holding = self.store.holding(self.parcel[0].course) if hasattr(self, "store") else None
        if holding is None:
            return
        known = self.written if self.download is not None else self.committed
        for slot in range(len(self.index)):
            assert holding.has(slot) == (self.index.digest(slot) in known)
            if holding.has(slot):
                assert holding.read(slot) == self.chunks[slot]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            if self.download is not None:
                self.download.close()
            assert self.store.verify() == []
            self.store.close()
            self.source.close()
            shutil.rmtree(self.place)


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
