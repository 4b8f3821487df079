"""What a person is told of copies says one thing, wherever it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.keeping.room import Member, room, until
from tests.keeping.test_rot import rot


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
