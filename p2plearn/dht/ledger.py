"""Who holds which unit, as far as receipts say. Sans-IO.

One ``Entry`` for each unit that this node holds; what is said of other units is passed over, so that memory is bounded
by what this node keeps. Merging is idempotent and takes receipts in any order.

Imports ``dht.custody``, ``dht.receipts``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.receipts import Receipt, sign_receipt

MOST_NODES: Final = 64
"""Nodes remembered for a unit; twice the most copies that can be asked for."""


@dataclass(slots=True)
class Entry:
    """A unit that this node holds: its bytes, and the newest receipt of each node about it."""

    size: int
    receipts: dict[Node, Receipt] = field(default_factory=dict)
    disproved: set[Node] = field(default_factory=set)
    """Nodes that could not show what their receipt says; they don't count until they have shown it."""

    @property
    def copies(self) -> int:
        """Copies asked for: the most that any holder was asked for."""
        return max((receipt.copies for receipt in self.receipts.values() if receipt.holds), default=1)

    @property
    def holders(self) -> frozenset[Node]:
        """Nodes whose receipt says that they hold it, and that haven't been found not to."""
        return frozenset(
            node for node, receipt in self.receipts.items() if receipt.holds and node not in self.disproved
        )


class Ledger:
    """The receipts about all units that ``me`` holds. ``sign`` signs in its name."""

    def __init__(self, me: Node, sign: Callable[[bytes], bytes]) -> None:
        self.me = me
        self._sign = sign
        self._entries: dict[Unit, Entry] = {}

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._entries

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, unit: Unit) -> Entry | None:
        """What is known of a unit; None unless this node holds it."""
        return self._entries.get(unit)

    def state(self, unit: Unit, size: int, copies: int, holds: bool, now: int) -> Receipt:
        """A new receipt of this node's own, ``now`` in milliseconds since 1970; enters it, or lets the unit go."""
        entry = self._entries.get(unit)
        before = entry.receipts.get(self.me) if entry is not None else None
        time = max(now, before.time + 1 if before is not None else 0)
        receipt = sign_receipt(unit, self.me, time, copies, holds, self._sign)
        if holds:
            entry = self._entries.setdefault(unit, Entry(size))
            entry.receipts[self.me] = receipt
        else:
            self._entries.pop(unit, None)
        return receipt

    def restore(self, unit: Unit, size: int, receipts: Iterable[Receipt]) -> None:
        """Take back what was kept of a unit across a restart."""
        entry = self._entries.setdefault(unit, Entry(size))
        for receipt in receipts:
            entry.receipts[receipt.node] = receipt

    def merge(self, receipts: Iterable[Receipt]) -> list[Receipt]:
        """Take in what others say; returns what was news. This node's own statements come from itself alone."""
        news = []
        for receipt in receipts:
            entry = self._entries.get(receipt.unit)
            if entry is None or receipt.node == self.me:
                continue
            known = entry.receipts.get(receipt.node)
            if known is not None and known.time >= receipt.time:
                continue
            if known is None and len(entry.receipts) >= MOST_NODES:
                gone = next((node for node, each in entry.receipts.items() if not each.holds), None)
                if gone is None:
                    continue
                del entry.receipts[gone]
            entry.receipts[receipt.node] = receipt
            if not receipt.holds:
                entry.disproved.discard(receipt.node)  # now it says so itself
            news.append(receipt)
        return news

    def denials(self, receipts: Iterable[Receipt], now: int) -> list[Receipt]:
        """Receipts that say that this node does not hold what it is said to: its disk was lost, its word wasn't."""
        return [
            sign_receipt(
                receipt.unit, self.me, max(now, receipt.time + 1), receipt.copies, False, self._sign
            )
            for receipt in receipts
            if receipt.node == self.me and receipt.holds and receipt.unit not in self._entries
        ]  # fmt: skip

    def circle(self) -> set[Node]:
        """Every other node that holds something that this one holds."""
        return {node for entry in self._entries.values() for node in entry.holders} - {self.me}

    def shared(self, node: Node) -> list[Receipt]:
        """All receipts about units that both hold, in one order for both."""
        return [
            entry.receipts[each]
            for unit in sorted(self._entries)
            if (entry := self._entries[unit]).receipts.get(node) is not None and entry.receipts[node].holds
            for each in sorted(entry.receipts)
        ]

    def digest(self, node: Node) -> bytes:
        """16 bytes that are the same at both ends when both know the same about what they share."""
        digest = hashlib.sha256()
        for receipt in self.shared(node):
            digest.update(receipt.encode())
        return digest.digest()[:16]
