"""Keeping courses for others, as a whole: what this node keeps, what it answers, what it asks, and who is watched.

``Kept`` is what is here and on record, ``Intake`` takes offers, ``Asking`` asks others, ``letting_go`` has the rule by
which copies go. What must hold: no byte before room for it is reserved; no receipt before the bytes are durable;
nothing is let go before as many others as asked for have just said, signed, that they hold it and won't let go
themselves. So a crash anywhere leaves a copy too many, never one too few.

Imports ``dht`` siblings, ``course``, ``store``, ``transfer``, ``errors``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from p2plearn.dht.asking import Asking
from p2plearn.dht.custody import Node, Unit
from p2plearn.dht.duty import counted
from p2plearn.dht.heartbeat import Calls, Vigil
from p2plearn.dht.intake import Find, Intake
from p2plearn.dht.kept import Kept
from p2plearn.dht.ledger import Entry
from p2plearn.dht.letting_go import grant, let_go
from p2plearn.dht.line import Line
from p2plearn.dht.messages import (
    ASKED,
    MOST_RECEIPTS,
    Accept,
    Challenge,
    Decline,
    Inquiry,
    Offer,
    Proof,
    Reason,
    Receipts,
    Release,
    Withdraw,
)
from p2plearn.dht.receipts import Receipt
from p2plearn.dht.standing import Whereabouts
from p2plearn.net.contained import safely
from p2plearn.store.store import Store
from p2plearn.transfer.channel import StreamOver
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.fetch import FetchLimits

log = logging.getLogger("p2plearn.custody")

FIRST_SECONDS: Final = 10.0
"""For a node that opened a stream to begin its question."""

MEND: Final = 6.0
"""Heartbeat intervals between two tries to fetch again what was damaged here."""


LEAST_LOOK: Final = 1.0
"""Seconds between two looks at the names on the disk, however short the heartbeat interval is. Measured, of CPU: 3.5 ms
at 2,000 courses of one file, 25 at 9,900 (on a busy machine)."""


@dataclass(frozen=True, slots=True)
class KeeperLimits:
    """``give``: bytes for courses of others; ``grace``, ``interval`` in seconds (see the settings of ``custody``)."""

    give: int
    grace: float
    interval: float
    fetch: FetchLimits


class Keeper:
    """See the head of this file. ``run`` it; ``serve`` and ``vigil.serve`` answer the streams that peers open."""

    def __init__(
        self,
        store: Store,
        calls: Calls,
        find: Find,
        announce: Callable[[bytes], None],
        withdraw: Callable[[bytes], None],
        *,
        node: Node,
        sign: Callable[[bytes], bytes],
        limits: KeeperLimits,
        courtesy: Courtesy | None = None,
    ) -> None:
        self.store = store
        self.calls = calls
        self.limits = limits
        self.kept = Kept(store, node, sign, limits.give, announce=announce, withdraw=withdraw)
        self.ledger = self.kept.ledger
        self.asking = Asking(self.kept, calls, self._spawn, courtesy)
        self.intake = Intake(self.kept, find, self._spawn, fetch=limits.fetch, courtesy=courtesy)
        self.also_watched: Callable[[], set[Node]] = set
        """Nodes that are watched like those that share a unit with this one."""
        self.vigil = Vigil(calls, self._figures, self._circle, self._reconcile, limits.interval)
        self.ledger.is_gone = self._is_gone
        self.forget_provider: Callable[[bytes, Node], None] = lambda _course, _node: None
        """Told of a node that no longer has a course: nobody is to be sent there."""
        self._reconciled: dict[Node, float] = {}
        self._nursery: trio.Nursery | None = None
        self._started = trio.Event()

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Watch and answer until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._started.set()
            task_status.started()
            nursery.start_soon(self._mend)
            nursery.start_soon(self._look_at_disk)
            await self.vigil.run()

    def _circle(self) -> set[Node]:
        return self.kept.circle() | self.also_watched()

    def _figures(self, to: Node) -> tuple[int, bool, bytes]:
        return self.limits.give - self.kept.given, self.kept.leaving, self.ledger.digest(to)

    def _spawn(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._safely, work, *arguments)

    async def _safely(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        # What fails in the background must neither end the network part nor be silent.
        await safely(log, f"custody: {getattr(work, '__name__', 'a task')}", work, *arguments)

    # -- what this node holds ------------------------------------------------------------------------------------------

    def forgotten(self, course: bytes) -> None:
        """A course was removed from this disk: tell those who counted on it."""
        self.intake.unwanted(course)
        for unit in [unit for unit in self.ledger if unit.course == course]:
            denial = self.kept.deny(unit)
            if denial is not None:
                self._spawn(self.asking.tell, denial[0], [denial[1]])
        self.kept.news()

    async def say_goodbye(self) -> None:
        """This node leaves: tell those who count on it for what it could hand to nobody."""
        told: dict[Node, list[Receipt]] = {}
        for others, denial in await self.kept.take_leave():
            for node in others:
                told.setdefault(node, []).append(denial)
        async with trio.open_nursery() as nursery:
            for node, receipts in told.items():
                nursery.start_soon(self.asking.exchange, node, receipts)

    async def look_for_damage(self, course: bytes) -> None:
        """Some of a course is gone from this disk: what isn't whole no longer counts, and is fetched again."""
        for others, denial in await self.kept.look_for_damage(course):
            self._spawn(self.asking.tell, others, [denial])

    async def _look_at_disk(self) -> None:
        """See, over and over, whether what is said to be kept here is on the disk: what isn't counts no more.

        What is back (a drive that was plugged in again) counts again.
        """
        while True:
            await self._safely(self._look_once)
            await trio.sleep(max(self.limits.interval, LEAST_LOOK))

    async def _look_once(self) -> None:
        seen = await trio.to_thread.run_sync(self.store.look)
        for course in seen.changed:
            await self.look_for_damage(course)
            row = await trio.to_thread.run_sync(self.store.course, course)
            if row is not None and row.complete and any(unit.course == course for unit in self.kept.damaged):
                await self.kept.adopt(course, 0)
        for course in seen.replaced:
            self._spawn(self.asking.look_for_damage, course)

    async def _mend(self) -> None:
        while True:
            for unit, copies in list(self.kept.damaged.items()):
                await self._safely(self._mend_one, unit, copies)
            await trio.sleep(MEND * self.limits.interval)

    async def _mend_one(self, unit: Unit, copies: int) -> None:
        row = await trio.to_thread.run_sync(self.store.course, unit.course)
        # Of its person's own courses some may be gone because the file was changed (``--no-copy``).
        if row is not None and row.why == "custody" and not self.kept.leaving:
            await self.intake.mend(unit, copies)

    def counted(self, entry: Entry) -> frozenset[Node]:
        """Who holds a unit as far as repair goes: not those away for longer than the grace period, or gone for good."""
        now, detector = trio.current_time(), self.vigil.detector

        def gone_for(node: Node) -> float:
            return math.inf if detector.gone_for_good(node, now) else detector.gone_for(node, now)

        return counted(entry, self.ledger.me, gone_for, self.limits.grace)

    def there(self, entry: Entry) -> frozenset[Node]:
        """Who holds a unit and is there now, as far as a person may be told: this node, and who was heard lately."""
        return frozenset(node for node in entry.holders if self.whereabouts(node) is Whereabouts.THERE)

    def whereabouts(self, node: Node) -> Whereabouts:
        """Where a holder is, as far as a person may be told: who is gone counts for repair neither."""
        if node == self.ledger.me or self.vigil.is_heard(node):
            return Whereabouts.THERE
        gone = self.vigil.detector.gone_for_good(node, trio.current_time()) or self._is_gone(node)
        return Whereabouts.GONE if gone else Whereabouts.AWAY

    def _is_gone(self, node: Node) -> bool:
        return self.vigil.detector.gone_for(node, trio.current_time()) >= self.limits.grace

    def tell_all(self, unit: Unit) -> None:
        """Tell everybody who holds a unit all that is known of it."""
        entry = self.ledger.entry(unit)
        if entry is not None:
            self._spawn(self.asking.tell, entry.holders - {self.ledger.me}, self.kept.receipts_of(unit))

    # -- answering -----------------------------------------------------------------------------------------------------

    async def serve(self, stream: Any, node: Node) -> None:
        """One question of a peer's. Raises PeerFault for one that breaks the protocol."""
        await self._started.wait()
        line = Line(stream, ASKED)
        try:
            match await line.receive(FIRST_SECONDS):
                case Offer() as offer:
                    await self._hear(await self.intake.consider(line, node, offer))
                case Receipts(receipts):
                    await line.send(Receipts(tuple(await self._hear(receipts))))
                case Challenge() as challenge:
                    await line.send(Proof(await self._prove(challenge)))
                case Release(unit):
                    await line.send(await grant(self.kept, unit, node))
                case Inquiry(unit):
                    await line.send(Receipts(tuple(self.kept.receipts_of(unit))))
                case Withdraw(courses):
                    for course in courses:
                        self.forget_provider(course, node)
                    await line.send(Accept())
        except (StreamOver, trio.TooSlowError):
            return
        finally:
            await line.close()

    async def _hear(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Take receipts in; what to answer: this node's own view of those units, and what it must deny."""
        await self.kept.learn(receipts)
        units = {receipt.unit for receipt in receipts}
        known = [each for unit in sorted(units) for each in self.kept.receipts_of(unit)]
        fresh = [each for each in known if each not in receipts]
        return (fresh + self.ledger.denials(receipts, int(time.time() * 1000)))[:MOST_RECEIPTS]

    async def _prove(self, challenge: Challenge) -> bytes:
        proof = await trio.to_thread.run_sync(self.asking.prove, challenge)
        if not proof and any(unit.course == challenge.course for unit in self.ledger):
            self._spawn(self.asking.look_for_damage, challenge.course)
        return proof

    async def _reconcile(self, node: Node) -> None:
        """``node`` knows other receipts about what we share: exchange them all, now and then."""
        now = trio.current_time()
        if now - self._reconciled.get(node, -1e9) >= self.limits.interval:
            self._reconciled[node] = now
            self._spawn(self.asking.exchange, node, self.ledger.shared(node))

    # -- asking --------------------------------------------------------------------------------------------------------

    async def give(self, unit: Unit, to: Node) -> Decline | None:
        """Have ``to`` take a unit that is here; None once it has it, else why not."""
        declined = await self.asking.give(unit, to)
        if declined is None:
            self.vigil.seen(to)
        return declined

    async def let_go(
        self, unit: Unit, holders: Sequence[Node], gone: Callable[[tuple[Receipt, ...]], None]
    ) -> dict[Node, Reason]:
        """See ``letting_go.let_go``."""
        self.kept.releasing.add(unit)
        try:
            return await let_go(self.kept, self.asking, self.vigil, unit, holders, gone)
        finally:
            self.kept.releasing.discard(unit)
