"""True frames of every protocol a node speaks, and what becomes of them in hostile hands."""

from __future__ import annotations

import contextlib
import random
import ssl
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the people who say things in tests
from gossip.people import person, question
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.utils.varint import encode_varint_prefixed

from p2plearn.dht import messages as custody
from p2plearn.dht.custody import Unit
from p2plearn.dht.receipts import sign_receipt
from p2plearn.gossip.envelope import CATALOGUE, Profile
from p2plearn.gossip.turns import Turn
from p2plearn.gossip.turns import encode as encode_turn
from p2plearn.net.reach import wire
from p2plearn.transfer import protocol as chunk

STREAMS = {
    "/p2plearn/chunk/1": 4,
    "/p2plearn/custody/1": 8,
    "/p2plearn/heartbeat/1": 3,
    "/p2plearn/sync/1": 8,
    "/p2plearn/kad/1.0.0": 12,
    "/ipfs/id/1.0.0": 4,
    "/ipfs/id/push/1.0.0": 4,
    "/ipfs/ping/1.0.0": 2,
    wire.HOP: 16,
    wire.STOP: 16,
    wire.AUTONAT: 2,
    wire.DCUTR: 2,
}
"""Protocols that begin with a stream, and how many of them a node takes from one peer at a time."""

WIRES = ("multistream", "yamux", "tls")
"""What is below them."""

ANSWERED = {"/p2plearn/kad/1.0.0", "/p2plearn/heartbeat/1", "/p2plearn/sync/1", "/ipfs/ping/1.0.0"}
"""Protocols in which many frames go over one stream, and each that is none too odd gets an answer of its own."""


def seeds(name: str, course: bytes) -> list[bytes]:
    """Frames of ``name`` that an honest peer could send; ``course`` is one that the node has."""
    other = bytes(range(32))
    ann = person("ann")
    match name:
        case "/p2plearn/chunk/1":
            opened = chunk.encode(chunk.Open(course, True))
            more = [chunk.WantIndex(0, 1), chunk.Want(((0, 3), (7, 1))), chunk.Cancel(((0, 2),))]
            return [opened, chunk.encode(chunk.Open(other, False))] + [opened + chunk.encode(m) for m in more]
        case "/p2plearn/custody/1":
            manifest = ann.course("A course")
            receipt = sign_receipt(Unit(course, 0), ann.key, 1_790_000_000_000, 3, True, ann.private.sign)
            return [
                custody.encode(custody.Offer(0, 3, manifest.signature, manifest.raw)),
                custody.encode(custody.Receipts((receipt, receipt))),
                custody.encode(custody.Challenge(course, 0, 0, 100, bytes(16))),
                custody.encode(custody.Release(Unit(course, 0))),
            ]
        case "/p2plearn/heartbeat/1":
            return [custody.encode(custody.Beat(7, 60, 1 << 30, False, bytes(16)))]
        case "/p2plearn/sync/1":
            said = [ann.says(Profile("", "Ann")), ann.says(question(), course)]
            return [
                encode_turn(Turn(ranges={CATALOGUE: [(b"", bytes(16))]})),
                encode_turn(Turn(have={CATALOGUE: [each.id for each in said]}, want=[said[0].id])),
                encode_turn(Turn(envelopes=[each.raw for each in said])),
            ]
        case "/p2plearn/kad/1.0.0":
            kinds = (Message.FIND_NODE, Message.GET_PROVIDERS, Message.GET_VALUE, Message.PING)
            asked = [Message(type=kind, key=b"\x12\x20" + course) for kind in (*kinds, Message.ADD_PROVIDER)]
            for message in (asked[1], asked[-1]):
                row = message.providerPeers.add()
                row.id, row.signedRecord = b"\x00\x24\x08\x01\x12\x20" + other, bytes(80)
                row.addrs.append(bytes.fromhex("047f000001060fb1"))
            return [encode_varint_prefixed(message.SerializeToString()) for message in asked]
        case "/ipfs/id/push/1.0.0" | "/ipfs/id/1.0.0":
            identity = Identify(agent_version="x/1", protocol_version="y", protocols=["/a/1", "/p2plearn/kad/1.0.0"])
            identity.listen_addrs.append(bytes.fromhex("047f000001060fb1"))
            identity.public_key, identity.signedPeerRecord = b"\x08\x01\x12\x20" + other, bytes(100)
            return [encode_varint_prefixed(identity.SerializeToString())]
        case "/ipfs/ping/1.0.0":
            return [other, other * 3]
        case wire.HOP:
            called = b"\x00\x24\x08\x01\x12\x20" + other
            said = [wire.Hop(wire.HopKind.RESERVE), wire.Hop(wire.HopKind.CONNECT, called)]
            return [encode_varint_prefixed(wire.encode_hop(each)) for each in said]
        case wire.STOP:
            caller = b"\x00\x24\x08\x01\x12\x20" + other
            told = wire.Stop(wire.StopKind.CONNECT, caller, seconds=60, data=1 << 20)
            return [encode_varint_prefixed(wire.encode_stop(told))]
        case wire.AUTONAT:
            asker, where = b"\x00\x24\x08\x01\x12\x20" + other, (bytes.fromhex("047f000001060fb1"),)
            return [encode_varint_prefixed(wire.encode_autonat(wire.Autonat(wire.AutonatKind.DIAL, asker, where)))]
        case wire.DCUTR:
            punch = wire.Punch(wire.PunchKind.CONNECT, (bytes.fromhex("047f000001060fb1"),))
            return [
                encode_varint_prefixed(wire.encode_punch(each)) for each in (punch, wire.Punch(wire.PunchKind.SYNC))
            ]
        case "multistream":
            lines = [b"/multistream/1.0.0\n", b"ls\n", b"/p2plearn/chunk/1\n", b"/none\n"]
            return [b"".join(bytes([len(line)]) + line for line in each) for each in (lines, lines[:2], lines[2:])]
        case "yamux":
            header = struct.Struct("!BBHII").pack
            return [
                header(0, 1, 1, 9, 0) + header(0, 0, 0, 9, 5) + b"hello" + header(0, 1, 4, 9, 0),
                header(0, 2, 1, 0, 7) + header(0, 1, 0, 9, 1000),
                header(0, 1, 8, 9, 0) + header(0, 0, 2, 4, 0),
            ]
        case "tls":
            out = ssl.MemoryBIO()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["libp2p"])
            with contextlib.suppress(ssl.SSLWantReadError):
                context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
            return [out.read()]
    raise AssertionError(name)


