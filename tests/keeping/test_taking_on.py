"""Courses that were published while no node ran: taken on at the next start, many at a time, and for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import noise, publish

from p2plearn.config import COPIES
from p2plearn.dht import kept as kept_room
from p2plearn.dht.custody import Unit
from p2plearn.dht.kept import Kept
from p2plearn.identity import SigningKey, load_or_create
from p2plearn.store.store import Store


def keep(store: Store, key: SigningKey) -> Kept:
    return Kept(store, key.public, key.sign, 0, announce=lambda _: None, withdraw=lambda _: None)


async def test_published_courses_are_taken_on_and_found_on_record_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_room, "TAKEN_ON_AT_ONCE", 3)
    key = load_or_create(tmp_path / "keys" / "peer.key")
    store = Store.open(tmp_path / "home")
    courses = []
    for number in range(7):
        (tmp_path / f"{number}.bin").write_bytes(noise(1000 + number))
        courses.append(publish(store, tmp_path / f"{number}.bin", f"Course {number}").course)
    first = keep(store, key)
    await first.load()
    assert set(first.ledger) == {Unit(course, 0) for course in courses}
    stated = {unit: first.receipts_of(unit) for unit in first.ledger}
    # One had been asked for more copies, and was let go of in between: that is remembered.
    await first.state(Unit(courses[0], 0), 1000, 5, holds=True)
    store.custody.release(courses[0], 0)
    # One goes away before it is on record.
    second = keep(store, key)
    take_on = store.custody.take_on
    (tmp_path / "gone.bin").write_bytes(noise(500))
    gone = publish(store, tmp_path / "gone.bin", "Gone").course

    def remove_first(units: object) -> object:
        store.remove(gone)
        return take_on(units)  # type: ignore[arg-type]

    monkeypatch.setattr(store.custody, "take_on", remove_first)
    await second.load()
    assert set(second.ledger) == {Unit(course, 0) for course in courses}
    entry = second.ledger.entry(Unit(courses[0], 0))
    assert entry is not None
    assert (entry.copies, entry.size) == (5, 1000)
    for course in courses[1:]:
        assert second.receipts_of(Unit(course, 0)) == stated[Unit(course, 0)]  # nothing was stated twice
        assert stated[Unit(course, 0)][0].copies == COPIES
    assert store.custody.given() == 0
    # What is on record under a seal needn't be verified again; after a crash it is.
    for as_left in (False, True):
        store.close()
        if not as_left:
            (tmp_path / "home" / "store" / "unclean").touch()
        store = Store.open(tmp_path / "home")
        assert store.as_left is as_left
        third = keep(store, key)
        await third.load()
        assert {unit: third.receipts_of(unit) for unit in third.ledger} == {
            unit: second.receipts_of(unit) for unit in second.ledger
        }
    store.close()
