"""A node's place in the network: host, guard, DHT, LAN and the peers it keeps, put together and run.

In: keys, settings, the services that peers may call. Out: peers to fetch from (``candidates``), the directory that
tells others what is here, and what is worth showing of it all.

Start: listen, then guard every handler, then let peers in from DHT, LAN and the book. Stop: the reverse.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.dht.custody import Node, node_of, peer_id_of
from p2plearn.dht.directory import Directory
from p2plearn.dht.kademlia import CourseDHT, key_of
from p2plearn.dht.line import Line
from p2plearn.dht.messages import ANSWERED, CUSTODY, MOST_WITHDRAWN, Withdraw
from p2plearn.dht.remembered import RememberedRecords
from p2plearn.dht.schedule import INTERVAL
from p2plearn.errors import PeerFault
from p2plearn.net.addresses import full, read_peer
from p2plearn.net.backoff import Backoff
from p2plearn.net.course_host import CourseHost
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.guard import guard_streams
from p2plearn.net.joining import Joining
from p2plearn.net.lan import LanDiscovery
from p2plearn.net.limits import StreamLimits
from p2plearn.net.peers import AddressBook
from p2plearn.net.reach.reaching import Reaching, ReachSettings
from p2plearn.net.standing import Fault, Standing
from p2plearn.transfer.channel import STREAM_ERRORS, Channel, StreamOver
from p2plearn.transfer.protocol import FROM_SERVER, PROTOCOL
from p2plearn.transfer.serve import Upload
from p2plearn.transfer.session import Unreachable

if TYPE_CHECKING:
    from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

logger = logging.getLogger(__name__)

DIAL_SECONDS: Final = 10.0
SEARCH_SECONDS: Final = 60.0, 1800.0
"""Between two searches of the network for one node that doesn't answer where it was: at first, and in the end. Forty
nodes that searched for twenty dead ones at every heartbeat did little else.
"""
ALONE_SECONDS: Final = 1.0
"""For the node that offered a unit, before others are asked whether they have it, too: a small one is here by then,
and everybody who is connected was asked in vain.
"""
DIRECT_SECONDS: Final = 6.0
"""For a direct way to a peer that a relay leads to, before courses go over the relay, which lends little."""

ASK_NEIGHBOURS: Final = 16
"""Connected peers asked whether they have a course, on the off chance: a LAN without a DHT works by this."""


Serve = Callable[[Any, Node], Awaitable[None]]


def by_node(serve: Serve) -> Callable[[Any], Awaitable[None]]:
    """A stream handler that says whose stream it is; a peer whose id holds no Ed25519 key is turned away."""

    async def answer(stream: Any) -> None:
        node = node_of(stream.muxed_conn.peer_id.to_bytes())
        if node is None:
            await stream.reset()
        else:
            await serve(stream, node)

    return answer


MOVED: Final = frozenset({"no-address", "refused", "timed-out", "unreachable", "wrong-peer"})
"""Why a peer can't be reached that may be at another address by now."""

PASSING: Final = MOVED | {"handshake", "unopened"}
"""Why a peer can't be reached that may be reached in a moment, there or elsewhere: one with no place left for another
connection hangs up in the handshake, too."""

LOOK_UP_SECONDS: Final = 10.0
"""For asking the network where such a peer is."""


Offer = Callable[["RemotePeer"], Awaitable[None]]


class RemotePeer:
    """A peer that may have a course; see ``transfer.session.Peer``."""

    def __init__(self, network: Network, info: PeerInfo, *, guess: bool = False, named: bool = False) -> None:
        self._network = network
        self._info = info
        self.guess = guess
        self.named = named
        self.name = str(info.peer_id)

    async def open(self) -> Channel:
        """Dial it unless connected, and open a chunk stream; raises Unreachable in plain words."""
        try:
            stream = await self._network.open_for_courses(self._info)
        except ConnectFailed as failed:
            raise Unreachable(failed.message, moved=failed.reason in PASSING) from failed
        except (*STREAM_ERRORS, trio.TooSlowError) as failed:
            raise Unreachable(f"{self.name} doesn't answer for courses") from failed
        return Channel(stream, FROM_SERVER)

    def blame(self, fault: str, *, poisoned: bool = False) -> None:
        """Count a fault against it."""
        self._network.blame(self._info.peer_id, fault, Fault.POISON if poisoned else Fault.PROTOCOL)


