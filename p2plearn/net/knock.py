"""Reaching another node one step at a time, to say which step fails and why: what ``p2plearn doctor ADDRESS`` does.

    read, resolve, route, tcp, multistream, tls, identify

A WebSocket's address has ``websocket`` after tcp (``web-tls`` before that where it is inside a web server's TLS), and
in a closed group there is ``group`` before multistream, ``membership`` after tls. By way of a relay these steps lead to
the relay; then ``relay`` asks it for a call, and ``beyond-multistream`` to ``beyond-identify`` are those with the node
itself, inside that call.

In: an address as a person has it (see ``knock_address``). Out: the steps, up to the first that failed. One TCP
connection at most for each address the name stands for, until one gets through; every wait is bounded. The key used is
made for the occasion: nothing of this home is shown to who answers.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import trio
from cryptography import x509
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.envelope import consume_envelope
from libp2p.peer.id import ID
from libp2p.security.tls.certificate import verify_certificate_chain
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2plearn.net.addresses import CIRCUIT, Reach, reach_of_ip
from p2plearn.net.group import Door, NotInGroup
from p2plearn.net.knock_address import Asked, Unreadable, read
from p2plearn.net.knock_lines import StepFailed, agree
from p2plearn.net.reach.circuit import status_words
from p2plearn.net.reach.streams import OVER, receive, relayed, send
from p2plearn.net.reach.websocket import WebServerTls, WebSocketStream, shake_hands
from p2plearn.net.reach.wire import HOP, Hop, HopKind, Status, decode_hop, encode_hop
from p2plearn.net.tcp import TcpStream, cables
from p2plearn.net.tls import BACKDATED_SECONDS, VALID_SECONDS, TlsPipe, TlsSession, TlsTransport
from p2plearn.net.tls import PROTOCOL as TLS
from p2plearn.net.yamux import PROTOCOL as YAMUX
from p2plearn.net.yamux import YamuxConn

STEP_SECONDS: Final = 6.0
"""For one step. A handshake over a bad line takes two; a port that drops what comes takes any time it is given."""

MOST_ADDRESSES: Final = 4
"""Addresses of one name that are tried."""

BEYOND: Final = "beyond-"
"""Before the names of the steps with a node that a relay leads to."""

IDENTIFY: Final = "/ipfs/id/1.0.0"
_MOST_IDENTIFY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Step:
    """How one step went. ``fault``: a stable word, empty when it went well; ``words``: what was seen."""

    name: str
    fault: str = ""
    words: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Knock:
    """What came of it. ``target``: the IP address that was tried last; ``peer``: who answered."""

    address: str
    steps: list[Step] = field(default_factory=list)
    target: str = ""
    source: str = ""
    """The address of this machine that the system would send from."""
    port: int = 0
    peer: str = ""
    agent: str = ""
    their_clock: float = 0.0
    """A moment, seconds since 1970, that had passed by the other's clock; 0: it didn't say."""
    their_latest: float = 0.0
    """A moment that had not come yet by the other's clock when this one showed it; 0: nothing is known."""
    seen_as: str = ""
    """The address that this machine has in the other's eyes: another than ``source`` behind a router."""

    @property
    def fault(self) -> str:
        """The word of the step that failed; empty when all went well."""
        return next((step.fault for step in self.steps if step.fault), "")


async def knock(
    address: str, seconds: float = STEP_SECONDS, key: bytes = b"", valid_from: float | None = None
) -> Knock:
    """Try to reach a node, see the head of this file; ``seconds`` a step. Raises nothing for what goes wrong there.

    ``key``: of the closed group that this node is in, whose members answer nobody without it. ``valid_from``: when the
    certificate shown there begins to be valid, as in ``tls.TlsTransport``.
    """
    found = Knock(address)
    try:
        asked = await _step(found, "read", seconds, lambda: _read(address))
        found.port = asked.port
        targets = await _step(found, "resolve", seconds, lambda: _resolve(asked))
    except StepFailed:
        return found
    keys = create_new_key_pair()
    caller = _Caller(seconds, key, keys, TlsTransport(keys, valid_from=valid_from))
    before = list(found.steps)
    for target in targets:
        found.steps = list(before)
        with contextlib.suppress(StepFailed):  # the step says it
            await _try(found, target, asked, caller)
            break
    return found


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who knocks: ``seconds`` for a step, the ``key`` of its group, ``keys`` of its own and its certificate."""

    seconds: float
    key: bytes
    keys: KeyPair
    transport: TlsTransport


async def _try(found: Knock, target: str, asked: Asked, caller: _Caller) -> None:
    seconds, port = caller.seconds, asked.port
    found.target = target
    found.source = await _step(found, "route", seconds, lambda: _route(target, port))
    stream = await _step(found, "tcp", seconds, lambda: _connect(target, port))
    failed: StepFailed | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                wire = await _wire(found, TcpStream(stream), asked, seconds)
                muxed = await _talk(found, RawConnection(wire, True), asked.peer, caller, nursery)
                if asked.beyond:
                    raw = await _step(found, "relay", seconds, lambda: _through(muxed, asked.beyond))
                    found.peer, found.agent, found.their_clock = "", "", 0.0
                    await _talk(found, raw, asked.beyond, caller, nursery, lead=BEYOND)
            except StepFailed as problem:  # a nursery would wrap it up
                failed = problem
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
    if failed is not None:
        raise failed


async def _wire(found: Knock, tcp: TcpStream, asked: Asked, seconds: float) -> ReadWriteCloser:
    """What the connection's bytes go over, as the address has it."""
    if not asked.web:
        return tcp
    below: ReadWriteCloser = tcp
    if asked.tls:
        below = inside = WebServerTls(tcp, asked.name or None)
        await _step(found, "web-tls", seconds, inside.handshake)
    return cast(ReadWriteCloser, await _step(found, "websocket", seconds, lambda: _web(below, asked)))


