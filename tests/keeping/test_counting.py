"""What a person is told of copies says one thing, wherever it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from stores import noise, publish

from p2plearn.dht import custody as custody_room
from p2plearn.dht import inquiries as inquiries_room
from p2plearn.dht import intake as intake_room
from p2plearn.dht.custody import Unit
from p2plearn.replication import name_of
from tests.keeping.room import Member, room, until
from tests.keeping.test_rot import restated, rot

MIB = 1 << 20


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
        await teacher.has_missed(friend, 601.0)
        found = await teacher.custody()
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


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 1 MiB, and nobody waits long."""
    monkeypatch.setattr(custody_room, "SEGMENT", MIB)
    monkeypatch.setattr(intake_room, "SEGMENT", MIB)
    monkeypatch.setattr(inquiries_room, "LEAST_LOOK", 0.5)
    monkeypatch.setattr(inquiries_room, "LEAST_SECONDS", 2.0)


@pytest.mark.usefixtures("small_segments")
async def test_who_keeps_a_segment_says_what_who_keeps_all_says(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=600.0, give=2_200_000) as members:
        teacher, friend = members
        course = await teacher.publish(3 * MIB, 2)
        here = [number for number in range(3) if friend.keeps(course, number)]
        assert 0 < len(here) < 3
        facts = await told(teacher, course)
        assert (facts["copies"], facts["copies_wanted"]) == (1, 2)
        where = {each["peer_id"]: each["segments"] for each in facts["where"]}
        assert where == {name_of(teacher.node): [0, 1, 2], name_of(friend.node): here}
        assert [each["copies"] for each in facts["segments"]] == [1 + (number in here) for number in range(3)]
        await until(lambda: len([unit for unit in friend.inquiries.heard if unit.course == course]) == 3 - len(here))
        theirs = await told(friend, course)
        assert (theirs["copies"], theirs["copies_away"], theirs["copies_wanted"]) == (1, 0, 2)
        assert {each["peer_id"]: each["segments"] for each in theirs["where"]} == where
        # It watches who has the rest, and remembers how many were asked for when nobody answers any more.
        await teacher.vanish()
        rest = next(unit for unit in friend.inquiries.heard if unit.course == course)
        await friend.keeper.vigil.confirm([teacher.node], 5.0)
        assert (await friend.inquiries.ask(rest)).holders == frozenset()
        theirs = await told(friend, course)
        assert (theirs["copies"], theirs["copies_away"], theirs["copies_wanted"]) == (0, 1, 2)
        assert (await friend.custody())["lost"] == []


@pytest.mark.usefixtures("small_segments")
async def test_what_was_fetched_in_part_is_known_and_its_whole_segments_count_when_they_must(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=600.0) as members:
        teacher, reader, _ = members
        course = await teacher.publish(3 * MIB, 1)
        assert await teacher.keeper.give(Unit(course, 0), reader.node) is None
        # As a get of some files leaves it: here for its person, counted on by nobody.
        reader.store.custody.claim(course, "fetched")
        denial = reader.keeper.kept.deny(Unit(course, 0))
        assert denial is not None
        await reader.keeper.asking.tell([teacher.node], [denial[1]])
        reader.inquiries.fetched(course, 3 * MIB)
        await until(lambda: len([unit for unit in reader.inquiries.heard if unit.course == course]) == 3)
        facts = await told(reader, course)
        assert (facts["copies"], facts["copies_away"], facts["copies_wanted"]) == (1, 0, 1)
        assert [(each["peer_id"], each["segments"]) for each in facts["where"]] == [(name_of(teacher.node), [0, 1, 2])]
        await teacher.vanish()
        for number in range(3):
            await reader.inquiries.ask(Unit(course, number))
        assert [reader.keeps(course, number) for number in range(3)] == [True, False, False]


async def test_what_was_fetched_is_one_copy_until_others_were_asked_and_then_none_too_many(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=600.0) as members:
        teacher, friend, reader = members
        course = await teacher.publish(60_000, 1)
        for each in (friend, reader):
            if not each.keeps(course):
                assert await teacher.keeper.give(Unit(course, 0), each.node) is None
        reader.store.custody.claim(course, "fetched")
        denial = reader.keeper.kept.deny(Unit(course, 0))
        assert denial is not None
        reader.inquiries.forgotten(course)
        assert (await told(reader, course))["copies"] == 1
        await reader.inquiries.ask(Unit(course, 0))
        facts = await told(reader, course)
        assert (facts["copies"], facts["copies_wanted"]) == (2, 1)
        assert name_of(reader.node) not in {each["peer_id"] for each in facts["where"]}
