"""Every decoder that takes bytes or text from elsewhere, in one table: what it may raise, and true input to start from.

``tests/test_decoders.py`` tries each with made-up and mutated input on every run, ``fuzz/`` for as long as one likes,
and what it keeps is tried on every run too. A decoder that is missing here is not tried: add it with the format.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import true_input as true
from google.protobuf.message import DecodeError
from gossip.people import COURSE
from hosts import make_host
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure

from p2plearn import invite
from p2plearn.archive import car, dagcbor, layout
from p2plearn.course import index, manifest, msgpacking, names
from p2plearn.dht import lookout, messages, remembered
from p2plearn.dht.hearsay import _multiaddrs
from p2plearn.dht.providers import CourseProviderStore
from p2plearn.dht.receipts import decode_receipt
from p2plearn.errors import PeerFault, UsageProblem
from p2plearn.gossip import envelope, turns
from p2plearn.net import addresses, bootstrap, bounded, peers
from p2plearn.net.reach import natpmp, upnp, wire
from p2plearn.net.tls import identify
from p2plearn.net.yamux import YamuxConn, _Goodbye
from p2plearn.operations import GetRequest, PublishRequest
from p2plearn.people import PostRequest
from p2plearn.state_file import Unusable, decode_state
from p2plearn.transfer import protocol, traffic
from p2plearn.transfer.traffic import TrafficBook
from p2plearn.web import answers, schema

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
MOST_KEPT, MOST_KEPT_BYTES = 40, 24 << 10
"""Of inputs kept for a decoder: tried at every push, and carried by everyone who has the repository."""


@dataclass(frozen=True)
class Decoder:
    """``take`` raises nothing but ``raises``, whatever the bytes are; ``seeds`` are true input.

    ``within``, where an event loop is needed, is the part of it that decodes, for who is in one already: a loop and
    tasks cost ten times as much.
    """

    name: str
    take: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    raises: tuple[type[Exception], ...] = (PeerFault,)
    within: Callable[[bytes], Awaitable[object]] | None = None


def kept_inputs(name: str) -> list[bytes]:
    """What ``fuzz/keep.py`` kept for a decoder: a line each, as Python writes bytes."""
    path = CORPUS / f"{name}.txt"
    return [ast.literal_eval(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def _text(take: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: take(raw.decode("utf-8", "surrogateescape"))


def _fed(make: Callable[[], Any]) -> Callable[[bytes], object]:
    """A decoder that is fed: whole, and in two pieces, with the same result."""

    def take(raw: bytes) -> None:
        outcomes = []
        for cut in (len(raw), len(raw) // 2):
            decoder, told = make(), []
            try:
                told.extend(_bytes(m) for m in decoder.feed(raw[:cut]))
                told.extend(_bytes(m) for m in decoder.feed(raw[cut:]))
            except PeerFault as fault:
                told.append(str(fault))
            outcomes.append(told)
        assert outcomes[0] == outcomes[1], "how it is cut matters"

    return take


def _bytes(message: Any) -> object:
    if isinstance(message, protocol.Chunk):
        return message.slot, b"".join(message.pieces)
    return message


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    async def read(self, n: int | None = None) -> bytes:
        n = len(self.raw) if n is None else n
        first, self.raw = self.raw[:n], self.raw[n:]
        if not first and n:
            raise IOException("over")
        return first


class _Session(_Reader):
    """What yamux reads its frames from; what it writes goes nowhere."""

    is_initiator = False

    async def read(self, n: int | None = None) -> bytes:
        return await super().read(min(n or 4096, 4096))

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


async def _yamux(raw: bytes) -> None:
    conn = YamuxConn(_Session(raw), ID(b"peer"))  # type: ignore[arg-type]
    with trio.fail_after(10):
        await conn.start()
    assert conn.is_closed
    assert sum(stream._unread for stream in conn._streams.values()) <= len(raw)


async def _yamux_reading(raw: bytes) -> None:
    """The reading end alone, without the tasks beside it."""
    conn = YamuxConn(_Session(raw), ID(b"peer"))  # type: ignore[arg-type]
    with contextlib.suppress(PeerFault, IOException, _Goodbye):
        await conn._read_frames()
    conn._end()
    assert sum(stream._unread for stream in conn._streams.values()) <= len(raw)


def _line(raw: bytes) -> bytes:
    return _at_once(bounded.read_line(_Reader(raw)))


def _at_once(work: Coroutine[Any, Any, bytes]) -> bytes:
    """The result of what never waits: all of its input is there, so it needs no event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        result: bytes = done.value
        return result
    work.close()
    raise AssertionError("it waits")


