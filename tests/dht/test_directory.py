"""Telling and finding, between real hosts on loopback."""

from __future__ import annotations

import os
from typing import Any

import trio
from hosts import LOOPBACK, eventually, make_host, running_node, running_nodes
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn import status_words
from p2plearn.dht.directory import GLANCE, Directory
from p2plearn.dht.kademlia import CourseDHT, key_of
from p2plearn.dht.lookup import WIDTH
from p2plearn.net.dial import connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.standing import Standing


async def test_a_course_is_found_through_a_third_node_that_only_introduces() -> None:
    course = os.urandom(32)
    async with running_nodes(3) as (a, b, c):
        await a.meet(c)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course) >= 1)
        await b.meet(c)
        started = trio.current_time()
        found = await b.directory.find(course)
        assert [p.peer_id for p in found] == [a.peer]
        assert found[0].addrs
        assert trio.current_time() - started < 2.0


async def test_everybody_of_a_small_network_gets_the_record() -> None:
    courses = [os.urandom(32) for _ in range(40)]
    async with running_nodes(3) as (a, b, c):
        await a.meet(c)
        await b.meet(c)
        await eventually(lambda: len(a.dht.known_peers()) == 2)
        for course in courses:
            a.directory.announce(course)
        await eventually(lambda: all(a.directory.announced(x) == 2 for x in courses))
        assert all(key_of(x) in node.dht.provider_store.providers for x in courses for node in (b, c))
        assert a.directory.figures().announced == 40


async def test_a_course_published_alone_is_told_to_the_first_peer_that_appears() -> None:
    course = os.urandom(32)
    async with running_nodes(2) as (a, b):
        a.directory.announce(course)
        await eventually(lambda: a.directory.figures().last_error)
        assert a.directory.figures().waiting == 1
        await b.meet(a)
        await eventually(lambda: a.directory.announced(course) == 1)
        assert [p.peer_id for p in await b.directory.find(course)] == [a.peer]
        assert a.directory.figures().last_error == ""


async def test_neighbours_of_one_region_take_one_lookup() -> None:
    courses = [os.urandom(32) for _ in range(120)]
    async with running_nodes(4) as (a, b, c, d):
        for other in (b, c, d):
            await other.meet(a)
        await eventually(lambda: len(a.dht.known_peers()) == 3, 60.0)
        lookups: list[bytes] = []
        nearest = a.dht.nearest

        async def counted(key: bytes, width: int = WIDTH) -> list[ID]:
            lookups.append(key)
            return await nearest(key, width)

        a.dht.nearest = counted  # type: ignore[method-assign]
        for course in courses:
            a.directory.announce(course, urgent=False)
        await eventually(lambda: all(a.directory.announced(x) == 3 for x in courses), 60.0)
        assert len([key for key in lookups if key in set(map(key_of, courses))]) <= 3


async def test_who_can_not_keep_its_period_says_so() -> None:
    host_a, courses = make_host(), [os.urandom(32) for _ in range(150)]
    dht = CourseDHT(host_a)
    guard_streams(host_a, Standing())
    directory = Directory(host_a, dht, chance=lambda: 0.5, interval=0.5)  # at 100 a second they take 1.5 s
    async with running_node() as b, host_a.run([LOOPBACK]), trio.open_nursery() as nursery:
        await nursery.start(dht.run)
        await nursery.start(directory.run)
        await connect(host_a, b.info, 60.0)
        for course in courses:
            directory.announce(course)
        await eventually(lambda: directory.figures().announced == len(courses), 60.0)
        await eventually(lambda: directory.figures().late, 60.0)
        told = directory.figures()
        assert told.lateness > 0.5
        words = status_words.status({"dht": {"peers": 1, "late": told.late, "lateness": told.lateness}})
        assert f"! Telling the network what is here falls behind: {told.late} course" in words
        nursery.cancel_scope.cancel()


async def test_a_lookup_with_nobody_there_ends_at_once() -> None:
    async with running_node() as a:
        with trio.fail_after(0.5):
            assert await a.directory.find(os.urandom(32)) == []


async def test_a_glance_asks_the_few_nearest_who_tell_as_much() -> None:
    course = os.urandom(32)
    async with running_nodes(3) as (a, b, c):
        await a.meet(c)
        a.directory.announce(course)
        await eventually(lambda: a.directory.announced(course) >= 1, 60.0)
        await b.meet(c)
        widths: list[int] = []
        providers = b.dht.providers

        def noted(key: bytes, width: int = WIDTH) -> Any:
            widths.append(width)
            return providers(key, width)

        b.dht.providers = noted  # type: ignore[method-assign]
        for glance in (True, False):
            async with b.directory.find_stream(course, glance=glance) as found:
                assert a.peer in [info.peer_id async for info in found]
        assert widths == [GLANCE, WIDTH]


async def test_who_has_found_enough_leaves_while_others_are_still_named() -> None:
    """It ended a node's network part: the channel closed first, and the lookup told one more."""
    course = os.urandom(32)
    async with running_node() as a:
        for _ in range(30):
            named = ID.from_pubkey(create_new_key_pair().public_key)
            a.dht.provider_store.add_provider(key_of(course), PeerInfo(named, [Multiaddr("/ip4/127.0.0.1/tcp/1")]))
        for limit in range(1, 20):
            assert len(await a.directory.find(course, limit=limit)) == limit
