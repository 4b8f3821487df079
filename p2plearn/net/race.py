"""Dialling several addresses of one peer: a moment apart, the first that answers wins (RFC 8305's "happy eyeballs").

In: addresses, best first, and a way to dial one. Out: a connection, or what came of each address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from libp2p.abc import INetConn
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.net.addresses import is_relayed

DIAL_STAGGER: Final = 0.25
"""Seconds before the next address of a peer is tried beside the ones under way (RFC 8305 recommends 250 ms)."""

RELAY_WAIT: Final = 1.0
"""Seconds that direct addresses get before a relay is tried beside them: what it lends is little, and not its own."""


class DialFailed(SwarmException):
    """No address of a peer could be reached; ``attempts`` holds each address tried and what came of it."""

    def __init__(self, peer: ID, attempts: list[tuple[Multiaddr, BaseException]]) -> None:
        super().__init__(f"no address of {peer} answered ({len(attempts)} tried)")
        self.peer = peer
        self.attempts = attempts


async def race(
    peer: ID, addresses: Sequence[Multiaddr], dial: Callable[[Multiaddr], Awaitable[INetConn]], deadline: float
) -> INetConn:
    """Dial ``addresses`` in order, ``DIAL_STAGGER`` apart or as soon as one failed; the first connection wins.

    ``deadline`` is in trio's clock. Raises DialFailed.
    """
    winners: list[INetConn] = []
    attempts: list[tuple[Multiaddr, BaseException]] = []
    under_way: list[trio.Event] = []

    async def attempt(address: Multiaddr, failed: trio.Event) -> None:
        try:
            connection = await dial(address)
        except Exception as error:  # libp2p raises a different family at each layer
            attempts.append((address, error))
            failed.set()
            return
        winners.append(connection)
        nursery.cancel_scope.cancel()

    with trio.move_on_at(deadline):
        async with trio.open_nursery() as nursery:
            for address in addresses:
                if under_way and is_relayed(address) and not is_relayed(addresses[0]):
                    with trio.move_on_after(RELAY_WAIT):
                        for earlier in under_way:
                            await earlier.wait()
                    under_way.clear()
                failed = trio.Event()
                under_way.append(failed)
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(DIAL_STAGGER):
                    await failed.wait()
    for extra in winners[1:]:
        await extra.close()
    if winners:
        return winners[0]
    tried = {str(address) for address, _ in attempts}
    missed = [(a, TimeoutError("no answer in time")) for a in addresses if str(a) not in tried]
    raise DialFailed(peer, [*attempts, *missed])
