"""Messages for libp2p's own handlers, checked before those get to see them.

libp2p's Kademlia server and its handler of pushed identities swallow what is wrong with a message: they log it, reset
the stream and return as if all were well, so that a peer might send garbage for ever and keep its good name. Here each
message is read whole, held against its rules, and only then handed on; what broke them is raised once the handler has
returned, for the guard to count.

Imports ``errors`` and libp2p.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.exceptions import ParseError
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.io.exceptions import MessageTooLarge
from libp2p.peer.envelope import consume_envelope
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

from p2plearn.errors import PeerFault

IDENTIFY_PUSH: Final = "/ipfs/id/push/1.0.0"

MAX_IDENTITY: Final = 64 * 1024
"""Bytes of a pushed identity (libp2p: 1 MiB; go-libp2p stops at 8 KiB): sixty protocols and some twenty addresses."""

RECORD_DOMAIN: Final = "libp2p-peer-record"

Check = Callable[[bytes, ID], None]
"""Holds one message of a peer against its rules; raises PeerFault or DecodeError."""

Handler = Callable[[Any], Awaitable[None]]

_OFFENCES: Final = (PeerFault, DecodeError, ParseError, MessageTooLarge, trio.TooSlowError)


class _Checked:
    """``stream``, whose reads bring nothing but whole messages that passed. Everything else is passed on."""

    def __init__(self, stream: Any, check: Check, longest: int) -> None:
        self._stream = stream
        self._check = check
        self._longest = longest
        self._left = b""  # of a message that passed, length and all
        self.offence: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes of one message; raises what the stream raises, and the offence of one that doesn't pass."""
        if n == 0:
            return b""
        if not self._left:
            try:
                message = await read_varint_prefixed_bytes_limited(self._stream, self._longest)
                self._check(message, self._stream.muxed_conn.peer_id)
            except _OFFENCES as offence:
                self.offence = offence
                raise
            self._left = encode_varint_prefixed(message)
        size = len(self._left) if n is None or n < 0 else n
        taken, self._left = self._left[:size], self._left[size:]
        return taken


async def serve_checked(handler: Handler, stream: Any, check: Check, longest: int) -> None:
    """Have ``handler`` serve ``stream``, each message of which (at most ``longest`` bytes) passes ``check`` first.

    Raises, beside what ``handler`` raises, the offence for which a message was withheld.
    """
    checked = _Checked(stream, check, longest)
    await handler(checked)
    if checked.offence is not None:
        raise checked.offence


def check_record(raw: bytes, peer: ID) -> None:
    """A signed peer record must be sound, and of ``peer`` itself; raises PeerFault."""
    try:
        _, record = consume_envelope(raw, RECORD_DOMAIN)
        subject = record.peer_id
    except Exception as error:  # whatever protobuf, keys, addresses and signatures make of it
        raise PeerFault(f"a signed peer record that is none: {type(error).__name__}") from error
    if subject != peer:
        raise PeerFault("a signed peer record of another peer")


def check_identity(raw: bytes, peer: ID) -> None:
    """A pushed identity: its key and its signed record are the sender's. Raises PeerFault, DecodeError."""
    told = Identify()
    told.ParseFromString(raw)
    if told.HasField("public_key"):
        try:
            named = ID.from_pubkey(deserialize_public_key(told.public_key))
        except Exception as error:  # whatever the parsers of protobuf and keys make of it
            raise PeerFault(f"identify: a public key that is none: {type(error).__name__}") from error
        if named != peer:
            raise PeerFault("identify: the public key of another peer")
    if told.HasField("signedPeerRecord"):
        check_record(told.signedPeerRecord, peer)


def with_checks(protocol: str, handler: Handler) -> Handler:
    """``handler``, checked where it is one of libp2p's own that swallows faults."""
    if protocol != IDENTIFY_PUSH:
        return handler

    async def checked(stream: Any) -> None:
        await serve_checked(handler, stream, check_identity, MAX_IDENTITY)

    return checked
