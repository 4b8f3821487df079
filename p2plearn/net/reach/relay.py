"""Relaying for others: circuit relay v2's two sides at the relay, over the decisions of ``lending.py``.

In: streams on HOP from nodes that want a place, or want to call one that has a place. Out: a STOP stream to the node
called, and then bytes both ways, unread (they are encrypted end to end), until time or bytes are used up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.errors import PeerFault
from p2plearn.net.reach.lending import RESERVATION_SECONDS, Circuit, Lending
from p2plearn.net.reach.streams import OVER, receive, send
from p2plearn.net.reach.wire import (
    STOP,
    Hop,
    HopKind,
    Status,
    Stop,
    StopKind,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
    packed,
)

log = logging.getLogger("p2plearn.net")

ASK_SECONDS: Final = 10.0
"""For a request to come, and for the node called to answer."""

PIECE: Final = 32 * 1024
"""Bytes passed on at a time: what one circuit may hold of this node's memory, each way."""


class Relay:
    """Serves HOP on ``host`` once ``serve`` is its handler. ``open_to_all`` says whether this node relays now."""

    def __init__(
        self,
        host: BasicHost,
        lending: Lending,
        open_to_all: Callable[[], bool],
        addresses: Callable[[], Sequence[Multiaddr]],
    ) -> None:
        self._host = host
        self._network = host.get_network()
        self.lending = lending
        self._open = open_to_all
        self._addresses = addresses
        self.passes: Callable[[Sequence[str], int], bool] = lambda _ends, _size: True
        """Is told of bytes before they pass, and the IP addresses from which and to which; False cuts the call."""

    async def serve(self, stream: INetStream) -> None:
        """One HOP stream: a reservation, or a call for as long as it lasts. Raises PeerFault."""
        peer = stream.muxed_conn.peer_id
        with trio.fail_after(ASK_SECONDS):
            request = decode_hop(await receive(stream))
        if request.kind is HopKind.RESERVE:
            await send(stream, encode_hop(self._reserve(peer, stream)))
            await stream.close()
        elif request.kind is HopKind.CONNECT:
            await self._connect(peer, request.peer, stream)
        else:
            raise PeerFault("a relay was sent a status")

    def _reserve(self, peer: ID, stream: INetStream) -> Hop:
        if not self._open() or _is_relayed(stream):
            return Hop(HopKind.STATUS, status=Status.PERMISSION_DENIED)
        remote = stream.get_remote_address()
        status = self.lending.reserve(str(peer), remote[0] if remote else "", trio.current_time())
        if status is not Status.OK:
            return Hop(HopKind.STATUS, status=status)
        limits = self.lending.limits
        own = Multiaddr(f"/p2p/{self._host.get_id()}")
        return Hop(
            HopKind.STATUS,
            status=Status.OK,
            expire=int(time.time()) + RESERVATION_SECONDS,
            addresses=packed([address.encapsulate(own).to_bytes() for address in self._addresses()]),
            seconds=limits.seconds,
            data=limits.data,
        )

    async def _connect(self, caller: ID, called: bytes, stream: INetStream) -> None:
        if not 2 <= len(called) <= 64:
            raise PeerFault("a call to a peer id that is none")
        target = ID(called)
        circuit: Circuit | Status = Status.PERMISSION_DENIED
        if self._open() and not _is_relayed(stream):
            circuit = self.lending.connect(str(caller), str(target), trio.current_time())
        if isinstance(circuit, Status):
            await send(stream, encode_hop(Hop(HopKind.STATUS, status=circuit)))
            await stream.close()
            return
        try:
            onward = await self._call(caller, target)
            if onward is None:
                await send(stream, encode_hop(Hop(HopKind.STATUS, status=Status.CONNECTION_FAILED)))
                await stream.close()
                return
            try:
                limits = self.lending.limits
                granted = Hop(HopKind.STATUS, status=Status.OK, seconds=limits.seconds, data=limits.data)
                await send(stream, encode_hop(granted))
                await self._pump(circuit, stream, onward)
            finally:
                await _end(onward)
        finally:
            self.lending.over(circuit)
            await _end(stream)

    async def _call(self, caller: ID, target: ID) -> INetStream | None:
        """A stream to ``target``, which has agreed to talk to ``caller``; None when it can't be had."""
        if not self._network.get_connections(target):
            self.lending.gone(str(target))
            return None
        limits = self.lending.limits
        stream: INetStream | None = None
        try:
            with trio.fail_after(ASK_SECONDS):
                stream = await self._host.new_stream(target, [TProtocol(STOP)])
                ask = Stop(StopKind.CONNECT, caller.to_bytes(), seconds=limits.seconds, data=limits.data)
                await send(stream, encode_stop(ask))
                answer = decode_stop(await receive(stream))
            if answer.kind is StopKind.STATUS and answer.status == Status.OK:
                return stream
        except Exception as error:  # libp2p raises a different family at each layer
            log.debug("%s can't be called through here: %s", target, error)
        if stream is not None:
            await _end(stream)
        return None

    async def _pump(self, circuit: Circuit, caller: INetStream, called: INetStream) -> None:
        with trio.move_on_at(circuit.until):
            async with trio.open_nursery() as nursery:

                async def one_way(name: str, source: INetStream, sink: INetStream) -> None:
                    if await self._move(circuit, name, source, sink):
                        await sink.close()  # the other direction may go on
                    else:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(one_way, circuit.caller, caller, called)
                nursery.start_soon(one_way, circuit.called, called, caller)

    async def _move(self, circuit: Circuit, name: str, source: Any, sink: Any) -> bool:
        """Pass bytes on until the sender has no more (True), or the circuit is cut (False)."""
        reader, writer = getattr(source, "muxed_stream", source), getattr(sink, "muxed_stream", sink)
        ends = [address[0] for stream in (source, sink) if (address := stream.get_remote_address()) is not None]
        while True:
            try:
                data = await reader.read(PIECE)
            except EOFError:
                return True
            except OVER as error:
                return "EOF" in type(error).__name__
            if not data:
                return True
            if not circuit.may_move(name, len(data)) or not self.passes(ends, len(data)):
                return False
            wait = self.lending.pace(len(data), trio.current_time())
            if wait:
                await trio.sleep(wait)
            try:
                await writer.write(data)
            except OVER:
                return False


def _is_relayed(stream: INetStream) -> bool:
    kind = getattr(stream.muxed_conn, "get_connection_type", None)
    return kind is not None and kind().name == "RELAYED"


async def _end(stream: INetStream) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(1.0):
        try:
            await stream.reset()
        except Exception as error:
            log.debug("ending a relayed stream failed: %s", error)
