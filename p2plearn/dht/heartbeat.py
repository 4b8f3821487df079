"""Heartbeats: telling the nodes that keep the same courses that this one is there, and hearing it of them.

    each interval: for every node of the circle not heard lately: BEAT -> <- BEAT; then the detector looks at them all

One exchange tells both ends, so whoever is due first asks, and the other needn't. The stream stays open. A node that
nobody of the circle answers asks others whether it is itself that is cut off.

Imports ``dht`` siblings, ``errors``, ``transfer``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from p2plearn.dht.custody import Node
from p2plearn.dht.line import Line
from p2plearn.dht.liveness import Detector, Life
from p2plearn.dht.messages import BEATS, HEARTBEAT, Beat
from p2plearn.errors import PeerFault
from p2plearn.transfer.channel import StreamOver
from p2plearn.transfer.session import Unreachable

log = logging.getLogger("p2plearn.custody")

ASK_SECONDS: Final = 5.0
"""For one exchange, dialling included."""

FIRST_SECONDS: Final = 10.0
"""For a node that opened a stream to say its first beat."""

AT_ONCE: Final = 16
AT_ONCE_SILENT: Final = 8
"""Exchanges under way at a time with those who are there, and with others: however many are gone and take
``ASK_SECONDS`` each, nobody who is there waits behind them."""

CONFIRMED_AT_ONCE: Final = 64
"""The same while a person waits to be told who is there: whoever is silent must not take the turn of others."""

FRESH: Final = 3.0
"""Intervals for which what a node said of itself counts as its state, and anything with a lower number as older."""

DOWN_SHARE: Final = 8.0
DOWN_MOST: Final = 60.0
"""A node that is down is asked again after an eighth of the time that it has been silent, at most so many intervals:
who comes back asks by itself, and whoever is gone for ever must cost little."""

TOGETHER: Final = 30.0
"""Who fell silent within so many intervals of one that is back is asked at once: a network that was cut in two is
whole again, and nobody on either side asks by itself."""

HEARD: Final = 5.0
HEARD_LEAST: Final = 15.0
"""Intervals for which a node that was heard counts as there when a person is told how many copies there are; and the
least, in seconds, for a busy machine answers late. Who is found to be silent before that doesn't count."""

MOST_SILENT: Final = 4096
"""Nodes remembered as silent, and as having said goodbye, besides those that this node watches."""

OTHERS: Final = 3
"""Nodes outside the circle that are asked when nobody in it answers."""

HELD_LINES: Final = 256
"""Inbound heartbeat streams kept; beyond that the peer is turned away and asks anew each time."""


class Calls(Protocol):
    """How other nodes are reached."""

    async def open(self, node: Node, protocol: str) -> Any:
        """A new stream to a node; raises Unreachable."""
        ...

    def nodes(self) -> list[Node]:
        """Nodes that there is a connection to."""
        ...

    async def nearest(self, name: bytes) -> list[Node]:
        """Reachable nodes nearest to a name, this one excluded."""
        ...


class Figures(Protocol):
    """What this node says of itself in a beat."""

    def __call__(self, to: Node) -> tuple[int, bool, bytes]:
        """Bytes it still gives, whether it is leaving, and the digest of what it shares with ``to``."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What a node last said of itself, and when it was heard."""

    at: float
    beat: Beat


