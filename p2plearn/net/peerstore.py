"""libp2p's peerstore with bounds, and with word of what identify finds.

- An older but validly signed record is no offence. The stock store answers False for it, and its callers drop the
  provider, or the whole stream, that carried it; here the newer one is kept and the answer is True.
- One identify message may carry a thousand addresses and a megabyte of protocol names; here both are capped.
- Of more peers than it keeps the stock store drops first who has no address, which is this node itself, its keys with
  it: a thousand made-up names in answers, and it can sign nothing more. Here it stays, and names that nobody but others
  spoke of go before those that identify knows.
- Addresses of a connected peer expire after two minutes (``connect`` sets that time for the whole peer), so others
  stop hearing of it; here a time to live never shrinks.
- A peer across the network that names loopback or link-local addresses, its own or others', would have us knock at our
  own doors: what is heard of peers is held against how far away it was said (``heard_over``).
- Whoever asks is told when a peer's protocols become known: that is how an inbound peer gets into the routing table.

Imports only libp2p and ``addresses``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar

from libp2p.peer.envelope import Envelope
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore, _peer_record_signer_matches
from multiaddr import Multiaddr

from p2plearn.net.addresses import MAX_ADDRESSES, Reach, believable, reach

MAX_PEERS = 1024
"""Peers remembered in memory ..."""

ROOM_MADE = MAX_PEERS // 8
"""... and of these so many go at once when there are more: each going looks at them all."""

MAX_PROTOCOLS = 64
"""Protocol names kept of one peer (a full libp2p node has about thirty) ..."""

MAX_PROTOCOL_LENGTH = 140
"""... and how long one may be, in characters: the multistream convention."""

MIN_TTL = 3600
"""Seconds for which an address is good at least."""


heard_over: ContextVar[Reach | None] = ContextVar("heard_over", default=None)
"""How far the connection reaches over which a peer is speaking to the task at hand; None: the words are our own."""


class CoursePeerStore(PeerStore):
    """See the head of this file. ``told`` are called with each peer whose protocols were set; they must not raise."""

    def __init__(self) -> None:
        super().__init__(max_records=MAX_PEERS, max_peers=MAX_PEERS)
        self.told: list[Callable[[ID], None]] = []

    def consume_peer_record(self, envelope: Envelope, ttl: int) -> bool:
        """Keep a signed record if it is the newest; False only if its signer is not the peer that it speaks of."""
        if not _peer_record_signer_matches(envelope):
            return False
        record = envelope.record()
        known = self.peer_record_map.get(record.peer_id)
        if known is not None and known.seq > record.seq:
            return True
        stored: bool = super().consume_peer_record(envelope, max(ttl, MIN_TTL))
        self._enforce_record_limit()
        return stored

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        """Add what can be dialled, up to ``MAX_ADDRESSES`` a peer; the newest win."""
        known = self.peer_data_map.get(peer_id)
        if known is not None and known.is_expired():
            known.clear_addrs()
        longest = max(ttl, MIN_TTL, 0 if known is None else known.get_ttl())
        told = heard_over.get()
        usable = [a for a in addrs[:64] if reach(a) > Reach.NONE] if told is None else believable(addrs[:64], told)
        super().add_addrs(peer_id, usable, longest)
        entry = self.peer_data_map.get(peer_id)
        if entry is not None and len(entry.addrs) > MAX_ADDRESSES:
            del entry.addrs[: len(entry.addrs) - MAX_ADDRESSES]

    def add_protocols(self, peer_id: ID, protocols: Sequence[str]) -> None:
        """Set what ``peer_id`` speaks (callers clear it first), capped, and tell those who asked."""
        short = [p for p in protocols[:MAX_PROTOCOLS] if len(p) <= MAX_PROTOCOL_LENGTH]
        super().set_protocols(peer_id, short)
        for tell in self.told:
            tell(peer_id)

    def _enforce_peer_limit(self) -> None:
        """Forget who is of least use, the longest known of them first; never this node itself."""
        if len(self.peer_data_map) <= self.max_peers:
            return

        def use(peer: ID) -> tuple[bool, bool, bool, bool]:
            entry = self.peer_data_map[peer]
            # Protocols are known of who is connected and has told them.
            identified = bool(entry.get_protocols())
            return entry.privkey is not None, identified, not entry.is_expired(), bool(entry.get_addrs())

        for peer in sorted(self.peer_data_map, key=use)[: len(self.peer_data_map) - self.max_peers + ROOM_MADE]:
            if self.peer_data_map[peer].privkey is None:
                self.peer_record_map.pop(peer, None)
                del self.peer_data_map[peer]

    def addresses(self, peer_id: ID) -> list[Multiaddr]:
        """The good addresses of ``peer_id``, empty when there are none: never raises."""
        entry = self.peer_data_map.get(peer_id)
        return [] if entry is None or entry.is_expired() else list(entry.get_addrs())

    def speaks(self, peer_id: ID, protocol: str) -> bool | None:
        """Whether ``peer_id`` speaks ``protocol``; None while identify has not told."""
        entry = self.peer_data_map.get(peer_id)
        if entry is None or not entry.get_protocols():
            return None
        return protocol in entry.get_protocols()