async def _web(below: ReadWriteCloser, asked: Asked) -> WebSocketStream:
    host = asked.name or (f"[{asked.host}]" if asked.family is socket.AF_INET6 else asked.host)
    try:
        return await shake_hands(below, f"{host}:{asked.port}")
    except OpenConnectionError as problem:
        raise StepFailed("websocket", str(problem)) from problem


async def _talk(
    found: Knock, raw: RawConnection, expected: str, caller: _Caller, nursery: trio.Nursery, *, lead: str = ""
) -> YamuxConn:
    """From the first byte to who answers, ``expected`` unless that is empty; ``lead`` goes before the steps' names."""
    seconds, key = caller.seconds, caller.key
    door, nonces = Door(key), b""
    if key:
        nonces = await _step(found, f"{lead}group", seconds, lambda: door.knock(raw))
    await _step(found, f"{lead}multistream", seconds, lambda: agree(raw, str(TLS)))
    session = await _step(found, f"{lead}tls", seconds, lambda: _secure(found, raw, caller.transport, expected))
    if key:
        me, other = ID.from_pubkey(caller.keys.public_key), session.get_remote_peer()
        bind = partial(door.bind, session, nonces, me, called=other, am_caller=True)
        await _step(found, f"{lead}membership", seconds, bind)
    muxed = YamuxConn(session, session.get_remote_peer())
    await _step(found, f"{lead}identify", seconds, lambda: _identify(found, session, muxed, nursery))
    return muxed


async def _through(muxed: YamuxConn, beyond: str) -> RawConnection:
    """Have the relay at the other end of ``muxed`` put a call through."""
    stream: Any = await muxed.open_stream()
    try:
        await agree(stream, HOP)
        await send(stream, encode_hop(Hop(HopKind.CONNECT, ID.from_string(beyond).to_bytes())))
        answer = decode_hop(await receive(stream))
    except OVER as problem:
        raise StepFailed("hung-up", str(problem) or "it hung up") from problem
    if answer.kind is not HopKind.STATUS or answer.status != Status.OK:
        words = status_words(answer.status)
        raise StepFailed(words.replace(" ", "-"), f"the relay answers: {words}")
    return relayed(stream, Multiaddr(f"/{CIRCUIT}/p2p/{beyond}"), initiator=True)


async def _step(found: Knock, name: str, seconds: float, act: Callable[[], Awaitable[Any]]) -> Any:
    began = time.perf_counter()
    fault, words = "", ""
    try:
        with trio.fail_after(seconds):
            value = await act()
    except StepFailed as failed:
        fault, words = failed.fault, failed.words
    except NotInGroup as stranger:
        fault, words = "group", str(stranger)
    except trio.TooSlowError:
        fault, words = "timeout", f"no answer within {seconds:g} s"
    except (IOException, RawConnError) as error:
        fault, words = "hung-up", str(error)
    except OSError as error:
        fault, words = _of_os(error), error.strerror or str(error)
    except Exception as error:  # libp2p and the parsers below raise families of their own
        fault, words = "protocol", f"{type(error).__name__}: {error}"[:200]
    else:
        words = value if isinstance(value, str) else ""
        if isinstance(value, list):
            words = ", ".join(value)
    found.steps.append(Step(name, fault, words, time.perf_counter() - began))
    if fault:
        raise StepFailed(fault, words)
    return value


