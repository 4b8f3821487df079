"""What breaks the rules of libp2p's own handlers is counted against whoever sent it."""

from __future__ import annotations

import pytest
import trio
from google.protobuf.message import DecodeError
from hosts import eventually, running_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes

from p2plearn.dht.kademlia import PROTOCOL as KAD
from p2plearn.dht.kademlia import CourseDHT
from p2plearn.dht.questions import MAX_QUESTION, check_question
from p2plearn.errors import PeerFault
from p2plearn.net.checked import IDENTIFY_PUSH, MAX_IDENTITY, check_identity
from p2plearn.net.dial import connect

KEYS, OTHER = create_new_key_pair(bytes(32)), create_new_key_pair(b"\1" * 32)  # the same in every process
PEER, STRANGER = ID.from_pubkey(KEYS.public_key), ID.from_pubkey(OTHER.public_key)
KEY = b"\x12\x20" + bytes(32)
KINDS = Message.MessageType


def provider(peer: ID) -> bytes:
    message = Message(type=KINDS.ADD_PROVIDER, key=KEY)
    message.providerPeers.add().id = peer.to_bytes()
    return message.SerializeToString()


@pytest.mark.parametrize(
    "raw",
    [
        Message(type=KINDS.FIND_NODE, key=KEY).SerializeToString(),
        Message(type=KINDS.GET_PROVIDERS, key=KEY).SerializeToString(),
        Message(type=KINDS.PING).SerializeToString(),
        provider(PEER),
    ],
)
def test_what_honest_nodes_ask_passes(raw: bytes) -> None:
    check_question(raw, PEER)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 9,
        b"",
        b"\x08\x63" + Message(key=KEY).SerializeToString(),  # kind 99
        Message(type=KINDS.FIND_NODE).SerializeToString(),
        Message(type=KINDS.GET_PROVIDERS, key=bytes(129)).SerializeToString(),
        Message(type=KINDS.ADD_PROVIDER, key=bytes(81)).SerializeToString(),
        provider(STRANGER),
        Message(type=KINDS.FIND_NODE, key=KEY, senderRecord=bytes(80)).SerializeToString(),
    ],
)
def test_what_no_honest_node_asks_does_not(raw: bytes) -> None:
    with pytest.raises((PeerFault, DecodeError)):
        check_question(raw, PEER)


def test_an_identity_is_the_senders_own() -> None:
    check_identity(Identify(agent_version="x", public_key=KEYS.public_key.serialize()).SerializeToString(), PEER)
    for told in (
        Identify(public_key=OTHER.public_key.serialize()),
        Identify(public_key=b"\x08\x01\x12\x20"),
        Identify(signedPeerRecord=bytes(100)),
    ):
        with pytest.raises(PeerFault):
            check_identity(told.SerializeToString(), PEER)


async def test_a_signed_record_is_of_the_peer_that_sends_it() -> None:
    async with running_host() as (host, _):
        record, _ = env_to_send_in_RPC(host)
        told = Identify(signedPeerRecord=record).SerializeToString()
        check_identity(told, host.get_id())
        with pytest.raises(PeerFault):
            check_identity(told, PEER)


async def send(host: BasicHost, peer: ID, protocol: str, raw: bytes) -> None:
    stream = await host.new_stream(peer, [TProtocol(protocol)])
    await stream.write(raw)
    await stream.close()


@pytest.mark.parametrize(
    ("protocol", "raw"),
    [
        (str(KAD), b"\x03\xff\xff\xff"),
        (str(KAD), encode_varint_prefixed(provider(STRANGER))),
        (str(KAD), b"\x80\x80\x80\x80\x10" + bytes(8)),
        (str(KAD), encode_varint_prefixed(bytes(MAX_QUESTION + 1))),
        (IDENTIFY_PUSH, b"\x03\xff\xff\xff"),
        (IDENTIFY_PUSH, encode_varint_prefixed(Identify(signedPeerRecord=bytes(9)).SerializeToString())),
        (IDENTIFY_PUSH, encode_varint_prefixed(bytes(MAX_IDENTITY + 1))),
    ],
)
async def test_a_malformed_message_counts_against_its_sender_and_many_ban_it(protocol: str, raw: bytes) -> None:
    async with running_host() as (host, guard), running_host() as (bad, _):
        CourseDHT(host)
        await connect(bad, PeerInfo(host.get_id(), host.get_transport_addrs()), 30.0)
        await eventually(lambda: not guard.faults, 30.0)
        await send(bad, host.get_id(), protocol, raw)
        await eventually(lambda: guard.faults == 1, 30.0)
        with trio.fail_after(60):
            while not guard.banned(bad.get_id()):
                try:
                    await send(bad, host.get_id(), protocol, raw)
                except Exception:  # hung up on, in whatever layer that is noticed
                    await trio.sleep(0.01)


async def test_a_question_is_still_answered_and_an_identity_still_taken() -> None:
    async with running_host() as (host, guard), running_host() as (good, _):
        CourseDHT(host)
        await connect(good, PeerInfo(host.get_id(), host.get_transport_addrs()), 30.0)
        with trio.fail_after(60):
            stream = await good.new_stream(host.get_id(), [KAD])
            for _ in range(2):
                await stream.write(encode_varint_prefixed(Message(type=KINDS.PING).SerializeToString()))
                answer = Message()
                answer.ParseFromString(await read_varint_prefixed_bytes(stream))
                assert answer.type == KINDS.PING
            await stream.close()
        told = Identify(protocols=["/new/1"]).SerializeToString()
        await send(good, host.get_id(), IDENTIFY_PUSH, encode_varint_prefixed(told))
        await eventually(lambda: host.get_peerstore().speaks(good.get_id(), "/new/1"), 60.0)
        assert guard.faults == 0