def _kademlia(raw: bytes) -> None:
    """What our end does with an answer, short of asking anybody."""
    message = Message()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        return
    for peer in [*message.closerPeers, *message.providerPeers]:
        addresses.believable(_multiaddrs(peer.addrs), addresses.Reach.GLOBAL)


def _address(raw: bytes) -> None:
    """All that is done to an address that may be of use."""
    for address in _multiaddrs([raw]):
        if addresses.reach(address) > addresses.Reach.NONE:
            assert addresses.bare(addresses.bare(address)) == addresses.bare(address)
            if addresses.is_relayed(address):
                addresses.relay_of(address)
        addresses.dial_order(addresses.believable([address], addresses.Reach.LOOPBACK))


def _car(raw: bytes) -> None:
    decoder = car.Decoder()
    decoder.feed(raw)
    while (head := decoder.head()) is not None:
        if isinstance(head, car.Head) and decoder.body() is None:
            return


def _index(raw: bytes) -> None:
    """Behind the hash too: who signs a manifest names in it whatever index they like."""
    told = true.course().signed.manifest
    with contextlib.suppress(PeerFault):
        index.decode_index(raw, told)
    index.decode_index(raw, dataclasses.replace(told, index=tuple(index.parts(raw))))


def _upnp(raw: bytes) -> None:
    """What a router, or whoever says to be one, answers."""
    for read in (
        lambda: upnp.read_location(raw, "192.0.2.1"),
        lambda: upnp.read_page(raw),
        lambda: upnp.read_description(raw, "http://192.0.2.1/root.xml"),
        lambda: upnp.read_outside(raw),
    ):
        with contextlib.suppress(PeerFault):
            read()


def _natpmp(raw: bytes) -> None:
    with contextlib.suppress(PeerFault):
        natpmp.read_address(raw)
    natpmp.read_mapping(raw, 4017)


def _request(raw: bytes) -> None:
    document = schema.parse_json(raw)
    for kind in (GetRequest, PublishRequest, PostRequest):
        try:
            schema.read(kind, document)
        except UsageProblem:
            continue


def _caller(raw: bytes) -> None:
    host, _, rest = raw.decode("latin-1").partition("\n")
    origin, _, site = rest.partition("\n")
    answers.check_caller({"host": host, "origin": origin, "sec-fetch-site": site})


def _peers(raw: bytes) -> None:
    """What was taken in is used, and written again."""
    book, again = peers.AddressBook(Path()), peers.AddressBook(Path())
    decode_state(raw, peers.FORMAT, lambda document: book._read(document, true.NOW))
    assert len(book.best(peers.MAX_PEERS)) == len(book)
    decode_state(book.encode(), peers.FORMAT, lambda document: again._read(document, true.NOW))
    assert len(again) == len(book)


def _providers(raw: bytes) -> None:
    records = CourseProviderStore(_some_host(), None)
    for told_at, key, provider in decode_state(raw, remembered.FORMAT, lambda d: remembered._read(d, true.NOW)):
        records.restore(key, provider, told_at)


def _traffic(raw: bytes) -> None:
    book, again = TrafficBook(Path()), TrafficBook(Path())
    decode_state(raw, traffic.FORMAT, book._read)
    decode_state(book.encode(), traffic.FORMAT, again._read)
    assert again.paused_until == book.paused_until


@functools.cache
def _some_host() -> BasicHost:
    return make_host()


