"""Heartbeat and custody messages: what goes in comes out, and whatever else comes in is the peer's fault."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.dht.custody import Unit
from p2plearn.dht.ledger import Ledger
from p2plearn.dht.messages import (
    ANSWERED,
    ASKED,
    BEATS,
    Accept,
    Ack,
    Beat,
    Challenge,
    Decline,
    Decoder,
    Message,
    Offer,
    Progress,
    Proof,
    Reason,
    Receipts,
    Release,
    encode,
)
from p2plearn.dht.receipts import Receipt, decode_receipt, sign_receipt
from p2plearn.errors import PeerFault
from p2plearn.identity import SigningKey

KEYS = [SigningKey.generate() for _ in range(3)]
HASH = st.binary(min_size=32, max_size=32)
UNIT = st.builds(Unit, HASH, st.integers(0, 2**32 - 1))


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    key = draw(st.sampled_from(KEYS))
    time, copies = draw(st.integers(0, 2**64 - 1)), draw(st.integers(1, 32))
    return sign_receipt(draw(UNIT), key.public, time, copies, draw(st.booleans()), key.sign)


asked = st.one_of(
    st.builds(
        Offer,
        st.integers(0, 2**32 - 1),
        st.integers(1, 32),
        st.binary(min_size=64, max_size=64),
        st.binary(min_size=1, max_size=99),
    ),
    st.builds(Receipts, st.lists(receipts(), max_size=3).map(tuple)),
    st.builds(
        Challenge, HASH, st.integers(0, 2**32 - 1), st.just(7), st.integers(1, 999), st.binary(min_size=16, max_size=16)
    ),
    st.builds(Release, UNIT),
)
answered = st.one_of(
    st.just(Accept()),
    st.builds(Decline, st.sampled_from(Reason), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)),
    st.builds(Progress, st.integers(0, 2**64 - 1)),
    st.builds(Ack, receipts()),
    st.builds(Proof, st.sampled_from([b"", bytes(32)])),
)
beats = st.builds(
    Beat, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.booleans(),
    st.binary(min_size=16, max_size=16),
)  # fmt: skip


@given(
    st.one_of(
        st.tuples(st.just(ASKED), st.lists(asked)),
        st.tuples(st.just(ANSWERED), st.lists(answered)),
        st.tuples(st.just(BEATS), st.lists(beats)),
    ),
    st.data(),
)
def test_messages_survive_the_way_however_they_are_split(
    sent: tuple[dict[object, int], list[Message]], data: st.DataObject
) -> None:
    caps, messages = sent
    raw = b"".join(map(encode, messages))
    decoder, got, at = Decoder(caps), [], 0  # type: ignore[arg-type]
    while at < len(raw):
        step = data.draw(st.integers(1, len(raw)))
        got += decoder.feed(raw[at : at + step])
        at += step
    assert got == messages
    assert decoder.idle


@given(st.sampled_from([ASKED, ANSWERED, BEATS]), st.binary(max_size=400), st.integers(1, 400))
def test_noise_is_a_message_or_a_fault(caps: dict[object, int], noise: bytes, step: int) -> None:
    decoder = Decoder(caps)  # type: ignore[arg-type]
    with contextlib.suppress(PeerFault):
        for at in range(0, len(noise), step):
            list(decoder.feed(noise[at : at + step]))


@given(st.one_of(asked, answered, beats), st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_is_another_message_or_a_fault(message: Message, at: int, flip: int) -> None:
    raw = bytearray(encode(message))
    raw[at % len(raw)] ^= flip
    for caps in (ASKED, ANSWERED, BEATS):
        with contextlib.suppress(PeerFault):
            assert list(Decoder(caps).feed(bytes(raw))) != [message]


@pytest.mark.parametrize("length", [2**31, 2**32 - 1, 200_000])
def test_a_length_beyond_its_cap_is_refused_with_the_header(length: int) -> None:
    for kind in range(256):
        with pytest.raises(PeerFault):
            list(Decoder(ASKED).feed(struct.pack(">BI", kind, length)))


def test_nobody_speaks_in_anothers_name() -> None:
    unit = Unit(bytes(32), 0)
    raw = sign_receipt(unit, KEYS[0].public, 1, 3, True, KEYS[1].sign).encode()
    with pytest.raises(PeerFault, match="signature"):
        decode_receipt(raw)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 5), st.booleans()), max_size=12), st.randoms())
def test_ledgers_agree_whatever_the_order_and_the_latest_word_counts(
    said: list[tuple[int, int, bool]], rng: random.Random
) -> None:
    unit = Unit(bytes(32), 0)
    spoken = {(n, time): sign_receipt(unit, KEYS[n].public, time, 3, holds, KEYS[n].sign) for n, time, holds in said}
    news = list(spoken.values())
    wanted = {KEYS[0].public}
    for n in (1, 2):
        latest = max((time for who, time in spoken if who == n), default=None)
        if latest is not None and spoken[n, latest].holds:
            wanted.add(KEYS[n].public)
    for _ in range(3):
        rng.shuffle(news)
        ledger = Ledger(KEYS[0].public, KEYS[0].sign)
        ledger.state(unit, 9, 3, True, 1)
        ledger.merge(news)
        ledger.merge(news[: len(news) // 2])
        entry = ledger.entry(unit)
        assert entry is not None
        assert entry.holders == wanted


def test_what_two_share_has_one_digest_and_a_lost_disk_is_admitted() -> None:
    unit, now = Unit(bytes(32), 0), 1000
    ledgers = [Ledger(key.public, key.sign) for key in KEYS]
    stated = [ledger.state(unit, 9, 3, True, now) for ledger in ledgers]
    ledgers[0].merge(stated)
    assert ledgers[0].digest(KEYS[1].public) != ledgers[1].digest(KEYS[0].public)
    ledgers[1].merge(ledgers[0].shared(KEYS[1].public))
    assert ledgers[0].digest(KEYS[1].public) == ledgers[1].digest(KEYS[0].public)
    assert ledgers[0].circle() == {KEYS[1].public, KEYS[2].public}
    fresh = Ledger(KEYS[2].public, KEYS[2].sign)
    denials = fresh.denials(ledgers[0].shared(KEYS[2].public), 1)
    assert ledgers[0].merge(denials) == denials
    assert ledgers[0].circle() == {KEYS[1].public}
    # Its clock stands still, or goes back: what it says later still counts as later.
    gone = ledgers[1].state(unit, 9, 3, False, 0)
    assert ledgers[0].merge([gone]) == [gone]
    assert ledgers[0].entry(unit).holders == {KEYS[0].public}  # type: ignore[union-attr]
