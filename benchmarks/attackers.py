"""Hostile peers of each named kind of ``tests/adversary``, in one process, among real nodes.

    python benchmarks/attackers.py --nodes ADDRESS[,ADDRESS...] [--each 2] COURSE...

Fetches each course as an honest peer would, then joins the network through the addresses with a host for each
attacker, has itself named as a provider of every course, and answers who asks for one in the manner of its kind. Says
a JSON object of peer ids and their kinds on stdout once all are up; ends with its stdin, printing how many
conversations each kind had.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from adversary.peers import Adversary
from courses import Course, MemoryLanding, Remote
from hosts import LOOPBACK, make_host

from p2plearn.dht.directory import Directory
from p2plearn.dht.kademlia import CourseDHT
from p2plearn.net.addresses import read_peer
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.standing import Standing
from p2plearn.transfer.channel import Channel, StreamOver
from p2plearn.transfer.fetch import Fetch
from p2plearn.transfer.protocol import FROM_FETCHER, PROTOCOL, Open

AT_ONCE = 8
"""That are connecting: each calls every node."""

FEW = ConnectionLimits(total=32, for_own_calls=24)
"""Forty hosts that all know each other would keep this machine busy with themselves."""


def kinds(base: type[Adversary] = Adversary) -> Iterator[type[Adversary]]:
    """Every kind that has a name of its own."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


async def fetch_whole(host: Any, name: bytes, peers: list[Any]) -> Course:
    """A course in memory, from honest nodes."""
    landing: list[tuple[Any, MemoryLanding, bytes]] = []

    async def offer_all(offer: Any) -> None:
        for info in peers:
            await offer(Remote(host, info))

    async def land(signed: Any, raw: bytes | None, index: Any) -> MemoryLanding:
        landing.append((signed, MemoryLanding(index), bytes(raw or index.encode())))
        return landing[-1][1]

    await Fetch(name, offer_all, signed=None, index=None, roll=random.randrange).run(land)
    signed, landed, raw = landing[-1]
    by_digest = {bytes(landed.index.digest(slot)): body for slot, body in landed.chunks.items()}
    chunks = [by_digest[bytes(landed.index.digest(slot))] for slot in range(len(landed.index))]
    return Course(signed, landed.index, raw, chunks)


async def attack(
    kind: type[Adversary], courses: dict[bytes, Course], peers: list[Any], count: Counter[str], *, task_status: Any
) -> None:
    """One attacker, until cancelled."""
    host = make_host(FEW)
    dht = CourseDHT(host)
    guard_streams(host, Standing())
    directory = Directory(host, dht)

    async def answer(stream: Any) -> None:
        channel, mine = Channel(stream, FROM_FETCHER), None
        with suppress(StreamOver):
            while True:
                for message in await channel.receive():
                    if isinstance(message, Open):
                        count[kind.__name__] += 1
                        mine = kind(courses[message.course]) if message.course in courses else None
                    if mine is not None:
                        await mine.hear(channel, message)

    host.set_stream_handler(PROTOCOL, answer)
    async with host.run([LOOPBACK]), trio.open_nursery() as nursery:
        await nursery.start(dht.run)
        await nursery.start(directory.run)
        for info in peers:  # who is connected is asked before anybody is looked up
            with suppress(ConnectFailed):
                await connect(host, info, 10.0)
        for name in courses:
            directory.announce(name)
        task_status.started(str(host.get_id()))
        await trio.sleep_forever()


async def run(given: argparse.Namespace) -> None:
    """All of them."""
    peers = [read_peer(address) for address in given.nodes.split(",")]
    count: Counter[str] = Counter()
    host = make_host()
    guard_streams(host, Standing())
    courses: dict[bytes, Course] = {}
    async with host.run([LOOPBACK]):
        for name in given.courses:
            course = await fetch_whole(host, bytes.fromhex(name), peers)
            courses[course.hash] = course
    ids: dict[str, str] = {}
    places = trio.CapacityLimiter(AT_ONCE)
    async with trio.open_nursery() as nursery:

        async def begin(kind: type[Adversary]) -> None:
            async with places:
                ids[await nursery.start(attack, kind, courses, peers, count)] = kind.__name__

        async with trio.open_nursery() as beginning:
            for kind in kinds():
                for _ in range(given.each):
                    beginning.start_soon(begin, kind)
        print(json.dumps(ids), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        print(" ".join(f"{name} {number}" for name, number in sorted(count.items())), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--each", type=int, default=2, help="attackers of each kind")
    parser.add_argument("courses", nargs="+")
    trio.run(run, parser.parse_args())
