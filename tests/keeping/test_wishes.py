"""A publisher that asks for fewer copies than before is obeyed; nobody else is, and no copy goes too early."""

from __future__ import annotations

from pathlib import Path

import stores

from p2plearn.dht.custody import Unit
from p2plearn.dht.kept import Kept
from p2plearn.dht.ledger import Ledger
from p2plearn.dht.messages import Offer
from tests.keeping.room import Member, room, until


async def wishes(member: Member, course: bytes, number: int) -> None:
    """As a publish does of what is published here already."""
    units = await member.keeper.kept.adopt(course, number)
    await member.keeper.kept.wish(units, number, stores.AUTHOR, stores.sign)
    for unit in units:
        member.keeper.tell_all(unit)


def wanted(member: Member, course: bytes) -> int:
    return copies(member.keeper.ledger, Unit(course, 0))


def copies(ledger: Ledger, unit: Unit) -> int:
    entry = ledger.entry(unit)
    return entry.copies if entry is not None else 0


async def test_fewer_copies_are_obeyed_by_all_and_more_again(tmp_path: Path) -> None:
    async with room(tmp_path, 5, grace=0.5) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 5)
        await wishes(teacher, course, 5)
        await until(lambda: all(each.keeps(course) for each in members))
        away = members[1]
        away.up = False  # who isn't there when it is said hears of it afterwards
        await wishes(teacher, course, 2)
        there = [each for each in members if each is not away]
        await until(lambda: all(wanted(each, course) in {0, 2} for each in there))
        away.up = True
        await until(lambda: sum(each.keeps(course) for each in members) == 2)
        assert teacher.keeps(course)
        (other,) = [each for each in members[1:] if each.keeps(course)]
        assert await teacher.keeper.asking.challenge(Unit(course, 0), other.node) is True
        await wishes(teacher, course, 4)
        await until(lambda: sum(each.keeps(course) for each in members) == 4)


async def test_nobody_talks_a_keeper_into_another_number(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=60.0) as members:
        teacher, keeper, other = members
        course = await teacher.publish(60_000, 3)
        await wishes(teacher, course, 3)
        unit = Unit(course, 0)
        await until(lambda: wanted(keeper, course) == 3)
        signed = teacher.store.signed_manifest(course)
        assert signed is not None
        for number in (1, 32):
            await other.keeper.asking.question(keeper.node, Offer(0, number, signed.signature, signed.raw))
            await other.keeper.kept.wish([unit], number, other.key.public, other.key.sign)  # its own key's: nobody's
            receipt = other.keeper.ledger.state(unit, 60_000, number, True, 0)
            await other.keeper.asking.exchange(keeper.node, [receipt])
            entry = keeper.keeper.ledger.entry(unit)
            assert entry is not None
            assert entry.receipts[other.node].copies == number
            assert wanted(keeper, course) == 3


async def test_a_wish_is_on_record_across_restarts_damage_and_a_new_beginning(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=60.0) as members:
        teacher, keeper = members
        course = await teacher.publish(60_000, 2)
        await wishes(teacher, course, 7)
        await wishes(teacher, course, 2)
        unit = Unit(course, 0)
        await until(lambda: wanted(keeper, course) == 2)
        assert keeper.store.custody.receipt(*unit, stores.AUTHOR)
        for each in members:
            await each.vanish()
            again = Kept(each.store, each.node, each.key.sign, 0, announce=lambda _: None, withdraw=lambda _: None)
            await again.load()
            assert copies(again.ledger, unit) == 2
            again.deny(unit)
            await again.state(unit, 60_000, 7, holds=True)  # as when what was damaged is whole again
            assert copies(again.ledger, unit) == 2
        # What was let go of and is its person's still is taken on again at a start.
        teacher.store.custody.release(*unit)
        anew = Kept(teacher.store, teacher.node, teacher.key.sign, 0, announce=lambda _: None, withdraw=lambda _: None)
        await anew.load()
        assert copies(anew.ledger, unit) == 2
