"""Whether others have what is here too, asked now: before the copy here goes because its person wants it to.

What is on record won't do: it may be hours old, and those whom it names may have removed theirs since. Somebody counts
who answers RELEASE, so that they neither let go of the unit nor remove it at the same moment, and then shows a random
range of it. That they answer that another relies on them is as good: whoever goes is relied on by nobody.

Of all that go and rely on each other take the one that began last. Whoever vouched for it was not going then, nor began
later, or has yielded (``duty.Removals``): so that one stays.

Imports ``dht`` siblings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final

import trio

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.messages import Ack, Decline, Reason, Release

SECONDS: Final = 5.0
"""For somebody to show a unit, however many are asked: a person waits, and one holder that is there is enough."""

HEAD_START: Final = 0.5
"""Seconds that those who are known to hold it get, before the network is asked who else does."""

ASKED: Final = 8
"""Nodes nearest to a unit that are asked, too: its custodians are among them."""

MOST_ASKED: Final = 64
"""Nodes asked about one unit in all, whomever their answers name."""

AT_ONCE: Final = 8
"""Units asked about at a time."""

Search = Callable[[bytes], Awaitable[Collection[Node]]]
"""Nodes that the network names for a course."""


async def goes_if_elsewhere(
    keeper: Keeper,
    units: Sequence[Unit],
    known: Callable[[Unit], Collection[Node]],
    search: Search,
    gone: Callable[[], None],
) -> bool:
    """Whether of each of ``units``, all of them here, somebody else shows a copy; ``known`` are asked first.

    If so ``gone`` was called, which has this node count as a holder no more: from before the first question until then
    it vouches for nobody else.
    """
    with trio.CancelScope() as asking, keeper.kept.removals.of(units, asking.cancel) as removal:
        if await _are_elsewhere(keeper, units, known, search) and not removal.yielded:
            gone()
            return True
    return False


async def _are_elsewhere(
    keeper: Keeper, units: Iterable[Unit], known: Callable[[Unit], Collection[Node]], search: Search
) -> bool:
    limit = trio.CapacityLimiter(AT_ONCE)
    everywhere = True

    async def one(unit: Unit) -> None:
        nonlocal everywhere
        async with limit:
            if not await _somebody_shows(keeper, unit, known(unit), search):
                everywhere = False
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for unit in units:
            nursery.start_soon(one, unit)
    return everywhere


async def _somebody_shows(keeper: Keeper, unit: Unit, known: Collection[Node], search: Search) -> bool:
    asked = {keeper.ledger.me}
    shown = False

    def also(nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node not in asked and len(asked) <= MOST_ASKED:
                asked.add(node)
                nursery.start_soon(ask, node)

    async def ask(node: Node) -> None:
        nonlocal shown
        said = await keeper.asking.who_keeps(unit, node) or ()
        holders = {receipt.node for receipt in said if receipt.holds}
        also(holders)
        if node in holders and await _vouches(keeper, unit, node) and await keeper.asking.challenge(unit, node):
            shown = True
            nursery.cancel_scope.cancel()

    async def near() -> None:
        await trio.sleep(HEAD_START if known else 0.0)
        also((await keeper.calls.nearest(unit.name))[:ASKED])

    async def named() -> None:
        await trio.sleep(HEAD_START if known else 0.0)
        also(await search(unit.course))

    with trio.move_on_after(SECONDS):
        async with trio.open_nursery() as nursery:
            also(known)
            nursery.start_soon(near)
            nursery.start_soon(named)
    return shown


async def _vouches(keeper: Keeper, unit: Unit, node: Node) -> bool:
    """Whether ``node`` says, now, that it keeps a unit, and isn't about to go."""
    answer = await keeper.asking.question(node, Release(unit))
    if isinstance(answer, Ack):
        return answer.receipt.unit == unit and answer.receipt.node == node and answer.receipt.holds
    return isinstance(answer, Decline) and answer.reason is Reason.BUSY
