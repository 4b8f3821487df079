"""Being, and staying, part of the network: a thin driver of ``candidates.py``.

It calls bootstrap nodes, peers on the LAN, good peers of the past and peers that the DHT knows until a handful is
connected, and again when they are gone. It notices that the machine has changed networks or slept, and that a peer is
gone without a word, by asking each connected peer for a sign of life.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import trio
from libp2p.abc import INetConn, INetwork, INetworkService, INotifee
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.io.utils import read_exactly
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.rcmgr import Direction
from multiaddr import Multiaddr
from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

from p2plearn.net.addresses import list_interfaces
from p2plearn.net.candidates import MAX_CANDIDATES, Candidates, Source
from p2plearn.net.dial import ConnectFailed, connect
from p2plearn.net.peers import AddressBook

log = logging.getLogger("p2plearn.net")

TARGET = 12
"""Connections to keep by calling. More: a better view of a small network; fewer: less idle traffic."""

PARALLEL_CALLS = 8
CALL_SECONDS = 8.0
"""For one call, all of the peer's addresses together."""

FROM_BOOK = 32
"""Peers of the book taken as candidates at the start."""

NETWORK_CHECK_SECONDS = 4.0
"""Between looks whether this machine changed networks or slept."""

SLEPT_SECONDS = 15.0
"""A jump of the wall clock against the other one that means the machine slept."""

SIGN_OF_LIFE_SECONDS = 3.0
"""How long a connected peer may take for a sign of life after the network changed. (Without a change the muxer's
keepalive notices within a minute that a peer is gone.)"""

SAVE_EVERY = 60.0
SAVE_SOON = 2.0
"""Seconds after which whoever came is in the book, where it is now and with what it said of itself: a node that is
killed soon afterwards, by a flat battery say, still finds its way back. Nothing is written where nothing is new."""

PING = TProtocol("/ipfs/ping/1.0.0")


