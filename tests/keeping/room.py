"""Nodes that keep courses for each other in one process: real stores, keepers and chunk services, wires in memory.

Everything is real but the network between them, so that a test can cut a wire, make a keeper lie, and wait seconds
where a node of its own waits days.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from libp2p.exceptions import BaseLibp2pError
from stores import noise, publish

from p2plearn.dht.custody import Node, Unit, ranked
from p2plearn.dht.inquiries import Inquiries
from p2plearn.dht.keeper import Keeper, KeeperLimits
from p2plearn.dht.lookout import Lookout
from p2plearn.dht.messages import HEARTBEAT
from p2plearn.dht.repair import Repair
from p2plearn.identity import SigningKey
from p2plearn.replication import Replication
from p2plearn.store.store import Store
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.fetch import FetchLimits
from p2plearn.transfer.protocol import FROM_FETCHER, FROM_SERVER
from p2plearn.transfer.serve import ChunkService
from p2plearn.transfer.session import Peer, Unreachable

INTERVAL = 0.1
GRACE = 1.0
SECONDS = 90.0
"""That anything may take, on the busiest machine."""


class Wire:
    """One end of a stream in memory, as libp2p's streams behave."""

    def __init__(self, stream: trio.StapledStream) -> None:
        self._stream = stream

    async def read(self, n: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(n))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise BaseLibp2pError("reset") from error

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise BaseLibp2pError("reset") from error

    async def close(self) -> None:
        await self._stream.send_stream.aclose()

    async def reset(self) -> None:
        await self._stream.aclose()


@dataclass(eq=False)
class Member:
    """A node in the room. ``up`` False: it is gone as if by a power cut, as far as the others can tell."""

    room: Room
    home: Path
    key: SigningKey
    limits: KeeperLimits
    records: dict[bytes, set[Node]] = field(default_factory=dict)
    up: bool = True

    def __post_init__(self) -> None:
        self.store = Store.open(self.home)
        self.node: Node = self.key.public
        self.keeper = Keeper(
            self.store, self, self._find, lambda _: None, lambda _: None,
            node=self.node, sign=self.key.sign, limits=self.limits,
        )  # fmt: skip
        self.repair = Repair(self.keeper, chance=lambda: 0.0)
        self.inquiries = Inquiries(self.keeper)
        self.lookout = Lookout(self.keeper, self._records, self._search, self.home / "absences.json")
        self.replication = Replication(self.keeper, self.repair, self.inquiries, self.lookout, lambda _: "")
        self.chunks = ChunkService(self._shelf, max_streams=16)
        self.nursery: trio.Nursery | None = None
        self.wires: list[Wire] = []

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            self.lookout.load()
            await self.keeper.kept.load()
            await nursery.start(self.keeper.run)
            nursery.start_soon(self.repair.run)
            nursery.start_soon(self.inquiries.run)
            nursery.start_soon(self.lookout.run)
            task_status.started()
            await trio.sleep_forever()

    async def _shelf(self, course: bytes) -> Any:
        return await trio.to_thread.run_sync(self.store.holding, course)

    def _records(self) -> Mapping[bytes, Collection[Node]]:
        return self.records

    async def _search(self, course: bytes) -> Collection[Node]:
        return [node for node, other in self.room.members.items() if other.keeps(course)]

    # -- Calls ---------------------------------------------------------------------------------------------------------

    async def open(self, node: Node, protocol: str) -> Any:
        other = self.room.members.get(node)
        if not self.up or other is None or not other.up or other.nursery is None:
            raise Unreachable("it is away")
        ours, theirs = trio.testing.memory_stream_pair()
        serve = other.keeper.vigil.serve if protocol == HEARTBEAT else other.keeper.serve
        other.nursery.start_soon(serve, other.wire(theirs), self.node)
        return self.wire(ours)

    def nodes(self) -> list[Node]:
        return [node for node, other in self.room.members.items() if other.up and other is not self]

    async def nearest(self, name: bytes) -> list[Node]:
        return ranked(Unit(name[:32], int.from_bytes(name[32:])), self.nodes()) if self.up else []

    async def _find(self, course: bytes, first: Node | None, offer: Callable[[Peer], Awaitable[None]]) -> None:
        for node in dict.fromkeys([*([first] if first else []), *self.nodes()]):
            await offer(ChunkPeer(self, self.room.members[node]))

    def wire(self, stream: trio.StapledStream) -> Wire:
        self.wires.append(Wire(stream))
        return self.wires[-1]

    # -- for tests -----------------------------------------------------------------------------------------------------

    async def vanish(self) -> None:
        """Be gone, as far as the others can tell."""
        self.up = False
        for wire in self.wires:
            await wire.reset()
        self.wires.clear()

    async def publish(self, size: int, copies: int, seed: int = 0) -> bytes:
        """A course of noise; its hash, once as many copies as can be are made."""
        source = self.home.parent / f"{self.home.name}-{seed}.bin"
        source.write_bytes(noise(size, seed))
        published = await trio.to_thread.run_sync(lambda: publish(self.store, source, f"Course {seed}"))
        units = await self.keeper.kept.adopt(published.course, copies)
        await self.repair.place(units, lambda _: None)
        return published.course

    async def custody(self) -> dict[str, Any]:
        """What ``status`` says of copies."""
        figures: dict[str, Any] = (await self.replication.figures())["custody"]
        return figures

    async def has_missed(self, other: Member, seconds: float) -> None:
        """Have it count ``other``, who shares a unit with it, as away for so long."""
        vigil = self.keeper.vigil
        await until(lambda: other.node in vigil.detector)
        vigil.detector.forget(other.node)
        vigil.been_away({other.node: seconds})
        await until(lambda: other.node in vigil.detector)

    def counts(self, course: bytes, segment: int = 0) -> frozenset[Node]:
        """Whose copies it counts."""
        entry = self.keeper.ledger.entry(Unit(course, segment))
        return self.keeper.counted(entry) if entry is not None else frozenset()

    def keeps(self, course: bytes, segment: int = 0) -> bool:
        return Unit(course, segment) in self.keeper.ledger


