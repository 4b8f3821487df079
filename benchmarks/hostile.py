"""A hostile peer, in a process of its own: ``python benchmarks/hostile.py WHAT MULTIADDR COURSE COUNT SEED [NAME]``.

WHAT is frames, slow, resets, unread or bombs (see ``storm.py``); prints one JSON object of figures. Speaks TLS and
yamux frame by frame, under a fresh identity whenever it was hung up on, from addresses all over 127.0.0.0/8.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import trio
from frames import ANSWERED, STREAMS, WIRES, Mutator, answers, bombs, seeds
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.net.muting import mute_libp2p
from p2plearn.net.tls import TlsTransport

HEADER = struct.Struct("!BBHII")
DATA, UPDATE, PING, AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, EOFError, Exception)
FRAMES_AT_ONCE = 6
"""Connections of one process."""
MANY = 12
"""Frames in one stream, where a protocol has many; the node reads them up to the first that it can't bear."""
PATIENCE = 20.0


def line(text: str) -> bytes:
    raw = text.encode() + b"\n"
    return bytes([len(raw)]) + raw


class Target:
    def __init__(self, address: str, course: str) -> None:
        maddr = Multiaddr(address)
        self.ip = str(maddr.value_for_protocol("ip4"))
        self.port = int(maddr.value_for_protocol("tcp"))
        self.peer = ID.from_string(str(maddr.value_for_protocol("p2p")))
        self.course = bytes.fromhex(course)
        self._from = itertools.count(random.randrange(1 << 20))

    async def tcp(self) -> trio.SocketStream:
        sock = trio.socket.socket()
        number = next(self._from)
        await sock.bind((f"127.{1 + number % 200}.{number // 200 % 250}.{1 + number // 50_000 % 250}", 0))
        # No TIME_WAIT: a hundred thousand connections would run out of ports.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await sock.connect((self.ip, self.port))
        return trio.SocketStream(sock)

    @contextlib.asynccontextmanager
    async def wire(self, *, reads: bool = True) -> AsyncIterator[Wire]:
        """A connection under a fresh identity; raises what is in ``GONE``."""
        async with await self.tcp() as stream, trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE):
                raw = RawConnection(TrioTCPStream(stream), True)
                await choose(raw, "/tls/1.0.0")
                session = await TlsTransport(create_new_key_pair()).secure_outbound(raw, self.peer)
                await choose(session, "/yamux/1.0.0")
            wire = Wire(session)
            if reads:
                nursery.start_soon(wire.listen)
            try:
                yield wire
            finally:
                nursery.cancel_scope.cancel()


async def choose(connection: object, protocol: str) -> None:
    hello, name = line("/multistream/1.0.0"), line(protocol)
    await connection.write(hello + name)  # type: ignore[attr-defined]
    got = b""
    while len(got) < len(hello + name):
        got += await connection.read(len(hello + name) - len(got))  # type: ignore[attr-defined]


class Wire:
    """Yamux frames, said as one likes; knows which streams the node has ended, and what it said on them."""

    def __init__(self, session: object) -> None:
        self._session = session
        self.over = trio.Event()
        self.open: dict[int, bytearray] = {}  # what was heard, by stream
        self.ended: list[bytes] = []  # what was heard on those that are over, where the node took the protocol
        self.pongs = 0
        self._next = 1
        self._changed = trio.lowlevel.ParkingLot()

    async def say(self, data: bytes) -> None:
        with trio.fail_after(PATIENCE):
            await self._session.write(data)  # type: ignore[attr-defined]

    def begin(self, protocol: str, payload: bytes, *, end: bool = True) -> tuple[int, bytes]:
        """The frames of a stream that says ``payload`` in ``protocol`` (none for the bare stream)."""
        number, self._next = self._next, self._next + 2
        head = line("/multistream/1.0.0") + line(protocol) if protocol else b""
        said = head + payload
        frames = HEADER.pack(0, UPDATE, SYN, number, 0) + HEADER.pack(0, DATA, 0, number, len(said)) + said
        if end:
            frames += HEADER.pack(0, UPDATE, FIN, number, 0)
        self.open[number] = bytearray()
        return number, frames

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition() and not self.over.is_set():
            await self._changed.park()

    async def listen(self) -> None:
        buffer = bytearray()
        try:
            while True:
                data = await self._session.read(1 << 16)  # type: ignore[attr-defined]
                if not data:
                    break
                buffer += data
                while len(buffer) >= 12:
                    _, kind, flags, number, length = HEADER.unpack_from(buffer)
                    size = length if kind == DATA else 0
                    if len(buffer) < 12 + size:
                        break
                    self._hear(kind, flags, number, bytes(buffer[12 : 12 + size]))
                    del buffer[: 12 + size]
                self._changed.unpark_all()
        except Exception:  # however it ends
            return
        finally:
            self.over.set()
            self._changed.unpark_all()

    def _hear(self, kind: int, flags: int, number: int, said: bytes) -> None:
        if kind == PING and flags & ACK:
            self.pongs += 1
        elif kind == AWAY:
            self.over.set()
        if number in self.open:
            self.open[number] += said
            if flags & (FIN | RST):
                heard = bytes(self.open.pop(number))
                if len(heard) >= 20:
                    self.ended.append(heard)


