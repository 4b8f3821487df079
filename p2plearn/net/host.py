"""The libp2p host of a node, put together from our parts and libp2p's.

In: a key, addresses to listen on, the limits. Out: a host that speaks TLS 1.3 (Noise for those who can't) and yamux,
and nothing else: never plaintext, never SECIO, never mplex.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from libp2p import generate_peer_id_from
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.custom_types import TMuxerOptions, TProtocol, TSecurityOptions
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from p2plearn.net.addresses import Reach, list_interfaces, reach
from p2plearn.net.course_host import CourseHost, course_host
from p2plearn.net.group import Door, GroupUpgrader
from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.reach.websocket import WebSocketTransport
from p2plearn.net.tcp import TcpTransport
from p2plearn.net.tls import PROTOCOL as TLS
from p2plearn.net.tls import TlsTransport
from p2plearn.net.yamux import PROTOCOL as YAMUX
from p2plearn.net.yamux import YamuxConn

NEGOTIATE_SECONDS: Final = 10
"""To agree on a protocol for a stream; libp2p's default is 30."""


class _YamuxOnly(MuxerMultistream):
    """Agrees on yamux and builds our class; libp2p's own builds its stock class whatever it was given."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        return self._annotate_connection(YamuxConn(conn, peer_id), conn, protocol)


def key_pair(seed: bytes) -> KeyPair:
    """libp2p's pair for a 32-byte Ed25519 private key."""
    return create_new_key_pair(seed)


def build_host(keys: KeyPair, limits: ConnectionLimits | None = None, group_key: bytes = b"") -> CourseHost:
    """A host that isn't listening yet (``async with host.run(addrs)`` does that), and never dials on its own account.

    With ``group_key`` (32 bytes) it is in a closed group: every connection passes the group's door first, and then
    speaks TLS alone. Guard it (``guard.guard_streams``) before it runs.
    """
    muxers: TMuxerOptions = {TProtocol(YAMUX): YamuxConn}
    if group_key:
        local = generate_peer_id_from(keys)
        secure: TSecurityOptions = {TLS: TlsTransport(keys)}
        upgrader: TransportUpgrader = GroupUpgrader(Door(group_key), local, secure, muxers, NEGOTIATE_SECONDS)
    else:
        noise = NoiseTransport(keys, noise_privkey=new_x25519_key_pair().private_key)
        upgrader = TransportUpgrader({TLS: TlsTransport(keys), NOISE: noise}, muxers, NEGOTIATE_SECONDS)
    upgrader.muxer_multistream = _YamuxOnly({TProtocol(YAMUX): YamuxConn}, NEGOTIATE_SECONDS)
    host = course_host(keys, upgrader, TcpTransport(), limits=limits, addrs_factory=reachable)
    host.get_network().transport_manager.add_transport(WebSocketTransport())
    return host


def reachable(listening: Sequence[Multiaddr]) -> list[Multiaddr]:
    """The addresses others can dial, the farthest-reaching first: wildcards become this machine's addresses.

    Loopback stays only where it was asked for by itself, or where there is nothing else. Link-local IPv6 is left out:
    it means nothing without a zone.
    """
    own = [ipaddress.ip_address(text) for text in list_interfaces()]
    own = [address for address in own if not (address.version == 6 and address.is_link_local)]
    found = dict.fromkeys(Multiaddr(text) for addr in listening for text in _expand(str(addr), own))
    outward = [addr for addr in found if reach(addr) > Reach.LOOPBACK]
    named = [addr for addr in listening if reach(addr) == Reach.LOOPBACK]
    return sorted(dict.fromkeys([*outward, *named]) if outward else found, key=reach, reverse=True)


def _expand(addr: str, own: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> Iterator[str]:
    for version, wildcard in ((4, "/ip4/0.0.0.0/"), (6, "/ip6/::/")):
        if addr.startswith(wildcard):
            rest = addr.removeprefix(wildcard)
            mine = [ip for ip in own if ip.version == version]
            outward = [ip for ip in mine if not ip.is_loopback]
            yield from (f"/ip{version}/{ip}/{rest}" for ip in outward or mine)
            return
    yield addr
