"""One node of the simulated network: in events, what ``keeper``, ``repair`` and ``heartbeat`` do around their cores.

The cores are those of real nodes: ``Ledger`` (receipts), ``Duty``, ``Promises``, ``LettingGo`` (when to repair, rely
and let go), ``plan`` (where to), ``counted``, and the detector behind ``sight``. Everything here only carries out.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2plearn.dht.copying import AT_ONCE, ROUND
from p2plearn.dht.custody import Node, Unit, peer_id_of, ranked
from p2plearn.dht.duty import Duty, LettingGo, Promises, counted
from p2plearn.dht.handoff import Need, Transfer, plan
from p2plearn.dht.ledger import Ledger
from p2plearn.dht.liveness import Life
from p2plearn.dht.lookup import place
from p2plearn.dht.messages import Reason
from p2plearn.dht.receipts import Receipt
from p2plearn.dht.repair import ASKED
from sim.sight import Beats, Sight, Silences

if TYPE_CHECKING:
    from sim.world import World

LEAVE_SECONDS = 600.0
"""For which a leaver tries (``custody_service.LEAVE_SECONDS``)."""

LEAVE_PAUSE = 5.0
"""Between two looks of a leaver that waits for others. Real ones look twice a second."""

QUESTION_SECONDS = 0.1
"""A question and its answer; ten times that in vain."""

STUCK_MOST = 600.0
"""Longest wait between two looks at a unit that nobody takes. Real nodes look every interval, to no other end."""


class State(enum.Enum):
    """How a node is."""

    UP = "up"
    ASLEEP = "asleep"  # a closed lid: its process stands still
    OFF = "off"  # stopped; its disk stays
    GONE = "gone"  # for good


def nothing_signed(_: bytes) -> bytes:
    """Receipts are not forged here, so they are not signed either."""
    return b""


class SimNode:
    """See the head of this file."""

    def __init__(self, world: World, number: int, key: Node) -> None:
        self.world, self.scene, self.clock = world, world.scene, world.clock
        self.number, self.key, self.place = number, key, place(peer_id_of(key))
        self.state = State.UP
        self.since = self.clock.now
        self.life_number = 0
        """Counts the times it went away: what was planned before that is void."""
        self.side = 0
        self.leaving = False
        self.leave_until = 0.0
        self.own: set[Unit] = set()
        """What its person published: never let go of as surplus."""
        self.given = 0
        self.coming: dict[Unit, list[tuple[SimNode, int]]] = {}
        """Units on their way here: who offered them, and in which of its lives."""
        self.releasing: set[Unit] = set()
        self.circle: set[Node] = set()
        self.ledger = Ledger(key, nothing_signed)
        self.promises = Promises()
        self.duty = Duty(key, self.scene.interval, self.scene.grace)
        self.sight: Sight = Beats(self) if self.scene.beats else Silences(self)
        self._queue: deque[Transfer] = deque()
        self._running = 0
        self._letting_go = 0
        self._look_at = float("inf")
        self._stuck_for = self.scene.interval
        self._has_surplus = False
        self.will_reconcile = False
        self.doubtful: dict[Unit, set[Node]] = {}

    def __repr__(self) -> str:
        return f"node {self.number}"

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self.state is State.UP

    @property
    def free(self) -> int:
        """Bytes it still gives."""
        return self.scene.give - self.given

    # -- coming and going ---

    def goes(self, state: State) -> None:
        """It sleeps, stops, or is gone."""
        self.state, self.since = state, self.clock.now
        self.life_number += 1
        self.will_reconcile = False
        self._look_at = float("inf")
        for transfer in self._queue:
            self.duty.ended(*transfer_key(transfer))
        self._queue.clear()
        for unit in list(self.duty.giving):
            for to in sorted(self.duty.giving[unit]):
                self.duty.ended(unit, to)
        self._running = self._letting_go = 0
        self.releasing.clear()
        for unit in list(self.coming):
            self.world.breaks_off(self, unit)

    def comes(self) -> None:
        """It runs again; the network tells it whom it reaches."""
        asleep, away = self.state is State.ASLEEP, self.clock.now - self.since
        self.state, self.since = State.UP, self.clock.now
        if asleep:
            self.sight.slept(away)
        else:
            self.duty = Duty(self.key, self.scene.interval, self.scene.grace)
            self.promises = Promises()
            if isinstance(self.sight, Silences):
                self.sight.slept(away)
            self.sight.started()
        self.look_in(2 * self.scene.interval)

    # -- what it holds ---

    def states(self, unit: Unit, size: int, copies: int, *, holds: bool) -> Receipt:
        """Say that it holds a unit, or no longer does."""
        receipt = self.ledger.state(unit, size, copies, holds, int(self.clock.now * 1000))
        self.looks_round()
        self.world.will_reconcile(self)
        return receipt

    def merge(self, receipts: list[Receipt]) -> None:
        """Take in what others say."""
        news = self.ledger.merge(receipts)
        for receipt in news:
            if not receipt.holds:
                self.promises.gone(receipt.unit, receipt.node)
        if news:
            self.looks_round()
            self.look_in(0.5)
            self.world.will_reconcile(self)

    def looks_round(self) -> None:
        """Whom it watches has changed, maybe."""
        circle = self.ledger.circle()
        if circle != self.circle:
            new = circle - self.circle
            self.world.watches(self, self.circle - circle, new)
            self.circle = circle
            self.sight.watch(circle, new)
            self.look_in(self.scene.interval)

    def receipts_of(self, unit: Unit) -> list[Receipt]:
        """All it knows of a unit."""
        entry = self.ledger.entry(unit)
        return list(entry.receipts.values()) if entry is not None else []

    # -- looking ---

    def look_in(self, seconds: float) -> None:
        """Look after everything in so many seconds, if not before."""
        when = self.clock.now + seconds
        if when < self._look_at and self.is_up:
            self._look_at = when
            self.clock.at(when, self._look, when, self.life_number)

    def _look(self, planned: float, life_number: int) -> None:
        if planned != self._look_at or life_number != self.life_number or not self.is_up:
            return
        self._look_at = float("inf")
        if self._running or self._queue or self._letting_go:
            return  # a round of repair ends with its transfers; the next look follows them
        self.duty.keep_to(self.ledger, self.clock.now)
        if self.leaving:
            self._leave()
        else:
            self._round()

    def counts(self, unit: Unit) -> frozenset[Node]:
        """Who holds a unit as far as this node counts copies."""
        entry = self.ledger.entry(unit)
        assert entry is not None
        return counted(entry, self.key, self.sight.gone_for, self.scene.grace)

    def _lives(self, node: Node) -> bool:
        return node == self.key or self.sight.life(node) in {Life.ALIVE, Life.SUSPECT}

    def is_there(self, node: Node) -> bool:
        """As ``Vigil.is_there``: alive, and not said to be leaving."""
        return self.sight.life(node) is Life.ALIVE and not self.world.said_leaving(self, node)

    def _round(self) -> None:
        now, mine, short = self.clock.now, [], False
        for unit in self.ledger:
            entry = self.ledger.entry(unit)
            assert entry is not None
            need = self.duty.need(unit, entry, self.counts(unit), now)
            short = short or need.missing > 0
            if not self.duty.repairs(need, {node for node in need.holders if self._lives(node)}, now):
                continue
            if self._finds_others(unit):
                continue
            mine.append(need)
        made = self._carry_out(mine)
        self._release_surplus()
        if made:
            self._stuck_for = self.scene.interval
            return
        if short:
            self.look_in(self._stuck_for)
            self._stuck_for = min(1.5 * self._stuck_for, STUCK_MOST)
        else:
            self._stuck_for = self.scene.interval
        if self._has_surplus:
            self.look_in(self.scene.grace / 4)
        change = self.sight.next_change()
        if change < float("inf"):
            self.look_in(change - now + 0.5)

    def _finds_others(self, unit: Unit) -> bool:
        """As ``Repair._finds_others``."""
        entry = self.ledger.entry(unit)
        if entry is None or entry.holders != {self.key}:
            return False
        for peer in self.world.nearest(self, unit.name)[:ASKED]:
            self.merge(peer.receipts_of(unit))
            if entry.holders != {self.key}:
                return True
        return False

    def noticed_silence(self) -> None:
        """Somebody of the circle can't be reached: what was surplus may not be any more."""
        if self._has_surplus:
            self.look_in(5 * self.scene.interval)
        change = self.sight.next_change()
        if change < float("inf"):
            self.look_in(change - self.clock.now + 0.5)

    def _carry_out(self, needs: list[Need]) -> bool:
        """Begin to make copies of the most urgent; whether there was anybody to take one."""
        wanting = sorted((need for need in needs if need.missing), key=lambda need: (-need.missing, need.unit))[:ROUND]
        if not wanting:
            return False
        near = {node.key: node for need in wanting for node in self.world.nearest(self, need.unit.name)}
        free = {key: node.free for key, node in near.items() if not node.leaving}
        transfers = plan(wanting, free).transfers
        for transfer in transfers:
            self.duty.begun(*transfer_key(transfer))
            self._queue.append(transfer)
        self._pump()
        return bool(transfers)

    def _pump(self) -> None:
        while self._queue and self._running < AT_ONCE:
            transfer = self._queue.popleft()
            if not self._still_wanted(transfer):
                self.duty.ended(*transfer_key(transfer))
                continue
            self._running += 1
            self.world.offers(self, transfer.unit, transfer.to)

    def _still_wanted(self, transfer: Transfer) -> bool:
        entry = self.ledger.entry(transfer.unit)
        if entry is None:
            return False
        if self.leaving:
            need = self._leavers_need(transfer.unit)
        else:
            need = self.duty.need(transfer.unit, entry, self.counts(transfer.unit), self.clock.now)
        return self.duty.still_wanted(need, transfer.to)

    def offer_ended(self, unit: Unit, to: Node, refusal: Reason | None) -> None:
        """A copy was made and acknowledged, or why not."""
        assert self._running > 0
        self._running -= 1
        self.duty.ended(unit, to)
        if refusal is not None:
            self.duty.declined(unit, to, refusal, self.clock.now)
        self._pump()
        if not self._running and not self._queue:
            self.look_in(LEAVE_PAUSE if self.leaving else 0.75 * self.scene.interval)

    def _release_surplus(self) -> None:
        self._has_surplus = False
        for unit in self.ledger:
            entry = self.ledger.entry(unit)
            assert entry is not None
            there = [node for node in entry.holders if node == self.key or self.is_there(node)]
            self._has_surplus = self._has_surplus or len(there) > entry.copies
            if not self.duty.releases(unit, there, entry.copies, self.clock.now):
                continue
            if unit in self.own or self.promises.holds(unit, self.clock.now):
                continue
            self._let_go(unit, [node for node in ranked(unit, there) if node != self.key], self._surplus_over)

    def _surplus_over(self, unit: Unit, going: LettingGo) -> None:
        """As ``Repair`` does after each try."""
        if Reason.BUSY not in going.failed.values():
            self.duty.not_released(unit)
        self.look_in(self.scene.interval * (0.5 + self.world.dice.random()))

    # -- letting go ---

    def _let_go(self, unit: Unit, holders: list[Node], then: Callable[[Unit, LettingGo], None]) -> None:
        entry = self.ledger.entry(unit)
        assert entry is not None
        self.releasing.add(unit)
        self._letting_go += 1
        self._ask_next(unit, LettingGo(entry.copies, holders), then, self.life_number)

    def _ask_next(
        self, unit: Unit, going: LettingGo, then: Callable[[Unit, LettingGo], None], life_number: int
    ) -> None:
        if life_number != self.life_number:
            return
        node = going.next()
        if node is None:
            if going.may_drop(self.key):
                self.world.releases(self, unit, going)
            self.releasing.discard(unit)
            self._letting_go -= 1
            then(unit, going)
            return
        if not self.world.can_reach(self, node):
            going.answered(node, Reason.FAILED)
            self.clock.after(10 * QUESTION_SECONDS, self._ask_next, unit, going, then, life_number)
            return
        peer = self.world.nodes[node]
        refusal = peer.grants(unit, self.key)
        going.answered(node, refusal)
        if refusal is None:
            self.merge([each for each in peer.receipts_of(unit) if each.node == node])
        self.clock.after(QUESTION_SECONDS, self._ask_next, unit, going, then, life_number)

    def grants(self, unit: Unit, to: Node) -> Reason | None:
        """Whether another may let go of a unit, relying on this copy: None, or why not."""
        entry = self.ledger.entry(unit)
        if entry is None:
            return Reason.NOT_HELD
        if self.leaving or unit in self.releasing:
            return Reason.LEAVING
        if not self.promises.grant(unit, to, self.clock.now):
            return Reason.BUSY
        self.states(unit, entry.size, entry.copies, holds=True)
        return None

    # -- leaving ---

    def leaves(self) -> None:
        """Hand everything over, then be gone; what couldn't be placed goes with it when its time is over."""
        self.leaving, self.leave_until = True, self.clock.now + LEAVE_SECONDS
        self.doubtful.clear()
        self.look_in(0.5)
        self.clock.at(self.leave_until, self._gives_up, self.life_number)

    def _gives_up(self, life_number: int) -> None:
        if life_number == self.life_number:
            self.world.left(self)

    def _leave(self) -> None:
        kept: list[Need] = []
        needs: list[Need] = []
        for unit in self.ledger:
            need = self._leavers_need(unit)
            if need.missing:
                needs.append(need)
            elif not need.coming:
                kept.append(need)
        if not len(self.ledger):
            self.world.left(self)
            return
        for need in kept[:AT_ONCE]:
            self._let_go(need.unit, ranked(need.unit, need.holders), self._leaver_asked)
        mine = [need for need in needs if self.duty.hands_over(need, self._leavers(need.unit), self.clock.now)]
        if not self._carry_out(mine) and not kept:
            self.doubtful.clear()
        self.look_in(LEAVE_PAUSE)

    def _leavers(self, unit: Unit) -> list[Node]:
        entry = self.ledger.entry(unit)
        assert entry is not None
        others = entry.holders - {self.key}
        return [node for node in others if self.world.said_leaving(self, node) and self.world.can_reach(self, node)]

    def _leavers_need(self, unit: Unit) -> Need:
        entry = self.ledger.entry(unit)
        assert entry is not None
        away = {node for node in entry.holders if node != self.key and not self.is_there(node)}
        without = {self.key} | away | self.doubtful.get(unit, set())
        return self.duty.need(unit, entry, self.counts(unit) - without, self.clock.now)

    def _leaver_asked(self, unit: Unit, going: LettingGo) -> None:
        if unit in self.ledger:
            doubts = {node for node, why in going.failed.items() if why is not Reason.BUSY}
            self.doubtful.setdefault(unit, set()).update(doubts)
        self.look_in(QUESTION_SECONDS)


def transfer_key(transfer: Transfer) -> tuple[Unit, Node]:
    """What ``Duty`` calls it."""
    return transfer.unit, transfer.to
