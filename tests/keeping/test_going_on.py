"""A disk that fails for a while, as with all descriptors in use, ends no task that keeps copies: each goes on then."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from p2plearn.custody_service import CustodyService
from p2plearn.dht.custody import Unit
from p2plearn.dht.directory import Directory
from p2plearn.dht.intake import INCOMING
from p2plearn.errors import NoSpace, StoreProblem
from tests.hosts import running_node
from tests.keeping.room import Member, room, until


def service(member: Member, directory: Directory) -> CustodyService:
    return CustodyService(member.keeper, member.repair, member.inquiries, member.replication, directory)


async def test_each_task_outlives_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node() as node, room(tmp_path, 2) as (teacher, friend), trio.open_nursery() as nursery:
        course = await teacher.publish(50_000, 2)
        assert friend.keeps(course)
        seen: Counter[str] = Counter()
        with monkeypatch.context() as patch:
            for call in ("course", "courses", "names", "look"):

                def fail(*_: Any, call: str = call, **__: Any) -> None:
                    seen[call] += 1
                    raise StoreProblem("unable to open database file")

                patch.setattr(friend.store, call, fail)
            nursery.start_soon(service(friend, node.directory).give_up_refused, lambda _course, _author: "")
            friend.records[bytes(32)] = {teacher.node}  # has the lookout look what is here
            friend.keeper.kept.damaged[Unit(bytes(32), 0)] = 2  # and something to mend
            friend.inquiries.fetched(bytes(32), 1000)  # and to ask about
            await until(lambda: min(seen["course"], seen["courses"], seen["names"], seen["look"]) > 2)
        friend.keeper.kept.damaged.clear()
        other = await teacher.publish(50_000, 2, seed=1)
        await until(lambda: friend.keeps(other))
        await until(lambda: Unit(bytes(32), 0) in friend.inquiries.heard or friend.inquiries.fetched(bytes(32), 1000))
        nursery.cancel_scope.cancel()


async def test_what_could_not_be_given_up_takes_no_place_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(tmp_path, 2) as (teacher, friend):
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise NoSpace("the disk is full")

            patch.setattr(friend.store.custody, "reserve", fail)
            patch.setattr(friend.store.custody, "abandon", fail)
            for seed in range(INCOMING + 1):
                with trio.move_on_after(10.0):  # who offers was kept waiting for it, too
                    await teacher.publish(1000, 2, seed)
            await until(lambda: not friend.keeper.intake._coming)
        course = await teacher.publish(1000, 2, INCOMING + 1)
        await until(lambda: friend.keeps(course))
