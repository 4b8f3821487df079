"""Kademlia of our own network: libp2p's tables, messages and server, our protocol id, and our way of asking.

What is libp2p's: the routing table, the wire format, the server side of each message. What is not, and why:

- **The protocol id.** libp2p's is fixed at ``/ipfs/kad/1.0.0`` whatever prefix is given, and imported by name into
  four modules beside the one that defines it. ``use_protocol`` replaces the name in all of them, in one place, before
  a DHT is built: a course network must never mix with the public IPFS one, nor call it.
- **Asking.** The stock lookup of providers answers from its own stale records without asking anybody, throws away the
  addresses that came without a signed record, and takes two lookups where one is enough. ``providers`` and
  ``announce`` run one lookup (``lookup.py``) and are told of each find as it comes.
- **Saying.** Each record counts when its receiver has echoed it (``telling.py``).
- **What others say** is believed where it can be (``hearsay.py``).
- **The routing table** takes in whoever is connected and speaks our protocol, as soon as identify says so, and nobody
  else (the stock one adds clients, and never an inbound peer).
- **Values** (PUT_VALUE) are refused: nothing of ours uses them, and anybody could fill our memory with them.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT, get_connection_type
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.validator import NamespacedValidator
from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

from p2plearn.dht.custody import node_of
from p2plearn.dht.hearsay import Hearsay
from p2plearn.dht.lookup import WIDTH, Lookup
from p2plearn.dht.providers import CourseProviderStore
from p2plearn.dht.queries import QUERY_SECONDS, Queries
from p2plearn.dht.questions import MAX_QUESTION, check_question
from p2plearn.dht.telling import Telling
from p2plearn.net.addresses import Reach, believable
from p2plearn.net.checked import serve_checked
from p2plearn.net.paced import Paced
from p2plearn.net.peerstore import CoursePeerStore, heard_over

log = logging.getLogger("p2plearn.dht")

PROTOCOL: Final = TProtocol("/p2plearn/kad/1.0.0")
"""What this DHT speaks, and all that it speaks."""

SERVE_SECONDS: Final = 60.0
"""For one inbound stream: its asker may send many messages, but not keep a place for ever."""

INBOUND_STREAMS: Final = 64
"""Inbound streams served at a time (libp2p: 12, and the rest reset: less than a school's start of lesson)."""

ADD_WINDOW: Final = 10.0
ADDS_PER_WINDOW: Final = 1200
"""Records taken from one peer in ``ADD_WINDOW`` seconds (libp2p: 10): a node with 1,000 courses is heard in ten
seconds. Each costs some tenths of a millisecond, and how many are kept is bounded by the store.
``telling.ADDS_SENT_PER_SECOND`` keeps our own below it."""

PEERS_PER_SUBNET: Final = 8
"""Peers of one public /24 in a bucket (libp2p: 2). Higher: one operator can fill a bucket; lower: a school behind one
address can't know itself."""

AVOID_SECONDS: Final = 60.0
"""For which a peer that did not answer is not asked again (unless it connects)."""

REFRESH_SECONDS: Final = 600.0
"""Between looks around for new peers, when nothing happened ..."""

REFRESH_SMALL_SECONDS: Final = 120.0
"""... and in a network of fewer than ``WIDTH`` peers, where everybody should know everybody."""

FEW_PEERS: Final = 3
"""With fewer peers than this in the table, a newcomer is asked whom it knows."""

SETTLE_SECONDS: Final = 0.2
"""To wait for more newcomers before a look around."""

_KEY_HEAD: Final = b"\x12\x20"
"""sha2-256, 32 bytes."""

_MODULES: Final[tuple[ModuleType, ...]] = (common, kad_dht, peer_routing, provider_store, value_store)


def use_protocol() -> None:
    """Replace libp2p's protocol id by ours wherever its Kademlia reads it. Safe to call again.

    ``routing_table`` imports the name from ``common`` at each use, so it follows by itself.
    """
    for module in _MODULES:
        if not hasattr(module, "PROTOCOL_ID"):
            raise RuntimeError(f"libp2p's {module.__name__} has no PROTOCOL_ID: another version than the pinned one")
        vars(module)["PROTOCOL_ID"] = PROTOCOL


def key_of(course: bytes) -> bytes:
    """The DHT key of a course: its 32-byte hash as a multihash (sha2-256), which is what its CID holds too."""
    if len(course) != 32:
        raise ValueError(f"a course hash has 32 bytes, not {len(course)}")
    return _KEY_HEAD + course


def course_of(key: bytes) -> bytes | None:
    """The course hash in a DHT key, which is ``key_of`` it; None of a key that is no course's."""
    return key[len(_KEY_HEAD) :] if len(key) == 34 and key.startswith(_KEY_HEAD) else None


class CourseDHT(KadDHT):
    """See the head of this file. ``nursery.start(dht.run)`` runs it.

    ``newcomer`` callbacks get each peer that enters the routing table; they must not raise or block.
    """

    def __init__(self, host: BasicHost) -> None:
        peerstore = host.get_peerstore()
        if not isinstance(peerstore, CoursePeerStore):
            raise TypeError("this host was not built by course_host")
        use_protocol()
        super().__init__(
            host,
            DHTMode.SERVER,
            validator=NamespacedValidator({}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
            max_peers_per_subnet=PEERS_PER_SUBNET,
        )
        self.peerstore = peerstore
        self.provider_store = CourseProviderStore(host, self.peer_routing)
        self._provider_rate_window = ADD_WINDOW
        self._provider_rate_max = ADDS_PER_WINDOW
        self._inbound_limiter = trio.CapacityLimiter(INBOUND_STREAMS)
        self.newcomer: list[Callable[[ID], None]] = []
        self.refuses: Callable[[ID], bool] = lambda _peer: False
        """Says of which peers nothing is believed or asked (banned ones)."""
        self._entered: trio.MemorySendChannel[ID]
        self._entered, self._entering = trio.open_memory_channel[ID](256)
        self.queries = Queries(host, PROTOCOL)
        """Asks one peer at a time."""
        self._hearsay = Hearsay(host, peerstore, self._refused)
        self._telling = Telling(host, self.queries, self._lost)
        self._avoid: dict[ID, float] = {}

    def _refused(self, peer: ID) -> bool:
        return self.refuses(peer)

    # The routing table.

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the routing table and the records until cancelled."""
        self.peerstore.told.append(self._identified)
        try:
            for peer in self.host.get_connected_peers():
                self._identified(peer)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_in)
                nursery.start_soon(self._keep_fresh)
        finally:
            self.peerstore.told.remove(self._identified)

    def _identified(self, peer: ID) -> None:
        if peer != self.local_peer_id and self.peerstore.speaks(peer, PROTOCOL):
            self._avoid.pop(peer, None)
            self._offer(peer)

    def _offer(self, peer: ID) -> None:
        """Leave ``peer`` to ``_take_in``: a full bucket pings its oldest peer first, which takes seconds."""
        if self.refuses(peer) or self.routing_table.peer_in_table(peer):
            return
        try:
            self._entered.send_nowait(peer)
        except trio.WouldBlock:
            log.debug("too many newcomers at once, %s waits for the next look around", peer)

    async def _take_in(self) -> None:
        """Put whoever was offered into the table, and look around after the first few: they know the others.

        Later ones looked around themselves and called on everyone they should; asking back at each would cost the
        square of the network's size.
        """
        look = False
        while True:
            with trio.move_on_after(SETTLE_SECONDS if look else float("inf")) as quiet:
                peer = await self._entering.receive()
            if quiet.cancelled_caught:
                look = False
                await self.refresh_routing_table()
                continue
            few = self.routing_table.size() < FEW_PEERS
            look = (await self._enter(peer) and few) or look

    async def _enter(self, peer: ID) -> bool:
        """Take ``peer`` into the table; returns whether it is new there."""
        if self.refuses(peer) or self.routing_table.peer_in_table(peer):
            return False
        added = False
        with trio.move_on_after(QUERY_SECONDS):
            info = PeerInfo(peer, self.peerstore.addresses(peer))
            added = await self.routing_table.add_peer(info, skip_server_mode_check=True)
        if added:
            for tell in self.newcomer:
                tell(peer)
        return added

    async def _keep_fresh(self) -> None:
        while True:
            small = self.routing_table.size() < WIDTH
            # Not all nodes of a school that came up together at the same moment.
            jitter = random.uniform(0.8, 1.2)  # noqa: S311
            await trio.sleep((REFRESH_SMALL_SECONDS if small else REFRESH_SECONDS) * jitter)
            self.provider_store.cleanup_expired()
            for peer in self.host.get_connected_peers():
                self._identified(peer)
            await self.refresh_routing_table()
            self._telling.forget_idle()
            self.queries.forget_idle()

    async def add_peer(self, peer_id: ID, *, skip_server_mode_check: bool = False) -> bool:
        """Called for each inbound stream: take the peer in if identify says that it serves, later if it has yet to."""
        self._identified(peer_id)
        return True

    async def refresh_routing_table(self) -> None:
        """Look for ourselves: whoever is near, and in a small network everybody, gets to know us and we them."""
        await self.nearest(self.local_peer_id.to_bytes())

    # Asking.

    def known_peers(self) -> list[ID]:
        """Whom a lookup may start from: the table, and whoever is connected and may speak our protocol.

        Those that did not answer lately are left out, unless there is nobody else.
        """
        # Right after connecting identify has not told yet: then the question itself tells.
        connected = [p for p in self.host.get_connected_peers() if self.peerstore.speaks(p, PROTOCOL) is not False]
        known = [p for p in dict.fromkeys([*connected, *self.routing_table.get_peer_ids()]) if not self.refuses(p)]
        return [p for p in known if not self.avoids(p)] or known

    async def nearest(self, key: bytes, width: int = WIDTH) -> list[ID]:
        """Up to ``width`` reachable peers nearest to ``key``, nearest first; at once empty when nobody is known."""
        return await self._look_up(key, Message(type=Message.MessageType.FIND_NODE, key=key), None, width)

    async def tell(self, peer: ID, keys: Sequence[bytes]) -> list[bytes]:
        """Tell ``peer`` that we provide ``keys``; returns those that it confirmed. See ``Telling.tell``."""
        return await self._telling.tell(peer, keys)

    @asynccontextmanager
    async def providers(self, key: bytes, width: int = WIDTH) -> AsyncIterator[trio.MemoryReceiveChannel[PeerInfo]]:
        """A channel of every provider of ``key`` that the ``width`` nearest peers tell of; the lookup's end ends it.

        A peer may come more than once, with other addresses. Ourselves excluded. Nothing is stored: what others say
        is hearsay. Leaving the context ends the lookup.
        """
        send, receive = trio.open_memory_channel[PeerInfo](64)

        async def ask() -> None:
            async with send:
                for known in self.provider_store.get_providers(key):
                    if known.peer_id != self.local_peer_id and not self.refuses(known.peer_id):
                        await send.send(PeerInfo(known.peer_id, known.addrs))
                await self._look_up(key, Message(type=Message.MessageType.GET_PROVIDERS, key=key), send, width)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            try:
                yield receive
            finally:
                nursery.cancel_scope.cancel()  # before the channel closes: whoever still tells finds nobody there
                receive.close()

    async def _look_up(
        self, key: bytes, request: Message, found: trio.MemorySendChannel[PeerInfo] | None, width: int = WIDTH
    ) -> list[ID]:
        """Run one lookup that asks ``request``; providers in the answers go to ``found``. Returns the nearest."""
        lookup = Lookup(key, [p.to_bytes() for p in self.known_peers()], width=width)
        changed = trio.Event()

        async def ask(name: bytes) -> None:
            peer = ID(name)
            try:
                lookup.held_up(name)
                answer = await self.queries.ask(peer, request, begun=lambda: lookup.begun(name, trio.current_time()))
                told_over = self._hearsay.told_over(peer)
                heard_over.set(told_over)
                nearer = self._hearsay.learn(answer.closerPeers, told_over)
                if found is not None:
                    for provider in self._hearsay.parse(answer.providerPeers, told_over):
                        await found.send(provider)
            except Exception as error:  # QueryFailed, and whatever an answer made of spite makes our parsing raise
                log.debug("asking %s failed: %s: %s", peer, type(error).__name__, error)
                self._lost(peer)
                lookup.failed(name)
            else:
                self._offer(peer)
                lookup.answered(name, [p.to_bytes() for p in nearer if not self.avoids(p)], trio.current_time())
            changed.set()

        async with trio.open_nursery() as nursery:
            while not lookup.finished(trio.current_time()):
                for name in lookup.next(trio.current_time()):
                    nursery.start_soon(ask, name)
                with trio.move_on_at(lookup.wake_at(trio.current_time())):
                    await changed.wait()
                changed = trio.Event()
            nursery.cancel_scope.cancel()
        for name in lookup.slow(trio.current_time()):
            self._lost(ID(name))
        return [ID(name) for name in lookup.nearest()]

    async def confirms(self, peer: ID, key: bytes) -> bool:
        """Whether ``peer`` names us when asked who provides ``key``; raises QueryFailed."""
        answer = await self.queries.ask(peer, Message(type=Message.MessageType.GET_PROVIDERS, key=key))
        return any(p.id == self.local_peer_id.to_bytes() for p in answer.providerPeers)

    def avoids(self, peer: ID) -> bool:
        """Whether ``peer`` did not answer lately."""
        return self._avoid.get(peer, 0.0) > trio.current_time()

    def _lost(self, peer: ID) -> None:
        """``peer`` did not answer: out of the table, and not asked again for a while."""
        self.routing_table.remove_peer(peer)
        if len(self._avoid) > 1024:
            self._avoid.clear()
        self._avoid[peer] = trio.current_time() + AVOID_SECONDS

    def told_providers(self) -> dict[bytes, set[bytes]]:
        """Courses that others said they have: course hash to the Ed25519 keys of those peers."""
        told: dict[bytes, set[bytes]] = {}
        for key, records in self.provider_store.providers.items():
            nodes = {node_of(record.provider_info.peer_id.to_bytes()) for record in records.values()}
            course = course_of(key)
            if course is not None and None not in nodes:
                told[course] = {node for node in nodes if node is not None}
        return told

    # Serving.

    async def handle_stream(self, stream: INetStream) -> None:
        """Serve one inbound stream, for at most ``SERVE_SECONDS``; raises for a message that breaks the rules."""
        with trio.move_on_after(SERVE_SECONDS) as scope:
            await serve_checked(super().handle_stream, Paced(stream), check_question, MAX_QUESTION)
        if scope.cancelled_caught:
            await stream.reset()

    def _add_closer_peers_to_response(
        self, response: Message, closest_peers: Sequence[ID], exclude_peer_id: ID | None = None
    ) -> None:
        """Name peers whose addresses we know and the asker can use."""
        told_over = Reach.LOOPBACK if exclude_peer_id is None else self._hearsay.told_over(exclude_peer_id)
        for peer in closest_peers:
            if peer == exclude_peer_id or self.refuses(peer):
                continue
            known = self.host.get_addrs() if peer == self.local_peer_id else self.peerstore.addresses(peer)
            addresses = believable(known, told_over)
            if not addresses:
                continue
            entry = response.closerPeers.add()
            entry.id = peer.to_bytes()
            entry.connection = get_connection_type(self.host, peer)
            entry.addrs.extend(a.to_bytes() for a in addresses)
            record = self.peerstore.get_peer_record(peer)
            if record is not None:
                entry.signedRecord = record.marshal_envelope()


def distance(peer: ID, key: bytes) -> int:
    """How far ``peer`` is from ``key``, as the routing table counts it."""
    return int.from_bytes(hashlib.sha256(peer.to_bytes()).digest()) ^ int.from_bytes(hashlib.sha256(key).digest())


__all__ = ["PROTOCOL", "CourseDHT", "course_of", "distance", "key_of", "use_protocol"]
