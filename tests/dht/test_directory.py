"""Telling and finding, between real hosts on loopback."""

from __future__ import annotations

import os

import trio
from hosts import eventually, running_node, running_nodes

from p2plearn.dht.kademlia import key_of


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


async def test_a_lookup_with_nobody_there_ends_at_once() -> None:
    async with running_node() as a:
        with trio.fail_after(0.5):
            assert await a.directory.find(os.urandom(32)) == []
