"""What a person is told of copies rests on nodes that are there; what repair waits for is another matter."""

from __future__ import annotations

from pathlib import Path

from p2plearn.dht.custody import Unit
from tests.keeping.room import Member, room, until


def there(member: Member, course: bytes) -> int:
    return member.repair.copies(Unit(course, 0))


async def test_copies_on_nodes_that_vanished_count_for_repair_but_not_for_closing_the_laptop(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=600.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 3)
        unit = Unit(course, 0)
        assert there(teacher, course) == 3
        keepers = [each for each in members[1:] if each.keeps(course)]
        (idle,) = [each for each in members[1:] if not each.keeps(course)]
        idle.up = False
        for each in keepers:
            await each.vanish()
        # Published again a moment later, before any detector can know.
        assert await teacher.repair.place([unit], lambda _: None) == 1
        assert len(teacher.counts(course)) == 3
        idle.up = True
        # Somebody else with room is there now: the copies that are away are not waited for.
        assert await teacher.repair.place([unit], lambda _: None) == 2
        assert idle.keeps(course)


async def test_who_left_for_good_counts_no_more_and_counts_again_when_it_is_back(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=600.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 3)
        (idle,) = [each for each in members[1:] if not each.keeps(course)]
        leaver = next(each for each in members[1:] if each.keeps(course))
        idle.up = False  # so that nothing of the leaver's can be placed anywhere
        leaver.keeper.kept.leaving = True
        await until(lambda: teacher.keeper.vigil.told[leaver.node].beat.leaving)
        assert leaver.node in teacher.counts(course)  # it hands over still
        await leaver.vanish()
        await until(lambda: leaver.node not in teacher.counts(course))
        assert there(teacher, course) == 2
        idle.up = True
        await until(lambda: idle.keeps(course))
        leaver.keeper.kept.leaving = False
        leaver.up = True
        await until(lambda: leaver.node in teacher.counts(course))
