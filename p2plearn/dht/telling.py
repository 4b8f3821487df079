"""Telling peers that this node provides courses: many records over one stream, each confirmed, at a pace they take.

The stock ``provide`` doesn't read the answer, so it doesn't know that a receiver threw its record away. Here a record
counts when its receiver has echoed it. Imports only libp2p and siblings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerstore import env_to_send_in_RPC

from p2plearn.dht.queries import QUERY_SECONDS, Queries, QueryFailed, receive, send

log = logging.getLogger("p2plearn.dht")

ADDS_SENT_PER_SECOND: Final = 100.0
"""Records sent to one peer a second: below what it takes, so that none is refused."""

TELL_BATCH: Final = 50
"""Records told over one stream."""

IDLE_SECONDS: Final = 60.0
"""After which a peer's pace is forgotten."""


class Telling:
    """Tells over ``queries``; ``lost`` is told of peers that took nothing."""

    def __init__(self, host: BasicHost, queries: Queries, lost: Callable[[ID], None]) -> None:
        self._host = host
        self._queries = queries
        self._lost = lost
        self._turns: dict[ID, trio.Lock] = {}
        self._next: dict[ID, float] = {}

    async def tell(self, peer: ID, keys: Sequence[bytes]) -> list[bytes]:
        """Tell ``peer`` that we provide ``keys``; returns those that it confirmed.

        Never raises for what the peer does; takes as long as its share of records a second needs.
        """
        confirmed: list[bytes] = []
        lock = self._turns.setdefault(peer, trio.Lock())
        async with lock:
            for start in range(0, len(keys), TELL_BATCH):
                batch = keys[start : start + TELL_BATCH]
                await trio.sleep_until(self._next.get(peer, 0.0))
                self._next[peer] = trio.current_time() + len(batch) / ADDS_SENT_PER_SECOND
                try:
                    async with self._queries.stream(peer, QUERY_SECONDS) as stream:
                        await self._tell_batch(stream, batch, confirmed)
                except QueryFailed as error:
                    log.debug("telling %s failed after %d of %d: %s", peer, len(confirmed), len(keys), error)
                    if not confirmed:
                        self._lost(peer)
                    break
        return confirmed

    async def _tell_batch(self, stream: INetStream, batch: Sequence[bytes], confirmed: list[bytes]) -> None:
        record, _ = env_to_send_in_RPC(self._host)
        addresses = [a.to_bytes() for a in self._host.get_addrs()]
        for number, key in enumerate(batch):
            message = Message(type=Message.MessageType.ADD_PROVIDER, key=key)
            provider = message.providerPeers.add()
            provider.id = self._host.get_id().to_bytes()
            provider.addrs.extend(addresses)
            if not number:
                provider.signedRecord = record  # its receiver checks the signature each time that it comes
            await send(stream, message)
        for key in batch:
            answer = await receive(stream, Message.MessageType.ADD_PROVIDER)
            if answer.key == key:
                confirmed.append(key)

    def forget_idle(self) -> None:
        """Forget the pace of those who were told nothing lately."""
        for gone in [peer for peer, at in self._next.items() if at < trio.current_time() - IDLE_SECONDS]:
            del self._next[gone]
            self._turns.pop(gone, None)
