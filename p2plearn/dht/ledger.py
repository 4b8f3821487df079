"""Who holds which unit, as far as receipts say. Sans-IO.

One ``Entry`` for each unit that this node holds; what is said of other units is passed over, so that memory is bounded
by what this node keeps. Merging is idempotent and takes receipts in any order.

What a heartbeat asks (who is in the circle, the digest of what is shared with one node) costs nothing while nothing
changes, however many units there are: which units each node holds is kept beside the entries, and each digest until
one of its units changes.

Imports ``dht.custody``, ``dht.receipts``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.receipts import Receipt, copies_asked, sign_receipt

MOST_NODES: Final = 64
"""Nodes remembered for a unit, those that are gone included; twice the most copies that can be asked for."""


@dataclass(slots=True)
class Entry:
    """A unit that this node holds: its bytes, and the newest receipt of each node about it."""

    size: int
    receipts: dict[Node, Receipt] = field(default_factory=dict)
    disproved: set[Node] = field(default_factory=set)
    """Nodes that could not show what their receipt says; they don't count until they have shown it."""
    author: bytes = b""
    """Whose wish decides how many copies there shall be: the course's author's key."""

    @property
    def wish(self) -> Receipt | None:
        """The author's newest wish; None where none is known."""
        return self.receipts.get(self.author)

    @property
    def copies(self) -> int:
        """Copies asked for."""
        return copies_asked(self.receipts, self.author, 1)

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
        self.is_gone: Callable[[Node], bool] = lambda _: False
        """Whether a node has been away for so long that its copies count no more."""
        self._entries: dict[Unit, Entry] = {}
        self._held_by: dict[Node, set[Unit]] = {}
        """For each node the units of which its newest receipt here says that it holds them."""
        self._digests: dict[Node, bytes] = {}

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._entries

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, unit: Unit) -> Entry | None:
        """What is known of a unit; None unless this node holds it."""
        return self._entries.get(unit)

    def state(  # noqa: PLR0917 - the fields of a receipt, in their order
        self, unit: Unit, size: int, copies: int, holds: bool, now: int, author: bytes = b""
    ) -> Receipt:
        """A new receipt of this node's own, ``now`` in milliseconds since 1970; enters it, or lets the unit go.

        ``author`` of the course, for a unit that is new here.
        """
        entry = self._entries.get(unit)
        before = entry.receipts.get(self.me) if entry is not None else None
        time = max(now, before.time + 1 if before is not None else 0)
        receipt = sign_receipt(unit, self.me, time, copies, holds, self._sign)
        if holds:
            self._put(unit, self._entries.setdefault(unit, Entry(size, author=author)), receipt)
        elif entry is not None:
            self._changed(entry)
            for node in entry.receipts:
                self._no_holder(unit, node)
            del self._entries[unit]
        return receipt

    def _put(self, unit: Unit, entry: Entry, receipt: Receipt) -> None:
        """Enter a receipt, the newest of its node about a unit."""
        self._changed(entry)
        entry.receipts[receipt.node] = receipt
        if receipt.holds:
            self._held_by.setdefault(receipt.node, set()).add(unit)
            self._digests.pop(receipt.node, None)
        else:
            self._no_holder(unit, receipt.node)

    def _changed(self, entry: Entry) -> None:
        """What is shared with the nodes of an entry is about to be something else."""
        for node in entry.receipts:
            self._digests.pop(node, None)

    def _no_holder(self, unit: Unit, node: Node) -> None:
        held = self._held_by.get(node)
        if held is not None:
            held.discard(unit)
            if not held:
                del self._held_by[node]

    def restore(self, unit: Unit, size: int, receipts: Iterable[Receipt], author: bytes = b"") -> None:
        """Take back what was kept of a unit of a course of ``author``'s across a restart."""
        entry = self._entries.setdefault(unit, Entry(size, author=author))
        for receipt in receipts:
            self._put(unit, entry, receipt)

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
            full = known is None and receipt.node != entry.author and len(entry.receipts) >= MOST_NODES
            if full and not self._makes_room(entry, receipt):
                continue
            self._put(receipt.unit, entry, receipt)
            if not receipt.holds:
                entry.disproved.discard(receipt.node)  # now it says so itself
            news.append(receipt)
        return news

    def _makes_room(self, entry: Entry, receipt: Receipt) -> bool:
        """Forget somebody who doesn't count, so that another is remembered; False if there is nobody.

        Who no longer holds the unit goes first, then who is gone, of each the one heard last the longest ago: all who
        see the same nodes gone remember the same others, in whatever order they heard of them.
        """
        useless = [
            each
            for each in (*entry.receipts.values(), receipt)
            if each.node not in {self.me, entry.author} and (not each.holds or self.is_gone(each.node))
        ]
        first = min(useless, key=lambda each: (each.holds, each.time, each.node), default=receipt)
        if first is receipt:
            return False
        self._changed(entry)
        self._no_holder(first.unit, first.node)
        del entry.receipts[first.node]
        entry.disproved.discard(first.node)
        return True

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
        """Every other node that holds something that this one holds, unless it was found not to."""
        return {
            node
            for node, units in self._held_by.items()
            if node != self.me and any(node not in self._entries[unit].disproved for unit in units)
        }

    def shared(self, node: Node) -> list[Receipt]:
        """All receipts about units that both hold, in one order for both."""
        return [
            entry.receipts[each]
            for unit in sorted(self._held_by.get(node, ()))
            for entry in (self._entries[unit],)
            for each in sorted(entry.receipts)
        ]

    def digest(self, node: Node) -> bytes:
        """16 bytes that are the same at both ends when both know the same about what they share."""
        known = self._digests.get(node)
        if known is None:
            digest = hashlib.sha256()
            for receipt in self.shared(node):
                digest.update(receipt.encode())
            known = digest.digest()[:16]
            if node in self._held_by:
                self._digests[node] = known
        return known
