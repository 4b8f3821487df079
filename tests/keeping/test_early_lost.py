"""A course is lost when nobody who may come back has it, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.keeping.room import Member, room, until
from tests.keeping.test_rot import rot


async def custody(member: Member) -> dict[str, Any]:
    figures: dict[str, Any] = (await member.replication.figures())["custody"]
    return figures


async def test_what_is_damaged_here_is_not_lost_while_its_holder_is_away_for_the_grace_period(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=600.0) as members:
        teacher, friend = members
        course = await teacher.publish(60_000, 2)
        await friend.vanish()
        rot(teacher)
        assert await trio.to_thread.run_sync(teacher.store.verify)
        await teacher.keeper.look_for_damage(course)
        found = await custody(teacher)
        assert found["lost"] == []
        (short,) = found["under_replicated"]
        assert (short["course"], short["copies"] + short["copies_away"], short["copies_wanted"]) == (course.hex(), 1, 2)
        # Away for longer than that, as this node has seen it, it is.
        await until(lambda: friend.node in teacher.keeper.vigil.detector)
        teacher.keeper.vigil.detector.forget(friend.node)
        teacher.keeper.vigil.been_away({friend.node: 601.0})
        await until(lambda: friend.node in teacher.keeper.vigil.detector)
        assert [each["course"] for each in (await custody(teacher))["lost"]] == [course.hex()]
        friend.up = True
        await until(lambda: teacher.keeper.vigil.is_heard(friend.node))
        assert (await custody(teacher))["lost"] == []
