"""The ledger's indexes: whatever happens, circle, shared receipts and digests are what the entries themselves say."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.custody import Unit
from p2plearn.dht.ledger import Entry, Ledger
from p2plearn.dht.receipts import Receipt

NODES = [bytes([number]) * 32 for number in range(5)]
UNITS = [Unit(bytes([number]) * 32, segment) for number in range(3) for segment in range(2)]
ME = NODES[0]

Event = tuple[int, Unit, bytes, int, bool]


def entries(ledger: Ledger) -> dict[Unit, Entry]:
    return {unit: entry for unit in ledger if (entry := ledger.entry(unit)) is not None}


def digest(ledger: Ledger, node: bytes) -> bytes:
    """As docs/protocol.md has it: of all receipts about units that both hold, in order of unit and node."""
    told = hashlib.sha256()
    for _, entry in sorted(entries(ledger).items(), key=lambda each: each[0]):
        if node in entry.receipts and entry.receipts[node].holds:
            for each in sorted(entry.receipts):
                told.update(entry.receipts[each].encode())
    return told.digest()[:16]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(UNITS), st.sampled_from(NODES), st.integers(1, 9), st.booleans()),
        max_size=60,
    )
)
def test_what_is_kept_beside_the_entries_follows_them(events: list[Event]) -> None:
    ledger = Ledger(ME, lambda _: bytes(64))
    for what, unit, node, time, holds in events:
        entry = ledger.entry(unit)
        if what < 3:
            ledger.state(unit, 9, 3, holds, time)
        elif what < 4:
            ledger.restore(unit, 9, [Receipt(unit, node, time, 3, holds, bytes(64))])
        elif what < 9:
            ledger.merge([Receipt(unit, node, time, 3, holds, bytes(64))])
        elif entry is not None and node in entry.receipts:
            (entry.disproved.add if holds else entry.disproved.discard)(node)
        held = entries(ledger).values()
        assert ledger.circle() == {each for entry in held for each in entry.holders} - {ME}
        for each in NODES:
            assert ledger.digest(each) == digest(ledger, each)
