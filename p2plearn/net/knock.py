"""Reaching another node one step at a time, to say which step fails and why: what ``p2plearn doctor ADDRESS`` does.

    read, resolve, route, tcp, multistream, tls, identify

In a closed group there are two more: ``group`` before multistream, ``membership`` after tls.

In: an address as a person has it (a multiaddr, with or without ``/p2p/``, or ``host:port``). Out: the steps, up to the
first that failed. One TCP connection at most for each address the name stands for, until one gets through; every wait
is bounded. The key used is made for the occasion: nothing of this home is shown to who answers.
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
from typing import Any, Final

import trio
from cryptography import x509
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.envelope import consume_envelope
from libp2p.peer.id import ID
from libp2p.security.tls.certificate import verify_certificate_chain
from multiaddr import Multiaddr

from p2plearn.net.group import Door, NotInGroup
from p2plearn.net.tcp import TcpStream
from p2plearn.net.tls import BACKDATED_SECONDS, VALID_SECONDS, TlsPipe, TlsSession, TlsTransport
from p2plearn.net.tls import PROTOCOL as TLS
from p2plearn.net.yamux import PROTOCOL as YAMUX
from p2plearn.net.yamux import YamuxConn

STEP_SECONDS: Final = 6.0
"""For one step. A handshake over a bad line takes two; a port that drops what comes takes any time it is given."""

MOST_ADDRESSES: Final = 4
"""Addresses of one name that are tried."""

MULTISTREAM: Final = "/multistream/1.0.0"
IDENTIFY: Final = "/ipfs/id/1.0.0"
_MOST_LINE: Final = 1024
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


class _Failed(Exception):
    def __init__(self, fault: str, words: str) -> None:
        super().__init__(words)
        self.fault = fault
        self.words = words


async def knock(
    address: str, seconds: float = STEP_SECONDS, key: bytes = b"", valid_from: float | None = None
) -> Knock:
    """Try to reach a node, see the head of this file; ``seconds`` a step. Raises nothing for what goes wrong there.

    ``key``: of the closed group that this node is in, whose members answer nobody without it. ``valid_from``: when the
    certificate shown there begins to be valid, as in ``tls.TlsTransport``.
    """
    found = Knock(address)
    try:
        host, port, expected = await _step(found, "read", seconds, lambda: _read(address))
        found.port = port
        targets = await _step(found, "resolve", seconds, lambda: _resolve(host, port))
    except _Failed:
        return found
    keys = create_new_key_pair()
    caller = _Caller(seconds, key, keys, TlsTransport(keys, valid_from=valid_from))
    before = list(found.steps)
    for target in targets:
        found.steps = list(before)
        with contextlib.suppress(_Failed):  # the step says it
            await _try(found, target, expected, caller)
            break
    return found


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who knocks: ``seconds`` for a step, the ``key`` of its group, ``keys`` of its own and its certificate."""

    seconds: float
    key: bytes
    keys: KeyPair
    transport: TlsTransport


async def _try(found: Knock, target: str, expected: str, caller: _Caller) -> None:
    seconds, key = caller.seconds, caller.key
    found.target, port = target, found.port
    found.source = await _step(found, "route", seconds, lambda: _route(target, port))
    stream = await _step(found, "tcp", seconds, lambda: _connect(target, port))
    raw = RawConnection(TcpStream(stream), True)
    door, nonces = Door(key), b""
    try:
        if key:
            nonces = await _step(found, "group", seconds, lambda: door.knock(raw))
        await _step(found, "multistream", seconds, lambda: _agree(raw, str(TLS)))
        session = await _step(found, "tls", seconds, lambda: _secure(found, raw, caller.transport, expected))
        if key:
            me, other = ID.from_pubkey(caller.keys.public_key), session.get_remote_peer()
            await _step(
                found, "membership", seconds, lambda: door.bind(session, nonces, me, called=other, am_caller=True)
            )
        await _step(found, "identify", seconds, lambda: _identify(found, session))
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


async def _step(found: Knock, name: str, seconds: float, act: Callable[[], Awaitable[Any]]) -> Any:
    began = time.perf_counter()
    fault, words = "", ""
    try:
        with trio.fail_after(seconds):
            value = await act()
    except _Failed as failed:
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
        raise _Failed(fault, words)
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


async def _read(text: str) -> tuple[str, int, str]:
    """Host, port and peer id ("" if none is named) of an address."""
    await trio.lowlevel.checkpoint()
    if text.startswith("/"):
        try:
            address = Multiaddr(text)
            kinds = [part.name for part in address.protocols()]
            host = address.value_for_protocol(kinds[0])
            port = int(address.value_for_protocol("tcp"))
        except Exception as error:  # whatever a part's codec raises
            raise _Failed("address", f"it is no address with a TCP port: {error}") from None
        if kinds not in ([kinds[0], "tcp"], [kinds[0], "tcp", "p2p"]) or kinds[0] not in {
            "ip4", "ip6", "dns", "dns4", "dns6",
        }:  # fmt: skip
            raise _Failed("address", "only plain TCP addresses can be tried step by step")
        return str(host), port, address.get_peer_id() or ""
    host, _, word = text.rpartition(":")
    if not host or not word.isascii() or not word.isdecimal() or not 0 < int(word) < 65536:
        raise _Failed("address", "write it as /ip4/192.0.2.7/tcp/4017 or as host:port")
    return host.removeprefix("[").removesuffix("]"), int(word), ""


