"""Who has which course: telling the network what we have, and asking it who has what we want.

A thin driver of ``schedule.py`` (when to tell) over ``kademlia.py`` (how). One record a *course*, never one a chunk.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

from p2plearn.dht.kademlia import CourseDHT, key_of
from p2plearn.dht.lookup import WIDTH, place
from p2plearn.dht.queries import QueryFailed
from p2plearn.dht.region import BITS, PEERS, Region, region_around
from p2plearn.dht.schedule import INTERVAL, Figures, Schedule
from p2plearn.dht.telling import TELL_BATCH

log = logging.getLogger("p2plearn.dht")

FEW_COURSES = 4
"""For fewer courses than this each has a lookup of its own: one for a region asks three times as many peers."""

REGION_SECONDS = 60.0
"""For which a region counts as known: the batches of a sweep that lie in one come within seconds. Longer: peers that
have come meanwhile aren't told."""

PARALLEL_WITHDRAWALS = 8
"""Peers told at a time that courses are no longer here."""

READ_BACK = 0.1
"""Share of batches after which one course is read back from one peer that confirmed it."""

GLANCE = 4
"""Peers that hold a record, of the 20 that do, asked by who could do without: sixteen that fetch together asked each
other three hundred times a round. Who lacks something asks them all, lest a few that lie near it hide the others."""

ADDRESS_CHECK_SECONDS = 10.0
"""Between looks at our own addresses: records with old ones send people to a closed door."""


