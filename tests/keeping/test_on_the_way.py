"""What a giver knows of the bytes on their way: what a leave shows of itself before the first unit is handed over."""

from __future__ import annotations

from pathlib import Path

import trio

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.line import Line
from p2plearn.dht.messages import Accept, Decline, Offer, Progress, Reason
from p2plearn.dht.receipts import Receipt
from tests.keeping.room import room, until

SIZE = 100_000


async def test_bytes_that_receivers_have_count_as_far_as_the_unit_goes(tmp_path: Path) -> None:
    async with room(tmp_path, 2, grace=600.0) as members:
        teacher, taker = members
        next_one = trio.Event()

        async def consider(line: Line, _node: Node, _offer: Offer) -> tuple[Receipt, ...]:
            await line.send(Accept())
            await line.send(Progress(12_345))
            await next_one.wait()
            await line.send(Progress(10**12))  # nobody can have more than there is
            await last.wait()
            await line.send(Decline(Reason.FAILED, "no"))
            return ()

        last = trio.Event()
        course = await teacher.publish(SIZE, 1)
        taker.keeper.intake.consider = consider  # type: ignore[method-assign]
        asking = teacher.keeper.asking
        assert asking.on_the_way() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(teacher.keeper.give, Unit(course, 0), taker.node)
            await until(lambda: asking.on_the_way() == 12_345)
            next_one.set()
            await until(lambda: asking.on_the_way() == SIZE)
            last.set()
        assert asking.on_the_way() == 0
