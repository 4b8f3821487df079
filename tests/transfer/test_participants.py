"""When others that may take part are looked for."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from itertools import pairwise

import trio
from trio.testing import MockClock

from p2plearn.transfer.participants import (
    FIRST_LOOK_AGAIN_SECONDS,
    LOOK_AGAIN_SECONDS,
    SECOND_CHOICE_EVERY,
    SECOND_CHOICE_SECONDS,
    Participants,
)
from p2plearn.transfer.places import MORE, WIDEN_SECONDS
from p2plearn.transfer.reliance import STALLED, WRONG, Reliance
from p2plearn.transfer.tally import Standing, Tally


class Found:
    """A peer, and its conversation, which never ends."""

    guess = named = False
    resting = False
    heard = index_bytes = 0

    def __init__(self, name: str = "somebody", *, at_work: bool = True) -> None:
        self.name = name
        self.at_work = at_work
        self.began = math.nan

    def waited(self, _now: float) -> float:
        return 0.0

    async def run(self) -> None:
        self.began = trio.current_time()
        await trio.sleep_forever()


def taking_part(
    found: list[Found],
    *,
    reliance: Reliance | None = None,
    seconds: float,
    answer: float | None = None,
    expected: float = 0.0,
) -> list[float]:
    """Offer peers that say nothing, for so many seconds; when it was looked for them. Somebody answered after
    ``answer`` seconds at the start, and the index is to take ``expected``; None: there is neither.
    """
    looked: list[float] = []

    async def candidates(offer: Callable[[Found], Awaitable[None]]) -> None:
        looked.append(trio.current_time())
        for peer in found:
            await offer(peer)

    async def main() -> None:
        participants = Participants(
            candidates,  # type: ignore[arg-type]
            lambda peer: peer,  # type: ignore[arg-type,return-value]
            Tally(),
            Standing(),
            places=PLACES,
            silence=8.0,
            courtesy=None,
            reliance=reliance,
        )
        if answer is not None:
            participants.places.answered(answer)
            participants.expect_index(expected)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                await participants.look(nursery)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return looked


PLACES = 8


def test_those_who_fill_all_places_and_say_nothing_keep_nobody_out() -> None:
    found = [Found(f"silent{at}", at_work=False) for at in range(3 * PLACES)]
    taking_part(found, seconds=3.0, answer=0.01)
    began = [peer.began for peer in found]
    assert began[:PLACES] == [began[0]] * PLACES
    assert began[PLACES] - began[0] < 0.2
    assert began[-1] - began[0] < 2.0
    assert all(earlier <= later for earlier, later in pairwise(began))


def test_nor_do_they_make_a_node_talk_to_everybody() -> None:
    found = [Found(f"silent{at}", at_work=False) for at in range(20 * PLACES)]
    taking_part(found, seconds=60.0, answer=0.01)
    assert sum(not math.isnan(peer.began) for peer in found) == (1 + MORE) * PLACES


def test_where_answers_take_long_more_are_tried_more_slowly() -> None:
    found = [Found(f"silent{at}", at_work=False) for at in range(3 * PLACES)]
    taking_part(found, seconds=3.1, answer=5.0)
    assert sum(not math.isnan(peer.began) for peer in found) <= PLACES + 3.1 / WIDEN_SECONDS[1]


def test_while_a_large_index_is_on_its_way_nobody_else_is_missed() -> None:
    found = [Found(f"holder{at}") for at in range(3 * PLACES)]
    taking_part(found, seconds=20.0, answer=0.01, expected=15.0)
    began = [peer.began for peer in found]
    assert began[:PLACES] == [began[0]] * PLACES
    assert began[PLACES] - began[0] > 15.0


def test_who_is_doubted_is_tried_soon_when_the_others_bring_nothing() -> None:
    reliance = Reliance()
    for points, name in ((WRONG, "liar"), (STALLED, "staller")):
        reliance.failed(name, points, 0.0)
    found = [Found("liar"), Found("staller"), Found("other")]
    taking_part(found, reliance=reliance, seconds=3.0, answer=0.01)
    liar, staller, other = (peer.began for peer in found)
    assert other < staller < liar <= other + SECOND_CHOICE_SECONDS + 3 * SECOND_CHOICE_EVERY


def test_who_begins_along_with_others_looks_for_them_again_soon_then_ever_less_often() -> None:
    looked = taking_part([Found()], seconds=60 * LOOK_AGAIN_SECONDS)
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(looked)]
    first = FIRST_LOOK_AGAIN_SECONDS
    assert pauses[:5] == [first, 2 * first, 4 * first, 8 * first, LOOK_AGAIN_SECONDS]
    assert set(pauses[5:]) == {LOOK_AGAIN_SECONDS}
    assert len(looked) < 66  # a network is not asked more than that
