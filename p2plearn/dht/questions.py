"""What a Kademlia message must be like to be answered.

libp2p's server resets the stream for most of what is checked here, and says nothing of it; for a message of no known
kind it doesn't even do that. An honest node sends none of these.

Imports ``errors``, ``net.checked`` and libp2p's formats.
"""

from __future__ import annotations

from typing import Final

from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID

from p2plearn.errors import PeerFault
from p2plearn.net.checked import check_record

MAX_QUESTION: Final = 64 * 1024
"""Bytes of a message to us (libp2p: 4 MiB): a provider with 64 addresses and a signed record takes 6 KB."""

LONGEST_KEY: Final = {
    Message.MessageType.PING: 0,
    Message.MessageType.FIND_NODE: 128,
    Message.MessageType.GET_PROVIDERS: 128,
    Message.MessageType.GET_VALUE: 128,
    Message.MessageType.PUT_VALUE: 128,
    Message.MessageType.ADD_PROVIDER: 80,
}
"""Bytes of a key, by kind of message, as libp2p has it; of a ping's nothing is asked."""


def check_question(raw: bytes, peer: ID) -> None:
    """One message that ``peer`` sent us; raises PeerFault, or DecodeError for what is no such message."""
    message = Message()
    message.ParseFromString(raw)
    longest = LONGEST_KEY.get(message.type)
    if longest is None:
        raise PeerFault(f"Kademlia: a message of kind {message.type}")
    if longest and not 0 < len(message.key) <= longest:
        raise PeerFault(f"Kademlia: a key of {len(message.key)} bytes")
    # The first kind, and so what an empty message says.
    if message.type == Message.MessageType.PUT_VALUE and message.record.key != message.key:
        raise PeerFault("Kademlia: a value under another key, or none")
    if message.type == Message.MessageType.ADD_PROVIDER and any(
        row.id != peer.to_bytes() for row in message.providerPeers
    ):
        raise PeerFault("Kademlia: names another peer as a provider")
    if message.HasField("senderRecord"):
        check_record(message.senderRecord, peer)