async def frames(target: Target, name: str, count: int, seed: int) -> dict[str, object]:
    """``count`` mutated frames of one protocol that the node took in, from live connections."""
    mutator = Mutator(name, target.course, seed, near=0.85 if name in ANSWERED else 0.5)
    figures: Counter[str] = Counter()
    one: Callable[[Target, str, Mutator, Counter[str]], Awaitable[None]]
    one = {"yamux": _yamux, "tls": _tls}.get(name, _streams)

    async def go() -> None:
        while figures["frames"] < count:
            figures["connections"] += 1
            try:
                await one(target, name, mutator, figures)
            except GONE:
                figures["cut"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(FRAMES_AT_ONCE):
            nursery.start_soon(go)
    return dict(figures)


async def _streams(target: Target, name: str, mutator: Mutator, figures: Counter[str]) -> None:
    protocol = "" if name == "multistream" else name
    share = STREAMS.get(name, 16)
    many = MANY if name in ANSWERED else 1
    head = len(line("/multistream/1.0.0") + line(protocol))
    async with target.wire() as wire:
        sent = 0
        try:
            while sent < 200 and not wire.over.is_set():
                batch = [
                    wire.begin(protocol, b"".join(mutator.next() for _ in range(many)))[1]
                    for _ in range(share - len(wire.open))
                ]
                sent += len(batch)
                await wire.say(b"".join(batch))
                with trio.fail_after(PATIENCE):
                    await wire.until(lambda: len(wire.open) < share)
        finally:
            figures["streams"] += sent
            if protocol:
                # What was answered was read, and one more: the one that the node ended the stream for.
                figures["frames"] += sum(
                    min(many, answers(name, heard[head:]) + 1) if many > 1 else 1 for heard in wire.ended
                )
            else:
                figures["frames"] += sent


async def _yamux(target: Target, name: str, mutator: Mutator, figures: Counter[str]) -> None:
    async with target.wire() as wire:
        for number in range(1, 40):
            batch = [mutator.next() for _ in range(4)]
            await wire.say(b"".join(batch) + HEADER.pack(0, PING, SYN, 0, number))
            with trio.move_on_after(1.0):
                await wire.until(lambda number=number: wire.pongs >= number)
            # Only the first that breaks the protocol is looked at, and one that swallows the ping ends it too.
            figures["frames"] += 4 if wire.pongs >= number else 1
            if wire.pongs < number:
                return


async def _tls(target: Target, name: str, mutator: Mutator, figures: Counter[str]) -> None:
    async with await target.tcp() as stream:
        await stream.send_all(line("/multistream/1.0.0") + line("/tls/1.0.0"))
        with trio.fail_after(PATIENCE):
            got = b""
            while len(got) < 32:
                more = await stream.receive_some(32 - len(got))
                if not more:
                    return
                got += more
            await stream.send_all(mutator.next())
            figures["frames"] += 1
            with trio.move_on_after(0.02):
                await stream.receive_some(1)


async def slow(target: Target, count: int) -> dict[str, object]:
    """``count`` peers of a byte in ten seconds: how long each kind was borne with."""
    borne: dict[str, list[float]] = {"handshake": [], "header": [], "body": []}

    async def handshake() -> None:
        async with await target.tcp() as stream:
            began = trio.current_time()
            with contextlib.suppress(*GONE):
                async with trio.open_nursery() as nursery:

                    async def drip() -> None:
                        for byte in line("/multistream/1.0.0") + line("/tls/1.0.0") + bytes(100):
                            await stream.send_all(bytes([byte]))
                            await trio.sleep(10)

                    nursery.start_soon(drip)
                    while await stream.receive_some(100):
                        pass
                    nursery.cancel_scope.cancel()
            borne["handshake"].append(trio.current_time() - began)

    async def body(kind: str, protocol: str, begun: bytes) -> None:
        with contextlib.suppress(*GONE):
            async with target.wire() as wire:
                began = trio.current_time()
                number, said = wire.begin(protocol, begun, end=False)

                async def drip() -> None:
                    await wire.say(said)
                    while True:
                        await trio.sleep(10)
                        await wire.say(HEADER.pack(0, DATA, 0, number, 1) + b"\0")

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(drip)
                    await wire.until(lambda: number not in wire.open)
                    nursery.cancel_scope.cancel()
                borne[kind].append(trio.current_time() - began)

    bodies = [
        (name, seed[: min(6, len(seed) - 1)])
        for name in STREAMS
        if name != "/ipfs/id/1.0.0"  # on which only the node speaks
        for seed in seeds(name, target.course)[:1]
    ]
    async with trio.open_nursery() as nursery:
        for number in range(count):
            if number % 3 == 0:
                nursery.start_soon(handshake)
            elif number % 3 == 1:
                nursery.start_soon(body, "header", "", line("/multistream/1.0.0") + b"\x12/p2p")
            else:
                nursery.start_soon(body, "body", *bodies[number // 3 % len(bodies)])
            await trio.sleep(0.05)
    return {kind: {"peers": len(times), "longest": round(max(times, default=0.0), 1)} for kind, times in borne.items()}


async def resets(target: Target, seconds: float) -> dict[str, object]:
    """Streams that are opened and reset at once, as fast as the node takes them."""
    figures: Counter[str] = Counter()

    async def go() -> None:
        while True:
            figures["connections"] += 1
            with contextlib.suppress(*GONE):
                async with target.wire() as wire:
                    while not wire.over.is_set():
                        batch = b""
                        for _ in range(20):
                            number, said = wire.begin("/p2plearn/chunk/1", b"")
                            batch += said + HEADER.pack(0, UPDATE, RST, number, 0)
                            wire.open.pop(number)
                        await wire.say(batch)
                        figures["resets"] += 20

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(go)
    return dict(figures)


async def unread(target: Target, seconds: float) -> dict[str, object]:
    """Peers that ask for all there is, again and again, and read nothing."""
    figures: Counter[str] = Counter()
    asked = seeds("/p2plearn/chunk/1", target.course)

    async def go() -> None:
        while True:
            figures["connections"] += 1
            with contextlib.suppress(*GONE):
                async with target.wire(reads=False) as wire:
                    for name in ("/p2plearn/chunk/1", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/p2plearn/kad/1.0.0"):
                        payload = asked[3] if "chunk" in name else seeds(name, target.course)[0]
                        for _ in range(4):
                            await wire.say(wire.begin(name, payload, end=False)[1])
                            figures["streams"] += 1
                    while True:
                        await wire.say(HEADER.pack(0, PING, SYN, 0, 1) * 100)
                        await trio.sleep(0.5)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(go)
    return dict(figures)


async def length_bombs(target: Target) -> dict[str, object]:
    """Every length that can't be, in every protocol, its stream left open."""
    figures: Counter[str] = Counter()
    limit = trio.CapacityLimiter(FRAMES_AT_ONCE)

    async def throw(name: str, bomb: bytes) -> None:
        async with limit:
            with contextlib.suppress(*GONE):
                await _throw(target, name, bomb)
            figures["bombs"] += 1

    async with trio.open_nursery() as nursery:
        for name in (*STREAMS, *WIRES):
            for bomb in bombs(name, target.course):
                nursery.start_soon(throw, name, bomb)
    return dict(figures)


async def _throw(target: Target, name: str, bomb: bytes) -> None:
    if name == "tls":
        async with await target.tcp() as stream:
            await stream.send_all(line("/multistream/1.0.0") + line("/tls/1.0.0") + bomb)
            with trio.move_on_after(0.3):
                await stream.receive_some(1)
        return
    async with target.wire() as wire:
        if name == "yamux":
            await wire.say(bomb)
        else:
            await wire.say(wire.begin("" if name == "multistream" else name, bomb, end=False)[1])
        with trio.move_on_after(0.3):
            await wire.over.wait()


async def mixed(target: Target, count: int, seed: int) -> dict[str, object]:
    """``count`` frames of every protocol, bombs and resets, all at once."""
    figures: Counter[str] = Counter()

    async def add(work: Awaitable[dict[str, object]]) -> None:
        figures.update(await work)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        for name in (*STREAMS, *WIRES):
            nursery.start_soon(add, frames(target, name, count, seed))
        nursery.start_soon(add, length_bombs(target))
        nursery.start_soon(add, resets(target, 2.0))
    return dict(figures)


async def main() -> None:
    """Do one thing."""
    what, address, course, count, seed, *rest = sys.argv[1:]
    target = Target(address, course)
    mute_libp2p()
    if what == "frames":
        figures = await frames(target, rest[0], int(count), int(seed))
    elif what == "slow":
        figures = await slow(target, int(count))
    elif what == "resets":
        figures = await resets(target, float(count))
    elif what == "unread":
        figures = await unread(target, float(count))
    elif what == "mixed":
        figures = await mixed(target, int(count), int(seed))
    else:
        figures = await length_bombs(target)
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    trio.run(main)
