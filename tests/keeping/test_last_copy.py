"""Whether others have a course as well is asked of them, and not of the record, before the last copy goes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import trio

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.elsewhere import goes_if_elsewhere
from tests.keeping.network import eventually, keepers, network
from tests.keeping.room import Member, room, until
from tests.keeping.test_rot import rot
from tests.travel.course_folders import odd_folder


async def elsewhere(member: Member, unit: Unit, *, on_record: bool = True, named: Collection[Node] = ()) -> bool:
    """Whether it may remove what it has; it doesn't."""
    return await goes(member, unit, lambda: None, on_record=on_record, named=named)


async def goes(
    member: Member, unit: Unit, gone: Callable[[], None], *, on_record: bool = True, named: Collection[Node] = ()
) -> bool:
    async def search(_course: bytes) -> Collection[Node]:
        return named

    def known(unit: Unit) -> Collection[Node]:
        entry = member.keeper.ledger.entry(unit)
        return entry.holders if on_record and entry is not None else ()

    return await goes_if_elsewhere(member.keeper, [unit], known, search, gone)


async def test_one_holder_that_shows_it_is_enough_however_it_is_found(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=600.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 3)
        unit = Unit(course, 0)
        (idle,) = [each for each in members[1:] if not each.keeps(course)]
        gone, stays = [each for each in members[1:] if each.keeps(course)]
        await gone.vanish()
        assert await elsewhere(teacher, unit)
        assert await elsewhere(teacher, unit, on_record=False)  # those nearest to it are asked
        assert not await elsewhere(teacher, Unit(course, 1))  # there is no such segment
        # One that was never a neighbour is found because the network names it.
        teacher.nearest = lambda _name: nobody()  # type: ignore[method-assign]
        assert not await elsewhere(teacher, unit, on_record=False)
        assert not await elsewhere(teacher, unit, on_record=False, named=[idle.node, gone.node])
        assert await elsewhere(teacher, unit, on_record=False, named=[stays.node])


async def nobody() -> list[Node]:
    return []


async def test_those_on_record_who_are_gone_or_removed_theirs_or_rotted_are_not_relied_on(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=600.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 4)
        unit = Unit(course, 0)
        gone, removed, rotten = members[1:]
        assert await elsewhere(teacher, unit)
        await gone.vanish()
        removed.keeper.kept.deny(unit)  # as a removal does, but nobody has heard of it yet
        rot(rotten)
        assert len(teacher.counts(course)) == 4
        assert not await elsewhere(teacher, unit)


async def test_of_two_who_remove_it_in_the_same_second_one_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2plearn.dht.elsewhere.SECONDS", 60.0)  # whoever yields hears it at once
    async with room(tmp_path, 2, grace=600.0) as members:
        course = await members[0].publish(60_000, 2)
        await until(lambda: all(len(each.counts(course)) == 2 for each in members))
        told: dict[Node, bool] = {}

        async def remove(member: Member) -> None:
            told[member.node] = await goes(member, Unit(course, 0), lambda: member.keeper.forgotten(course))

        async with trio.open_nursery() as nursery:
            for each in members:
                nursery.start_soon(remove, each)
        assert told == {min(told): True, max(told): False}
        assert {each.node for each in members if each.keeps(course)} == {max(told)}


def test_the_last_copy_stays_until_that_is_what_is_wanted(tmp_path: Path) -> None:
    with network(tmp_path, 2) as nodes:
        keeper, teacher = nodes
        course = teacher.run("publish", odd_folder(tmp_path / "odd"), "--copies", "2")["course"]
        eventually(lambda: keepers([keeper], course), nodes)
        assert teacher.run("remove", course)["freed"] > 0
        refused = keeper.run("remove", course, code=8)
        assert refused["code"] == "last-copy"
        assert "--yes" in refused["hint"]
        assert keepers([keeper], course)
        keeper.run("remove", course, "--yes")
        assert not keepers([keeper], course)
