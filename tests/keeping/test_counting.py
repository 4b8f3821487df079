"""What a person is told of copies says one thing, wherever it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from stores import noise, publish

from p2plearn.dht.custody import Unit
from p2plearn.replication import name_of
from tests.keeping.room import Member, room, until
from tests.keeping.test_rot import restated, rot


async def custody(member: Member) -> dict[str, Any]:
    figures: dict[str, Any] = (await member.replication.figures())["custody"]
    return figures


async def told(member: Member, course: bytes) -> dict[str, Any]:
    row = await trio.to_thread.run_sync(member.store.course, course)
    assert row is not None
    facts = member.replication.copies_of(course, row.bytes, complete=row.complete)
    assert {name: facts[name] for name in ("copies", "copies_away", "copies_wanted")} == member.replication.facts(row)
    return facts


async def test_of_what_is_lost_no_copy_is_said_to_be_away(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=600.0) as members:
        teacher, friend = members
        course = await teacher.publish(60_000, 2)
        await friend.vanish()
        rot(teacher)
        assert await trio.to_thread.run_sync(teacher.store.verify)
        await teacher.keeper.look_for_damage(course)
        facts = await told(teacher, course)
        assert facts["copies"] + facts["copies_away"] == 1
        await until(lambda: friend.node in teacher.keeper.vigil.detector)
        teacher.keeper.vigil.detector.forget(friend.node)
        teacher.keeper.vigil.been_away({friend.node: 601.0})
        await until(lambda: friend.node in teacher.keeper.vigil.detector)
        found = await custody(teacher)
        assert [each["course"] for each in found["lost"]] == [course.hex()]
        assert found["under_replicated"] == []
        facts = await told(teacher, course)
        assert (facts["copies"], facts["copies_away"], facts["copies_wanted"]) == (0, 0, 2)
        assert [each["life"] for each in facts["where"]] == ["gone"]


async def test_a_copy_that_was_deleted_counts_for_nobody_until_it_was_fetched_again(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=60.0) as members:
        course = await members[0].publish(600_000, 3)
        careless, *others = members[1], members[0], members[2]
        # Open, so that it can still be read.
        assert await others[0].keeper.asking.challenge(Unit(course, 0), careless.node)
        mended = restated(careless, Unit(course, 0))
        (extent,) = (careless.home / "store" / "extents").iterdir()
        extent.unlink()
        assert await others[0].keeper.asking.challenge(Unit(course, 0), careless.node) is False
        await until(mended)
        assert await trio.to_thread.run_sync(careless.store.verify) == []
        await until(lambda: all(len(each.counts(course)) == 3 for each in members))


async def test_a_file_that_is_kept_where_it_is_counts_while_it_is_there(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=60.0) as members:
        teacher, friend = members
        source = tmp_path / "own.bin"
        source.write_bytes(noise(300_000))
        published = await trio.to_thread.run_sync(lambda: publish(teacher.store, source, no_copy=True))
        course = published.course
        await teacher.repair.place(await teacher.keeper.kept.adopt(course, 2), lambda _: None)
        assert (await told(teacher, course))["copies"] == 2
        # Nobody asks for it: that it is gone is seen all the same.
        away = source.rename(source.with_name("away.bin"))
        await until(lambda: friend.counts(course) == {friend.node})
        facts = await told(teacher, course)
        assert (facts["copies"], facts["copies_wanted"]) == (1, 2)
        assert [each["peer_id"] for each in facts["where"]] == [name_of(friend.node)]
        away.rename(source)
        await until(lambda: len(friend.counts(course)) == 2)
        assert (await told(teacher, course))["copies"] == 2
