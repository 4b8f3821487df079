"""Who provides what, as other nodes told us: bounded, and honest about age. (``remembered`` keeps it over a restart.)

The stock store keeps records for 48 h, stores what a lookup found with a fresh time stamp (so that two nodes keep a
dead provider alive between them), takes any number of keys from anyone, and once a key has 20 providers it refuses new
ones while the 20 die. Here a record is only what its provider said itself, for ``TTL`` seconds; the oldest makes room
for the newest; a peer has a share, so that one can't push out the records of all others.

Imports only libp2p and ``net.addresses``.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from libp2p.abc import IHost
from libp2p.kad_dht.provider_store import ProviderRecord, ProviderStore
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.net.addresses import MAX_ADDRESSES

TTL = 25 * 3600.0
"""Seconds for which a record counts: twice the 12 h after which a provider repeats itself, and an hour. Longer: more
providers that are gone; shorter: a provider that slept over one repetition is forgotten."""

MAX_PER_KEY = 128
"""Providers kept of one course. With 40, as many identities that claim a course pushed out everybody who has it."""

MAX_PER_PEER = 10_000
"""Courses kept of one provider ..."""

MAX_RECORDS = 100_000
"""... and records in all: some 60 MB."""

ANSWERED = 20
"""Providers in one answer ..."""

NEWEST = 10
"""... of these the newest; the others by chance, so that who says it again and again can't hide the rest, and the last
to come don't carry all the load."""


class CourseProviderStore(ProviderStore):
    """See the head of this file."""

    def __init__(self, host: IHost, peer_routing: object) -> None:
        super().__init__(host, peer_routing)
        self._of_peer: Counter[str] = Counter()
        self.changed = False
        """Whether there is something to write down."""

    def add_provider(self, key: bytes, provider: PeerInfo) -> None:
        """Record that ``provider`` (which said so itself) has ``key``; past a limit the record is dropped."""
        self.restore(key, provider, time.time())

    def restore(self, key: bytes, provider: PeerInfo, told_at: float) -> None:
        """As ``add_provider`` of what was said at ``told_at``, by the wall clock; the oldest are to come first."""
        name = str(provider.peer_id)
        records = self.providers.get(key, {})
        if name not in records:
            if self._of_peer[name] >= MAX_PER_PEER or self._of_peer.total() >= MAX_RECORDS:
                return
            if len(records) >= MAX_PER_KEY:
                self._remove(key, min(records, key=lambda n: records[n].timestamp))
            self._of_peer[name] += 1
        # Taken out first, so that a dict's order is the order of the last word heard.
        records.pop(name, None)
        records[name] = ProviderRecord(PeerInfo(provider.peer_id, provider.addrs[:MAX_ADDRESSES]), told_at)
        self.providers[key] = records
        self.changed = True

    def get_providers(self, key: bytes) -> list[PeerInfo]:
        """``ANSWERED`` providers of ``key`` that still count: the newest first, then some of the others."""
        oldest = time.time() - TTL
        fresh = [r for r in reversed(self.providers.get(key, {}).values()) if r.timestamp >= oldest]
        if len(fresh) > ANSWERED:
            fresh[NEWEST:] = random.sample(fresh[NEWEST:], ANSWERED - NEWEST)
        return [PeerInfo(r.peer_id, r.addresses) for r in fresh]

    def cleanup_expired(self) -> None:
        """Drop the records that no longer count."""
        oldest = time.time() - TTL
        for key in list(self.providers):
            for name, record in list(self.providers[key].items()):
                if record.timestamp < oldest:
                    self._remove(key, name)

    def forget(self, key: bytes, peer: str) -> None:
        """Drop the record that ``peer`` has ``key``, if there is one."""
        if peer in self.providers.get(key, {}):
            self._remove(key, peer)

    def _remove(self, key: bytes, name: str) -> None:
        self.changed = True
        del self.providers[key][name]
        self._of_peer[name] -= 1
        if not self._of_peer[name]:
            del self._of_peer[name]
        if not self.providers[key]:
            del self.providers[key]
