"""When others that may take part are looked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import trio
from trio.testing import MockClock

from p2plearn.transfer.participants import FIRST_LOOK_AGAIN_SECONDS, LOOK_AGAIN_SECONDS, Participants
from p2plearn.transfer.tally import Standing, Tally


class Found:
    """A peer, and its conversation, which never ends."""

    name = "somebody"
    guess = named = False
    at_work = True
    resting = False

    def waited(self, _now: float) -> float:
        return 0.0

    async def run(self) -> None:
        await trio.sleep_forever()


def test_who_begins_along_with_others_looks_for_them_again_soon_then_ever_less_often() -> None:
    looked: list[float] = []

    async def candidates(offer: Callable[[Found], Awaitable[None]]) -> None:
        looked.append(trio.current_time())
        await offer(Found())

    async def main() -> None:
        participants = Participants(
            candidates,  # type: ignore[arg-type]
            lambda peer: peer,  # type: ignore[arg-type,return-value]
            Tally(),
            Standing(),
            places=8,
            silence=8.0,
            courtesy=None,
            reliance=None,
        )
        with trio.move_on_after(60 * LOOK_AGAIN_SECONDS):
            async with trio.open_nursery() as nursery:
                await participants.look(nursery)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(looked)]
    first = FIRST_LOOK_AGAIN_SECONDS
    assert pauses[:5] == [first, 2 * first, 4 * first, 8 * first, LOOK_AGAIN_SECONDS]
    assert set(pauses[5:]) == {LOOK_AGAIN_SECONDS}
    assert len(looked) < 66  # a network is not asked more than that
