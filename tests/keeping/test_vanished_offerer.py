"""A receiver whose offerer is gone before it could say who else holds the unit."""

from __future__ import annotations

from pathlib import Path

from p2plearn.dht.custody import Unit
from p2plearn.dht.messages import Decline, Offer
from tests.keeping.room import room, until


async def test_it_finds_the_others_before_it_makes_more(tmp_path: Path) -> None:
    """Found by the simulator: two groups of holders of one unit, each whole, neither knowing of the other."""
    async with room(tmp_path, 5, grace=60.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 2)
        (keeper,) = [each for each in members[1:] if each.keeps(course)]
        taker = next(each for each in members if not each.keeps(course))
        signed = teacher.store.signed_manifest(course)
        assert signed is not None
        # The line is closed with the first answer: no receipts of others follow, and nobody tells them.
        answer = await teacher.keeper.asking.question(taker.node, Offer(0, 2, signed.signature, signed.raw))
        assert not isinstance(answer, Decline)
        holders = {teacher.node, keeper.node, taker.node}
        await until(lambda: taker.counts(course) == teacher.counts(course) == keeper.counts(course) == holders)
        assert {each.node for each in members if each.keeps(course)} == holders
        entry = taker.keeper.ledger.entry(Unit(course, 0))
        assert entry is not None
        assert entry.copies == 2
