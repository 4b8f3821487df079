"""Honest talk beside a flood: two real nodes talk while a hostile peer pours a thousand messages a second into one.

    python benchmarks/flood.py [--rate 1000] [--messages 60] [--fresh]

One node rates courses, and it is timed until the other one has each rating: first in quiet, then beside the flood. The
flood is well-formed and signed, by 50 identities, half of it posts and half ratings; its peer comes back when it is
hung up on, with ``--fresh`` as somebody new each time. Prints delivery and latency of both runs, and what became of
the flood. Exits with 1 when an honest message is lost or the median latency grows by more than 10 %.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from p2plearn import people
from p2plearn.client import NodeClient
from p2plearn.gossip import envelope as env
from p2plearn.gossip.envelope import Body, Content, seal
from p2plearn.gossip.turns import PROTOCOL, Turn, encode
from p2plearn.net.dial import connect
from tests.hosts import running_host
from tests.nodes import RealNode

IDENTITIES = 50
TURN = 100
"""Envelopes that the flood sends at once."""
BOUND = 1.10
LOST_SECONDS = 30.0


def messages(course: bytes, number: int) -> list[bytes]:
    """Well-formed, signed, useless."""
    keys = [Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"eve %d" % n).digest()) for n in range(IDENTITIES)]
    out: list[bytes] = []
    for n in range(number):
        key = keys[n % IDENTITIES]
        made_up = hashlib.sha256(b"made up %d" % n).digest()
        body: Body = env.Rating("", 1) if n % 2 else env.Post("", None, "comment", f"buy this {n} " + "x" * 100)
        content = Content(
            key.public_key().public_bytes_raw(), body, made_up if n % 2 else course, n + 1, int(time.time())
        )
        out.append(seal(content, key.sign).raw)
    return out


async def pour(address: str, course: bytes, rate: int, seconds: float, fresh: bool) -> dict[str, int]:
    """Send ``rate`` messages a second for so long; how many were written and how often it was hung up on."""
    frames = [
        encode(Turn(envelopes=batch))
        for said in [messages(course, int(rate * seconds))]
        for batch in (said[at : at + TURN] for at in range(0, len(said), TURN))
    ]
    print("ready", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)
    info = info_from_p2p_addr(Multiaddr(address))
    counts = {"sent": 0, "offered": 0, "hung_up": 0}
    begun = trio.current_time()
    left = iter(frames)
    async with contextlib.AsyncExitStack() as stack:
        host, _ = await stack.enter_async_context(running_host())
        frame: bytes | None = next(left)
        while frame is not None:
            try:
                with trio.fail_after(5):
                    await connect(host, info, 5.0)
                    stream = await host.new_stream(info.peer_id, [TProtocol(PROTOCOL)])
                while frame is not None:
                    due = begun + counts["offered"] / rate
                    await trio.sleep(max(0.0, due - trio.current_time()))
                    counts["offered"] += TURN
                    with trio.fail_after(0.5):
                        await stream.write(frame)
                    counts["sent"] += TURN
                    frame = next(left, None)
            except Exception:
                counts["hung_up"] += 1
                frame = next(left, None)  # what was on its way is lost; the flood's clock goes on
                counts["offered"] = max(counts["offered"], int((trio.current_time() - begun) * rate))
                if fresh:
                    host, _ = await stack.enter_async_context(running_host())
                await trio.sleep(0.05)
    return counts


@contextlib.contextmanager
def flood(address: str, course: str, rate: int, seconds: float, fresh: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that pours once it is told to."""
    command = [sys.executable, __file__, "--pour", address, course, str(seconds), "--rate", str(rate)]
    with subprocess.Popen(
        command + ["--fresh"] * fresh, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def talk(speaker: NodeClient, listener: NodeClient, number: int, name: str) -> list[float]:
    """Seconds until each of ``number`` ratings was with the other node; infinite for one that was lost."""
    took: list[float] = []
    for n in range(number):
        course = hashlib.sha256(f"{name} {n}".encode()).hexdigest()
        speaker.people("rate", people.RateRequest(course, 5))
        begun = time.perf_counter()
        while not listener.people("ratings", people.RatingsRequest(course))["everyone"]["count"]:
            if time.perf_counter() - begun > LOST_SECONDS:
                begun = -float("inf")
                break
            time.sleep(0.005)
        took.append(time.perf_counter() - begun)
        time.sleep(0.25)
    return took


def show(name: str, took: list[float]) -> float:
    """Print a run; its median."""
    there = [one for one in took if one < LOST_SECONDS]
    median = statistics.median(there)
    worst = sorted(there)[int(0.95 * len(there))]
    print(
        f"{name:<18} {len(there)} of {len(took)} delivered, latency median {1000 * median:.0f} ms, "
        f"95th percentile {1000 * worst:.0f} ms, most {1000 * max(there):.0f} ms",
        flush=True,
    )
    return median


def main() -> int:
    """Talk in quiet, talk beside the flood, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--pour", nargs=3, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pour:
        address, course, seconds = given.pour
        counts = trio.run(pour, address, bytes.fromhex(course), given.rate, float(seconds), given.fresh)
        print(json.dumps(counts))
        return 0
    room = Path(tempfile.mkdtemp())
    try:
        with RealNode(room / "a") as a, RealNode(room / "b", bootstrap=[a.address]) as b:
            (room / "x.txt").write_text("a course to talk about")
            course = str(b.run("publish", room / "x.txt", "--title", "Talk", "--copies", "1")["course"])
            speaker, listener = NodeClient(b.home.path), NodeClient(a.home.path)
            listener.people("discussion", people.DiscussionRequest(course))
            talk(speaker, listener, 5, "warm up")
            quiet = talk(speaker, listener, given.messages, "quiet")
            median = show("in quiet", quiet)
            seconds = 2.0 * given.messages
            with flood(a.address, course, given.rate, seconds, given.fresh) as process:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                loud = talk(speaker, listener, given.messages, "loud")
            beside = show("beside the flood", loud)
            status: dict[str, Any] = listener.status()
            print(f"peers at fault {status['faults']} times; dropped {status['people']['dropped']}")
            print(f"kept of the flood and of the talk: {status['people']['received']} envelopes")
            lost = any(one >= LOST_SECONDS for one in quiet + loud)
            print(f"median latency beside the flood: {beside / median:.2f} times the quiet one (at most {BOUND})")
            return 0 if not lost and beside <= BOUND * median else 1
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    sys.exit(main())
