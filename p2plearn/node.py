"""A node: its parts built and joined here, started in order and stopped in the reverse.

    lock -> keys -> store -> network part (host, guard, DHT, directory, custody, people) -> local API -> ready

The network part runs under a supervisor: a fault of ours in it costs a second of network, not the node.

In: a home and settings. Out: a running node until it is told to stop (SIGINT, SIGTERM, the local API), with everything
acknowledged on disk. A second signal stops at once; the store stands that, as it stands a power cut.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn import collecting, identity, leftovers, memory
from p2plearn.config import Home, Settings, not_in_force
from p2plearn.custody_service import LEAVE_SECONDS, CustodyService
from p2plearn.dht.inquiries import Inquiries
from p2plearn.dht.keeper import Keeper, KeeperLimits
from p2plearn.dht.lookout import Lookout
from p2plearn.dht.messages import CUSTODY, HEARTBEAT
from p2plearn.dht.repair import Repair
from p2plearn.errors import P2plearnError, first_error
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.record import open_record
from p2plearn.gossip.service import People
from p2plearn.gossip.sync import Sync
from p2plearn.gossip.turns import PROTOCOL as SYNC
from p2plearn.home_watch import HomeWatch
from p2plearn.invite import Invite
from p2plearn.listening import announced, check_addresses, listen, named
from p2plearn.lock import NodeLock
from p2plearn.membership import group_of
from p2plearn.monitoring.sd_notify import Notifier
from p2plearn.net.bootstrap import gather, lists
from p2plearn.net.descriptors import enough_for
from p2plearn.net.host import build_host, key_pair
from p2plearn.net.limits import ConnectionLimits, StreamLimits
from p2plearn.net.muting import mute_libp2p
from p2plearn.net.peers import AddressBook
from p2plearn.net.power import read_battery, read_metered, settle
from p2plearn.net.reach.lending import LendingLimits
from p2plearn.net.reach.reaching import ReachSettings
from p2plearn.net.standing import Standing
from p2plearn.network import Network, by_node
from p2plearn.replication import Replication
from p2plearn.service import NodeService
from p2plearn.store.space import StoreLimits
from p2plearn.store.store import Store
from p2plearn.supervision import Supervisor
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.fetch import FetchLimits
from p2plearn.transfer.manners import Rules
from p2plearn.transfer.protocol import FROM_FETCHER, PROTOCOL
from p2plearn.transfer.serve import ChunkService
from p2plearn.transfer.traffic import TrafficBook
from p2plearn.web import server
from p2plearn.web.metrics_port import serve_metrics

logger = logging.getLogger(__name__)

_LAST_WORDS_SECONDS: Final = 0.5
"""After a second signal, for the log to name what has fewer copies now."""

Ready = Callable[[dict[str, Any]], None]


def run_node(home: Path, settings: Settings, ready: Ready) -> int:
    """Run a node until it is told to stop; its exit code. ``ready`` is told once it can be used.

    Raises P2plearnError when it can't start.
    """
    memory.keep_one_heap()
    mute_libp2p(debug=logging.getLogger("p2plearn").isEnabledFor(logging.DEBUG))
    paths = Home(home)
    check_addresses(settings)
    with Notifier.from_environment(os.environ) as notifier, NodeLock(paths.lock) as lock, HomeWatch(lock) as watch:
        leftovers.clear(paths, time.time())
        group = group_of(paths)
        peer_key = identity.load_or_create(paths.peer_key)
        author_key = identity.load_or_create(paths.author_key)
        limits = StoreLimits(quota=settings.size("storage.quota"), min_free=settings.count("storage.min_free"))
        store = Store.open(home, limits, author_key.public)
        failure: P2plearnError | None = None
        try:
            with open_record(paths.people, author_key.public) as (feed, words):
                store.tell(words)
                people = People(feed, store, author_key)
                node = _Node(paths, settings, lock, store, people, feed, peer_key, author_key, notifier, group, watch)
                trio.run(node.run, ready)
        except* P2plearnError as group:
            failure = first_error(group)
        finally:
            store.close()
        if failure is not None:
            raise failure
    return 0


class _Node:
    def __init__(  # noqa: PLR0917 - every part of a node, each of its own type
        self,
        paths: Home,
        settings: Settings,
        lock: NodeLock,
        store: Store,
        people: People,
        feed: Feed,
        peer_key: identity.SigningKey,
        author_key: identity.SigningKey,
        notifier: Notifier,
        group: Invite | None,
        watch: HomeWatch,
    ) -> None:
        self._watch = watch
        self._group = group
        self._paths = paths
        self._settings = settings
        self._lock = lock
        self._store = store
        self._people = people
        self._feed = feed
        self._peer_key = peer_key
        self._author_key = author_key
        self._standing = Standing()  # bans outlive a restart of the network part, else a fault would lift them
        self._listening: list[Multiaddr] = []
        self._notifier = notifier

    async def run(self, ready: Ready) -> None:
        stopping = trio.Event()
        courtesy = self._courtesy()
        supervisor = Supervisor("the network part")
        service = NodeService(
            self._store,
            self._author_key,
            self._people,
            self._fetch_limits(),
            courtesy=courtesy,
            stop=stopping.set,
            supervisor=supervisor,
        )
        service.group = self._group
        service.leaves_on_stop = self._settings.text("node.on_stop") == "leave"
        service.not_in_force = lambda: not_in_force(self._paths.path, self._settings)
        service.listen = lambda: {
            "wanted": list(self._settings.texts("network.listen")), "bound": list(map(str, self._listening))
        }  # fmt: skip
        streams = self._settings.count("transfer.serve_streams")
        chunks = ChunkService(service.shelf, max_streams=streams, courtesy=courtesy)

        async def take_part(*, task_status: Any) -> None:
            await self._take_part(service, chunks, courtesy, task_status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed_signals, stopping, service.say_last_words)
            nursery.start_soon(self._watch.run)
            await nursery.start(courtesy.run)
            await nursery.start(supervisor.run, take_part)
            await nursery.start(server.serve, service, self._paths.socket, self._lock)
            if self._settings.text("metrics.listen") != "off":
                await nursery.start(serve_metrics, service, self._settings.text("metrics.listen"))
            addresses = service.network.addresses()
            logger.info("node %s is ready at %s", service.network.peer_id, ", ".join(addresses))
            collecting.begin(tidy=True)
            ready({"pid": os.getpid(), "peer_id": service.network.peer_id, "addresses": addresses})
            self._notifier.ready(f"{service.network.peer_id} at {', '.join(addresses)}")
            nursery.start_soon(self._notifier.keep_alive)
            await stopping.wait()
            leave = service.leaves_on_stop and not courtesy.paused
            if service.leaves_on_stop and not leave:
                logger.warning("this node is paused: nothing is handed over")
            self._notifier.stopping("handing over" if leave else "", seconds=LEAVE_SECONDS if leave else 0.0)
            await service.custody.before_stop(leave=leave)
            logger.info("stopping")
            nursery.cancel_scope.cancel()

    async def _take_part(
        self, service: NodeService, chunks: ChunkService, courtesy: Courtesy, task_status: Any
    ) -> None:
        """Build the network part and run it until cancelled; all of it is fresh but for the bans."""
        settings = self._settings
        limits = ConnectionLimits(total=enough_for(settings.count("network.max_connections")))
        host = build_host(key_pair(self._peer_key.secret_seed()), limits, self._group.key if self._group else b"")

        async def serve_chunks(stream: Any) -> None:
            peer = stream.muxed_conn.peer_id.to_bytes()
            await chunks.serve(Channel(stream, FROM_FETCHER), lambda course: service.called(course, peer))

        host.set_stream_handler(TProtocol(PROTOCOL), serve_chunks)
        network = Network(
            host,
            named=self._bootstrap_nodes(),
            book=AddressBook.load(self._paths.peers, time.time()),
            on_lan=settings.flag("network.mdns"),
            group=self._group.tag if self._group else "",
            limits=self._stream_limits(),
            standing=self._standing,
            upload=chunks.upload,
            reach=self._reach_settings(),
            repeat=settings.seconds("dht.repeat"),
            records=self._paths.providers,
            may_lend=courtesy.may_lend,
            relayed=courtesy.relayed,
        )
        keeper = self._keeper(network, courtesy)
        keeper.intake.refuses = self._people.refusal
        keeper.forget_provider = network.forget_provider
        repair = Repair(keeper)
        inquiries = Inquiries(keeper)
        lookout = Lookout(keeper, network.told_providers, network.search, self._paths.absences)
        lookout.load()
        replication = Replication(keeper, repair, inquiries, lookout, self._people.title)
        custody = CustodyService(keeper, repair, inquiries, replication, network.directory)
        service.join(network, custody)
        host.set_stream_handler(TProtocol(HEARTBEAT), by_node(keeper.vigil.serve))
        host.set_stream_handler(TProtocol(CUSTODY), by_node(keeper.serve))
        await keeper.kept.load()
        sync = Sync(
            host,
            self._feed,
            follows=self._people.follows,
            refuse=self._people.refuses,
            providers=network.directory.find,
            blame=network.blame,
            busy=lambda: service.fetches or chunks.upload.streams > 0,
        )
        host.set_stream_handler(TProtocol(SYNC), sync.serve)
        self._people.join(sync, replication.copies)
        async with host.run([]):
            await self._listen(host)
            async with trio.open_nursery() as nursery:
                await nursery.start(network.run)
                await nursery.start(self._people.run)
                for row in await trio.to_thread.run_sync(self._store.courses):
                    if row.have_bytes or row.complete:
                        network.directory.announce(row.course, urgent=False)
                await nursery.start(keeper.run)
                nursery.start_soon(repair.run)
                nursery.start_soon(inquiries.run)
                nursery.start_soon(lookout.run)
                nursery.start_soon(custody.give_up_refused, self._people.refusal, self._people.blocks_anything)
                task_status.started()

    async def _listen(self, host: BasicHost) -> None:
        """Listen on what was asked for; after a fault where we were before, so that what others remember stays true."""
        swarm = host.get_network()
        if self._listening:
            await swarm.listen(*self._listening)
        if not swarm.listeners:
            await listen(host, self._settings)
        self._listening = [a for listener in swarm.listeners.values() for a in listener.get_addrs()]

    def _keeper(self, network: Network, courtesy: Courtesy) -> Keeper:
        settings = self._settings
        grace = settings.seconds("custody.grace")
        limits = KeeperLimits(
            give=settings.count("storage.give"),
            grace=grace,
            interval=min(settings.seconds("custody.heartbeat"), max(grace / 8, 0.5)),
            fetch=self._fetch_limits(),
        )
        return Keeper(
            self._store,
            network,
            network.providers,
            network.directory.announce,
            network.directory.withdraw,
            node=self._peer_key.public,
            sign=self._peer_key.sign,
            limits=limits,
            courtesy=courtesy,
        )

    def _fetch_limits(self) -> FetchLimits:
        return FetchLimits(
            peers=self._settings.count("transfer.peers"),
            pending=self._settings.count("transfer.memory"),
            silence=self._settings.seconds("transfer.stall"),
        )

    def _courtesy(self) -> Courtesy:
        settings = self._settings
        rules = Rules(
            upload=settings.size("transfer.upload_limit"),
            download=settings.size("transfer.download_limit"),
            limit_lan=settings.flag("transfer.limit_lan"),
            monthly_cap=settings.size("transfer.monthly_cap"),
            cap_day=settings.count("transfer.cap_day"),
            battery_upload=settings.size("transfer.battery_upload"),
        )
        battery, metered = settings.text("transfer.on_battery"), settings.text("transfer.metered")
        return Courtesy(
            rules,
            TrafficBook.load(self._paths.traffic),
            battery=read_battery if battery == "auto" else lambda: battery == "yes",
            metered=read_metered if metered == "auto" else lambda: metered == "yes",
            nice=settle(settings.count("node.nice")),
        )

    def _stream_limits(self) -> StreamLimits:
        limits = StreamLimits()
        limits.protocol_per_peer[SYNC] = 8  # a peer begins up to 4 at a time; as many may be ending
        limits.protocol_total[SYNC] = 64
        limits.protocol_per_peer[PROTOCOL] = self._settings.count("transfer.serve_streams_per_peer")
        limits.protocol_per_peer.update({HEARTBEAT: 3, CUSTODY: 8})
        limits.protocol_total.update({HEARTBEAT: 256, CUSTODY: 64})
        return limits

    def _reach_settings(self) -> ReachSettings:
        settings = self._settings
        lending = LendingLimits(
            reservations=settings.count("relay.places"),
            circuits=settings.count("relay.calls"),
            seconds=round(settings.seconds("relay.call_seconds")),
            data=settings.count("relay.call_bytes"),
            rate=settings.count("relay.rate"),
        )
        return ReachSettings(
            settings.text("relay.serve"),
            use=settings.flag("relay.use"),
            map_port=settings.flag("network.map_port"),
            lending=lending,
            announce=announced(settings),
        )

    def _bootstrap_nodes(self) -> list[PeerInfo]:
        flags = self._settings.texts("network.bootstrap")
        if self._group is not None:
            # The shipped list is the open network's: nobody of it is ever called from a group.
            addresses = (*flags, *self._group.addresses)
            return [node.peer for node in gather([self._paths.bootstrap], addresses, "--bootstrap or the invite")]
        source = named(self._settings, "network.bootstrap")
        return [node.peer for node in gather(lists(self._paths.bootstrap), flags, source)]


async def _heed_signals(stopping: trio.Event, last_words: Callable[[], Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            if stopping.is_set():
                logger.warning("second signal: stopping at once")
                try:
                    with trio.move_on_after(_LAST_WORDS_SECONDS):
                        await last_words()
                finally:
                    os._exit(128 + number)
            stopping.set()
