"""Kademlia between live nodes, some of them dead, deaf, or liars."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import trio
from hosts import Node, eventually, running_host, running_node, running_nodes
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes
from multiaddr import Multiaddr

from p2plearn.dht import kademlia
from p2plearn.dht.kademlia import PROTOCOL, key_of
from p2plearn.net.dial import connect


def new_id() -> ID:
    return ID.from_pubkey(create_new_key_pair().public_key)


async def test_a_peer_that_connects_to_us_is_in_the_table_if_it_serves_and_else_not() -> None:
    async with running_nodes(2) as (a, b), running_host() as (client, _):
        await b.meet(a)
        await connect(client, a.info, 2.0)
        await eventually(lambda: a.dht.routing_table.peer_in_table(b.peer))
        await eventually(lambda: a.dht.peerstore.speaks(client.get_id(), PROTOCOL) is False)
        assert not a.dht.routing_table.peer_in_table(client.get_id())


async def test_a_peer_that_comes_back_is_asked_anew_what_it_speaks_and_taken_in_again() -> None:
    async with running_nodes(2) as (a, b):
        await a.meet(b)
        await eventually(lambda: a.dht.routing_table.peer_in_table(b.peer))
        await trio.sleep(3 * kademlia.SETTLE_SECONDS)  # both look around first, and would call again
        await a.host.disconnect(b.peer)
        await eventually(lambda: not b.host.get_network().get_connections(a.peer))
        await eventually(lambda: a.dht.peerstore.speaks(b.peer, PROTOCOL) is None)
        a.dht._lost(b.peer)
        await a.meet(b)
        await eventually(lambda: a.dht.routing_table.peer_in_table(b.peer))
        assert not a.dht.avoids(b.peer)
        await trio.sleep(3 * kademlia.SETTLE_SECONDS)
        # And one that speaks less than before is not taken for what it was.
        await a.host.disconnect(b.peer)
        await eventually(lambda: not b.host.get_network().get_connections(a.peer))
        b.host.remove_stream_handler(PROTOCOL)
        await a.meet(b)
        await eventually(lambda: a.dht.peerstore.speaks(b.peer, PROTOCOL) is False)


async def test_joining_through_one_means_knowing_all() -> None:
    async with running_nodes(6) as nodes:
        for node in nodes[1:]:
            await node.meet(nodes[0])
        await eventually(lambda: all(len(n.dht.known_peers()) == 5 for n in nodes))


async def test_what_others_say_is_not_passed_on_as_known() -> None:
    course = os.urandom(32)
    async with running_nodes(3) as (a, b, c):
        await a.meet(c)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course))
        await b.meet(c)
        assert len(await b.directory.find(course)) == 1
        # B was told of it only if A found B among the nearest and said so itself.
        told = b.dht.provider_store.providers.get(key_of(course), {})
        assert set(told) <= {str(a.peer)}
        assert str(c.peer) not in c.dht.provider_store.providers.get(key_of(course), {})


async def test_the_dead_cost_a_second_once() -> None:
    course = os.urandom(32)
    async with running_nodes(3) as (a, b, c):
        await a.meet(c)
        await b.meet(c)
        await eventually(lambda: len(b.dht.known_peers()) == 2)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course) == 2)
        deaf = trio.socket.socket()
        await deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)  # takes connections, says nothing: as a laptop that sleeps behind a router
        where = Multiaddr(f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}")
        for _ in range(3):
            ghost = new_id()
            for node in (b, c):
                node.dht.peerstore.add_addrs(ghost, [where], 3600)
                await node.dht.routing_table.add_peer(PeerInfo(ghost, [where]), skip_server_mode_check=True)
        started = trio.current_time()
        assert [p.peer_id for p in await b.directory.find(course)] == [a.peer]
        first = trio.current_time() - started
        started = trio.current_time()
        assert [p.peer_id for p in await b.directory.find(course)] == [a.peer]
        assert first < 3.0
        assert trio.current_time() - started < 0.9  # less than anybody is waited for
        deaf.close()


async def answer_with(node: Node, answers: Callable[[Message], bytes]) -> None:
    """Replace the Kademlia server of ``node`` by a liar."""

    async def lie(stream: INetStream) -> None:
        request = Message()
        request.ParseFromString(await read_varint_prefixed_bytes(stream))
        await stream.write(answers(request))
        await stream.close()

    node.host.set_stream_handler(TProtocol(PROTOCOL), lie)


def _mirror(request: Message) -> Message:
    return Message(type=request.type, key=request.key)


def _thousands(request: Message) -> bytes:
    answer = _mirror(request)
    for peers in (answer.closerPeers, answer.providerPeers):
        for _ in range(500):
            entry = peers.add()
            entry.id = b"\x00\x24\x08\x01\x12\x20" + os.urandom(32)
            entry.addrs.append(Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes())
    return encode_varint_prefixed(answer.SerializeToString())


def _nonsense_fields(request: Message) -> bytes:
    answer = _mirror(request)
    for peers in (answer.closerPeers, answer.providerPeers):
        for name in (b"", b"x", os.urandom(200), os.urandom(34)):
            entry = peers.add()
            entry.id = name
            entry.signedRecord = os.urandom(100)
            entry.addrs.extend([b"", b"\xff" * 300, os.urandom(8), Multiaddr("/ip4/0.0.0.0/tcp/1").to_bytes()])
    return encode_varint_prefixed(answer.SerializeToString())


LIES: list[Callable[[Message], bytes]] = [
    _thousands,
    _nonsense_fields,
    lambda _request: b"",
    lambda _request: b"\x00",
    lambda request: os.urandom(500 + len(request.key)),
    lambda _request: b"\xff\xff\xff\xff\x0f" + bytes(1000),
    lambda _request: b"\xff" * 11,
    lambda _request: encode_varint_prefixed(Message(type=Message.MessageType.PING).SerializeToString()),
]


async def test_a_liar_neither_hides_the_honest_nor_costs_much() -> None:
    course = os.urandom(32)
    async with running_nodes(3) as (a, b, liar):
        await a.meet(b)
        await liar.meet(b)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course))
        for lie in LIES:
            await answer_with(liar, lie)
            b.dht._avoid.clear()
            with trio.fail_after(4.0):
                found = await b.directory.find(course, limit=100)
            assert a.peer in [p.peer_id for p in found]
            assert len(found) <= 2 * kademlia.WIDTH + 1
            assert b.peer not in [p.peer_id for p in found]
        assert b.dht.routing_table.size() <= 2
        assert len(b.dht.peerstore.peer_ids()) <= 1100


async def test_mutated_messages_on_a_live_node_while_an_honest_peer_is_served() -> None:
    chance = random.Random(5)
    course = os.urandom(32)
    async with running_nodes(3) as (a, b, bad):
        await a.meet(b)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course))
        await connect(bad.host, b.info, 2.0)
        samples: list[bytes] = []
        for kind in range(6):
            message = Message(type=kind, key=key_of(course))
            message.record.key = message.record.value = b"key"
            for peers in (message.closerPeers, message.providerPeers):
                entry = peers.add()
                entry.id = bad.peer.to_bytes()
                entry.addrs.append(Multiaddr("/ip4/1.2.3.4/tcp/5").to_bytes())
            samples.append(message.SerializeToString())

        async def attack() -> None:
            for _ in range(60):
                b.guard.standing.forgive(str(bad.peer))  # else nine of them were all that came
                try:
                    stream = await bad.host.new_stream(b.peer, [PROTOCOL])
                    for _ in range(5):
                        raw = bytearray(chance.choice(samples))
                        for _ in range(chance.randrange(4)):
                            raw[chance.randrange(len(raw))] = chance.randrange(256)
                        frame = bytearray(encode_varint_prefixed(bytes(raw[: chance.randrange(1, len(raw) + 1)])))
                        if chance.random() < 0.2:
                            frame[0] = chance.randrange(256)
                        await stream.write(bytes(frame))
                    await stream.reset()
                except Exception:
                    await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack)
            for _ in range(10):
                with trio.fail_after(3.0):
                    assert [p.peer_id for p in await a.directory.find(os.urandom(32))] == []
        b.guard.standing.forgive(str(bad.peer))
        async with running_node() as c:
            await c.meet(b)
            assert a.peer in [p.peer_id for p in await c.directory.find(course)]


async def test_one_that_keeps_its_streams_open_keeps_nobody_else_out() -> None:
    course = os.urandom(32)
    async with running_nodes(2) as (a, b), running_host() as (greedy, _):
        await connect(greedy, a.info, 2.0)
        held = []
        for _ in range(30):
            try:
                held.append(await greedy.new_stream(a.peer, [PROTOCOL]))
            except Exception:
                break
        await b.meet(a)
        b.directory.announce(course)
        await eventually(lambda: b.directory.announced(course) == 1)
        for stream in held:
            await stream.reset()


async def test_many_courses_go_to_a_peer_in_turn_and_none_is_lost() -> None:
    courses = [os.urandom(32) for _ in range(300)]
    async with running_nodes(2) as (a, b):
        await a.meet(b)
        await eventually(a.dht.known_peers)
        for course in courses:
            a.directory.announce(course, urgent=False)
        started = trio.current_time()
        await eventually(lambda: a.directory.figures().announced == 300, 10.0)
        assert trio.current_time() - started > 1.0  # not all at once
        assert b.dht.provider_store.size() == 300
        assert a.directory.figures().waiting == 0


async def test_many_searches_at_once_do_not_lose_the_peer_that_is_asked() -> None:
    course = os.urandom(32)
    found: list[int] = []
    async with running_nodes(3) as (a, b, c):
        await a.meet(b)
        await c.meet(b)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course))
        c.dht.provider_store.providers.clear()

        async def find() -> None:
            found.append(len(await c.directory.find(course)))

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(find)
        assert found == [1] * 60
        assert not c.dht.avoids(b.peer)


async def test_a_withdrawn_course_is_told_to_nobody_new() -> None:
    course = os.urandom(32)
    async with running_nodes(2) as (a, b):
        a.directory.announce(course)
        a.directory.withdraw(course)
        await a.meet(b)
        await eventually(lambda: a.dht.routing_table.size() == 1)
        await trio.sleep(0.1)
        assert await b.directory.find(course) == []
