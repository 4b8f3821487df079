"""Who takes part in a fetch: peers that are found, those that fetch the course too and call, and when it is given up.

In: rounds of looking for providers (``Candidates``), callers, what each conversation came to, how it went in earlier
gets (``reliance``). Out: a running session (made by ``converse``) for each peer that takes part; NobodyHasIt and the
like (``tally.why_not``) once there is nobody left to hope for.

    found -> faulty, declined or fruitless? never; doubted, and named by nobody? last -> a place, or who was of no use
    makes room -> session

What must hold: at most ``places`` sessions that aren't resting, more only while nothing comes (``places.py``); a peer
that broke a rule doesn't come back in this fetch; while anybody may still help (is busy, moved, fetches it too) the
fetch goes on, but each hope has its limit.

Imports siblings only; knows nothing of what is fetched but what the scheduler says that peers owe.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

import trio

from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.landing import Candidates
from p2plearn.transfer.patience import Flow
from p2plearn.transfer.places import Places
from p2plearn.transfer.reliance import WRONG, Reliance
from p2plearn.transfer.scheduler import Scheduler
from p2plearn.transfer.session import Peer, Session
from p2plearn.transfer.tally import Standing, Tally

LOOK_AGAIN_SECONDS: Final = 15.0
"""How often more peers are looked for while some are at work ..."""

FIRST_LOOK_AGAIN_SECONDS: Final = 1.0
"""... in the long run: the first time so soon, then after twice as long each time. Who begins along with a class finds
nobody else at its first look; by the next those who began then have told that they have something."""

LOOKUPS: Final = 3
"""Rounds of looking for providers without any that helps, before it is said that nobody has it."""

MOVED_SECONDS: Final = 30.0
"""How long a provider that is not where it was said to be is looked up again, with nobody else left: a machine that
changes networks notices within 4 s, looks at its addresses every 10 s, and then tells the network."""

MOVED_EVERY: Final = 5.0
"""Seconds between two such look-ups, at most."""

PATIENCE_SECONDS: Final = 60.0
"""How long peers that fetch the course themselves may get nothing that is lacking here, with nobody else left."""

BUSY_SECONDS: Final = 600.0
"""How long nothing may come while everybody who has the course says that they are busy: a lesson's rush is over by
then; who is busy for longer may be so for ever, and the person should know."""

TRIES: Final = 3
"""Conversations with a peer that is asked and gives nothing, before it is left alone for the rest of this fetch."""

CALLERS: Final = 32
"""Peers remembered that asked this node for the course while it had none of it yet; the last ones stay."""

IDLE_SECONDS: Final = 5.0
"""A peer that wasn't asked for anything for so long makes room when another waits for a place."""

SECOND_CHOICE_SECONDS: Final = 0.5
SECOND_CHOICE_EVERY: Final = 0.25
"""After so long with nothing from anybody the peers that are doubted are tried, one in so many seconds, the least
doubted first, though the looking goes on."""

POLL_SECONDS: Final = 0.05
POLL_SHARE: Final = 0.05
LONGEST_POLL_SECONDS: Final = 1.0
"""Between two looks at whether there is room for one that waits; this share of its wait where that is more: the places
of a get that goes well are taken for hours."""

RUSH_SECONDS: Final = 2.0
"""So much longer nothing may come before there are more places while somebody is busy: who waits for its turn isn't
helped by more that wait, yet whoever says for ever that it is busy keeps nobody out."""

AT_WORK_SECONDS: Final = 3.0
"""For those that were found to be dialled and to say what they have, before it is looked whether more are wanted."""


