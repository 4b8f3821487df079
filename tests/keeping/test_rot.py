"""A node whose own bytes rotted: it finds that itself, accuses nobody of it, and is whole again."""

from __future__ import annotations

from pathlib import Path

import trio

from p2plearn.dht.custody import Unit
from tests.keeping.room import Member, room, until


def rot(member: Member) -> None:
    """Overwrite all that lies in its extents, in place."""
    for extent in (member.home / "store" / "extents").iterdir():
        with extent.open("r+b") as file:
            file.write(bytes(extent.stat().st_size))


async def test_it_finds_its_own_damage_when_it_challenges_and_accuses_nobody(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=60.0) as members:
        course = await members[0].publish(600_000, 3)
        unit = Unit(course, 0)
        rotten, *healthy = members[1], members[0], members[2]
        rot(rotten)
        for other in healthy:
            assert await rotten.keeper.asking.challenge(unit, other.node) is None
        await until(lambda: not rotten.keeps(course) or not rotten.store.custody.damaged())
        await until(lambda: rotten.keeps(course) and not rotten.store.custody.damaged())
        assert await trio.to_thread.run_sync(rotten.store.verify) == []
        entry = rotten.keeper.ledger.entry(unit)
        assert entry is not None
        assert not entry.disproved
        for each in members:
            await until(lambda each=each: len(each.counts(course)) == 3)  # type: ignore[misc]


async def test_it_finds_its_own_damage_when_it_is_challenged(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=60.0) as members:
        course = await members[0].publish(600_000, 3)
        teacher, rotten = members[0], members[1]
        mended_before = rotten.keeper.kept.receipts_of(Unit(course, 0))
        rot(rotten)
        assert await teacher.keeper.asking.challenge(Unit(course, 0), rotten.node) is False
        newest = max(receipt.time for receipt in mended_before if receipt.node == rotten.node)

        def restated() -> bool:
            receipts = rotten.keeper.kept.receipts_of(Unit(course, 0))
            return any(each.node == rotten.node and each.time > newest and each.holds for each in receipts)

        await until(restated)
        assert await trio.to_thread.run_sync(rotten.store.verify) == []
