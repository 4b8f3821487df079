"""Knocking at addresses that aren't plain TCP ones: WebSockets, those behind a web server, and by way of a relay."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.course.names import format_link
from p2plearn.doctor.reach import Tried, explain
from p2plearn.net.knock import Knock, knock
from p2plearn.net.knock_address import Unreadable, read
from tests.hosts import running_host
from tests.net.test_reach_relay import three
from tests.net.test_reach_websocket import hosts, web_server

TO_TCP = ["read", "resolve", "route", "tcp"]
TALK = ["multistream", "tls", "identify"]
NODE = "12D3KooWHZG1fk1aXn1EnagwqVG9f3S7XCdSeH9Gh3EP98R5wEHK"


def names(found: Knock) -> list[str]:
    return [step.name for step in found.steps]


def words(found: Knock) -> str:
    """What the doctor makes of it."""
    failed = next((step for step in found.steps if step.fault), None)
    step = (failed.name, failed.fault, failed.words) if failed else ("", "", "")
    return explain(Tried(*step, found.target, found.port, relayed="/p2p-circuit" in found.address), ()).words


@pytest.mark.parametrize("listen", ["/ip4/127.0.0.1/tcp/0/ws", "/ip6/::1/tcp/0/ws"])
async def test_a_websocket_s_address_is_tried_as_one(listen: str) -> None:
    async with hosts(listen) as (one, other):
        address = f"{one.get_transport_addrs()[0]}/p2p/{one.get_id()}"
        found = await knock(address, 60)
        assert (names(found), found.fault) == ([*TO_TCP, "websocket", *TALK], "")
        assert found.peer == str(one.get_id())
        # As plain TCP it isn't a node's, and a node's plain port is no WebSocket's.
        found = await knock(address.replace("/ws", ""), 60)
        assert names(found)[-1] == "multistream"
        assert found.fault in {"hung-up", "stranger"}
        if "/ip4/" in address:
            plain = await knock(f"{other.get_transport_addrs()[0]}/ws", 60)
            assert (names(plain)[-1], plain.fault) == ("websocket", "websocket")
            assert "opens no WebSocket" in words(plain)


@pytest.mark.parametrize("spelling", ["tls/ws", "wss", "tls/sni/courses.example/ws"])
async def test_one_behind_a_web_server_too(tmp_path: Path, spelling: str) -> None:
    async with (
        hosts() as (one, _),
        web_server(tmp_path, "courses.example", one.get_transport_addrs()[0]) as port,
    ):
        found = await knock(f"/dns4/localhost/tcp/{port}/{spelling}/p2p/{one.get_id()}", 60)
        assert (names(found), found.fault) == ([*TO_TCP, "web-tls", "websocket", *TALK], "")
        assert "can see each other" in words(found)
        found = await knock(f"{one.get_transport_addrs()[0]}".removesuffix("/ws") + "/wss", 60)
        assert names(found)[-1] == "web-tls"
        assert "speaks no TLS" in words(found)


async def test_a_web_server_that_knows_no_node_is_named_as_one() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(4096)
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, refuse, 0)
        found = await knock(f"/dns4/localhost/tcp/{listeners[0].socket.getsockname()[1]}/ws", 60)
        nursery.cancel_scope.cancel()
    assert (names(found)[-1], found.fault) == ("websocket", "websocket")
    assert "status 404" in words(found)


async def test_by_way_of_a_relay_it_is_the_node_beyond_that_answers() -> None:
    async with three() as (relay, guest, caller):
        to_relay = [*TO_TCP, *TALK, "relay"]
        address = f"{guest.through(relay).addrs[0]}/p2p/{guest.host.get_id()}"
        found = await knock(address, 60)
        assert (names(found), found.fault) == ([*to_relay, *(f"beyond-{step}" for step in TALK)], "")
        assert found.peer == str(guest.host.get_id())
        assert found.seen_as.startswith("/ip4/127.0.0.1/tcp/")
        assert "by way of the relay" in words(found)
        # Who has no place there, nobody of that name, and a relay that isn't the one named.
        found = await knock(f"{caller.through(relay).addrs[0]}/p2p/{caller.host.get_id()}", 60)
        assert (names(found), found.fault) == (to_relay, "no-reservation")
        assert "has no place at it" in words(found)
        found = await knock(address.replace(str(relay.host.get_id()), str(caller.host.get_id())), 60)
        assert (names(found)[-1], found.fault) == ("tls", "wrong-peer")
        assert "The relay can't be reached" in words(found)
    assert "The relay can't be reached" in words(await knock(address, 60))


async def test_a_node_that_is_no_relay_says_so() -> None:
    async with running_host() as (host, _):
        found = await knock(f"{host.get_addrs()[0]}/p2p-circuit/p2p/{NODE}", 60)
    assert (names(found)[-1], found.fault) == ("relay", "protocol")
    assert "it is no relay" in words(found)


def test_a_link_s_first_address_is_tried() -> None:
    address = f"/ip4/192.0.2.1/tcp/4017/p2p/{NODE}"
    assert read(format_link(bytes(32), [address, "/ip4/192.0.2.9/tcp/1"])) == read(address)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"/ip4/192.0.2.1/tcp/4017/p2p/{NODE}/p2p-circuit", "names both"),
        (f"/ip4/192.0.2.1/tcp/4017/p2p-circuit/p2p/{NODE}", "names both"),
        ("/ip4/192.0.2.1/udp/4017/quic-v1", "only addresses with a TCP port"),
        ("/ip4/192.0.2.1/tcp/4017/ws/ws", "only addresses with a TCP port"),
        ("/ip4/192.0.2.1/tcp/0", "port 0"),
        ("/ip4/192.0.2.1/tcp/4017/p2p/x", "no address"),
        ("/dns4/x", "only addresses with a TCP port"),
        ("example.org", "host:port"),
        ("fd00:66::1", r"\[fd00:66::1\]:4017"),
        ("::1", r"\[::1\]:4017"),
        ("fe80::9%eth0", "in brackets"),
        ("http://192.0.2.1:4017/", "write 192.0.2.1:4017 alone"),
        (f"p2plearn:{'ab' * 32}", "no node's address"),
        ("p2plearn:x", "no link of a course"),
    ],
)
def test_addresses_that_are_none_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(text)


@pytest.mark.parametrize("number", range(40))
def test_whatever_can_be_read_says_where_and_whom_to_call(number: int) -> None:
    peer = str(ID.from_pubkey(create_new_key_pair().public_key))
    kind, host = [("ip4", "192.0.2.1"), ("ip6", "2001:db8::1"), ("dns", "a.org"), ("dns4", "a.org"), ("dns6", "a.org")][
        number % 5
    ]
    web = ["", "/ws", "/wss", "/tls/sni/b.org/ws"][number // 5 % 4]
    beyond = f"/p2p-circuit/p2p/{NODE}" if number >= 20 else ""
    text = f"/{kind}/{host}/tcp/4017{web}/p2p/{peer}{beyond}"
    assert str(Multiaddr(text)) == text
    asked = read(text)
    assert (asked.host, asked.port, asked.peer, asked.beyond) == (host, 4017, peer, NODE if beyond else "")
    assert (asked.web, asked.tls) == (bool(web), web not in {"", "/ws"})
    assert asked.name == ("b.org" if "sni" in web else host if kind.startswith("dns") else "")
