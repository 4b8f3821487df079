"""How fast a node tells the network of many courses, and whether what it told is found: real hosts on loopback.

    python benchmarks/provide.py [--hosts 30] [--courses 1000]

One node announces that many random course hashes to hosts in this same process (so what is shown is what all of them
together cost one core); then others look some of them up. The rate is held against 10,000 courses in 12 hours.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from contextlib import AsyncExitStack

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


async def measure(hosts: int, courses: int) -> None:
    """Announce, look up, print."""
    directories: list[Directory] = []
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
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
        found = 0
        took = []
        for name in random.sample(names, min(LOOKED_UP, courses)):
            begun = time.perf_counter()
            found += bool(await random.choice(directories[:-1]).find(name, limit=1))
            took.append(time.perf_counter() - begun)
        print(f"{found} of {len(took)} found, median {1000 * statistics.median(took):.0f} ms, most {max(took):.2f} s")
        nursery.cancel_scope.cancel()


def main() -> None:
    """Read the arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=30)
    parser.add_argument("--courses", type=int, default=1000)
    given = parser.parse_args()
    mute_libp2p()
    trio.run(measure, given.hosts, given.courses)


if __name__ == "__main__":
    main()
