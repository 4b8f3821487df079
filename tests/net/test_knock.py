"""Reaching a node step by step: which step fails, against hosts and strangers on loopback."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hosts import LOOPBACK, running_host
from libp2p.crypto.ed25519 import create_new_key_pair

from p2plearn.doctor.reach import Tried, explain
from p2plearn.net.host import build_host
from p2plearn.net.knock import knock

ALL = ["read", "resolve", "route", "tcp", "multistream", "tls", "identify"]
MULTISTREAM = b"\x13/multistream/1.0.0\n"


@asynccontextmanager
async def stranger(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that answers each caller in its own way; its address."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await answer(stream)

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_every_step_of_a_good_one() -> None:
    async with running_host() as (host, _):
        whole = str(host.get_addrs()[0])
        port = whole.split("/")[4]
        for address in (whole, whole.partition("/p2p/")[0], f"127.0.0.1:{port}", f"/dns4/localhost/tcp/{port}"):
            found = await knock(address, 60)
            assert ([step.name for step in found.steps], found.fault) == (ALL, "")
            assert found.peer == str(host.get_id())
            assert found.agent
            assert found.seen_as.startswith("/ip4/127.0.0.1/tcp/")
            assert found.their_clock <= time.time()


async def test_a_closed_group_opens_to_its_own_key_only() -> None:
    host = build_host(create_new_key_pair(), None, b"k" * 32)
    async with host.run([LOOPBACK]):
        address = str(host.get_addrs()[0])
        found = await knock(address, 60, b"k" * 32)
        assert [step.name for step in found.steps] == [*ALL[:4], "group", *ALL[4:6], "membership", ALL[6]]
        assert found.fault == ""
        found = await knock(address, 60, b"x" * 32)
        assert (found.steps[-1].name, found.fault) == ("group", "group")
        found = await knock(address, 60)
        assert (found.steps[-1].name, found.fault) == ("multistream", "hung-up")


async def test_another_peer_than_the_one_that_was_named() -> None:
    async with running_host() as (one, _), running_host() as (other, _):
        address = f"{str(one.get_addrs()[0]).partition('/p2p/')[0]}/p2p/{other.get_id()}"
        found = await knock(address, 60)
        assert (found.steps[-1].name, found.fault) == ("tls", "wrong-peer")
        assert found.peer == str(one.get_id())


async def test_a_clock_that_is_ahead_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + 7_200 * 10**9)
    async with running_host() as (host, _):
        found = await knock(str(host.get_addrs()[0]), 60)
    ahead = found.their_clock - time.time()
    assert ahead > 7_000
    assert "2.0 hours ahead" in explain(Tried("", "", "", found.target, found.port, None, ahead), ()).words


async def _http(stream: trio.SocketStream) -> None:
    await stream.receive_some(100)
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def _ssh(stream: trio.SocketStream) -> None:
    await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
    await stream.receive_some(100)


async def _hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some(100)


async def _refuse(stream: trio.SocketStream) -> None:
    await stream.receive_some(100)
    await stream.send_all(MULTISTREAM + b"\x03na\n")


async def _garbage(stream: trio.SocketStream) -> None:
    await stream.receive_some(100)
    await stream.send_all(MULTISTREAM + b"\x0b/tls/1.0.0\n" + bytes(range(256)) * 4)
    await trio.sleep_forever()


async def _endless(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b"\xff\x7f" + b"x" * 4096)


@pytest.mark.parametrize(
    ("answer", "step", "fault"),
    [
        (_http, "multistream", "stranger"), (_ssh, "multistream", "stranger"), (_endless, "multistream", "stranger"),
        (_hang_up, "multistream", "hung-up"), (_refuse, "multistream", "protocol"), (_garbage, "tls", "protocol"),
    ],
)  # fmt: skip
async def test_what_is_no_node_is_told_apart(
    answer: Callable[[trio.SocketStream], Awaitable[None]], step: str, fault: str
) -> None:
    async with stranger(answer) as address:
        found = await knock(address, 60)
        assert (found.steps[-1].name, found.fault) == (step, fault)


async def test_one_that_says_nothing_costs_no_more_than_its_time() -> None:
    async def silent(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with stranger(silent) as address:
        found = await knock(address, 1.0)
        assert found.fault == "timeout"
        assert found.steps[-1].name in {"tcp", "multistream"}  # the machine may be too busy for more in a second


async def test_nobody_there_and_addresses_that_are_none() -> None:
    async with stranger(_http) as address:
        pass  # nobody listens there any more
    assert (await knock(address, 60)).fault == "refused"
    for text in ("", "x", ":1", "host:0", "host:70000", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/4/quic-v1", "/tcp/4"):
        found = await knock(text, 60)
        assert ([step.name for step in found.steps], found.fault) == (["read"], "address")
    found = await knock("no-such-name.invalid:4017", 60)
    assert (found.steps[-1].name, found.fault) == ("resolve", "name")