async def _resolve(host: str, port: int) -> list[str]:
    rows = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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


async def _greeted(conn: Any) -> None:
    """The other's greeting, which is always the same: the first byte that differs tells a stranger."""
    greeting = bytes([len(MULTISTREAM) + 1]) + MULTISTREAM.encode() + b"\n"
    at = 0
    while at < len(greeting):
        part = await _read_some(conn, len(greeting) - at)
        if part != greeting[at : at + len(part)] or (at and not part):
            raise _Failed("stranger", "what answers there is another program, not p2plearn")
        if not part:
            raise _Failed("hung-up", "it took the connection and hung up without a word")
        at += len(part)


async def _read_some(conn: Any, most: int) -> bytes:
    """Up to ``most`` bytes; empty when the other hung up, in whatever way."""
    try:
        return bytes(await conn.read(most))
    except (IOException, RawConnError, EOFError):
        return b""


async def _line(conn: Any) -> str:
    """A line of multistream-select: a length, the text, a newline."""
    length = shift = 0
    while True:
        byte = await _read_some(conn, 1)
        if not byte:
            raise _Failed("hung-up", "it hung up in the middle of agreeing on a protocol")
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
        if shift > 14:
            raise _Failed("protocol", "its answer breaks the rules of multistream-select")
    raw = b""
    while len(raw) < min(length, _MOST_LINE):
        part = await _read_some(conn, min(length, _MOST_LINE) - len(raw))
        if not part:
            raise _Failed("hung-up", "it hung up in the middle of a line")
        raw += part
    if length > _MOST_LINE or not raw.endswith(b"\n"):
        raise _Failed("protocol", "its answer breaks the rules of multistream-select")
    return raw[:-1].decode("utf-8", "replace")


async def _agree(conn: Any, protocol: str) -> None:
    """Agree on ``protocol`` by multistream-select 1.0.0."""
    for word in (MULTISTREAM, protocol):
        line = word.encode() + b"\n"
        await conn.write(bytes([len(line)]) + line)
    await _greeted(conn)
    answer = await _line(conn)
    if answer != protocol:
        raise _Failed("protocol", f"it doesn't speak {protocol}")


async def _secure(found: Knock, raw: RawConnection, transport: TlsTransport, expected: str) -> TlsSession:
    pipe = TlsPipe(raw, transport.create_ssl_context(server_side=False), server_side=False)
    certificate = x509.load_der_x509_certificate(await pipe.handshake())
    _check_dates(found, certificate)
    key = verify_certificate_chain([certificate])
    remote = ID.from_pubkey(key)
    found.peer = str(remote)
    if expected and found.peer != expected:
        raise _Failed("wrong-peer", f"{found.peer} answers there")
    return TlsSession(transport, raw, pipe, remote, key, is_initiator=True)


def _check_dates(found: Knock, certificate: x509.Certificate) -> None:
    """A certificate that isn't valid now tells of two clocks that differ, for it is made when a node starts."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.datetime.now(datetime.UTC)
    if begin > now:
        ours = (end - begin).total_seconds() == VALID_SECONDS  # other programs backdate theirs by less, or not at all
        found.their_clock = begin.timestamp() + (BACKDATED_SECONDS if ours else 0.0)
        raise _Failed("clock", f"its certificate is valid only from {begin:%Y-%m-%d %H:%M} UTC on")
    if end < now:
        found.their_latest = end.timestamp()
        raise _Failed("clock", f"its certificate was valid until {end:%Y-%m-%d %H:%M} UTC")


async def _identify(found: Knock, session: TlsSession) -> str:
    await _agree(session, str(TProtocol(YAMUX)))
    muxed = YamuxConn(session, session.get_remote_peer())
    raw = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed.start)
        await muxed.event_started.wait()
        stream = await muxed.open_stream()
        await _agree(stream, IDENTIFY)
        while len(raw) <= _MOST_IDENTIFY:
            try:
                part = await stream.read(_MOST_IDENTIFY)
            except Exception:  # the end of a stream is an exception of libp2p's here
                break
            if not part:
                break
            raw += part
        nursery.cancel_scope.cancel()
    said = parse_identify_response(raw)
    found.agent = said.agent_version[:100]
    try:
        found.seen_as = str(Multiaddr(said.observed_addr)) if said.observed_addr else ""
    except Exception:  # the other may say anything
        found.seen_as = ""
    try:
        _, record = consume_envelope(said.signedPeerRecord, "libp2p-peer-record")
        found.their_clock = record.seq / 1e9  # py-libp2p counts nanoseconds since 1970, as its records' numbers
    except Exception:  # no record, or another implementation's, which may number them from 1
        found.their_clock = 0.0
    return found.agent