class Participants:
    """Those who take part in one fetch. ``look`` and ``answer_callers`` are its tasks, the rest is told or asked."""

    def __init__(
        self,
        candidates: Candidates,
        converse: Callable[[Peer], Session],
        tally: Tally,
        standing: Standing,
        *,
        places: int,
        silence: float,
        courtesy: Courtesy | None,
        reliance: Reliance | None,
    ) -> None:
        """``places``: peers at once, those that rest apart; ``silence``: seconds after which one that owes is late."""
        self.scheduler: Scheduler[str] | None = None
        """What is asked of whom, from when the index is here."""
        self.given: Counter[str] = Counter()
        """Verified chunks by peer."""
        self._candidates = candidates
        self._converse = converse
        self._tally = tally
        self._standing = standing
        self.places = Places(places)
        self._silence = silence
        self._courtesy = courtesy
        self._reliance = Reliance() if reliance is None else reliance  # an empty one is false
        self._sessions: dict[str, Session] = {}
        self._known: dict[str, Peer] = {}
        self._doubted: dict[str, Peer] = {}
        self._fruitless: Counter[str] = Counter()  # conversations in a row
        self._callers: deque[Peer] = deque(maxlen=CALLERS)
        self._called = trio.lowlevel.ParkingLot()
        self._news = trio.lowlevel.ParkingLot()
        self._grown_at = float("-inf")
        self._began_at = trio.current_time()
        self._index_flow = Flow()
        self._index_noted = 0
        self._has_doubted = trio.lowlevel.ParkingLot()

    # -- looking and admitting -----------------------------------------------------------------------------------

    async def look(self, nursery: trio.Nursery) -> None:
        """Keep enough peers at work; raise once there is nobody left to hope for."""
        barren = verified = calm = 0
        moved_at = lost_at = trio.current_time()

        async def begin(peer: Peer) -> None:
            if await self._wanted(peer):
                self._start(nursery, peer)

        async def offered(peer: Peer) -> None:
            if not peer.named and self._reliance.doubted(peer.name, trio.current_time()):
                self._doubted[peer.name] = peer
                self._has_doubted.unpark()
            else:
                await begin(peer)

        async def second_choices() -> None:
            while True:
                while not self._doubted:
                    await self._has_doubted.park()
                if self._dry_for(trio.current_time()) > SECOND_CHOICE_SECONDS:
                    for peer in self._least_doubted()[:1]:
                        self._doubted.pop(peer.name, None)
                        await begin(peer)
                await trio.sleep(SECOND_CHOICE_EVERY)

        async def at_work() -> None:
            with trio.move_on_after(AT_WORK_SECONDS):
                while any(not session.at_work for session in self._sessions.values()):
                    await self._news.park()

        nursery.start_soon(second_choices)
        while True:
            if self._courtesy is not None and self._courtesy.paused:
                self._standing.waiting_for = self._courtesy.paused_words()
                await self._courtesy.not_paused()
                moved_at = trio.current_time()
                self._began_at = max(self._began_at, moved_at)
                self._standing.waiting_for = f"a provider ({self._tally.words()})"
            self._doubted.clear()
            await self._candidates(offered)
            await at_work()
            if self._doubted and (not self._sessions or self._is_starved()):
                for peer in self._least_doubted():
                    self._doubted.pop(peer.name, None)
                    await begin(peer)
                await at_work()
            moved = self._standing.verified_bytes != verified
            verified = self._standing.verified_bytes
            if moved or not self._sessions.keys() <= self._tally.busy:
                moved_at = trio.current_time()
            elif trio.current_time() - moved_at > BUSY_SECONDS and self._tally.busy:
                self._give_up()
            if self._sessions and not self._is_starved():
                barren, lost_at = 0, trio.current_time()
                if self.scheduler is None:
                    self._standing.waiting_for = f"a provider ({self._tally.words()})"
                await self._rest(min(FIRST_LOOK_AGAIN_SECONDS * 2**calm, LOOK_AGAIN_SECONDS))
                calm = min(calm + 1, 8)
                continue
            if moved:
                barren, lost_at = 0, trio.current_time()
            barren += 1
            growing = self.scheduler is not None and self.scheduler.may_grow  # it may be fetching the course itself
            hoping = growing and trio.current_time() - self._grown_at < PATIENCE_SECONDS
            astray = bool(self._tally.moved) and trio.current_time() - lost_at < MOVED_SECONDS
            if barren >= LOOKUPS and not hoping and not astray and not self._tally.busy:
                self._give_up()
            self._standing.waiting_for = f"a provider ({self._tally.hopes()})"
            await self._rest(min(2.0 ** (barren - 1), MOVED_EVERY if astray else LOOK_AGAIN_SECONDS))

    def called_by(self, peer: Peer) -> None:
        """``peer`` asks this node for the course: it fetches it, too, and soon has something of it."""
        self._callers.append(peer)
        self._called.unpark()

    async def answer_callers(self, nursery: trio.Nursery) -> None:
        """Let those take part who called."""
        # Not before there is an index here: until then neither of two that ask each other can know that it helps.
        while True:
            while self._callers:
                peer = self._callers.popleft()
                if self._may_join(peer.name) and self._has_room():
                    self._start(nursery, peer)
            await self._called.park()

    def _start(self, nursery: trio.Nursery, peer: Peer) -> None:
        self._known[peer.name] = peer
        session = self._sessions[peer.name] = self._converse(peer)
        self._count()
        nursery.start_soon(session.run)

    def _count(self) -> None:
        if self.scheduler is not None:
            self.scheduler.company = max(len(self._sessions), 1)

    def _may_join(self, name: str) -> bool:
        known = name in self._sessions or name in self._tally.faulty or name in self._tally.declined
        return not known and self._fruitless[name] < TRIES

    def _has_room(self) -> bool:
        dry = self._dry_for(trio.current_time()) - (RUSH_SECONDS if self._tally.busy else 0.0)
        return sum(not session.resting for session in self._sessions.values()) < self.places.now(max(dry, 0.0))

    def _dry_for(self, now: float) -> float:
        """Seconds for which nothing has come from anybody, unless all that they have is here."""
        if self._courtesy is not None and self._courtesy.paused:
            self._began_at = max(self._began_at, now)  # nobody is asked for anything
            return 0.0
        if self.scheduler is not None and (self.scheduler.owed or self._tally.gave):
            return self.scheduler.dry_for(now)
        came = self.index_bytes
        self._index_flow.came(max(came - self._index_noted, 0), now)
        self._index_noted = came
        return max(min(now - self._began_at, self._index_flow.dry_for(now)), 0.0)

    async def _wanted(self, peer: Peer) -> bool:
        """Whether a peer that was found should take part; waits until there is room for it."""
        name = peer.name
        if not peer.guess:
            self._tally.found.add(name)
        began = trio.current_time()
        while self._may_join(name):
            now = trio.current_time()
            covered = self.scheduler is not None and self.scheduler.covered
            if not self.places.has_enough(covered, self._dry_for(now), now):
                if self._has_room():
                    return True
                self._make_room()
            with trio.move_on_after(min(max(POLL_SECONDS, POLL_SHARE * (now - began)), LONGEST_POLL_SECONDS)):
                await self._news.park()
        return False

    def _least_doubted(self) -> list[Peer]:
        """Those that failed lately, the least of them first."""
        now = trio.current_time()
        return sorted(self._doubted.values(), key=lambda peer: self._reliance.doubt(peer.name, now))

    def _make_room(self) -> None:
        """Part with the peer that has been of no use for longest, if for long enough."""
        now = trio.current_time()
        useless = {name: session.waited(now) for name, session in self._sessions.items()}
        # However slow the line is: who has sent most will be the first to complete something.
        best = max(self._sessions, key=lambda name: self._sessions[name].heard)
        if self._sessions[best].heard:
            useless[best] = 0.0
        if self.scheduler is not None:
            for name, seconds in useless.items():
                idle, silent = self.scheduler.idle_for(name, now), self.scheduler.silent_for(name, now)
                # Whoever drips a byte at a time isn't silent; a slow line that brought nothing yet gets twice as long.
                drips = 0.0 if self.given[name] or name == best else self.scheduler.owes_for(name, now) / 2
                useless[name] = max(seconds, idle, silent, drips)
        name = max(useless, key=useless.__getitem__)
        if useless[name] > IDLE_SECONDS:
            self._sessions[name].stop()

    async def _rest(self, seconds: float) -> None:
        """Sleep; cut short when the last peer goes, or when those that are left turn out to lack something."""
        had_peers, was_starved = bool(self._sessions), self._is_starved()
        with trio.move_on_after(seconds):
            while not had_peers or (self._sessions and self._is_starved() is was_starved):
                await self._news.park()

    def _is_starved(self) -> bool:
        return self.scheduler is not None and self.scheduler.starved

    def _give_up(self) -> None:
        raise self._tally.why_not(partly=bool(self._sessions), kept=self._standing.verified_bytes > 0)

    def schedule_with(self, scheduler: Scheduler[str]) -> None:
        """The index is here, and this says from now on what is asked of whom."""
        self.scheduler = scheduler
        self._count()

    def expect_index(self, seconds: float) -> None:
        """The index is on its way, and takes so long on a slow line: until then nobody else is missed, nor while it
        comes.
        """
        now = trio.current_time()
        if math.isinf(self._index_flow.dry_for(now)):  # those who are asked later, in vain, put off nothing
            self._began_at = max(self._began_at, now + seconds)
            self._index_flow.whole(now)

    @property
    def index_bytes(self) -> int:
        """Bytes that those who take part have brought since they were asked for the index."""
        return sum(session.index_bytes for session in self._sessions.values())

    # -- told how it goes ----------------------------------------------------------------------------------------

    def over(self, name: str, *, fruitless: bool) -> None:
        """A session has ended: what it owed goes to the others. ``fruitless`` when it was asked and gave nothing."""
        self._remember(name, self._sessions.pop(name, None))
        self._count()
        self._tally.busy.discard(name)
        self._fruitless[name] += fruitless
        self.news()
        if self.scheduler is not None:
            self.scheduler.left(name)
            self.kick_all()

    def _remember(self, name: str, session: Session | None) -> None:
        """Keep in mind for the next get how it went with a peer."""
        now = trio.current_time()
        waited = 0.0 if session is None else session.waited(now)
        overtaken = self.places.overtook(waited)
        if self.scheduler is not None and not (self._courtesy is not None and self._courtesy.paused):
            waited = max(waited, self.scheduler.owes_for(name, now))
            overtaken = overtaken or self.scheduler.overtaken(name)
        wrong, gave = name in self._tally.faulty, bool(self.given[name])
        self._reliance.ended(
            name,
            now,
            wrong=wrong,
            gave=gave,
            waited=waited,
            patience=self._silence,
            overtaken=overtaken,
            unreachable=name in self._tally.unreachable,
        )

    def news(self) -> None:
        """A session came to work, or ended."""
        self._news.unpark_all()

    def somebody_grew(self) -> None:
        """This node has got more, or a peer that is fetching too."""
        self._grown_at = trio.current_time()

    def put_off(self, name: str) -> None:
        """A peer is busy and will be asked again; what it owes goes to others meanwhile."""
        self._tally.busy.add(name)
        if self.scheduler is not None:
            self.scheduler.left(name)
        self.kick_all()

    def gave(self, name: str) -> None:
        """A peer's chunk is right."""
        self._tally.gave.add(name)
        self.given[name] += 1
        self.somebody_grew()
        del self._fruitless[name]

    def lied(self, name: str, slot: int) -> None:
        """A peer's chunk is not what its hash says."""
        # Also when it has hung up meanwhile, lest it come back and do it again.
        fault = self._tally.faulty[name] = f"slot {slot} is not what its hash says"
        self._known[name].blame(fault, poisoned=True)
        if name not in self._sessions:
            self._reliance.failed(name, WRONG, trio.current_time())

    # -- told what to do -----------------------------------------------------------------------------------------

    def note_bytes(self, scheduler: Scheduler[str], now: float) -> None:
        """Tell the scheduler whose bytes came since the last call."""
        for session in self._sessions.values():
            session.note_bytes(scheduler, now)

    def cancel(self, names: Iterable[str], slot: int) -> None:
        """Take back what was asked of these: another brought it first."""
        for name in names:
            if name in self._sessions:
                self._sessions[name].cancel(slot)

    def stop(self, names: Iterable[str]) -> None:
        """Part with these."""
        for name in names:
            if name in self._sessions:
                self._sessions[name].stop()

    def kick_all(self) -> None:
        """Something changed about what is to be asked for."""
        for session in self._sessions.values():
            session.kick()