class Vigil:
    """Watches the nodes that ``circle`` names. ``differs`` is called with a node that knows other receipts."""

    def __init__(
        self,
        calls: Calls,
        figures: Figures,
        circle: Callable[[], set[Node]],
        differs: Callable[[Node], Awaitable[None]],
        interval: float,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock``: seconds since 1970, to number this node's beats from."""
        self._calls = calls
        self._figures = figures
        self._circle = circle
        self._differs = differs
        self.interval = interval
        self._since = trio.current_time()
        self.detector = Detector(interval, self._since)
        self.told: dict[Node, Told] = {}
        self._heard_at = self._since
        self._sequence = max(int(clock() * 1000), 0)
        """Of the last beat said. Far fewer than one a millisecond are, so a node that starts again goes on above."""
        self._lines: dict[Node, Line] = {}
        self._turns: dict[Node, trio.Lock] = {}
        self._inbound = 0
        self._been_away: dict[Node, float] = {}
        self._asked_at: dict[Node, float] = {}
        self._due: set[Node] = set()
        """Nodes whose turn to be asked has come, and isn't over."""
        self._silent: set[Node] = set()
        """Nodes that didn't answer when it mattered, and weren't heard since."""
        self._seen: dict[Node, float] = {}
        self.goodbyes: set[Node] = set()
        """Nodes that said when last heard that they were leaving: that they are gone is no trouble."""

    def been_away(self, seconds: Mapping[Node, float]) -> None:
        """For how long nodes had been away when this node last ran."""
        self._been_away = dict(seconds)

    def absences(self, grace: float = 0.0) -> dict[Node, float]:
        """Nodes of the circle that are away, and for how many seconds that this node has seen.

        Who left for good has been away for the ``grace`` period at least.
        """
        now = trio.current_time()
        gone = {node: self.detector.gone_for(node, now) for node in self.detector}
        good = {node: grace for node in gone if self.detector.gone_for_good(node, now)}
        return {node: max(seconds, good.get(node, 0.0)) for node, seconds in gone.items() if seconds > 0.0}

    def beat_for(self, node: Node) -> Beat:
        """What this node says to ``node`` now."""
        free, leaving, digest = self._figures(node)
        self._sequence += 1
        return Beat(self._sequence, int(trio.current_time() - self._since), max(free, 0), leaving, digest)

    def _is_late(self, node: Node, beat: Beat, now: float) -> bool:
        """Whether ``node`` has said something newer already: over another stream, or before it was started again.

        The higher number is newer, as long as it is fresh: after that anything is, for a clock may have been put back
        where the node started, and who makes numbers up must not silence itself for longer than by silence.
        """
        told = self.told.get(node)
        return told is not None and beat.sequence <= told.beat.sequence and now - told.at < FRESH * self.interval

    def _heard(self, node: Node, beat: Beat) -> None:
        now = trio.current_time()
        self._heard_at = now
        if self._is_late(node, beat, now):
            return
        self.told[node] = Told(now, beat)
        self._been_away.pop(node, None)
        self._silent.discard(node)
        (self.goodbyes.add if beat.leaving else self.goodbyes.discard)(node)
        silent_for = self.detector.gone_for(node, now)
        if node not in self.detector:
            return
        if beat.leaving:
            self.detector.left(node, now)
        elif self.detector.beat(node, now) in {Life.DOWN, Life.LEFT}:
            log.info("%s is back", node.hex()[:8])
            for other in self.detector:
                if abs(self.detector.gone_for(other, now) - silent_for) <= TOGETHER * self.interval:
                    self._asked_at.pop(other, None)

    async def serve(self, stream: Any, node: Node) -> None:
        """Answer the beats that come over a stream, until it ends."""
        if self._inbound >= HELD_LINES:
            await stream.reset()
            return
        line = Line(stream, BEATS)
        self._inbound += 1
        patience = FIRST_SECONDS
        try:
            while True:
                beat = await line.receive(patience)
                patience = max(60.0, 4 * self.interval)
                assert isinstance(beat, Beat)  # noqa: S101 - BEATS admits nothing else
                self._heard(node, beat)
                answer = self.beat_for(node)
                await line.send(answer)
                if beat.digest != answer.digest:
                    await self._differs(node)
        except (StreamOver, trio.TooSlowError):
            return
        finally:
            self._inbound -= 1
            await line.reset()

    async def ask(self, node: Node) -> Beat | None:
        """One exchange with ``node`` now; None when it doesn't answer."""
        with trio.move_on_after(ASK_SECONDS):
            async with self._turns.setdefault(node, trio.Lock()):
                for fresh in (False, True):
                    try:
                        return await self._exchange(node, fresh=fresh)
                    except (StreamOver, PeerFault, Unreachable, trio.TooSlowError) as error:
                        await self._drop(node)
                        if isinstance(error, Unreachable):
                            if error.refused:
                                self.detector.refused(node)
                            break
        return None

    async def _exchange(self, node: Node, *, fresh: bool) -> Beat:
        line = self._lines.get(node)
        if line is None or fresh:
            line = self._lines[node] = Line(await self._calls.open(node, HEARTBEAT), BEATS)
        mine = self.beat_for(node)
        await line.send(mine, ASK_SECONDS)
        theirs = await line.receive(ASK_SECONDS)
        assert isinstance(theirs, Beat)  # noqa: S101
        self._heard(node, theirs)
        newest = self.told[node].beat  # what it said over another stream meanwhile
        if theirs.digest != mine.digest:
            await self._differs(node)
        return newest

    async def _drop(self, node: Node) -> None:
        line = self._lines.pop(node, None)
        if line is not None:
            await line.reset()

    async def run(self) -> None:
        """Watch the circle until cancelled."""
        lanes = {True: trio.CapacityLimiter(AT_ONCE), False: trio.CapacityLimiter(AT_ONCE_SILENT)}

        async def check(node: Node) -> None:
            try:
                async with lanes[self.detector.life(node) is Life.ALIVE]:
                    self._asked_at[node] = trio.current_time()
                    await self.ask(node)
            finally:
                self._due.discard(node)

        async with trio.open_nursery() as nursery:
            due = trio.current_time()
            while True:
                due = max(due + self.interval, trio.current_time() - self.interval)
                await trio.sleep_until(due)
                now = trio.current_time()
                circle = self._circle()
                self._keep_to(circle, now)
                asked = [node for node in circle if not self._is_fresh(node, now) and self._is_worth_it(node, now)]
                if circle and now - self._heard_at > 2 * self.interval:
                    asked += [node for node in self._calls.nodes() if node not in circle][:OTHERS]
                for node in asked:
                    if node not in self._due and not self._turns.setdefault(node, trio.Lock()).locked():
                        self._due.add(node)
                        nursery.start_soon(check, node)
                in_touch = not circle or now - self._heard_at <= 3 * self.interval
                for node, life in self.detector.tick(now, in_touch=in_touch):
                    log.info("%s is %s", node.hex()[:8], life.value)

    def _is_fresh(self, node: Node, now: float) -> bool:
        told = self.told.get(node)
        return told is not None and now - told.at < 0.6 * self.interval

    def _is_worth_it(self, node: Node, now: float) -> bool:
        rest = min(self.detector.gone_for(node, now) / DOWN_SHARE, DOWN_MOST * self.interval)
        return now - self._asked_at.get(node, -math.inf) >= rest

    def _keep_to(self, circle: set[Node], now: float) -> None:
        for node in circle:
            said_goodbye = node not in self.detector and node in self.goodbyes
            self.detector.watch(node, now, self._been_away.pop(node, 0.0))
            if said_goodbye:  # before it was watched
                self.detector.left(node, now)
        for node in [node for node in self.detector if node not in circle]:
            self.detector.forget(node)
        for node in [node for node, told in self.told.items() if node not in circle and now - told.at > 600.0]:
            del self.told[node]
            self._turns.pop(node, None)
            self._lines.pop(node, None)
        for node in [node for node in self._asked_at if node not in circle]:
            del self._asked_at[node]
        if len(self._silent) > MOST_SILENT:
            self._silent &= circle
        if len(self.goodbyes) > MOST_SILENT:
            self.goodbyes &= circle
        self._seen = {
            node: at for node, at in self._seen.items() if now - at <= max(HEARD * self.interval, HEARD_LEAST)
        }

    def is_there(self, node: Node) -> bool:
        """Whether it is alive as far as can be told, and not leaving."""
        told = self.told.get(node)
        return self.detector.life(node) is Life.ALIVE and not (told is not None and told.beat.leaving)

    def is_leaving(self, node: Node) -> bool:
        """Whether it said so lately, and so goes on handing over."""
        told = self.told.get(node)
        return told is not None and told.beat.leaving and trio.current_time() - told.at < FRESH * self.interval

    def is_heard(self, node: Node) -> bool:
        """Whether a person may be told that it is there: it was heard lately, in this run, and isn't leaving."""
        if self.is_silent(node) or not self.is_there(node):
            return False
        return trio.current_time() - self._last_sign(node) <= max(HEARD * self.interval, HEARD_LEAST)

    def is_silent(self, node: Node) -> bool:
        """Whether it was asked in vain by ``confirm`` and hasn't been heard since."""
        return node in self._silent

    def seen(self, node: Node) -> None:
        """It just answered something else than a heartbeat."""
        self._seen[node] = trio.current_time()
        self._silent.discard(node)

    def _last_sign(self, node: Node) -> float:
        told = self.told.get(node)
        return max(self._seen.get(node, -math.inf), told.at if told is not None else -math.inf)

    def _may_answer(self, node: Node) -> bool:
        """Whether it may answer if asked now: it lives, and isn't silent while ``run`` goes on asking it anyway."""
        return self.detector.life(node) is Life.ALIVE and not (self.is_silent(node) and node in self.detector)

    async def confirm(
        self, nodes: Iterable[Node], seconds: float, since: float = math.inf, *, everybody: bool = True
    ) -> set[Node]:
        """Ask ``nodes`` not heard ``since``; who doesn't answer in so many seconds is silent until it speaks.

        Returns those of them that were thought to be alive. Unless ``everybody`` is to be asked, those aren't who are
        known to be away: nobody is kept waiting for them. In no time at all nobody is asked, and nothing changes.
        """
        if seconds <= 0.0:
            return set()
        begun = trio.current_time()
        unheard = {node for node in nodes if not (self.is_heard(node) and self._last_sign(node) >= since)}
        limit = trio.CapacityLimiter(CONFIRMED_AT_ONCE)

        async def ask(node: Node) -> None:
            try:
                await self.ask(node)
            finally:
                limit.release_on_behalf_of(node)

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                # Those heard last first: they answer soonest, and may not get a turn behind many that are asleep.
                for node in sorted(unheard, key=self._last_sign, reverse=True):
                    if everybody or self._may_answer(node):
                        await limit.acquire_on_behalf_of(node)
                        nursery.start_soon(ask, node)
        silent = {node for node in unheard if self._last_sign(node) < begun}
        self._silent |= silent
        return {node for node in silent if self.detector.life(node) is Life.ALIVE}
