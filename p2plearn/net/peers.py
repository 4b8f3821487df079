"""Good peers, remembered across restarts: who answered, where, when, how often.

Proven are addresses that *we* dialled with success. What a peer that is connected says of itself is written, too, for
few of them and behind the proven ones: who is called more than it calls has met hardly anybody else, and would find
nobody once those few have moved. What others say of a peer is not written.
One small JSON file, replaced whole, so that a crash leaves the old one or the new one. A file that can't be read is
put aside and costs nothing but the memory: a node must start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.named_file import KnownFolder
from p2plearn.net.addresses import Reach, bare, is_relayed, reach
from p2plearn.private_files import create_private
from p2plearn.state_file import Unusable, put_aside, read_state

log = logging.getLogger("p2plearn.net")

FORMAT = 1

MAX_PEERS = 512
"""Entries kept: some 100 KB of file. More: better odds after a year away; fewer: a shorter way to a live one."""

MAX_HEARD = 64
"""Entries among them of which nothing is proven: strangers that come in numbers must not fill the book."""

HOUR = 3600.0

MAX_AGE = 45 * 86400.0
"""Seconds after which a peer that was not seen is dropped: a summer holiday and a bit."""

MAX_ADDRESSES = 4
"""Addresses kept of one peer, the latest first."""

MAX_FILE = 1_000_000
"""Bytes read; ours stay far below."""


@dataclass(slots=True)
class _Entry:
    addresses: list[str]
    last_seen: float
    successes: int = 1  # 0: it was heard, and never dialled
    failures: int = 0  # since the last success


class AddressBook:
    """See the head of this file. ``now`` is wall-clock seconds since 1970, handed in: it must outlive a restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = KnownFolder(path.parent)
        self.changed = False
        """Whether there is something to ``save``."""
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def load(cls, path: Path, now: float) -> AddressBook:
        """The book at ``path``, empty when there is none or it can't be used. Never raises. Blocks briefly."""
        book = cls(path)
        try:
            read_state(path, MAX_FILE, FORMAT, lambda document: book._read(document, now))
        except Unusable as error:
            log.warning("%s can't be used (%s) and is put aside", path, error)
            book._entries.clear()
            put_aside(path)
        return book

    def _read(self, document: Any, now: float) -> None:
        for row in document["peers"][:MAX_PEERS]:
            # A clock that was wrong must not make an entry live for ever.
            last_seen = min(float(row["last_seen"]), now)
            if not now - last_seen <= MAX_AGE:  # said this way round, it is so of NaN
                continue
            addresses = [str(Multiaddr(a)) for a in row["addresses"][:MAX_ADDRESSES] if _is_plausible(Multiaddr(a))]
            if addresses:
                name = str(ID.from_string(row["peer"]))
                self._entries[name] = _Entry(addresses, last_seen, int(row["successes"]), int(row["failures"]))

    def worked(self, peer: ID, address: Multiaddr, now: float) -> None:
        """We dialled ``peer`` at ``address``, and it was the one."""
        plain = bare(address)
        if not _is_plausible(plain):
            return
        name, text = str(peer), str(plain)
        entry = self._entries.get(name)
        if entry is None:
            self._make_room()
            self._entries[name] = _Entry([text], now)
        else:
            entry.addresses = [text, *(a for a in entry.addresses if a != text)][:MAX_ADDRESSES]
            entry.last_seen = max(entry.last_seen, now)
            entry.successes = min(entry.successes + 1, 1_000_000)
            entry.failures = 0
        self.changed = True

    def heard(self, peer: ID, addresses: Iterable[Multiaddr], now: float) -> None:
        """``peer`` is connected, and says that it can be called at ``addresses``."""
        name = str(peer)
        told = [str(plain) for plain in map(bare, addresses) if _is_plausible(plain)]
        entry = self._entries.get(name)
        if entry is None:
            if told:
                unproven = [name for name, each in self._entries.items() if not each.successes]
                if len(unproven) >= MAX_HEARD:
                    del self._entries[min(unproven, key=lambda name: self._entries[name].last_seen)]
                self._make_room()
                self._entries[name] = _Entry(told[:MAX_ADDRESSES], now, successes=0)
                self.changed = True
            return
        new = [address for address in told if address not in entry.addresses]
        if new:
            proven = entry.addresses[: MAX_ADDRESSES - 1] if entry.successes else []
            entry.addresses = [*proven, *new][:MAX_ADDRESSES]
        if new or now - entry.last_seen > HOUR:
            entry.last_seen = max(entry.last_seen, now)
            self.changed = True

    def failed(self, peer: ID) -> None:
        """``peer`` could not be reached at any of its addresses; after eight times in a row it is dropped."""
        entry = self._entries.get(str(peer))
        if entry is not None:
            entry.failures += 1
            if entry.failures >= 8:
                del self._entries[str(peer)]
            self.changed = True

    def best(self, limit: int) -> list[PeerInfo]:
        """Up to ``limit`` peers, the most promising first: few failures, proven, then seen lately."""
        ranked = sorted(
            self._entries.items(), key=lambda item: (item[1].failures, not item[1].successes, -item[1].last_seen)
        )
        return [PeerInfo(ID.from_string(n), [Multiaddr(a) for a in e.addresses]) for n, e in ranked[:limit]]

    def encode(self) -> bytes:
        """The file's bytes as of now."""
        rows = [
            {
                "peer": name,
                "addresses": entry.addresses,
                "last_seen": round(entry.last_seen),
                "successes": entry.successes,
                "failures": entry.failures,
            }
            for name, entry in list(self._entries.items())
        ]
        return json.dumps({"format": FORMAT, "peers": rows}, indent=1).encode()

    def save(self) -> None:
        """Replace the file, durably; raises OSError. Blocks on the disk: not for the event loop."""
        self.changed = False
        try:
            create_private(self.path, self.encode(), replace=True, within=self._folder)
        except OSError:
            self.changed = True
            raise

    def _make_room(self) -> None:
        if len(self._entries) >= MAX_PEERS:
            # The one that answered least lately; with failures, or of which nothing is proven, first.
            def badness(name: str) -> tuple[int, bool, float]:
                entry = self._entries[name]
                return entry.failures, not entry.successes, -entry.last_seen

            del self._entries[max(self._entries, key=badness)]


def _is_plausible(address: Multiaddr) -> bool:
    """Whether ``address`` may mean the same after a restart: not link-local ones or places at relays."""
    return reach(address) not in (Reach.NONE, Reach.LINK) and not is_relayed(address)
