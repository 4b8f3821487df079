"""Our TCP: one listener a port, both families, addresses known, one caller's misfortune no other's."""

from __future__ import annotations

import socket

import pytest
import trio
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr
from wires import needs_ipv6

from p2plearn.net.tcp import TcpListener, TcpTransport


async def echo(stream) -> None:
    try:
        while data := await stream.read(1000):
            await stream.write(data)
    finally:
        await stream.close()


async def listening(address: str, on_caller=echo) -> TcpListener:
    listener = TcpTransport().create_listener(on_caller)
    await listener.listen(Multiaddr(address))
    return listener


@pytest.mark.parametrize("address", ["/ip4/127.0.0.1/tcp/0", pytest.param("/ip6/::1/tcp/0", marks=needs_ipv6)])
async def test_words_there_and_back_and_both_addresses_known(address):
    seen = []

    async def on_caller(stream) -> None:
        seen.append(stream.get_remote_address())
        await echo(stream)

    listener = await listening(address, on_caller)
    (where,) = listener.get_addrs()
    conn = await TcpTransport().dial(where)
    await conn.write(b"hello")
    assert await conn.read(5) == b"hello"
    host, port = conn.get_remote_address()
    assert host == address.split("/")[2]
    assert port == int(where.value_for_protocol("tcp"))
    assert seen[0][0] == host
    await conn.close()
    assert conn.get_remote_address() == (host, port)  # still known for whoever writes the log
    await listener.close()


async def test_a_second_listener_on_a_port_is_refused_and_says_why():
    first = await listening("/ip4/127.0.0.1/tcp/0")
    (where,) = first.get_addrs()
    with pytest.raises(OpenConnectionError, match="in use"):
        await listening(str(where))
    await first.close()
    again = await listening(str(where))  # a node that starts again right away gets its port back
    await again.close()


@needs_ipv6
async def test_both_wildcards_stand_on_one_port():
    four = await listening("/ip4/0.0.0.0/tcp/0")
    port = four.get_addrs()[0].value_for_protocol("tcp")
    six = await listening(f"/ip6/::/tcp/{port}")
    for address in (f"/ip4/127.0.0.1/tcp/{port}", f"/ip6/::1/tcp/{port}"):
        conn = await TcpTransport().dial(Multiaddr(address))
        await conn.write(b"x")
        assert await conn.read(1) == b"x"
        await conn.close()
    await four.close()
    await six.close()


async def test_a_closed_port_and_an_address_that_is_none():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OpenConnectionError), trio.fail_after(5):
            await TcpTransport().dial(Multiaddr(f"/ip4/127.0.0.1/tcp/{unused.getsockname()[1]}"))
    for address in ("/ip4/127.0.0.1/udp/1", "/ip4/203.0.113.77/tcp/0"):
        with pytest.raises(OpenConnectionError):
            await listening(address)


async def test_a_caller_whose_handling_fails_is_hung_up_on_and_others_are_served():
    calls = 0

    async def on_caller(stream) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug")
        await echo(stream)

    listener = await listening("/ip4/127.0.0.1/tcp/0", on_caller)
    (where,) = listener.get_addrs()
    first = await TcpTransport().dial(where)
    with trio.fail_after(5):
        assert not await first.read(1)
    second = await TcpTransport().dial(where)
    await second.write(b"x")
    assert await second.read(1) == b"x"
    await first.close()
    await second.close()
    await listener.close()


async def test_a_closed_listener_does_not_listen_again():
    listener = await listening("/ip4/127.0.0.1/tcp/0")
    await listener.close()
    with pytest.raises(OpenConnectionError, match="closed"):
        await listener.listen(Multiaddr("/ip4/127.0.0.1/tcp/0"))