def _place(course: bytes) -> bytes:
    """Where its record lies."""
    return place(key_of(course)).to_bytes(BITS // 8, "big")


async def _unsay_nothing(_peer: bytes, _courses: list[bytes]) -> None:
    """Until somebody knows how."""


class Directory:
    """``nursery.start(directory.run)`` keeps what was announced announced, every ``interval`` seconds anew.

    ``chance`` gives numbers in [0, 1).
    """

    def __init__(
        self,
        host: BasicHost,
        dht: CourseDHT,
        *,
        chance: Callable[[], float] = random.random,
        interval: float = INTERVAL,
    ) -> None:
        self._host = host
        self._dht = dht
        self._chance = chance
        self._schedule = Schedule(chance, interval=interval, place=_place)
        self._regions: list[tuple[float, Region]] = []
        """What is known of who lies where, and since when."""
        self._wake = trio.Event()
        self._told_addresses: frozenset[str] = frozenset()
        self._withdrawn: dict[bytes, list[bytes]] = {}
        self._wake_withdrawing = trio.Event()
        self.unsay: Callable[[bytes, list[bytes]], Awaitable[None]] = _unsay_nothing
        """How a peer (its binary id) is told that courses are no longer here."""

    # Telling.

    def announce(self, course: bytes, *, urgent: bool = True) -> None:
        """From now on tell the network that we provide ``course`` (its 32-byte hash). Returns at once.

        ``urgent=False`` is for those known from before, at start: what a person just published goes first.
        """
        key_of(course)  # raises ValueError here, where the mistake is, and not in the loop
        self._schedule.add(course, trio.current_time(), urgent=urgent)
        self._wake.set()

    def withdraw(self, course: bytes) -> None:
        """Tell it no more, and have those who hold the record forget it, as far as they can be reached.

        Kademlia itself knows no taking back: who isn't reached names us for up to 25 hours.
        """
        for holder in self._schedule.holders(course):
            self._withdrawn.setdefault(holder, []).append(course)
        self._schedule.remove(course)
        self._wake_withdrawing.set()

    async def _keep_withdrawing(self) -> None:
        """Tell who holds a record of what is no longer here; many courses in one message, each holder once."""
        while True:
            await self._wake_withdrawing.wait()
            self._wake_withdrawing = trio.Event()
            await self.withdrawn()

    async def withdrawn(self) -> None:
        """Tell it now; returns when everybody was told or couldn't be."""
        withdrawn, self._withdrawn = self._withdrawn, {}
        limit = trio.CapacityLimiter(PARALLEL_WITHDRAWALS)

        async def tell(holder: bytes, courses: list[bytes]) -> None:
            async with limit:
                # Announced again meanwhile, it stays.
                await self.unsay(holder, [course for course in courses if course not in self._schedule])

        async with trio.open_nursery() as nursery:
            for holder, courses in withdrawn.items():
                nursery.start_soon(tell, holder, courses)

    def announced(self, course: bytes) -> int:
        """How many peers confirmed that they will name us for ``course``."""
        return len(self._schedule.holders(course))

    def look_at_addresses(self) -> None:
        """Our addresses may be others now: if so, tell everything anew, and soon."""
        addresses = frozenset(str(a) for a in self._host.get_addrs())
        if self._told_addresses and addresses != self._told_addresses:
            self._schedule.addresses_changed(trio.current_time())
            self._wake.set()
        self._told_addresses = addresses

    def slept(self, seconds: float) -> None:
        """This machine slept for so long: what came due meanwhile is told now."""
        self._schedule.slept(seconds)
        self._wake.set()

    def figures(self) -> Figures:
        """Numbers for status."""
        return self._schedule.figures(trio.current_time())

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell what is due, until cancelled."""
        self._dht.newcomer.append(self._newcomer)
        try:
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_addresses)
                nursery.start_soon(self._keep_withdrawing)
                while True:
                    # With nobody there it is said of all at once that they wait.
                    most = TELL_BATCH if self._dht.known_peers() else len(self._schedule)
                    courses = self._schedule.take(trio.current_time(), most)
                    if courses:
                        await self._tell_safely(courses)
                        continue
                    with trio.move_on_at(self._schedule.next_due()):
                        await self._wake.wait()
                    self._wake = trio.Event()
        finally:
            self._dht.newcomer.remove(self._newcomer)

    def _newcomer(self, _peer: ID) -> None:
        self._regions.clear()
        self._schedule.peers_came(trio.current_time())
        self._wake.set()

    async def _watch_addresses(self) -> None:
        while True:
            self.look_at_addresses()
            await trio.sleep(ADDRESS_CHECK_SECONDS)

    async def _tell_safely(self, courses: list[bytes]) -> None:
        try:
            await self._tell(courses)
        except Exception as error:  # a fault here must not end the node, nor keep these courses busy for ever
            log.exception("telling the network failed")
            for course in courses:
                self._schedule.told(course, [], [], trio.current_time(), f"{type(error).__name__}: {error}")

    async def _tell(self, courses: list[bytes]) -> None:
        near = await self._near(courses)
        confirmed: dict[bytes, list[bytes]] = {course: [] for course in courses}
        wanted: dict[ID, list[bytes]] = {}
        now = trio.current_time()
        for course in courses:
            for peer in near[course]:
                if self._schedule.wants(course, peer.to_bytes(), now):
                    wanted.setdefault(peer, []).append(course)

        async def tell(peer: ID, mine: list[bytes]) -> None:
            by_key = {key_of(course): course for course in mine}
            for key in await self._dht.tell(peer, list(by_key)):
                confirmed[by_key[key]].append(peer.to_bytes())

        async with trio.open_nursery() as nursery:
            for peer, mine in wanted.items():
                nursery.start_soon(tell, peer, mine)
        now = trio.current_time()  # the same for all, so that they stay together
        for course in courses:
            nobody = "no other node of the network is reachable"
            error = "no reachable node took the record" if near[course] else nobody
            holding = [p.to_bytes() for p in near[course]]
            self._schedule.told(course, confirmed[course], holding, now, error)
        if self._chance() < READ_BACK:
            await self._read_back(courses)

    async def _near(self, courses: list[bytes]) -> dict[bytes, list[ID]]:
        """The peers that should hold each course's record: known of its region, or looked up."""
        now = trio.current_time()
        self._regions = [(since, region) for since, region in self._regions if now - since < REGION_SECONDS]
        near: dict[bytes, list[ID]] = {}
        unknown = list(courses)
        while unknown:
            for _, region in self._regions:
                for course in [course for course in unknown if key_of(course) in region]:
                    peers = [ID(peer) for peer in region.nearest(key_of(course))]
                    near[course] = [peer for peer in peers if not self._dht.avoids(peer)]
                unknown = [course for course in unknown if course not in near]
            if unknown:
                course = unknown.pop(0)
                asked_for = WIDTH if len(unknown) < FEW_COURSES - 1 else PEERS
                found = await self._dht.nearest(key_of(course), asked_for)
                near[course] = found[:WIDTH]
                around = region_around(key_of(course), [peer.to_bytes() for peer in found], asked_for)
                if around is not None and found:
                    self._regions.append((trio.current_time(), around))
                elif not found:
                    near |= dict.fromkeys(unknown, found)  # nobody is there
                    break
        return near

    async def _read_back(self, courses: list[bytes]) -> None:
        for course in courses:
            holders = self._schedule.holders(course)
            if not holders:
                continue
            holder = holders[int(self._chance() * len(holders))]
            try:
                if not await self._dht.confirms(ID(holder), key_of(course)):
                    self._schedule.lost(course, holder, trio.current_time())
            except QueryFailed as error:
                log.debug("reading back from %s failed: %s", ID(holder), error)
            return

    # Asking.

    @asynccontextmanager
    async def find_stream(self, course: bytes, *, glance: bool = False) -> AsyncIterator[AsyncIterator[PeerInfo]]:
        """Providers of ``course`` as the network tells of them: ``async with … as found: async for peer in found``.

        Each peer comes once, with what is known of its addresses; ourselves, and peers without any address, never.
        The iteration ends with the lookup; leaving the context ends the lookup. ``glance``: only the ``GLANCE``
        nearest are asked, for who has enough and looks for more.
        """
        # Closed here: whoever has found enough leaves it half-way.
        width = GLANCE if glance else WIDTH
        async with self._dht.providers(key_of(course), width) as told, aclosing(self._each_once(told)) as each:
            yield each

    async def _each_once(self, told: trio.MemoryReceiveChannel[PeerInfo]) -> AsyncGenerator[PeerInfo, None]:
        seen: set[ID] = set()
        async for provider in told:
            peer = provider.peer_id
            known = self._dht.peerstore.addresses(peer)
            addresses = list(dict.fromkeys([*known, *provider.addrs]))
            if peer not in seen and (addresses or self._host.is_peer_connected(peer)):
                seen.add(peer)
                yield PeerInfo(peer, addresses)

    async def find(self, course: bytes, *, limit: int = 16, deadline: float = 10.0) -> list[PeerInfo]:
        """Up to ``limit`` providers of ``course``, those we are connected to first.

        Always asks the network; ends with the lookup, at ``limit``, or after ``deadline`` seconds with what was found.
        """
        found: list[PeerInfo] = []
        with trio.move_on_after(deadline):
            async with self.find_stream(course) as providers:
                async for provider in providers:
                    found.append(provider)
                    if len(found) >= limit:
                        break
        found.sort(key=lambda p: not self._host.is_peer_connected(p.peer_id))
        return found