@dataclass(eq=False)
class ChunkPeer:
    """A member as somebody to fetch from."""

    asker: Member
    member: Member
    guess: bool = True
    named: bool = False

    @property
    def name(self) -> str:
        return self.member.node.hex()

    def __hash__(self) -> int:
        return hash(self.member.node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkPeer) and other.member is self.member

    async def open(self) -> Channel:
        if not self.member.up or not self.asker.up or self.member.nursery is None:
            raise Unreachable("it is away")
        ours, theirs = trio.testing.memory_stream_pair()
        self.member.nursery.start_soon(self.member.chunks.serve, Channel(self.member.wire(theirs), FROM_FETCHER))
        return Channel(self.asker.wire(ours), FROM_SERVER)

    def blame(self, fault: str, *, poisoned: bool = False) -> None:
        raise AssertionError(fault)


@dataclass
class Room:
    members: dict[Node, Member] = field(default_factory=dict)

    def keepers(self, course: bytes, segment: int = 0) -> set[Node]:
        return {node for node, member in self.members.items() if member.up and member.keeps(course, segment)}


@asynccontextmanager
async def room(folder: Path, count: int, *, give: int = 64 << 20, grace: float = GRACE) -> AsyncIterator[list[Member]]:
    """``count`` running members, each with a home of its own."""
    limits = KeeperLimits(give, grace, INTERVAL, FetchLimits())
    place = Room()
    async with trio.open_nursery() as nursery:
        try:
            for n in range(count):
                (folder / f"m{n}").mkdir(mode=0o700)
                member = Member(place, folder / f"m{n}", SigningKey.generate(), limits)
                place.members[member.node] = member
                await nursery.start(member.run)
            yield list(place.members.values())
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(0)
    for member in place.members.values():
        member.store.close()


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    with trio.fail_after(SECONDS):
        while not holds():
            await trio.sleep(0.05)
