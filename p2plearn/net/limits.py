"""⊙ What one peer, one address and all of them together may take of this node: every cap in one place, with its reason.

Too high and a few hostile machines fill a laptop; too low and a school behind one router, or a node of many courses,
is taken for an attack. What the caps add up to at worst, with every place taken by somebody who fills it and reads
nothing: ``StreamLimits.total`` windows of 256 KiB, 128 MiB, and some 20 MiB of connections.

Bytes of courses are limited by who asked for them (``transfer``), sizes of messages by each protocol's decoder.

Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections: how many are kept, how fast they may come and be made, how long they may take to begin."""

    total: int = 256  # a laptop serving a school; a Kademlia node of a large network needs some 100; 60 KB each
    for_own_calls: int = 64  # of these: else whoever calls us first decides whether we can call anybody
    per_peer: int = 3  # both may dial at once, and a stale one may linger; past it the oldest goes
    per_ip: int = 64  # inbound ones of one address: a school behind one router has as many
    pending: int = 64  # handshakes under way: each costs a key exchange, and a stalled one 10 s of a place ...
    pending_per_ip: int = 16  # ... so one address (a school behind one router) may not take them all
    arrivals_burst: int = 128  # connections begun from one address at once: a lesson starts
    arrivals_per_second: float = 4.0  # and from then on: 3 ms of key exchange each, so 1 % of a core an address
    dials_burst: int = 256  # dials at once: a lookup among strangers, 20 peers of some addresses each
    dials_per_second: float = 32.0  # and from then on; those over it wait for their turn
    dials_per_ip_burst: int = 24  # of these to one address: nobody's list of peers makes us knock at one door ...
    dials_per_ip_per_second: float = 0.5  # ... faster than a person would notice
    upgrade_timeout: float = 10.0  # a handshake over a bad line takes 2 s; an attacker's takes for ever
    negotiate_timeout: float = 10.0  # for the protocol name at the head of a stream
    spare_loopback: bool = True  # caps per address don't hold for this machine itself: who is here can do worse


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Streams and requests (one stream is one request, or one conversation) that peers open towards us.

    A stream costs some 10 KB and, once read from, its window (256 KiB).
    """

    per_peer: int = 48  # a getter opens a handful, plus identify, ping and DHT: 48 is ten times that
    per_ip: int = 256  # half of all: a school behind one router may take no more; this machine is spared
    total: int = 512  # what a laptop's memory stands at full windows
    protocol_per_peer: dict[str, int] = field(
        default_factory=lambda: {
            "/ipfs/id/1.0.0": 4,
            "/ipfs/id/push/1.0.0": 4,
            "/ipfs/ping/1.0.0": 2,
            "/libp2p/autonat/1.0.0": 2,
            "/libp2p/dcutr": 2,
            "/libp2p/circuit/relay/0.2.0/hop": 16,  # a call each; how many are served at all, lending decides
            "/libp2p/circuit/relay/0.2.0/stop": 16,
            "/p2plearn/kad/1.0.0": 16,  # a lookup of each of its own courses at once, paced by the asker
        }
    )
    protocol_total: dict[str, int] = field(
        default_factory=lambda: {"/p2plearn/kad/1.0.0": 64, "/libp2p/autonat/1.0.0": 16}
    )
    seconds: dict[str, float] = field(
        default_factory=lambda: {
            "/ipfs/id/1.0.0": 20.0,  # a few KB one way; libp2p waits for ever for who doesn't read them
            "/ipfs/id/push/1.0.0": 20.0,
            "/p2plearn/kad/1.0.0": 60.0,  # many questions may come on one stream
        }
    )
    """For a whole conversation. Protocols that may last have deadlines of their own."""
    requests_burst: int = 256  # streams opened by one peer at once: a node of 50 courses comes back to the network
    requests_per_second: float = 32.0  # and from then on: each costs us about a millisecond
    flood_slack: int = 64  # streams over a limit before each further one counts as flooding


FLOOR_BYTES: Final = 512
FLOOR_SECONDS: Final = 10.0
"""Of a message that has begun so many bytes must come in any so many seconds, or its rest: 50 bytes a second is slower
than any line, and who sends a byte in ten seconds wants nothing but the place."""

MAX_STREAMS: Final = 256
"""Streams open at once in one connection, from each side; what is beyond is reset. (``StreamLimits`` is stricter, but
asked a moment later.)"""

MAX_CONTROL: Final = 64 * 1024
"""Control frames waiting to be written; a peer that makes us queue more isn't reading, and is cut."""

MAX_STRAY: Final = 16 * 1024 * 1024
"""Bytes that a peer may send to streams that are gone (it can't know yet) between two keepalives."""

FRAMES_BURST: Final = 20_000
FRAMES_PER_SECOND: Final = 2_000.0
"""Frames that a peer may send beyond those that carry something: one is earned by each ``BYTES_A_FRAME`` of payload
that it sends, or that we send it and it acknowledges. A frame costs us some ten microseconds, so 2 % of a core."""

BYTES_A_FRAME: Final = 128

SYN_FRAMES: Final = 50
"""Frames that opening a stream counts for: it costs as much. So 400 at once and 40 a second, which is beyond what
``StreamLimits`` grants; those refuse each stream by itself, this ends a storm of them."""

KEEPALIVE_SECONDS: Final = 30.0
"""Between two pings; when nothing at all came from one to the next, the peer is gone."""

LINGER_SECONDS: Final = 60.0
"""A stream that we closed and the peer didn't is reset after this."""
