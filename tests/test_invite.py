"""Invites: what goes in comes out, a slip of the hand never does, and anything else is refused in words."""

from __future__ import annotations

import string

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.errors import UsageProblem
from p2plearn.invite import MAX_ADDRESSES, MAX_PEERS, PREFIX, TOLD_PEERS, Invite, format_invite, parse_invite, tidy_name

PEERS = (
    "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",  # of the libp2p specification's test vector kind
    "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
)
KEY = bytes(range(32))
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30).filter(
    lambda text: tidy(text) == text
)


def tidy(text: str) -> str:
    try:
        return tidy_name(text)
    except UsageProblem:
        return ""


PLACES = st.one_of(
    st.builds(lambda ip, port: f"/ip4/{ip}/tcp/{port}", st.ip_addresses(v=4), st.integers(1, 65535)),
    st.builds(lambda ip, port: f"/ip6/{ip}/tcp/{port}", st.ip_addresses(v=6), st.integers(1, 65535)),
    st.sampled_from(["/dns4/school.example/tcp/4017", "/ip4/192.0.2.1/tcp/443/wss", "/ip4/1.2.3.4/udp/1/quic-v1"]),
)
ADDRESSES = st.lists(
    st.builds(lambda place, peer: f"{place}/p2p/{peer}", PLACES, st.sampled_from(PEERS)), max_size=4, unique=True
)


@given(NAMES, st.binary(min_size=32, max_size=32), ADDRESSES)
def test_what_goes_in_comes_out(name: str, key: bytes, addresses: list[str]) -> None:
    text = format_invite(Invite(name, key, tuple(addresses)))
    assert set(text) <= set(string.ascii_uppercase + string.digits + "-")
    read = parse_invite(text)
    assert (read.name, read.key) == (name, key)
    for peer in PEERS:
        mine = [address for address in addresses if address.endswith(peer)][:MAX_ADDRESSES]
        assert [address for address in read.addresses if address.endswith(peer)] == mine


SAMPLE = format_invite(Invite("Dorfschule Süd", KEY, tuple(f"/ip4/192.0.2.7/tcp/4017/p2p/{peer}" for peer in PEERS)))


def test_an_invite_is_short_and_forgiving() -> None:
    assert len(SAMPLE) < 240
    plain = SAMPLE.removeprefix(PREFIX)
    spread = PREFIX + "\n".join(plain[at : at + 20] for at in range(0, len(plain), 20))
    for text in (SAMPLE.lower(), f"  {spread}\n", PREFIX + plain.replace("0", "o").replace("1", "l")):
        assert parse_invite(text) == parse_invite(SAMPLE)


@given(st.integers(0, len(SAMPLE) - 1), st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ!ö "))
def test_one_wrong_character_is_found(at: int, char: str) -> None:
    wrong = SAMPLE[:at] + char + SAMPLE[at + 1 :]
    if wrong == SAMPLE:
        return
    with pytest.raises(UsageProblem):
        parse_invite(wrong)


@given(st.integers(0, len(SAMPLE) - 2), st.integers(1, 12))
def test_a_swap_and_a_gap_are_found(at: int, gap: int) -> None:
    swapped = SAMPLE[:at] + SAMPLE[at + 1] + SAMPLE[at] + SAMPLE[at + 2 :]
    for wrong in {swapped, SAMPLE[:at] + SAMPLE[at + gap :], SAMPLE[:at], SAMPLE + SAMPLE[at : at + gap]} - {SAMPLE}:
        if "".join(wrong.split()) != SAMPLE:
            with pytest.raises(UsageProblem):
                parse_invite(wrong)


@given(st.text(max_size=100), st.booleans())
def test_any_text_is_an_invite_or_refused(text: str, prefixed: bool) -> None:
    with pytest.raises(UsageProblem):
        parse_invite(PREFIX * prefixed + text)


@given(st.binary(max_size=200))
def test_any_bytes_under_a_right_checksum_are_an_invite_or_refused(raw: bytes) -> None:
    from p2plearn import invite

    text = PREFIX + invite._encode(raw + invite._checksum(raw))
    try:
        read = parse_invite(text)
    except UsageProblem:
        return
    assert len(read.addresses) <= MAX_PEERS * MAX_ADDRESSES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no invite"),
        ("p2plearn:" + "0" * 64, "course's link"),
        ("hello", "doesn't begin with"),
        (SAMPLE[:-3], "slip"),
        (PREFIX + "0" * 40 + "U", "character"),
        ("x" * 10_000, "too long"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        parse_invite(text)


def test_the_key_is_in_no_words() -> None:
    invite = Invite("x", KEY)
    assert KEY.hex() not in repr(invite) + str(invite)
    assert "key" not in repr(invite)
    assert len(invite.tag) == 12
    assert invite.tag not in KEY.hex()


def test_what_can_not_travel_is_left_out() -> None:
    odd = ("/ip4/1.2.3.4/tcp/1", "nonsense", "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
    assert parse_invite(format_invite(Invite("x", KEY, odd))).addresses == ()
    relayed = f"/ip4/1.2.3.4/tcp/1/p2p/{PEERS[0]}/p2p-circuit/p2p/{PEERS[1]}"
    assert parse_invite(format_invite(Invite("x", KEY, (relayed,)))).addresses == (relayed,)


def test_the_largest_invite_fits_a_terminal() -> None:
    peers = [_peer(number) for number in range(10)]
    places = [f"/ip4/192.0.2.{n}/tcp/4017" for n in range(3)]
    text = format_invite(Invite("n" * 60, KEY, tuple(f"{place}/p2p/{peer}" for peer in peers for place in places)))
    assert len(parse_invite(text).addresses) == TOLD_PEERS * MAX_ADDRESSES
    code = segno.make(text, error="l", micro=False)
    assert code.mode == "alphanumeric"
    assert code.symbol_size(border=4)[0] <= 80


def _peer(number: int) -> str:
    from p2plearn import invite

    return invite._base58(invite._PEER_ID_HEAD + bytes([number]) * 32)
