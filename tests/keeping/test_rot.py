"""A node whose own bytes rotted: it finds that itself, accuses nobody of it, and is whole again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from p2plearn.dht.custody import Unit
from tests.keeping.room import Member, room, until


def rot(member: Member) -> None:
    """Overwrite all that lies in its extents, in place."""
    for extent in (member.home / "store" / "extents").iterdir():
        with extent.open("r+b") as file:
            file.write(bytes(extent.stat().st_size))


def restated(member: Member, unit: Unit) -> Callable[[], bool]:
    """Whether it has said anew, from now on, that it holds a unit: that it was damaged, and is whole again."""
    before = max(each.time for each in member.keeper.kept.receipts_of(unit) if each.node == member.node)

    def holds() -> bool:
        mine = [each for each in member.keeper.kept.receipts_of(unit) if each.node == member.node]
        return any(each.time > before and each.holds for each in mine)

    return holds


async def test_it_finds_its_own_damage_when_it_challenges_and_accuses_nobody(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=60.0) as members:
        course = await members[0].publish(600_000, 3)
        unit = Unit(course, 0)
        rotten, *healthy = members[1], members[0], members[2]
        rot(rotten)
        mended = restated(rotten, unit)
        for other in healthy:
            assert await rotten.keeper.asking.challenge(unit, other.node) is None
        await until(mended)
        assert await trio.to_thread.run_sync(rotten.store.verify) == []
        entry = rotten.keeper.ledger.entry(unit)
        assert entry is not None
        assert not entry.disproved
        await until(lambda: all(len(each.counts(course)) == 3 for each in members))


async def test_it_finds_its_own_damage_when_it_is_challenged(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=60.0) as members:
        course = await members[0].publish(600_000, 3)
        teacher, rotten = members[0], members[1]
        rot(rotten)
        mended = restated(rotten, Unit(course, 0))
        assert await teacher.keeper.asking.challenge(Unit(course, 0), rotten.node) is False
        await until(mended)
        assert await trio.to_thread.run_sync(rotten.store.verify) == []
