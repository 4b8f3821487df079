"""True input for each decoder of ``decoders.py``, to start from: what our own encoders make, and what routers say."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

from courses import make_course
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from gossip.people import COURSE, person, question
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.security.tls.certificate import create_cert_template, generate_certificate
from multiaddr import Multiaddr
from wires import DATA, FIN, HEADER, PING, RST, SYN, WINDOW_UPDATE

from p2plearn import invite
from p2plearn.archive import car, layout
from p2plearn.dht import lookout, messages, remembered
from p2plearn.dht.custody import Unit
from p2plearn.dht.receipts import sign_receipt
from p2plearn.gossip import envelope, turns
from p2plearn.net import peers
from p2plearn.transfer import protocol
from p2plearn.transfer.traffic import Moved

NOW = 1_790_000_000
"""Seconds since 1970, for whoever asks."""


@functools.cache
def course() -> Any:
    return make_course(6, 500)


def manifests() -> list[bytes]:
    return [course().signed.raw, person("ann").course("A course").raw]


def envelopes() -> list[bytes]:
    ann = person("ann")
    said = [question(), envelope.Profile("", "Ann"), envelope.Rating("Good.", 5), envelope.Trust(bytes(32), True)]
    return [ann.says(body).raw for body in said]


def sync_turns() -> list[bytes]:
    raws, feed = envelopes(), bytes(32)
    made = [
        turns.Turn(ranges={feed: [(b"\1\2", bytes(16)), (b"", None)]}),
        turns.Turn(have={COURSE: [bytes(32)]}, want=[bytes(32)], more=True),
        turns.Turn(envelopes=raws),
    ]
    return [turns.encode(turn)[4:] for turn in made]


def receipt() -> Any:
    ann = person("ann")
    return sign_receipt(Unit(COURSE, 0), ann.key, NOW * 1000, 3, True, ann.private.sign)


def custody_messages() -> list[bytes]:
    told = person("ann").course("A course")
    said = [
        messages.Beat(1, 2, 3, False, bytes(16)),
        messages.Offer(0, 3, told.signature, told.raw),
        messages.Receipts((receipt(),)),
        messages.Challenge(COURSE, 0, 0, 10, bytes(16)),
        messages.Release(Unit(COURSE, 1)),
        messages.Inquiry(Unit(COURSE, 1)),
        messages.Withdraw((COURSE, bytes(32))),
        messages.Accept(),
        messages.Decline(messages.Reason.BUSY, "no"),
        messages.Progress(7),
        messages.Ack(receipt()),
        messages.Proof(bytes(32)),
    ]
    return [messages.encode(each) for each in said]


def chunk_messages() -> list[bytes]:
    some = course()
    said: list[Any] = [
        protocol.Open(COURSE, True),
        protocol.WantIndex(0, 2),
        protocol.Want(((0, 3), (5, 1))),
        protocol.Cancel(((1, 1),)),
        protocol.ManifestIs(some.signed.signature, some.signed.raw),
        protocol.IndexPart(0, some.index_raw[:200]),
        protocol.Have(6, b"\xfc"),
        protocol.HaveMore(((0, 1),)),
        protocol.Missing(((2, 1),)),
        protocol.NotHere(),
        protocol.Busy(2.0),
    ]
    return [protocol.encode(each) for each in said] + [protocol.chunk_header(3, 10) + bytes(10)]


def yamux_frames() -> list[bytes]:
    opened = HEADER.pack(0, WINDOW_UPDATE, SYN, 1, 0) + HEADER.pack(0, DATA, 0, 1, 5) + b"hello"
    return [
        opened + HEADER.pack(0, DATA, FIN, 1, 0),
        opened + HEADER.pack(0, WINDOW_UPDATE, RST, 1, 0),
        HEADER.pack(0, PING, SYN, 0, 7) + HEADER.pack(0, 3, 0, 0, 0),
    ]


def certificates() -> list[bytes]:
    pem, _ = generate_certificate(create_new_key_pair().private_key, create_cert_template())
    return [x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)]


def addresses() -> list[Multiaddr]:
    peer = ID.from_pubkey(create_new_key_pair().public_key)
    told = [
        "/ip4/1.1.1.1/tcp/1",
        "/ip6/2606:4700::1/tcp/4017/ws",
        f"/dns4/node.example.org/tcp/4017/p2p/{peer}",
        f"/ip4/1.1.1.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}",
        "/ip4/1.1.1.1/udp/4017/quic-v1",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
    ]
    return [Multiaddr(each) for each in told]


def peers_files() -> list[bytes]:
    row = {
        "peer": str(ID.from_pubkey(create_new_key_pair().public_key)),
        "addresses": ["/ip4/1.1.1.1/tcp/1"],
        "last_seen": NOW,
        "successes": 1,
        "failures": 0,
    }
    return [json.dumps({"format": peers.FORMAT, "peers": [row]}).encode()]


def absences_files() -> list[bytes]:
    one, other = bytes(32).hex(), bytes(range(32)).hex()
    return [json.dumps({"format": lookout.FORMAT, "away": {one: 7}, "lost": [[COURSE.hex(), [other], 8]]}).encode()]


def providers_files() -> list[bytes]:
    row = {
        "peer": str(ID.from_pubkey(create_new_key_pair().public_key)),
        "addresses": ["/ip4/1.1.1.1/tcp/1"],
        "courses": {COURSE.hex(): NOW},
    }
    return [json.dumps({"format": remembered.FORMAT, "peers": [row]}).encode()]


def kademlia_answers() -> list[bytes]:
    message = Message(type=Message.GET_PROVIDERS, key=b"\x12\x20" + COURSE)
    row = message.providerPeers.add()
    row.id = b"\x00\x24\x08\x01\x12\x20" + bytes(32)
    row.addrs.extend(each.to_bytes() for each in addresses())
    return [message.SerializeToString()]


def invites() -> list[bytes]:
    peer = str(ID.from_pubkey(create_new_key_pair().public_key))
    where = (f"/ip4/1.1.1.1/tcp/4017/p2p/{peer}",)
    told = [invite.Invite("School", bytes(32)), invite.Invite("学校", bytes(32), where)]
    return [invite.format_invite(each).encode() for each in told]


def car_files() -> list[bytes]:
    cid = car.raw_cid(bytes(32))
    return [car.encode_header([cid]) + car.encode_head(cid, 3) + b"abc"]


def bundles() -> list[bytes]:
    signed = course().signed
    told = signed.manifest
    parts = tuple(part.digest for part in told.index)
    return [layout.encode_bundle([layout.Packed(signed.course, signed.signature, parts, told.root)])]


def routers_answers() -> list[bytes]:
    service = (
        "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
        "<controlURL>/control</controlURL></service>"
    )
    page = f"<root><URLBase>http://192.0.2.1:80/</URLBase>{service}</root>"
    fault = "<s:Fault><errorCode>718</errorCode><errorDescription>Conflict</errorDescription></s:Fault>"
    said = [
        "HTTP/1.1 200 OK\r\nLocation: http://192.0.2.1:1900/root.xml\r\n\r\n",
        f"HTTP/1.1 200 OK\r\n\r\n{page}",
        f"HTTP/1.1 500 No\r\n\r\n{fault}",
        "<NewExternalIPAddress>192.0.2.1</NewExternalIPAddress>",
    ]
    return [text.encode() for text in said]


def traffic_files() -> list[bytes]:
    moved = dict.fromkeys((field.name for field in dataclasses.fields(Moved)), 7)
    return [json.dumps({"format": 1, "days": {"2026-05-04": moved}, "paused_until": 0.5}).encode()]


def encoded(encode: Callable[[Any], bytes], *said: Any) -> Callable[[], list[bytes]]:
    return lambda: [encode(each) for each in said]