class Network:
    """What ``node`` runs and ``service`` asks. ``named`` are bootstrap nodes, ``book`` the good peers of the past,
    ``group`` the tag of a closed group ("" in the open network), by which its nodes find each other on the LAN;
    courses are told again every ``repeat`` seconds; what others tell of theirs is kept in the file ``records``.
    """

    def __init__(
        self,
        host: CourseHost,
        *,
        named: Iterable[PeerInfo],
        book: AddressBook,
        on_lan: bool,
        group: str,
        limits: StreamLimits,
        standing: Standing,
        upload: Upload,
        reach: ReachSettings | None = None,
        repeat: float = INTERVAL,
        records: Path | None = None,
        may_lend: Callable[[], bool] = lambda: True,
        relayed: Callable[[Sequence[str], int], bool] = lambda _ends, _size: True,
    ) -> None:
        self._host = host
        self._dht = CourseDHT(host)
        self._remembered = RememberedRecords(records, self._dht.provider_store) if records is not None else None
        if self._remembered is not None:
            self._remembered.load()
        self._guard = guard_streams(host, standing, limits)
        self._dht.refuses = self._guard.banned
        self.directory = Directory(host, self._dht, interval=repeat)
        self._named = list(named)
        self._joining = Joining(host, named=self._named, book=book, more=self._known_to_dht)
        self._reaching = Reaching(host, reach or ReachSettings(), moved=self.directory.look_at_addresses)
        self._reaching.may_lend = may_lend
        self._reaching.relay.passes = relayed
        self._joining.when_changed = self._changed
        self._lan = LanDiscovery(host, self._joining.suggest, group=group) if on_lan else None
        self._upload = upload
        self._searches = Backoff(*SEARCH_SECONDS)
        self.directory.unsay = self._unsay

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled; started once peers can come and be called."""
        async with trio.open_nursery() as nursery:
            if self._remembered is not None:
                nursery.start_soon(self._remembered.run)
            await nursery.start(self._dht.run)
            await nursery.start(self.directory.run)
            await nursery.start(self._reaching.run)
            await nursery.start(self._joining.run)
            if self._lan is not None:
                await nursery.start(self._lan.run)
            task_status.started()

    def _changed(self, slept: float) -> None:
        self._reaching.network_changed(slept)
        self.directory.slept(slept)

    def _known_to_dht(self) -> list[PeerInfo]:
        peerstore = self._dht.peerstore
        return [PeerInfo(peer, peerstore.addresses(peer)) for peer in self._dht.known_peers()]

    @property
    def peer_id(self) -> str:
        """This node's peer id."""
        return str(self._host.get_id())

    def addresses(self) -> list[str]:
        """Where this node can be dialled, with ``/p2p/``; the most useful first."""
        return [str(address) for address in self._host.get_addrs()]

    async def candidates(self, course: bytes, named: Sequence[str], offer: Offer, *, glance: bool = False) -> None:
        """Offer peers that may have ``course``: those named, connected ones on the off chance, then what the DHT tells.

        Returns when there are no more to find. ``glance``: there are some already, and more are welcome.
        """
        seen: set[ID] = {self._host.get_id()}

        async def once(info: PeerInfo, *, guess: bool = False, named: bool = False) -> None:
            if info.peer_id not in seen and not self._guard.banned(info.peer_id):
                seen.add(info.peer_id)
                await offer(RemotePeer(self, info, guess=guess, named=named))

        for text in named:
            await once(read_peer(text, "--from"), named=True)
        for peer in self._host.get_connected_peers()[:ASK_NEIGHBOURS]:
            await once(PeerInfo(peer, []), guess=True)
        async with self.directory.find_stream(course, glance=glance) as found:
            async for info in found:
                await once(info)

    def caller(self, peer: bytes) -> RemotePeer:
        """A peer that called this node, by its binary id, as one that may have what it asks for soon."""
        info = PeerInfo(ID(peer), [])
        return RemotePeer(self, info, guess=True)

    def blame(self, peer: ID, detail: str, kind: Fault = Fault.PROTOCOL) -> None:
        """Count a fault of ``peer``."""
        self._guard.blame(peer, kind, detail)

    async def open_for_courses(self, info: PeerInfo) -> Any:
        """A stream on which ``info`` gives courses; raises ConnectFailed, and what streams raise."""
        await self._connect(info, MOVED)
        await self._reaching.direct(info.peer_id, DIRECT_SECONDS)
        with trio.fail_after(DIAL_SECONDS):
            return await self._host.new_stream(info.peer_id, [TProtocol(PROTOCOL)])

    async def _connect(self, info: PeerInfo, moved: frozenset[str]) -> None:
        """Be connected to a peer; one that can't be reached for a reason in ``moved`` is looked up in the DHT.

        Raises ConnectFailed.
        """
        try:
            await connect(self._host, info, DIAL_SECONDS)
        except ConnectFailed as failed:
            if failed.reason not in moved:
                raise
            before = set(self._dht.peerstore.addresses(info.peer_id))
            with trio.move_on_after(LOOK_UP_SECONDS):
                await self._dht.nearest(info.peer_id.to_bytes())
            found = not set(self._dht.peerstore.addresses(info.peer_id)) <= before
            if not found and not self._host.get_network().get_connections(info.peer_id):
                raise  # nobody knows of another address
            await connect(self._host, info, DIAL_SECONDS)

    # -- for keeping copies ------------------------------------------------------------------------------------------

    async def open(self, node: Node, protocol: str) -> Any:
        """A stream to a node, looked for in the DHT now and then if need be; raises Unreachable in plain words."""
        peer = ID(peer_id_of(node))
        try:
            # One that answers nothing is away more often than elsewhere: whoever keeps copies with it asks again soon.
            search = self._searches.due(peer, now := trio.current_time())
            try:
                await self._connect(PeerInfo(peer, []), MOVED - {"timed-out", "unreachable"} if search else frozenset())
            except ConnectFailed:
                if search:
                    self._searches.failed(peer, now)
                raise
            self._searches.worked(peer)
            with trio.fail_after(DIAL_SECONDS):
                return await self._host.new_stream(peer, [TProtocol(protocol)])
        except ConnectFailed as failed:
            raise Unreachable(failed.message, refused=failed.reason == "refused") from failed
        except (*STREAM_ERRORS, trio.TooSlowError) as failed:
            raise Unreachable(f"{peer} doesn't answer for custody") from failed

    def nodes(self) -> list[Node]:
        """The nodes that there is a connection to."""
        peers = [node_of(peer.to_bytes()) for peer in self._host.get_connected_peers()]
        return [node for node in peers if node is not None]

    async def nearest(self, name: bytes) -> list[Node]:
        """Reachable nodes nearest to a name."""
        found = [node_of(peer.to_bytes()) for peer in await self._dht.nearest(name)]
        return [node for node in found if node is not None]

    async def providers(self, course: bytes, first: Node | None, offer: Offer) -> None:
        """Offer ``first``, if that is somebody, then who else may have ``course``."""
        if first is not None:
            info = PeerInfo(ID(peer_id_of(first)), [])
            await offer(RemotePeer(self, info))
            await trio.sleep(ALONE_SECONDS)
        await self.candidates(course, [], offer)

    def told_providers(self) -> dict[bytes, set[Node]]:
        """Courses that other nodes said they have, as the records kept here say."""
        return self._dht.told_providers()

    async def search(self, course: bytes) -> list[Node]:
        """Nodes that the network names for a course."""
        found = [node_of(info.peer_id.to_bytes()) for info in await self.directory.find(course)]
        return [node for node in found if node is not None]

    def forget_provider(self, course: bytes, node: Node) -> None:
        """A node says that it no longer has a course."""
        self._dht.provider_store.forget(key_of(course), str(ID(peer_id_of(node))))

    async def _unsay(self, peer: bytes, courses: list[bytes]) -> None:
        """Tell a peer that courses are no longer here; one that can't be told now names us until its record ends."""
        node = node_of(peer)
        if node is None:
            return
        try:
            for at in range(0, len(courses), MOST_WITHDRAWN):
                with trio.fail_after(2 * DIAL_SECONDS):
                    line = Line(await self.open(node, CUSTODY), ANSWERED)
                    try:
                        await line.send(Withdraw(tuple(courses[at : at + MOST_WITHDRAWN])))
                        await line.receive(DIAL_SECONDS)
                    finally:
                        await line.close()
        except (StreamOver, PeerFault, Unreachable, trio.TooSlowError) as error:
            logger.debug("withdrawing from %s failed: %s", ID(peer), error)

    def connected(self) -> list[dict[str, Any]]:
        """One object a connected peer."""
        now = trio.current_time()
        return [
            {
                "peer_id": str(peer),
                "addresses": [full(address, peer) for address in conn.get_transport_addresses()],
                "direction": conn.direction.name.lower(),
                "way": "relay" if self._reaching.circuits.is_relayed(peer) else "direct",
                "found_by": self._found_by(peer),
                "seconds": now - getattr(conn.muxed_conn, "opened_at", now),
                "rtt": getattr(conn.muxed_conn, "rtt", 0.0),
            }
            for peer, conns in self._host.get_network().connections.items()
            for conn in (self._host.get_network().direct(peer) or conns)[:1]
        ]

    def _found_by(self, peer: ID) -> str:
        if any(info.peer_id == peer for info in self._named):
            return "bootstrap"
        return "lan" if self._lan is not None and peer in self._lan.heard else ""

    def figures(self) -> dict[str, Any]:
        """What ``status`` shows of the network."""
        told = self.directory.figures()
        return {
            "dht": {
                "peers": len(self._dht.known_peers()),
                "announced": told.announced,
                "waiting": told.waiting,
                "late": told.late,
                "lateness": told.lateness,
                "tellings": told.tellings,
                "last_error": told.last_error,
            },
            "reach": self._reaching.figures(),
            "lan": {
                "on": self._lan is not None,
                "heard": len(self._lan.heard) if self._lan is not None else 0,
                "problem": self._lan.problem if self._lan is not None else "",
            },
            "unreachable": self._joining.last_failures,
            "serving": {"streams": self._upload.streams, "chunks": self._upload.chunks, "sent": self._upload.bytes},
            "faults": self._guard.faults,
            "banned": [row for row in self._guard.standing.summary(trio.current_time()) if row["banned_for"]],
        }
