"""How fast a node tells the network of many courses, and whether what it told is found: real hosts on loopback.

    python benchmarks/provide.py [tell] [--hosts 30] [--courses 1000]
    python benchmarks/provide.py find [--hosts 40] [--courses 200] [--finds 400]

``tell``: one node announces that many random course hashes to hosts in this same process (so what is shown is what all
of them together cost one core); then others look some of them up. The rate is held against 10,000 courses in 12 hours.
``find``: the courses are announced by all hosts in turn; then hosts drawn at random look courses of others up, one
after the other, each until its provider is named.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.dht.directory import Directory
from p2plearn.dht.kademlia import CourseDHT
from p2plearn.dht.schedule import INTERVAL
from p2plearn.net.dial import connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.host import build_host
from p2plearn.net.muting import mute_libp2p
from p2plearn.net.standing import Standing

MANY = 10_000
LOOKED_UP = 200


@asynccontextmanager
async def network(hosts: int) -> AsyncIterator[list[Directory]]:
    """That many hosts, who all met the first."""
    directories: list[Directory] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        first: PeerInfo | None = None
        for _ in range(hosts):
            host = build_host(create_new_key_pair())
            dht = CourseDHT(host)
            guard_streams(host, Standing())
            await stack.enter_async_context(host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]))
            await nursery.start(dht.run)
            directory = Directory(host, dht)
            await nursery.start(directory.run)
            directories.append(directory)
            if first is None:
                first = PeerInfo(host.get_id(), host.get_transport_addrs())
            else:
                await connect(host, first, 10.0)
            await trio.sleep(0.2)
        await trio.sleep(3.0)
        yield directories
        nursery.cancel_scope.cancel()


async def tell(hosts: int, courses: int) -> None:
    """Announce, look up, print."""
    async with network(hosts) as directories:
        names = [os.urandom(32) for _ in range(courses)]
        teller = directories[-1]
        begun, cpu = time.perf_counter(), time.process_time()
        for name in names:
            teller.announce(name)
        while teller.figures().announced < courses:
            await trio.sleep(0.5)
        seconds, worked = time.perf_counter() - begun, time.process_time() - cpu
        holders = statistics.mean(teller.announced(name) for name in names)
        print(
            f"{courses} courses told to {holders:.1f} peers each in {seconds:.1f} s: {courses / seconds:.1f} a second"
        )
        print(f"CPU of all {hosts} hosts: {worked:.1f} s")
        print(f"10,000 at this rate: {MANY * seconds / courses / 60:.1f} minutes of the {INTERVAL / 3600:.0f} hours")
        asked = [(random.choice(directories[:-1]), name) for name in random.sample(names, min(LOOKED_UP, courses))]
        await look_up(asked)


async def find(hosts: int, courses: int, finds: int) -> None:
    """Have every host announce its share, look up, print."""
    async with network(hosts) as directories:
        names = [(os.urandom(32), directories[number * hosts // courses]) for number in range(courses)]
        for name, directory in names:  # one host after the other: they share one core, and each waits 4 s for an answer
            directory.announce(name)
            while not directory.announced(name):
                await trio.sleep(0.01)
        asked = []
        for _ in range(finds):
            name, teller = random.choice(names)
            asked.append((random.choice([each for each in directories if each is not teller]), name))
        print(f"{courses} courses of {hosts} hosts")
        await look_up(asked)


async def look_up(asked: list[tuple[Directory, bytes]]) -> None:
    """Find each, one after the other, and print how many were and how long it took."""
    found, took, cpu = 0, [], time.process_time()
    for directory, name in asked:
        begun = time.perf_counter()
        found += bool(await directory.find(name, limit=1))
        took.append(time.perf_counter() - begun)
    cpu = (time.process_time() - cpu) / len(asked)
    took.sort()
    p99 = took[min(len(took) - 1, len(took) * 99 // 100)]
    print(
        f"{found} of {len(took)} found, p50 {1000 * statistics.median(took):.0f} ms, p99 {1000 * p99:.0f} ms, "
        f"most {1000 * took[-1]:.0f} ms; CPU of all hosts {1000 * cpu:.0f} ms a look-up"
    )


def main() -> None:
    """Read the arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["tell", "find"], default="tell")
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--courses", type=int)
    parser.add_argument("--finds", type=int, default=400)
    given = parser.parse_args()
    mute_libp2p()
    if given.what == "tell":
        trio.run(tell, given.hosts or 30, given.courses or 1000)
    else:
        trio.run(find, given.hosts or 40, given.courses or 200, given.finds)


if __name__ == "__main__":
    main()
