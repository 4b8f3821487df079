"""A course is lost when nobody who may come back has it, and not before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from tests.keeping.room import room, until
from tests.keeping.test_rot import rot


async def test_what_is_damaged_here_is_not_lost_while_its_holder_is_away_for_the_grace_period(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=600.0) as members:
        teacher, friend = members
        course = await teacher.publish(60_000, 2)
        await friend.vanish()
        rot(teacher)
        assert await trio.to_thread.run_sync(teacher.store.verify)
        await teacher.keeper.look_for_damage(course)
        found = await teacher.custody()
        assert found["lost"] == []
        (short,) = found["under_replicated"]
        assert (short["course"], short["copies"] + short["copies_away"], short["copies_wanted"]) == (course.hex(), 1, 2)
        # Away for longer than that, as this node has seen it, it is.
        await teacher.has_missed(friend, 601.0)
        assert [each["course"] for each in (await teacher.custody())["lost"]] == [course.hex()]
        friend.up = True
        await until(lambda: teacher.keeper.vigil.is_heard(friend.node))
        assert (await teacher.custody())["lost"] == []


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 1, "away": 7, "lost": []}',
        '{"format": 1, "away": {"00": 1e400}, "lost": []}',
        '{"format": 1, "away": {}, "lost": [["00", ["01"], NaN]]}',
        f'{{"format": 1, "away": {{"00": 1{"0" * 400}}}, "lost": []}}',
    ],
)
async def test_a_file_of_absences_that_is_not_ours_is_passed_over_and_then_replaced(tmp_path: Path, text: str) -> None:
    async with room(tmp_path, 1) as (member,):
        path = member.home / "absences.json"
        path.write_text(text, "utf-8")
        member.lookout.load()
        assert not member.lookout.watch.export(trio.current_time())
    assert json.loads(path.read_bytes()) == {"format": 1, "away": {}, "lost": []}
