"""No peer can end this node: every way from the wire into our code goes through here.

A stock libp2p host dies of the first exception that a stream handler lets out, and of a stream whose negotiation
goes wrong in a way that its author did not think of. The guard stands at the doors:

- before negotiation: streams of banned peers are reset, streams beyond a peer's share are reset;
- around every handler, those registered before and after: an ``Exception`` (never a ``BaseException``: trio's
  cancellation must pass) resets the stream, counts against the peer and is logged once a peer and kind;
- around identify of our own asking, which libp2p runs where an exception ends the whole program.

Background tasks of a connection are contained by ``swarm.CourseSwarm``. Pubsub needs a guard of its own (it spawns
tasks past its handler); whoever adds it subclasses it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IHost, INetStream
from libp2p.exceptions import ParseError
from libp2p.host.exceptions import StreamFailure
from libp2p.io.exceptions import IOException, MessageTooLarge
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError

from p2plearn.errors import P2plearnError, PeerFault
from p2plearn.net.addresses import Reach, reach_of_ip
from p2plearn.net.checked import with_checks
from p2plearn.net.limits import StreamLimits
from p2plearn.net.peerstore import heard_over
from p2plearn.net.rates import Rates
from p2plearn.net.standing import Fault, Standing
from p2plearn.net.swarm import CourseSwarm

log = logging.getLogger("p2plearn.net")

Handler = Callable[[INetStream], Awaitable[None]]

HANGUPS: tuple[type[BaseException], ...] = (
    IOException,  # libp2p's; StreamReset, StreamClosed and StreamEOF are among them
    MuxedStreamError,
    MuxedConnError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)
"""What a handler raises when the other side, or the network, went away: nobody's fault."""

OFFENCES: tuple[type[BaseException], ...] = (
    PeerFault,
    ParseError,
    DecodeError,
    UnicodeDecodeError,
    MessageTooLarge,
    MultiselectError,
    StreamFailure,  # raised where a negotiation ends without a protocol
)
"""What a handler raises when the input breaks a format."""


