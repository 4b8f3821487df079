"""Whom a node remembers of a unit when there are more than it can."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht import ledger as ledgers
from p2plearn.dht.custody import Unit
from p2plearn.dht.ledger import Ledger
from p2plearn.dht.receipts import Receipt

UNIT = Unit(hashlib.sha256(b"course").digest(), 0)
ME, *OTHERS = (hashlib.sha256(b"node %d" % n).digest() for n in range(20))


def unsigned(_: bytes) -> bytes:
    return b""


def says(node: bytes, time: int, *, holds: bool = True) -> Receipt:
    return Receipt(UNIT, node, time, 3, holds, b"")


def keeper(gone: Sequence[bytes] = ()) -> Ledger:
    ledger = Ledger(ME, unsigned)
    ledger.is_gone = lambda node: node in gone
    ledger.state(UNIT, 100, 3, True, 1)
    return ledger


def remembered(ledger: Ledger) -> set[bytes]:
    entry = ledger.entry(UNIT)
    assert entry is not None
    return set(entry.receipts) - {ME}


def test_who_is_gone_makes_room_for_who_is_there_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_NODES", 5)
    ledger = keeper(gone=OTHERS[:2])
    ledger.merge([says(node, 10 + n) for n, node in enumerate(OTHERS[:4])])
    entry = ledger.entry(UNIT)
    assert entry is not None
    entry.disproved.add(OTHERS[0])
    assert ledger.merge([says(OTHERS[4], 20)])  # a copy made now has to be counted, however many went before it
    assert remembered(ledger) == set(OTHERS[1:5])
    assert not entry.disproved
    assert ledger.merge([says(OTHERS[5], 21)])
    assert remembered(ledger) == set(OTHERS[2:6])
    assert not ledger.merge([says(OTHERS[6], 22)])  # all of these are there
    assert remembered(ledger) == set(OTHERS[2:6])
    ledger.merge([says(OTHERS[2], 30, holds=False)])
    assert ledger.merge([says(OTHERS[6], 22)])
    assert remembered(ledger) == set(OTHERS[3:7])


def test_this_nodes_own_receipt_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_NODES", 1)
    ledger = keeper(gone=[ME])
    assert not ledger.merge([says(OTHERS[0], 5)])
    entry = ledger.entry(UNIT)
    assert entry is not None
    assert set(entry.receipts) == {ME}


@given(st.permutations(range(12)), st.permutations(range(12)))
def test_in_whatever_order_they_hear_it_two_remember_the_same(one: list[int], other: list[int]) -> None:
    said = [says(OTHERS[n], 100 + n % 5, holds=n % 3 > 0) for n in range(12)]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "MOST_NODES", 7)
        for order in (one, other):
            ledger = keeper(gone=[OTHERS[n] for n in range(12) if n % 4])
            ledger.merge([said[n] for n in order])
            ledger.merge(said)  # and what was passed over comes again
            seen.append(remembered(ledger))
    assert seen[0] == seen[1]
    assert {OTHERS[4], OTHERS[8]} <= seen[0]  # who is there is never passed over for who isn't