DECODERS = (
    Decoder("manifest", lambda raw: manifest.open_manifest(raw[64:], raw[:64]),
            lambda: [bytes(64) + raw for raw in true.manifests()], (manifest.BadManifest, PeerFault)),
    Decoder("manifest-fields", manifest.decode_manifest, true.manifests, (manifest.BadManifest, PeerFault)),
    Decoder("index", _index, lambda: [true.course().index_raw]),
    Decoder("msgpack", lambda raw: msgpacking.unpack(raw, longest=1000, most=100), true.sync_turns, (ValueError,)),
    Decoder("envelope", envelope.open_envelope, true.envelopes),
    Decoder("sync-turn", turns.decode, true.sync_turns),
    Decoder("chunk-served", _fed(lambda: protocol.Decoder(protocol.FROM_FETCHER)), true.chunk_messages),
    Decoder("chunk-fetched", _fed(lambda: protocol.Decoder(protocol.FROM_SERVER)), true.chunk_messages),
    Decoder("heartbeat", _fed(lambda: messages.Decoder(messages.BEATS)), true.custody_messages),
    Decoder("custody-asked", _fed(lambda: messages.Decoder(messages.ASKED)), true.custody_messages),
    Decoder("custody-answered", _fed(lambda: messages.Decoder(messages.ANSWERED)), true.custody_messages),
    Decoder("receipt", decode_receipt, lambda: [true.receipt().encode()]),
    Decoder("kademlia", _kademlia, true.kademlia_answers, ()),
    Decoder("multiaddr", _address, lambda: [each.to_bytes() for each in true.addresses()], ()),
    Decoder("multistream-line", _line, lambda: [b"\x13/multistream/1.0.0\n"], (ParseError, IOException)),
    Decoder("yamux", functools.partial(trio.run, _yamux), true.yamux_frames, (), _yamux_reading),
    Decoder("tls-certificate", identify, true.certificates, (HandshakeFailure,)),
    Decoder("relay-hop", wire.decode_hop,
            true.encoded(wire.encode_hop, wire.Hop(wire.HopKind.RESERVE), wire.Hop(wire.HopKind.STATUS, status=100))),
    Decoder("relay-stop", wire.decode_stop, true.encoded(wire.encode_stop, wire.Stop(wire.StopKind.STATUS))),
    Decoder("hole-punch", wire.decode_punch, true.encoded(wire.encode_punch, wire.Punch(wire.PunchKind.CONNECT))),
    Decoder("autonat", wire.decode_autonat, true.encoded(wire.encode_autonat, wire.Autonat(wire.AutonatKind.DIAL))),
    Decoder("nat-pmp", _natpmp,
            lambda: [b"\0\x80" + bytes(6) + b"\xc0\0\2\1", b"\0\x82" + bytes(6) + b"\x0f\xb1" * 2 + bytes(4)]),
    Decoder("upnp", _upnp, true.routers_answers),
    Decoder("car", _car, true.car_files, (car.BadCar,)),
    Decoder("dag-cbor", dagcbor.decode, lambda: [dagcbor.encode({"a": [1, b"x", None, "y"]})], (dagcbor.BadCbor,)),
    Decoder("archive-bundle", layout.decode_bundle, true.bundles, (layout.NotOurs,)),
    Decoder("archive-page", layout.decode_page, lambda: [layout.encode_page(layout.Page((COURSE, bytes(32)), True))],
            (layout.NotOurs,)),
    Decoder("peers.json", _peers, true.peers_files, (Unusable,)),
    Decoder("absences.json", lambda raw: decode_state(raw, lookout.FORMAT, lookout._read), true.absences_files,
            (Unusable,)),
    Decoder("providers.json", _providers, true.providers_files, (Unusable,)),
    Decoder("traffic.json", _traffic, true.traffic_files, (Unusable,)),
    Decoder("bootstrap_nodes.toml", lambda raw: bootstrap.decode(raw, Path("nodes.toml")),
            lambda: [b'[[node]]\naddress = "/ip4/1.1.1.1/tcp/1"\n'], (UsageProblem,)),
    Decoder("course-link", _text(names.parse_link),
            lambda: [names.format_link(COURSE).encode(), names.course_cid(COURSE).encode()], (UsageProblem,)),
    Decoder("invite", _text(invite.parse_invite), true.invites, (UsageProblem,)),
    Decoder("peer-address", _text(lambda text: addresses.read_peer(text, "here")),
            lambda: [b"/ip4/1.1.1.1/tcp/1/p2p/12D3KooW", *(str(each).encode() for each in true.addresses())],
            (UsageProblem,)),
    Decoder("api-body", _request,
            lambda: [b'{"course": "00", "dest": "/tmp/x", "only": ["*.pdf"], "timeout": 1.5, "no_copy": true}',
                     b'{"path": "/tmp/x", "tags": ["a"], "copies": 2}', b'{"role": "question", "text": "Why?"}'],
            (UsageProblem,)),
    Decoder("api-caller", _caller, lambda: [b"localhost\nhttp://localhost\nsame-origin"], (answers.CallRefused,)),
)  # fmt: skip
