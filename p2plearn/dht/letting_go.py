"""Letting go of a unit, and granting it to others: the one way in which a copy goes that others count on.

    holder    RELEASE ->   to the others that hold the unit, the nearest first
    others    <- ACK: a fresh receipt   or  DECLINE (busy letting another go, leaving itself, not held)
    holder    CHALLENGE ->  to each that acknowledged
    holder    once as many as copies were asked for: on record, RECEIPTS -> (it no longer holds it), the bytes go

Why two nodes never let go relying on each other, whatever crashes when: who is letting go declines every RELEASE from
before its own first question until it has ended, and a node that starts again is letting go of nothing. Of all that let
go of a unit take the one that began last: whoever acknowledged to it wasn't letting go then, nor began later. So those,
as many as copies were asked for, still hold it. The promise of 20 seconds isn't needed for that, so it may be forgotten
in a crash; it keeps several that begin at once from failing each other again and again.

Imports ``dht`` siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from p2plearn.dht.asking import Asking
from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.duty import LettingGo
from p2plearn.dht.heartbeat import Vigil
from p2plearn.dht.kept import Kept
from p2plearn.dht.messages import Ack, Decline, Message, Reason, Release
from p2plearn.dht.receipts import Receipt

TELL_SECONDS: Final = 10.0
"""To tell the other holders at once; those that aren't reached learn it with their next heartbeat."""


async def grant(kept: Kept, unit: Unit, node: Node) -> Message:
    """Whether ``node`` may let go of a unit, relying on this node's copy."""
    entry = kept.ledger.entry(unit)
    if entry is None:
        return Decline(Reason.NOT_HELD, "")
    if kept.leaving or unit in kept.releasing:
        return Decline(Reason.LEAVING, "")
    if not kept.removals.vouches(unit, node):
        return Decline(Reason.LEAVING, "")
    if not kept.promises.grant(unit, node, trio.current_time()):
        return Decline(Reason.BUSY, "")
    return Ack(await kept.state(unit, entry.size, entry.copies, holds=True))


async def let_go(  # noqa: PLR0917 - the parts of a keeper, each of its own type
    kept: Kept,
    asking: Asking,
    vigil: Vigil,
    unit: Unit,
    holders: Sequence[Node],
    gone: Callable[[tuple[Receipt, ...]], None],
) -> dict[Node, Reason]:
    """Stop keeping a unit if as many of ``holders`` as asked for say, now and signed, that they keep it.

    ``holders`` come with the nearest to the unit first. Once it has let go ``gone`` gets their receipts, before
    anything else can go wrong. Returns who didn't say so, with the reason. The unit must be in ``releasing``. What
    the person of this node wants stays on the disk all the same. Cancelled, it has let go
    as a whole or not at all.
    """
    granted: dict[Node, Receipt] = {}
    entry = kept.ledger.entry(unit)
    if entry is None:
        return {}
    going = LettingGo(entry.copies, holders)
    while (node := going.next()) is not None:
        answer = await asking.question(node, Release(unit))
        said = answer.receipt if isinstance(answer, Ack) else None
        if said is None or said.unit != unit or said.node != node or not said.holds:
            going.answered(node, answer.reason if isinstance(answer, Decline) else Reason.FAILED)
        elif await asking.challenge(unit, node) is False:
            asking.disprove(unit, node)
            going.answered(node, Reason.NOT_HELD)
        else:
            await kept.learn([said])
            granted[node] = said
            going.answered(node, None)
    if not going.may_drop(kept.me):
        return going.failed
    # Whoever isn't there learns it with a heartbeat once it is back.
    others = {node for node in entry.holders if vigil.is_there(node)} - {kept.me}
    with trio.CancelScope(shield=True):
        # On record first: a crash after it leaves the bytes, a crash before it the duty.
        unneeded = await trio.to_thread.run_sync(kept.store.custody.release, unit.course, unit.segment)
        receipt = await kept.state(unit, entry.size, entry.copies, holds=False)
        note = kept.store.custody.note
        await trio.to_thread.run_sync(note, unit.course, unit.segment, [(receipt.node, receipt.encode())])
        gone(tuple(granted.values()))
        if unneeded:
            await kept.remove(unit.course)
        kept.news()
    with trio.move_on_after(TELL_SECONDS):
        await asking.tell(others, [receipt])
    return going.failed
