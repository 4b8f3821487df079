"""How many copies a course shall have is for its author to say, and for nobody else; the newest wish counts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht import ledger as ledgers
from p2plearn.dht.custody import Unit
from p2plearn.dht.ledger import Entry, Ledger
from p2plearn.dht.receipts import Receipt, decode_receipt, sign_receipt, sign_wish
from p2plearn.errors import PeerFault
from p2plearn.identity import SigningKey

UNIT = Unit(hashlib.sha256(b"course").digest(), 0)
OTHER = Unit(hashlib.sha256(b"another course").digest(), 0)
ME, AUTHOR, *KEEPERS = (SigningKey.generate() for _ in range(5))


def wish(copies: int, now: int, *, before: Receipt | None = None, unit: Unit = UNIT) -> Receipt:
    return sign_wish(unit, AUTHOR.public, copies, AUTHOR.sign, now=now, before=before)


def says(key: SigningKey, copies: int, time: int, *, holds: bool = True) -> Receipt:
    return sign_receipt(UNIT, key.public, time, copies, holds, key.sign)


def keeper(copies: int = 7) -> tuple[Ledger, Entry]:
    """A ledger of one unit that others keep, too; all of them were asked for so many copies."""
    ledger = Ledger(ME.public, ME.sign)
    ledger.state(UNIT, 100, copies, True, 1, AUTHOR.public)
    ledger.merge([says(key, copies, 1) for key in KEEPERS])
    entry = ledger.entry(UNIT)
    assert entry is not None
    return ledger, entry


def test_without_a_wish_the_most_that_anybody_was_asked_for_counts() -> None:
    ledger, entry = keeper(3)
    ledger.merge([says(KEEPERS[0], 5, 2), says(KEEPERS[1], 9, 2, holds=False)])
    assert (entry.copies, entry.wish) == (5, None)


def test_the_authors_newest_wish_counts_whichever_way_and_whatever_holders_say() -> None:
    ledger, entry = keeper(7)
    ledger.merge([wish(2, 100)])
    assert entry.copies == 2
    ledger.merge([says(KEEPERS[0], 32, 200)])
    assert entry.copies == 2
    ledger.merge([wish(7, 50)])  # an older one that comes late
    assert entry.copies == 2
    ledger.merge([wish(5, 101)])
    assert entry.copies == 5
    # It is nobody's copy, and nobody to be watched.
    assert entry.holders == {ME.public, *(key.public for key in KEEPERS)}
    assert AUTHOR.public not in ledger.circle()


def test_nobody_else_can_ask_for_fewer() -> None:
    ledger, entry = keeper(7)
    stranger = SigningKey.generate()
    forged = sign_receipt(UNIT, AUTHOR.public, 100, 1, False, stranger.sign)
    with pytest.raises(PeerFault):
        decode_receipt(forged.encode())
    ledger.merge([sign_receipt(UNIT, stranger.public, 100, 1, False, stranger.sign), says(KEEPERS[0], 1, 100)])
    ledger.merge([wish(1, 100, unit=OTHER)])  # the author's, of another course
    assert entry.copies == 7
    moved = wish(1, 100, unit=OTHER).encode()
    with pytest.raises(PeerFault):
        decode_receipt(UNIT.course + moved[32:])


def test_a_wish_is_newer_than_the_one_before_though_the_clock_went_back() -> None:
    first = wish(7, 2_000)
    second = wish(2, 1_000, before=first)
    _, entry = keeper()
    ledger = Ledger(ME.public, ME.sign)
    ledger.restore(UNIT, 100, [says(ME, 7, 1), second], AUTHOR.public)
    ledger.merge([first])
    found = ledger.entry(UNIT)
    assert found is not None
    assert found.copies == 2
    assert entry.copies == 7


def test_a_wish_finds_room_and_is_not_forgotten_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_NODES", 4)  # as many as there are
    ledger, entry = keeper()
    assert ledger.merge([wish(2, 100)])
    assert not ledger.merge([says(SigningKey.generate(), 7, 200)])
    assert entry.copies == 2


@given(st.permutations([wish(copies, time) for time, copies in enumerate((7, 2, 4), 10)]), st.integers(0, 2))
def test_in_whatever_order_wishes_come_and_however_often_the_same_one_counts(wishes: list[Receipt], again: int) -> None:
    ledger, entry = keeper()
    for each in [*wishes, wishes[again]]:
        ledger.merge([decode_receipt(each.encode())])
    assert entry.copies == 4


def test_both_ends_see_by_the_digest_that_one_has_heard_a_wish() -> None:
    mine, _ = keeper()
    theirs = Ledger(KEEPERS[0].public, KEEPERS[0].sign)
    theirs.state(UNIT, 100, 7, True, 1, AUTHOR.public)
    theirs.merge(mine.shared(KEEPERS[0].public))
    mine.merge(theirs.shared(ME.public))
    assert mine.digest(KEEPERS[0].public) == theirs.digest(ME.public)
    mine.merge([wish(2, 100)])
    assert mine.digest(KEEPERS[0].public) != theirs.digest(ME.public)
    theirs.merge(mine.shared(KEEPERS[0].public))
    assert mine.digest(KEEPERS[0].public) == theirs.digest(ME.public)
