"""A closed group's door: members come in, nobody else learns more than that something listens."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.group import Door, NotInGroup
from p2plearn.net.host import build_host
from p2plearn.net.lan import LanDiscovery
from p2plearn.net.muting import mute_libp2p
from tests.hosts import LOOPBACK
from tests.wires import tcp_pair

KEY, OTHER = hashlib.sha256(b"school").digest(), hashlib.sha256(b"another").digest()
PEERS = [ID(hashlib.sha256(bytes([n])).digest()) for n in range(3)]


@asynccontextmanager
async def host_of(key: bytes) -> AsyncIterator[BasicHost]:
    mute_libp2p()
    host = build_host(create_new_key_pair(), group_key=key)
    async with host.run([LOOPBACK]):
        yield host


def info(host: BasicHost) -> PeerInfo:
    return PeerInfo(host.get_id(), host.get_transport_addrs())


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[RawConnection, RawConnection]]:
    async with tcp_pair() as (one, other):
        yield RawConnection(TrioTCPStream(one), True), RawConnection(TrioTCPStream(other), False)


async def both(caller: Any, called: Any) -> list[Any]:
    """What came of two things done at once: values, or NotInGroup."""
    outcome: list[Any] = [None, None]

    async def do(place: int, work: Any) -> None:
        try:
            outcome[place] = await work()
        except NotInGroup as refused:
            outcome[place] = refused

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(do, 0, caller)
            nursery.start_soon(do, 1, called)
    return outcome


async def test_members_connect_and_others_do_not() -> None:
    async with host_of(KEY) as a, host_of(KEY) as b, host_of(OTHER) as stranger, host_of(b"") as outside:
        await connect(b, info(a), 60)
        assert b.get_connected_peers() == [a.get_id()]
        for caller, called in ((stranger, a), (a, stranger), (a, outside)):
            with pytest.raises(ConnectFailed) as failed:
                await connect(caller, info(called), 60)
            assert failed.value.reason == "group"
            assert "group" in failed.value.message
        with pytest.raises(ConnectFailed):
            await connect(outside, info(a), 60)
        assert set(a.get_connected_peers()) == {b.get_id()}
        assert not stranger.get_connected_peers()
        assert not outside.get_connected_peers()


@pytest.mark.parametrize(
    "said", [b"\x13/multistream/1.0.0\n", b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64, bytes(64), bytes(range(200))]
)
async def test_who_has_no_key_gets_no_byte(said: bytes) -> None:
    async with host_of(KEY) as host:
        address = host.get_transport_addrs()[0]
        port = int(address.value_for_protocol("tcp") or 0)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(said)
            heard = b""
            with trio.fail_after(60):
                try:
                    while more := await stream.receive_some():
                        heard += more
                except trio.BrokenResourceError:
                    pass  # what was not read there resets the connection
            assert heard == b""


async def test_what_was_overheard_can_not_be_said_again() -> None:
    door = Door(KEY)
    async with wire() as (caller, middle_a), wire() as (middle_b, called):
        overheard: list[bytes] = []

        async def pass_on() -> None:
            for source, target, count in (
                (middle_a, middle_b, 64),
                (middle_b, middle_a, 64),
                (middle_a, middle_b, 32),
            ):
                got = b""
                while len(got) < count:
                    got += await source.read(count - len(got))
                overheard.append(got)
                await target.write(got)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on)
            one, other = await both(lambda: door.knock(caller), lambda: door.answer(called))
        assert one == other
    async with wire() as (replayer, called):

        async def replay() -> None:
            await replayer.write(overheard[0] + overheard[2])

        _, refused = await both(replay, lambda: door.answer(called))
        assert isinstance(refused, NotInGroup)


async def test_who_takes_a_connection_over_is_found_out() -> None:
    door, nonces = Door(KEY), bytes(64)
    member, victim, thief = PEERS
    async with wire() as (caller, called):
        fine = await both(
            lambda: door.bind(caller, nonces, member, called=victim, am_caller=True),  # type: ignore[arg-type]
            lambda: door.bind(called, nonces, member, called=victim, am_caller=False),  # type: ignore[arg-type]
        )
        assert fine == [None, None]
    # The thief passes the member's proof on, but the victim has the thief's identity at its other end.
    async with wire() as (caller, called):

        async def pass_on() -> None:
            await door.bind(caller, nonces, member, called=thief, am_caller=True)  # type: ignore[arg-type]

        async def see_through() -> None:
            try:
                await door.bind(called, nonces, thief, called=victim, am_caller=False)  # type: ignore[arg-type]
            finally:
                await called.close()

        assert all(isinstance(one, NotInGroup) for one in await both(pass_on, see_through))


async def test_a_member_s_own_words_do_not_serve_as_the_answer_to_them() -> None:
    async with wire() as (caller, called):

        async def echo() -> None:
            hello = await called.read(64)
            await called.write(hello)
            await called.close()

        refused, _ = await both(lambda: Door(KEY).knock(caller), echo)
        assert isinstance(refused, NotInGroup)


def test_the_door_shows_no_key() -> None:
    assert repr(Door(KEY)) == "Door()"


async def test_groups_on_one_lan_do_not_hear_each_other() -> None:
    one, other = uuid.uuid4().hex, uuid.uuid4().hex  # not those of other test runs on this machine
    async with host_of(KEY) as a, host_of(KEY) as b, host_of(b"") as c, host_of(b"") as d:
        nodes = {
            name: LanDiscovery(host, lambda _: None, group=group)
            for name, host, group in (("a", a, one), ("b", b, one), ("c", c, other), ("d", d, other))
        }
        async with trio.open_nursery() as nursery:
            for lan in nodes.values():
                await nursery.start(lan.run)
            with trio.fail_after(60):
                while b.get_id() not in nodes["a"].heard or d.get_id() not in nodes["c"].heard:
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert set(nodes["a"].heard) | set(nodes["b"].heard) <= {a.get_id(), b.get_id()}
        assert not {a.get_id(), b.get_id()} & (set(nodes["c"].heard) | set(nodes["d"].heard))
