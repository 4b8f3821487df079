"""Who left with copies that nobody took is counted on by nobody, newcomers included, until it is back."""

from __future__ import annotations

from pathlib import Path

from p2plearn.dht.custody import Unit
from p2plearn.dht.kept import Kept
from tests.keeping.room import room, until


async def test_a_newcomer_knows_that_it_left_though_it_never_heard_it(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=600.0) as members:
        teacher, keeper, leaver, newcomer = members
        newcomer.up = False
        course = await teacher.publish(60_000, 4)
        unit = Unit(course, 0)
        await until(lambda: len(keeper.counts(course)) == 3)
        leaver.keeper.kept.leaving = True
        await leaver.keeper.say_goodbye()
        await leaver.vanish()
        newcomer.up = True
        await until(lambda: newcomer.keeps(course))
        here = {teacher.node, keeper.node, newcomer.node}
        await until(lambda: all(each.counts(course) == here for each in (teacher, keeper, newcomer)))
        # It lost nothing: at its next start it says what it has, and all count it again.
        again = Kept(leaver.store, leaver.node, leaver.key.sign, 0, announce=lambda _: None, withdraw=lambda _: None)
        await again.load()
        assert again.ledger.entry(unit) is not None
        assert leaver.store.custody.held()
        await newcomer.keeper.kept.learn(again.receipts_of(unit))
        assert newcomer.counts(course) == {*here, leaver.node}
        await until(lambda: leaver.node in teacher.counts(course))
