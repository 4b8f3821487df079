"""One question to one peer, in Kademlia's messages: streams, their shares and deadlines, framing.

Whatever goes wrong with a peer is a ``QueryFailed``. Imports only libp2p and trio.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

log = logging.getLogger("p2plearn.dht")

MAX_MESSAGE: Final = 256 * 1024
"""Bytes of a message that we read as an answer: 20 providers and 20 peers with 16 addresses each take some 60 KB."""

QUERY_SECONDS: Final = 4.0
"""For one question, dialling included. Longer: closed laptops hold a lookup up; shorter: bad lines never answer."""

STREAMS_PER_PEER: Final = 6
"""Streams that we have open to one peer at a time: well below the share it gives us (``guard.StreamLimits``), for
a stream over it is reset, and would look like a peer that is gone."""


class QueryFailed(Exception):
    """A peer could not be asked, or answered nonsense."""


class Queries:
    """Asks over ``host`` in ``protocol``; each peer has a share of streams."""

    def __init__(self, host: BasicHost, protocol: TProtocol) -> None:
        self._host = host
        self._protocol = protocol
        self._shares: dict[ID, trio.CapacityLimiter] = {}

    async def ask(
        self, peer: ID, request: Message, seconds: float = QUERY_SECONDS, begun: Callable[[], None] = lambda: None
    ) -> Message:
        """Ask ``peer`` one thing; raises QueryFailed. ``begun`` is called when it is its turn among all questions."""
        answers: list[Message] = []
        async with self.stream(peer, seconds, begun) as stream:
            await send(stream, request)
            answers.append(await receive(stream, request.type))
        return answers[0]

    @asynccontextmanager
    async def stream(
        self, peer: ID, seconds: float, begun: Callable[[], None] = lambda: None
    ) -> AsyncIterator[INetStream]:
        """A stream to ``peer`` for at most ``seconds``; whatever goes wrong is a QueryFailed, and resets it.

        The seconds run from when there is a place for it, and ``begun`` is called then.
        """
        stream: INetStream | None = None
        done = False
        share = self._shares.setdefault(peer, trio.CapacityLimiter(STREAMS_PER_PEER))
        try:
            async with share:
                begun()
                with trio.fail_after(seconds):
                    stream = await self._host.new_stream(peer, [self._protocol])
                    yield stream
                    done = True
        except trio.TooSlowError:
            raise QueryFailed("no answer in time") from None
        except Exception as error:  # libp2p raises a different family at each layer
            raise QueryFailed(f"{type(error).__name__}: {error}") from error
        finally:
            if stream is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    try:
                        await (stream.close() if done else stream.reset())
                    except Exception as error:
                        log.debug("closing a stream failed: %s", error)

    def forget_idle(self) -> None:
        """Forget the shares of those who are asked nothing just now."""
        for idle in [peer for peer, share in self._shares.items() if not share.statistics().borrowed_tokens]:
            del self._shares[idle]


async def send(stream: INetStream, message: Message) -> None:
    """One message, after its length."""
    await stream.write(encode_varint_prefixed(message.SerializeToString()))


async def receive(stream: INetStream, kind: int) -> Message:
    """The next message, which has to be of that ``kind``; raises QueryFailed, and what the stream raises."""
    answer = Message()
    answer.ParseFromString(await read_varint_prefixed_bytes_limited(stream, MAX_MESSAGE))
    if answer.type != kind:
        raise QueryFailed(f"answered {answer.type} to {kind}")
    return answer