LENGTHS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
VARINTS = (b"\x00", b"\xff" * 9 + b"\x01", b"\x80" * 10 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10")
"""0; -1 or 2^64 - 1; eleven bytes; 2^32 - 1; 4 GiB."""


def bombs(name: str, course: bytes) -> list[bytes]:
    """Frames whose length says what can't be: nothing, less than nothing, gigabytes."""
    if name.startswith("/p2plearn/") and "kad" not in name:
        whole = seeds(name, course)
        if "sync" in name:
            return [struct.pack("!I", size) + bytes(64) for size in LENGTHS]
        return [each[:1] + struct.pack("!I", size) + each[5:] for each in whole for size in LENGTHS]
    if name == "yamux":
        return [struct.pack("!BBHII", 0, 0, flags, 9, size) + bytes(64) for flags in (0, 1) for size in LENGTHS]
    if name == "tls":
        return [b"\x16\x03\x01\xff\xff" + bytes(64), b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"]
    return [varint + bytes(64) for varint in VARINTS]


def answers(name: str, heard: bytes) -> int:
    """How many whole answers there are in what the node said on a stream of one of ``ANSWERED``."""
    if "ping" in name:
        return len(heard) // 32
    count = at = 0
    while at < len(heard):
        if "kad" in name:
            size = shift = 0
            while at < len(heard):
                byte, at = heard[at], at + 1
                size, shift = size | (byte & 0x7F) << shift, shift + 7
                if byte < 0x80:
                    break
        else:
            head = 1 if "heartbeat" in name else 0
            size, at = int.from_bytes(heard[at + head : at + head + 4]), at + head + 4
        at += size
        count += at <= len(heard)
    return count


class Mutator:
    """The same mutations for the same number. ``near`` is the share of frames that keep their shape: some bytes past
    the head are others, so that the node has to look closely, and often may not hang up.
    """

    def __init__(self, name: str, course: bytes, seed: int, near: float = 0.5) -> None:
        self._near = near
        self._dice = random.Random(f"{name} {seed}")
        self._seeds = seeds(name, course)
        self._bombs = bombs(name, course)

    def next(self) -> bytes:
        """One mutated frame, never an empty one."""
        dice = self._dice
        if dice.random() < self._near:
            frame = bytearray(dice.choice(self._seeds))
            for _ in range(dice.choice((1, 1, 2, 4))):
                frame[dice.randrange(min(6, len(frame) - 1), len(frame))] ^= 1 << dice.randrange(8)
            return bytes(frame)
        if dice.random() < 0.03:
            return dice.choice(self._bombs)
        if dice.random() < 0.05:
            return dice.randbytes(dice.choice((1, 2, 6, 40, 400)))
        frame = bytearray(dice.choice(self._seeds))
        for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
            at = dice.randrange(len(frame) + 1)
            match dice.randrange(6):
                case 0 if at < len(frame):
                    frame[at] ^= 1 << dice.randrange(8)
                case 1 if at < len(frame):
                    frame[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 2:
                    frame[at:at] = dice.randbytes(dice.choice((1, 2, 4)))
                case 3:
                    del frame[at : at + dice.choice((1, 2, 4, 32))]
                case 4:
                    piece = dice.choice(self._seeds)
                    frame[at:] = piece[dice.randrange(len(piece)) :]
                case _:
                    frame[at : at + 4] = struct.pack("!I", dice.choice(LENGTHS))
            if not frame:
                return b"\0"
        return bytes(frame)
