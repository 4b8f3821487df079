"""A receiver whose offerer is gone before it could say who else holds the unit."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.line import Line
from p2plearn.dht.messages import ANSWERED, CUSTODY, Decline, Offer, Receipts
from p2plearn.dht.receipts import decode_receipt, sign_receipt
from p2plearn.identity import SigningKey
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


async def test_what_came_with_the_offer_is_enough_to_know_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(tmp_path, 5, grace=60.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 2)
        unit = Unit(course, 0)
        (keeper,) = [each for each in members[1:] if each.keeps(course)]
        taker = next(each for each in members if not each.keeps(course))

        async def nobody(_name: bytes) -> list[Node]:
            return []

        monkeypatch.setattr(taker, "nearest", nobody)  # so nobody but the offerer can have told it
        signed = teacher.store.signed_manifest(course)
        assert signed is not None
        line = Line(await teacher.open(taker.node, CUSTODY), ANSWERED)
        await line.send(Offer(0, 2, signed.signature, signed.raw))
        await line.send(Receipts(tuple(teacher.keeper.kept.receipts_of(unit))))
        assert not isinstance(await line.receive(20.0), Decline)
        await line.reset()
        holders = {teacher.node, keeper.node, taker.node}
        await until(lambda: taker.counts(course) == teacher.counts(course) == keeper.counts(course) == holders)


async def test_on_record_are_only_those_that_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2plearn.dht.ledger.MOST_NODES", 6)
    async with room(tmp_path, 2, grace=60.0) as members:
        teacher = members[0]
        course = await teacher.publish(60_000, 2)
        unit = Unit(course, 0)
        for number in range(20):
            key = SigningKey.generate()
            said = sign_receipt(unit, key.public, 1_000 + number, 2, False, key.sign)
            await teacher.keeper.kept.learn([said])
        entry = teacher.keeper.ledger.entry(unit)
        assert entry is not None
        (record,) = await trio.to_thread.run_sync(teacher.store.custody.held)
        assert {decode_receipt(raw).node for raw in record.receipts} == set(entry.receipts)
        assert len(record.receipts) == 6
        assert {member.node for member in members} <= set(entry.receipts)
