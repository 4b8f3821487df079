"""Calling back those who ask whether they can be reached, and asking that of others: AutoNAT 1.0.

The one asked dials with a connection of its own, up to the peer's proof of identity, and hangs up. It dials only the
IP address that the question came from, whatever the question names, so that nobody can have it knock at other doors;
and only a few times a minute. Specification: https://github.com/libp2p/specs/blob/master/autonat/autonat-v1.md
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.errors import PeerFault
from p2plearn.net.addresses import HOSTS, Reach, bare, is_relayed, reach
from p2plearn.net.reach.streams import receive, send
from p2plearn.net.reach.wire import (
    AUTONAT,
    MAX_ADDRESSES,
    Autonat,
    AutonatKind,
    Dialled,
    decode_autonat,
    encode_autonat,
    packed,
)

log = logging.getLogger("p2plearn.net")

DIAL_SECONDS: Final = 6.0
"""For a call back: a handshake over a bad line takes two."""

ASK_SECONDS: Final = 20.0
"""For an answer, in which several addresses may have been tried."""

MAX_DIALS: Final = 4
"""Addresses tried for one question."""

PER_PEER_SECONDS: Final = 20.0
"""Between two questions of one peer that are answered by dialling."""

PER_MINUTE: Final = 30
"""Questions answered by dialling in a minute, from all peers."""


class CallBack:
    """Serves AutoNAT on ``host`` once ``serve`` is its handler."""

    def __init__(self, host: BasicHost) -> None:
        self._host = host
        self._network = host.get_network()
        self._last: dict[ID, float] = {}

    async def serve(self, stream: INetStream) -> None:
        """One question. Raises PeerFault."""
        peer = stream.muxed_conn.peer_id
        with trio.fail_after(ASK_SECONDS):
            question = decode_autonat(await receive(stream))
        if question.kind is not AutonatKind.DIAL or question.peer != peer.to_bytes():
            raise PeerFault("AutoNAT: no question, or in the name of another peer")
        await send(stream, encode_autonat(await self._answer(peer, question, stream)))
        await stream.close()

    async def _answer(self, peer: ID, question: Autonat, stream: INetStream) -> Autonat:
        remote = stream.get_remote_address()
        now = trio.current_time()
        refused = Autonat(AutonatKind.RESPONSE, status=Dialled.DIAL_REFUSED)
        kind = getattr(stream.muxed_conn, "get_connection_type", None)
        if remote is None or (kind is not None and kind().name == "RELAYED"):
            return refused
        self._last = {p: at for p, at in self._last.items() if now - at < 60.0}
        if len(self._last) >= PER_MINUTE or now - self._last.get(peer, float("-inf")) < PER_PEER_SECONDS:
            return refused
        addresses = dialable(question.addresses, remote[0])
        if not addresses:
            return refused
        self._last[peer] = now
        for address in addresses:
            if await self._reach(peer, address):
                return Autonat(AutonatKind.RESPONSE, address=address.to_bytes())
        return Autonat(AutonatKind.RESPONSE, status=Dialled.DIAL_ERROR, words="no address could be dialled")

    async def _reach(self, peer: ID, address: Multiaddr) -> bool:
        """Whether ``peer`` proves that it is at ``address``."""
        transport = self._network.transport_manager.transport_for_dialing(address)
        if transport is None:
            return False
        try:
            with trio.fail_after(DIAL_SECONDS):
                raw = await transport.dial(address)
                try:
                    secured = await self._network.upgrader.upgrade_security(raw, True, peer)
                    return bool(secured.get_remote_peer() == peer)
                finally:
                    with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                        await raw.close()
        except Exception as error:  # libp2p raises a different family at each layer
            log.debug("%s can't be called back at %s: %s", peer, address, error)
            return False


def dialable(told: Sequence[bytes], asked_from: str) -> list[Multiaddr]:
    """Those of the addresses told that are at the IP address ``asked_from``; never more than ``MAX_DIALS``."""
    found: dict[str, Multiaddr] = {}
    for raw in told[:MAX_ADDRESSES]:
        try:
            address = Multiaddr(raw)
            if reach(address) > Reach.LOOPBACK and not is_relayed(address) and _host_of(address) == asked_from:
                found[str(bare(address))] = bare(address)
        except Exception as error:  # multiaddr raises whatever the codec of a part raises
            log.debug("an address that is none: %s", error)
    return list(found.values())[:MAX_DIALS]


def _host_of(address: Multiaddr) -> str:
    return next((str(address.value_for_protocol(p.name)) for p in address.protocols() if p.name in HOSTS), "")


async def ask(host: BasicHost, peer: ID, addresses: Sequence[Multiaddr]) -> str | None:
    """Ask ``peer`` to call back at ``addresses``: the address it reached, "" if none, None if it would not try.

    Raises nothing but trio's cancellation.
    """
    stream: INetStream | None = None
    try:
        with trio.fail_after(ASK_SECONDS):
            stream = await host.new_stream(peer, [TProtocol(AUTONAT)])
            told = packed([address.to_bytes() for address in addresses])
            await send(stream, encode_autonat(Autonat(AutonatKind.DIAL, host.get_id().to_bytes(), told)))
            answer = decode_autonat(await receive(stream))
    except Exception as error:
        log.debug("%s was asked to call back: %s", peer, error)
        return None
    finally:
        if stream is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await stream.reset()
    if answer.kind is not AutonatKind.RESPONSE:
        return None
    if answer.status == Dialled.OK and answer.address:
        return _claimed(answer.address, addresses)
    return "" if answer.status == Dialled.DIAL_ERROR else None


def _claimed(raw: bytes, addresses: Sequence[Multiaddr]) -> str | None:
    """The address of an answer, if it is one of those asked about."""
    try:
        claimed = str(bare(Multiaddr(raw)))
    except Exception:
        return None
    return claimed if claimed in {str(bare(address)) for address in addresses} else None
