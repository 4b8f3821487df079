"""Records of who provides what, kept across restarts.

Providers repeat themselves every twelve hours and don't tell again a peer that confirmed: a node that came back with
nothing would answer for hours that nobody has a course. Where it is the one that newcomers ask first, that is what they
believe. So the records are written down, the newest ``KEPT``, and count after a restart for as long as they had left.

One JSON file, replaced whole, so that a crash leaves the old one or the new one (and costs the records of the last
``SAVE_SECONDS``). A file that can't be read is passed over: a node must start.

Imports ``dht.kademlia``, ``dht.providers``, ``net.addresses``, ``named_file``, ``state_file``, ``store.durable`` and
libp2p's types.
"""

from __future__ import annotations

import heapq
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio
from libp2p.kad_dht.provider_store import ProviderRecord
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.dht.kademlia import course_of, key_of
from p2plearn.dht.providers import TTL, CourseProviderStore
from p2plearn.named_file import KnownFolder
from p2plearn.net.addresses import Reach, reach
from p2plearn.state_file import Unusable, read_state
from p2plearn.store.durable import write_atomic

log = logging.getLogger("p2plearn.dht")

FORMAT: Final = 1

KEPT: Final = 20_000
"""Records written, the newest: some 2 MB, and what a node holds of 1,000 nodes with 1,000 courses each. More: a longer
write every few minutes."""

ADDRESSES: Final = 4
"""Addresses written of one provider, the latest of its words."""

MAX_FILE: Final = 32_000_000
"""Bytes read; ours stay below, also when each record is another peer's."""

SAVE_SECONDS: Final = 300.0
"""Between two writes, where something changed. Longer: a crash forgets more; shorter: more wear on the disk."""


class RememberedRecords:
    """The file at ``path``, for the records in ``records``."""

    def __init__(self, path: Path, records: CourseProviderStore) -> None:
        self._path = path
        self._folder = KnownFolder(path.parent)
        self._records = records

    def load(self) -> None:
        """Take back what was saved and still counts. Blocks briefly; never raises."""
        try:
            rows = read_state(self._path, MAX_FILE, FORMAT, lambda document: _read(document, time.time()))
        except Unusable as error:
            log.warning("%s can't be used (%s); providers tell again within hours", self._path, error)
            return
        for told_at, key, provider in rows or ():
            self._records.restore(key, provider, told_at)
        self._records.changed = False

    async def run(self) -> None:
        """Save every now and then until cancelled, and once more at the end."""
        try:
            while True:
                await trio.sleep(SAVE_SECONDS)
                await self.save()
        finally:
            with trio.CancelScope(shield=True):
                await self.save()

    async def save(self) -> None:
        """Write the records down, if there are others than last time. Never raises OSError."""
        if not self._records.changed:
            return
        self._records.changed = False
        # References alone: a record is never changed, but replaced.
        rows = [(key, record) for key, each in self._records.providers.items() for record in each.values()]
        try:
            await trio.to_thread.run_sync(self._write, rows)
        except OSError as error:
            self._records.changed = True
            log.warning("can't write %s: %s", self._path, error)

    def _write(self, rows: Sequence[tuple[bytes, ProviderRecord]]) -> None:
        newest = heapq.nlargest(KEPT, rows, key=lambda row: row[1].timestamp)
        peers: dict[str, dict[str, Any]] = {}
        for key, record in newest:
            course = course_of(key)
            if course is not None:  # records of other keys aren't written
                name = str(record.peer_id)
                if name not in peers:
                    peers[name] = {"peer": name, "addresses": _lasting(record.addresses), "courses": {}}
                peers[name]["courses"][course.hex()] = round(record.timestamp)
        raw = json.dumps({"format": FORMAT, "peers": list(peers.values())}).encode()
        write_atomic(self._path, [raw], within=self._folder)


def _lasting(addresses: Sequence[Multiaddr]) -> list[str]:
    """Those that may mean the same after a restart: not link-local ones, which are good on one cable."""
    return [str(each) for each in addresses if reach(each) not in {Reach.NONE, Reach.LINK}][:ADDRESSES]


def _read(document: Any, now: float) -> list[tuple[float, bytes, PeerInfo]]:
    """When it was told, key and provider of each record that still counts, oldest first.

    For ``read_state``: raises anything for what we didn't write.
    """
    rows: list[tuple[float, bytes, PeerInfo]] = []
    for row in document["peers"][:KEPT]:
        addresses = [Multiaddr(text) for text in _lasting([Multiaddr(text) for text in row["addresses"][:ADDRESSES]])]
        provider = PeerInfo(ID.from_string(row["peer"]), addresses)
        for text, seconds in row["courses"].items():
            course = bytes.fromhex(text)
            # A clock that was ahead must not make a record live longer than others.
            told_at = min(float(seconds), now)
            if len(course) == 32 and now - told_at < TTL:
                rows.append((told_at, key_of(course), provider))
    rows.sort(key=lambda row: row[0])
    return rows[-KEPT:]