def _of_os(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "protocol"
    if isinstance(error, socket.gaierror):
        return "name"
    return {
        errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.ENETUNREACH: "no-route",
        errno.EHOSTUNREACH: "no-host", errno.ETIMEDOUT: "timeout", errno.EADDRNOTAVAIL: "no-route",
        errno.EAFNOSUPPORT: "no-family", errno.EACCES: "forbidden", errno.EPERM: "forbidden", errno.EINVAL: "no-zone",
    }.get(error.errno or 0, "network")  # fmt: skip


async def _read(text: str) -> Asked:
    await trio.lowlevel.checkpoint()
    try:
        return read(text)
    except Unreadable as problem:
        raise StepFailed("address", str(problem)) from None


async def _resolve(asked: Asked) -> list[str]:
    if reach_of_ip(asked.host) is Reach.LINK and ":" in asked.host and "%" not in asked.host:
        # A node calls such a one by every cable, too: which it was heard on isn't in the address.
        hosts = [f"{asked.host}%{zone}" for zone in cables()] or [asked.host]
    else:
        hosts = [asked.host]
    rows = [
        row
        for host in hosts
        for row in await trio.socket.getaddrinfo(host, asked.port, asked.family, type=socket.SOCK_STREAM)
    ]
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return list(dict.fromkeys(socket.getnameinfo(row[4], numeric)[0] for row in rows))[:MOST_ADDRESSES]


async def _route(target: str, port: int) -> str:
    """The address this machine would send from; asks the system only: a connected UDP socket sends nothing."""
    family, where = await _numeric(target, port)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(where)
        return str(probe.getsockname()[0])


async def _numeric(target: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """What the system calls take for an IP address, its zone included."""
    rows = await trio.socket.getaddrinfo(target, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return rows[0][0], rows[0][4]


async def _connect(target: str, port: int) -> trio.SocketStream:
    family, where = await _numeric(target, port)
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _secure(found: Knock, raw: RawConnection, transport: TlsTransport, expected: str) -> TlsSession:
    pipe = TlsPipe(raw, transport.create_ssl_context(server_side=False), server_side=False)
    certificate = x509.load_der_x509_certificate(await pipe.handshake())
    _check_dates(found, certificate)
    key = verify_certificate_chain([certificate])
    remote = ID.from_pubkey(key)
    found.peer = str(remote)
    if expected and found.peer != expected:
        raise StepFailed("wrong-peer", f"{found.peer} answers there")
    return TlsSession(transport, raw, pipe, remote, key, is_initiator=True)


def _check_dates(found: Knock, certificate: x509.Certificate) -> None:
    """A certificate that isn't valid now tells of two clocks that differ, for it is made when a node starts."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.datetime.now(datetime.UTC)
    if begin > now:
        ours = (end - begin).total_seconds() == VALID_SECONDS  # other programs backdate theirs by less, or not at all
        found.their_clock = begin.timestamp() + (BACKDATED_SECONDS if ours else 0.0)
        raise StepFailed("clock", f"its certificate is valid only from {begin:%Y-%m-%d %H:%M} UTC on")
    if end < now:
        found.their_latest = end.timestamp()
        raise StepFailed("clock", f"its certificate was valid until {end:%Y-%m-%d %H:%M} UTC")


async def _identify(found: Knock, session: TlsSession, muxed: YamuxConn, nursery: trio.Nursery) -> str:
    """Who it says it is; ``muxed`` then runs in ``nursery``."""
    await agree(session, str(TProtocol(YAMUX)))
    nursery.start_soon(muxed.start)
    await muxed.event_started.wait()
    stream = await muxed.open_stream()
    await agree(stream, IDENTIFY)
    raw = b""
    while len(raw) <= _MOST_IDENTIFY:
        try:
            part = await stream.read(_MOST_IDENTIFY)
        except Exception:  # the end of a stream is an exception of libp2p's here
            break
        if not part:
            break
        raw += part
    said = parse_identify_response(raw)
    found.agent = said.agent_version[:100]
    try:
        # Beyond a relay, it is the relay's that is seen.
        found.seen_as = found.seen_as or (str(Multiaddr(said.observed_addr)) if said.observed_addr else "")
    except Exception:  # the other may say anything
        found.seen_as = ""
    try:
        _, record = consume_envelope(said.signedPeerRecord, "libp2p-peer-record")
        found.their_clock = record.seq / 1e9  # py-libp2p counts nanoseconds since 1970, as its records' numbers
    except Exception:  # no record, or another implementation's, which may number them from 1
        found.their_clock = 0.0
    return found.agent