class StreamGuard:
    """What ``guard_streams`` put in place; ``blame`` is for whoever finds a fault elsewhere."""

    def __init__(self, host: IHost, standing: Standing, limits: StreamLimits) -> None:
        self.standing = standing
        self.limits = limits
        self.faults = 0
        """Faults counted since the start, for status."""
        self._host = host
        self._swarm: CourseSwarm = host.get_network()
        self._open: Counter[ID] = Counter()
        self._open_by_ip: Counter[str] = Counter()
        self._requests = Rates(limits.requests_burst, limits.requests_per_second)
        self._by_protocol: Counter[str] = Counter()
        self._by_peer_protocol: Counter[tuple[ID, str]] = Counter()
        self._refused: Counter[ID] = Counter()
        self._logged: set[tuple[str, str, str]] = set()
        self._admit: Handler = self._swarm.common_stream_handler

    def install(self) -> None:
        """Take the doors. Once a host."""
        self._swarm.refuses = self.banned
        self._swarm.blame = lambda peer, error: self._judge(peer, "connection", error)
        self._swarm.report = self._background_failed
        self._swarm.set_stream_handler(self._at_the_door)
        identify = self._host._identify_task_entry

        async def identify_safely(peer: ID, reason: str) -> None:
            # libp2p runs it as a system task of trio's: what it lets out would end the whole program.
            heard_over.set(told_over(self._swarm.get_connections(peer)))
            try:
                await identify(peer, reason)
            except Exception as error:
                self._background_failed("identify", error)

        self._host._identify_task_entry = identify_safely
        mux = self._host.get_mux()
        for protocol, handler in list(mux.handlers.items()):
            mux.handlers[protocol] = self.wrap(str(protocol), handler)
        add = mux.add_handler
        mux.add_handler = lambda protocol, handler: add(protocol, handler and self.wrap(str(protocol), handler))

    def banned(self, peer: ID) -> bool:
        """Whether ``peer`` is banned now."""
        return self.standing.banned(str(peer), trio.current_time())

    def blame(self, peer: ID, kind: Fault, detail: str = "") -> None:
        """Count a fault of ``peer``; one that gets it banned also hangs up on it."""
        self.faults += 1
        was = self.banned(peer)
        if self.standing.fault(str(peer), kind, trio.current_time(), detail) and not was:
            log.warning("peer %s is banned for now: %s %s", peer, kind.word, detail)
            nursery = self._swarm.background_nursery
            if nursery is not None:
                nursery.start_soon(self._hang_up, peer)

    def wrap(self, protocol: str, handler: Handler) -> Handler:
        """``handler`` with its exceptions contained and its streams counted."""
        if getattr(handler, "guarded_by", None) is self:
            return handler
        per_peer = self.limits.protocol_per_peer.get(protocol, self.limits.per_peer)
        in_all = self.limits.protocol_total.get(protocol, self.limits.total)
        seconds = self.limits.seconds.get(protocol, math.inf)
        checked = with_checks(protocol, handler)

        async def guarded(stream: INetStream) -> None:
            peer = stream.muxed_conn.peer_id
            key = (peer, protocol)
            if self._by_peer_protocol[key] >= per_peer or self._by_protocol[protocol] >= in_all:
                await reset(stream)
                return
            self._by_peer_protocol[key] += 1
            self._by_protocol[protocol] += 1
            heard_over.set(told_over([stream]))
            try:
                with trio.move_on_after(seconds) as scope:
                    await self._contain(peer, protocol, checked, stream)
                if scope.cancelled_caught:
                    self.blame(peer, Fault.SLOW, protocol)
                    await reset(stream)
            finally:
                _drop(self._by_peer_protocol, key)
                _drop(self._by_protocol, protocol)

        guarded.guarded_by = self  # type: ignore[attr-defined]
        return guarded

    async def _at_the_door(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        if self.banned(peer):
            await reset(stream)
            return
        ip = _remote_ip(stream)
        if not self._has_room(peer, ip):
            await reset(stream)
            return
        self._open[peer] += 1
        self._open_by_ip[ip] += 1
        try:
            await self._contain(peer, "negotiation", self._admit, stream)
        finally:
            _drop(self._open, peer)
            _drop(self._open_by_ip, ip)
            if not self._open[peer]:
                self._refused.pop(peer, None)

    def _has_room(self, peer: ID, ip: str) -> bool:
        """Whether one more stream of ``peer`` may be; who goes on and on asking beyond its share is blamed."""
        limits = self.limits
        mine = self._requests.take(str(peer), trio.current_time()) and self._open[peer] < limits.per_peer
        if not mine:
            self._refused[peer] += 1
            if self._refused[peer] > limits.flood_slack:
                self.blame(peer, Fault.FLOOD, "too many streams")
            return False
        spared = self._swarm.limits.spare_loopback and reach_of_ip(ip) is Reach.LOOPBACK
        return (spared or self._open_by_ip[ip] < limits.per_ip) and self._open.total() < limits.total

    async def _contain(self, peer: ID, protocol: str, handler: Handler, stream: INetStream) -> None:
        try:
            await handler(stream)
        except Exception as error:
            self._judge(peer, protocol, error)
            await reset(stream)

    def _judge(self, peer: ID, protocol: str, error: Exception) -> None:
        kind = classify(error)
        if kind is not None:
            self._log(peer, protocol, kind, error)
            self.blame(peer, kind, f"{protocol}: {type(error).__name__}")
        elif isinstance(error, P2plearnError):
            self._background_failed(protocol, error)

    def _log(self, peer: ID, protocol: str, kind: Fault, error: Exception) -> None:
        key = (str(peer), protocol, type(error).__name__)
        if key in self._logged:
            return
        if len(self._logged) > 4096:
            self._logged.clear()
        self._logged.add(key)
        # A crash is a bug of ours that somebody's input found: its traceback is worth keeping.
        trace = error if kind is Fault.CRASH and log.isEnabledFor(logging.DEBUG) else None
        log.warning("peer %s, %s: %s: %s", peer, protocol, type(error).__name__, str(error)[:200], exc_info=trace)

    def _background_failed(self, what: str, error: Exception) -> None:
        key = ("", what, type(error).__name__)
        if key not in self._logged:
            self._logged.add(key)
            log.warning("%s ended with %s: %s", what, type(error).__name__, str(error)[:200])

    async def _hang_up(self, peer: ID) -> None:
        try:
            await self._swarm.close_peer(peer)
        except Exception as error:
            log.debug("hanging up on %s failed: %s", peer, error)


def guard_streams(host: IHost, standing: Standing, limits: StreamLimits | None = None) -> StreamGuard:
    """Guard every stream of ``host`` (built by ``course_host``); call it once, services may come before and after."""
    if not isinstance(host.get_network(), CourseSwarm):
        raise TypeError("this host was not built by course_host")
    guard = StreamGuard(host, standing, limits or StreamLimits())
    guard.install()
    return guard


def classify(error: BaseException) -> Fault | None:
    """Whose fault an exception out of a handler is: None for nobody's (they hung up), or for ours (a full disk)."""
    if isinstance(error, BaseExceptionGroup):
        kinds = [classify(e) for e in error.exceptions]
        return max((k for k in kinds if k is not None), key=lambda k: k.points, default=None)
    if isinstance(error, OFFENCES):
        return Fault.PROTOCOL
    if isinstance(error, trio.TooSlowError):
        return Fault.SLOW
    if isinstance(error, (*HANGUPS, P2plearnError)):
        return None
    return Fault.CRASH


def told_over(connections: Iterable[Any]) -> Reach:
    """How far the first of ``connections`` (or streams of one) reaches; GLOBAL when that can't be told."""
    for connection in connections:
        ip = _remote_ip(connection)
        if ip:
            return reach_of_ip(ip)
    return Reach.GLOBAL


def _remote_ip(stream: Any) -> str:
    remote = getattr(stream.muxed_conn, "get_remote_address", lambda: None)()
    return str(remote[0]) if remote else ""


async def reset(stream: Any) -> None:
    """Reset ``stream``, whatever state it is in."""
    try:
        await stream.reset()
    except Exception as error:
        log.debug("resetting a stream failed: %s", error)


def _drop(counter: Counter[Any], key: Any) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