class Joining:
    """``nursery.start(joining.run)`` keeps ``host`` in company.

    ``named`` are bootstrap nodes; ``more`` is asked for further peers (the DHT's) when there are too few. The book is
    read at the start, kept up to date and saved. ``suggest`` is for peers found elsewhere (the LAN).
    """

    def __init__(
        self,
        host: BasicHost,
        *,
        named: Iterable[PeerInfo] = (),
        book: AddressBook | None = None,
        more: Callable[[], Iterable[PeerInfo]] = list,
        target: int = TARGET,
        chance: Callable[[], float] = random.random,
        interfaces: Callable[[], list[str]] = list_interfaces,
    ) -> None:
        self._host = host
        self._network: INetworkService = host.get_network()
        self._book = book
        self._more = more
        self._target = target
        self._interfaces = interfaces
        self._candidates = Candidates(chance, target=target)
        self._infos: dict[str, PeerInfo] = {}
        self._named = list(named)
        self._wake = trio.Event()
        self._has_come = trio.Event()
        self.last_failures: dict[str, str] = {}
        """Why the last call to a peer failed, for status; gone once it succeeds."""
        self.network_changes = 0
        self.when_changed: Callable[[float], None] = lambda _slept: None
        """Called when the machine is on another network, or slept (for how many seconds, else 0), after the connected
        ones were asked for a sign."""

    def suggest(self, peer: PeerInfo, source: Source = Source.LAN) -> None:
        """``peer`` may be worth a call."""
        if peer.peer_id == self._host.get_id():
            return
        name = str(peer.peer_id)
        known = self._infos.get(name)
        merged = peer.addrs if known is None else list(dict.fromkeys([*peer.addrs, *known.addrs]))[:16]
        self._infos[name] = PeerInfo(peer.peer_id, merged)
        self._candidates.add(name, source, trio.current_time())
        if len(self._infos) > 2 * MAX_CANDIDATES:
            self._infos = {n: info for n, info in self._infos.items() if n in self._candidates}
        self._wake.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        listener = _Comings(self._came, self._went)
        self._network.register_notifee(listener)
        try:
            for peer in self._named:
                self.suggest(peer, Source.NAMED)
            for peer in self._book.best(FROM_BOOK) if self._book is not None else []:
                self.suggest(peer, Source.BOOK)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_network)
                nursery.start_soon(self._keep_book)
                await self._keep_calling(nursery)
        finally:
            self._network.remove_notifee(listener)
            with trio.CancelScope(shield=True), trio.move_on_after(2.0):
                await self._save_book()

    def network_changed(self, slept: float = 0.0) -> None:
        """Call everybody due again now; ``slept`` seconds stood still here and went by elsewhere."""
        self.network_changes += 1
        self.when_changed(slept)
        self._candidates.network_changed(trio.current_time())
        self._wake.set()

    async def _keep_calling(self, nursery: trio.Nursery) -> None:
        while True:
            connected = {str(p) for p in self._connected()}
            if len(connected) < self._target:
                for peer in self._more():
                    if str(peer.peer_id) not in connected:
                        self.suggest(peer, Source.NETWORK)
            self._wake = trio.Event()
            for name in self._candidates.call(trio.current_time(), connected, PARALLEL_CALLS):
                nursery.start_soon(self._call, name)
            with trio.move_on_at(self._candidates.next_call(connected)):
                await self._wake.wait()

    async def _call(self, name: str) -> None:
        info = self._infos.get(name)
        if info is None:
            self._candidates.failed(name, trio.current_time(), alone=False)
            return
        try:
            await connect(self._host, info, CALL_SECONDS)
        except ConnectFailed as error:
            # Without a network everybody fails; a weekend offline must not empty the book.
            alone = not self._connected()
            self._candidates.failed(name, trio.current_time(), alone=alone)
            if len(self.last_failures) > 64:
                self.last_failures.clear()
            self.last_failures[name] = error.message
            if self._book is not None and not alone:
                self._book.failed(info.peer_id)
        else:
            self._candidates.reached(name, trio.current_time())
            self.last_failures.pop(name, None)
        self._wake.set()

    def _connected(self) -> list[ID]:
        return [p for p in self._host.get_connected_peers() if self._network.get_connections(p)]

    def _came(self, connection: INetConn) -> None:
        peer = connection.muxed_conn.peer_id
        self.last_failures.pop(str(peer), None)
        self._candidates.reached(str(peer), trio.current_time())
        if self._book is not None and connection.direction is Direction.OUTBOUND:
            for address in _dialled(connection):
                self._book.worked(peer, address, time.time())
        self._has_come.set()
        self._wake.set()

    def _went(self, connection: INetConn) -> None:
        self._candidates.gone(str(connection.muxed_conn.peer_id), trio.current_time())
        self._wake.set()

    async def _watch_network(self) -> None:
        interfaces = self._interfaces()
        ahead = time.time() - trio.current_time()
        while True:
            await trio.sleep(NETWORK_CHECK_SECONDS)
            now_there, now_ahead = self._interfaces(), time.time() - trio.current_time()
            slept = now_ahead - ahead if now_ahead - ahead > SLEPT_SECONDS else 0.0
            if now_there != interfaces or slept:
                log.info("the network changed, or this machine slept (%.0f s): calling again", slept)
                await self._want_signs_of_life(SIGN_OF_LIFE_SECONDS)
                self.network_changed(slept)
            interfaces, ahead = now_there, now_ahead

    async def _want_signs_of_life(self, seconds: float) -> None:
        async def want(peer: ID) -> None:
            if not await is_alive(self._host, peer, seconds):
                log.info("%s gives no sign of life and is hung up on", peer)
                with trio.move_on_after(2.0):
                    await self._network.close_peer(peer)

        async with trio.open_nursery() as nursery:
            for peer in self._connected():
                nursery.start_soon(want, peer)

    async def _keep_book(self) -> None:
        while True:
            with trio.move_on_after(SAVE_EVERY):
                await self._has_come.wait()
                await trio.sleep(SAVE_SOON)
            self._has_come = trio.Event()
            await self._save_book()

    async def _save_book(self) -> None:
        if self._book is None:
            return
        connected = set(self._connected())
        for info in self._more():
            if info.peer_id in connected:
                self._book.heard(info.peer_id, info.addrs, time.time())
        if not self._book.changed:
            return
        try:
            await trio.to_thread.run_sync(self._book.save)
        except OSError as error:
            log.warning("%s can't be written: %s", self._book.path, error)


async def is_alive(host: BasicHost, peer: ID, seconds: float) -> bool:
    """Whether ``peer``, connected, answers a ping in time; without ping it counts as alive. Never raises."""
    alive = False
    with trio.move_on_after(seconds):
        try:
            alive = await _ping(host, peer)
        except StreamFailure:
            alive = bool(host.get_network().get_connections(peer))
        except Exception as error:  # libp2p raises a different family at each layer
            log.debug("no sign of life from %s: %s", peer, error)
    return alive


async def _ping(host: BasicHost, peer: ID) -> bool:
    stream = await host.new_stream(peer, [PING])
    try:
        nonce = secrets.token_bytes(32)
        await stream.write(nonce)
        return bool(await read_exactly(stream, 32) == nonce)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(0.5):
            await stream.reset()


def _dialled(connection: INetConn) -> list[Multiaddr]:
    return list(connection.get_transport_addresses())


class _Comings(INotifee):
    """Tells who came and who went; libp2p wants the other methods too."""

    def __init__(self, came: Callable[[INetConn], None], went: Callable[[INetConn], None]) -> None:
        self._came = came
        self._went = went

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._came(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._went(conn)

    async def opened_stream(self, network: INetwork, stream: Any) -> None:
        return None

    async def closed_stream(self, network: INetwork, stream: Any) -> None:
        return None

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return None

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return None
