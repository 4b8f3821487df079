"""How far addresses reach, which are believed, in which order they are tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from p2plearn.net.addresses import MAX_ADDRESSES, Reach, bare, believable, dial_order, reach

PARTS = [
    b"\x04\x08\x08\x08\x08",
    b"\x04\x00\x00\x00\x00",
    b"\x29" + bytes(15) + b"\x01",
    b"\x06\x0f\xa1",
    b"\x06\x00\x00",
    b"\x36\x01a",
    b"\x36\x02\xff\xfe",
    b"\xa5\x03\x26\x00\x24\x08\x01\x12\x20" + bytes(32),
    b"\xa5\x03\x02\x12\x20",
    b"\xa2\x02",
    b"\x2a\x01x",
    b"\xff",
    b"",
]
"""Parts of addresses as bytes: IPs, ports, names, peer ids good and bad, a relay, a zone, nonsense."""

PEER = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"


@pytest.mark.parametrize(
    ("text", "far"),
    [
        ("/ip4/127.0.0.1/tcp/1", Reach.LOOPBACK),
        ("/ip6/::1/tcp/1", Reach.LOOPBACK),
        ("/ip6/::ffff:127.0.0.1/tcp/1", Reach.LOOPBACK),
        ("/dns4/localhost/tcp/1", Reach.LOOPBACK),
        ("/ip4/169.254.1.1/tcp/1", Reach.LINK),
        ("/ip6/fe80::1/tcp/1", Reach.LINK),
        ("/ip4/10.1.2.3/tcp/1", Reach.PRIVATE),
        ("/ip4/192.168.1.2/tcp/1", Reach.PRIVATE),
        ("/ip4/100.64.0.1/tcp/1", Reach.PRIVATE),
        ("/ip6/fd00::1/tcp/1", Reach.PRIVATE),
        ("/ip4/8.8.8.8/tcp/1", Reach.GLOBAL),
        (f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}", Reach.GLOBAL),
        ("/dns/example.org/tcp/4001", Reach.GLOBAL),
        ("/ip4/0.0.0.0/tcp/1", Reach.NONE),
        ("/ip6/::/tcp/1", Reach.NONE),
        ("/ip4/224.0.0.1/tcp/1", Reach.NONE),
        ("/ip4/255.255.255.255/tcp/1", Reach.NONE),
        ("/ip4/8.8.8.8/tcp/0", Reach.NONE),
        ("/ip4/8.8.8.8/udp/1", Reach.NONE),
        ("/ip4/8.8.8.8/udp/1/quic-v1", Reach.NONE),
        ("/ip4/8.8.8.8/tcp/1/ws", Reach.GLOBAL),
        ("/ip4/8.8.8.8/tcp/1/wss", Reach.GLOBAL),
        ("/dns4/example.org/tcp/443/tls/ws", Reach.GLOBAL),
        (f"/ip4/8.8.8.8/tcp/1/tls/sni/example.org/ws/p2p/{PEER}", Reach.GLOBAL),
        (f"/ip4/8.8.8.8/tcp/443/wss/p2p/{PEER}/p2p-circuit", Reach.GLOBAL),
        ("/ip4/8.8.8.8/tcp/1/tls", Reach.NONE),
        ("/ip4/8.8.8.8/tcp/1/ws/tls", Reach.NONE),
        (f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}/p2p-circuit", Reach.GLOBAL),
        (f"/ip4/192.168.1.1/tcp/1/ws/p2p/{PEER}/p2p-circuit/p2p/{PEER}", Reach.PRIVATE),
        ("/ip4/8.8.8.8/tcp/1/p2p-circuit", Reach.NONE),
        (f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}/p2p-circuit", Reach.NONE),
        ("/ip4/8.8.8.8", Reach.NONE),
        (f"/p2p/{PEER}/ip4/8.8.8.8/tcp/1", Reach.NONE),
        (f"/ip4/8.8.8.8/p2p/{PEER}/tcp/1", Reach.NONE),
        (f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}/p2p/{PEER}", Reach.NONE),
        ("/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/1", Reach.NONE),
        ("/tcp/1/ip4/8.8.8.8", Reach.NONE),
        (f"/p2p/{PEER}", Reach.NONE),
    ],
)
def test_reach(text: str, far: Reach) -> None:
    assert reach(Multiaddr(text)) is far


@given(st.lists(st.sampled_from(PARTS), max_size=6))
def test_whatever_an_address_is_made_of_nothing_is_raised(parts: list[bytes]) -> None:
    try:
        address = Multiaddr(b"".join(parts))
    except Exception:  # no address at all: refused where it is parsed
        return
    assert reach(address) in Reach
    for told_over in Reach:
        for kept in believable([address], told_over):
            assert reach(kept) is reach(address)
    assert len(dial_order([address])) == (reach(address) > Reach.NONE)


def test_an_address_by_way_of_a_relay_that_is_no_peer_is_of_no_use() -> None:
    good = Multiaddr(f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}").to_bytes()
    bad = Multiaddr(good.replace(b"\xa5\x03\x26\x00", b"\xa5\x03\x26\x80", 1))
    assert reach(bad) is Reach.NONE
    assert believable([bad, Multiaddr(good)], Reach.GLOBAL) == [bare(Multiaddr(good))]


def texts(addresses: list[Multiaddr]) -> list[str]:
    return [str(a).split("/")[2] for a in addresses]


ALL = [Multiaddr(f"/ip4/{ip}/tcp/1/p2p/{PEER}") for ip in ("127.0.0.1", "169.254.1.1", "10.0.0.1", "8.8.8.8")]


@pytest.mark.parametrize(
    ("told_over", "kept"),
    [
        (Reach.LOOPBACK, ["127.0.0.1", "169.254.1.1", "10.0.0.1", "8.8.8.8"]),
        (Reach.LINK, ["169.254.1.1", "10.0.0.1", "8.8.8.8"]),
        (Reach.PRIVATE, ["10.0.0.1", "8.8.8.8"]),
        (Reach.GLOBAL, ["10.0.0.1", "8.8.8.8"]),
    ],
)
def test_a_peer_far_away_can_not_send_us_to_our_own_doors(told_over: Reach, kept: list[str]) -> None:
    assert texts(believable(ALL, told_over)) == kept
    assert all("/p2p/" not in str(a) for a in believable(ALL, told_over))


def test_the_nearest_network_first_and_loopback_only_when_there_is_nothing_else() -> None:
    assert texts(dial_order(reversed(ALL))) == ["10.0.0.1", "8.8.8.8", "169.254.1.1"]
    assert texts(dial_order(ALL[:1] * 3)) == ["127.0.0.1"]
    assert dial_order([]) == []


def test_there_is_a_most() -> None:
    many = [Multiaddr(f"/ip4/8.8.{i}.{j}/tcp/1") for i in range(9) for j in range(9)]
    assert len(dial_order(many)) == len(believable(many, Reach.GLOBAL)) == MAX_ADDRESSES
