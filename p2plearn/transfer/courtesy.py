"""Manners carried out: clocks, waiting, counting and what the machine runs on, around the decisions of ``manners``.

In: chunk streams as they are opened, what the person set. Out: for each stream a ``Line``, which the conversation asks
before it sends or asks for more; a book of how much was moved. A stream that no rule concerns has no line to ask:
``channel.rules`` is None, and that is all it costs.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import trio

from p2plearn.errors import P2plearnError
from p2plearn.net.neighbours import Interface, is_neighbour, list_networks
from p2plearn.net.power import NICE_AT_START, read_battery, read_metered, stand_back
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.manners import FOREVER, Manners, Refusal, Rules, month_of
from p2plearn.transfer.traffic import Moved, TrafficBook

if TYPE_CHECKING:
    from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

logger = logging.getLogger(__name__)

SAVE_SECONDS: Final = 60.0
"""Between two writes of the book: what a crash may leave uncounted, against wear of a flash disk."""

LOOK_SECONDS: Final = 30.0
"""How often battery and line are looked at."""

NETWORKS_SECONDS: Final = 10.0
"""How long the list of this machine's networks is believed."""

TURN_SECONDS: Final = 0.02
"""How often it is looked whether it is one's turn to ask for more."""

Look = Callable[[], bool | None]
"""A question to the machine; blocks briefly, None: unknown."""


class Line:
    """One chunk stream, as manners see it. Only asked while a rule concerns it."""

    def __init__(self, courtesy: Courtesy, channel: Channel, *, lan: bool) -> None:
        self._courtesy = courtesy
        self.channel = channel
        self.lan = lan
        self.served = False
        self._sent = self._received = 0
        self._asked = 0

    @property
    def owed(self) -> int:
        """Bytes that were asked for here and haven't come."""
        return max(0, self._asked - self.channel.heard)

    def settle(self) -> None:
        """Write into the book what was moved since the last time."""
        sent, received = self.channel.sent, self.channel.heard
        if sent != self._sent or received != self._received:
            self._courtesy.count(lan=self.lan, sent=sent - self._sent, received=received - self._received)
            self._sent, self._received = sent, received

    # -- serving -------------------------------------------------------------------------------------------------

    def why_not_serve(self) -> Refusal | None:
        """Why this peer gets nothing (more) now; None: go on."""
        return self._courtesy.why_not_serve(self)

    async def send(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send them at the rate that is allowed, fairly among all that send; raises StreamOver."""
        size = self._courtesy.manners.slice(lan=self.lan)
        if not size:
            await self.channel.send_pieces(pieces)
        else:
            await self.channel.send_pieces(pieces, size, self._courtesy.wait_to_send)

    # -- fetching ------------------------------------------------------------------------------------------------

    def why_not_fetch(self, *, for_others: bool) -> Refusal | None:
        """Why this peer is asked for nothing (more); None: go on."""
        return self._courtesy.why_not_fetch(self, for_others=for_others)

    def nothing_owed(self) -> None:
        """What was asked for has come, or won't."""
        self._asked = 0

    def may_ask(self) -> tuple[float, float]:
        """Bytes that may be asked for now (infinity: any); if none, the seconds after which to look again."""
        return self._courtesy.may_ask(self)

    def asked(self, size: int) -> None:
        """So many bytes were asked for."""
        self._asked = max(self._asked, self.channel.heard) + size
        self._courtesy.manners.asked(size, trio.current_time(), lan=self.lan)


class Courtesy:
    """All streams of a node under one set of manners. ``run`` it; ``line`` for each stream."""

    def __init__(
        self,
        rules: Rules,
        book: TrafficBook,
        *,
        battery: Look = read_battery,
        metered: Look = read_metered,
        networks: Callable[[], list[Interface]] = list_networks,
        wall: Callable[[], float] = time.time,
        nice: int = NICE_AT_START,
    ) -> None:
        self._usual_nice = nice
        self.manners = Manners(rules, trio.current_time(), paused_until=book.paused_until)
        self._book = book
        self._battery, self._metered = battery, metered
        self._list_networks = networks
        self._networks: list[Interface] = []
        self._networks_at = -math.inf
        self._wall = wall
        self._lines: set[Line] = set()
        self._asking: deque[Line] = deque()  # who waits for its turn to ask for more, the first first
        self._sending = trio.Lock()  # fair: who waits longest sends next
        self._changed = trio.Event()
        self._nice = self._was_paused = False

    # -- streams -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def line(self, channel: Channel) -> Iterator[Line]:
        """A stream from its opening to its end."""
        line = Line(self, channel, lan=self._is_lan(channel.remote))
        self._lines.add(line)
        self._refresh(line)
        try:
            yield line
        finally:
            line.settle()
            self._lines.discard(line)
            self._stop_asking(line)

    def _is_lan(self, remote: str | None) -> bool:
        if remote is None:
            return False
        if trio.current_time() > self._networks_at + NETWORKS_SECONDS:
            self._networks, self._networks_at = self._list_networks(), trio.current_time()
        return is_neighbour(remote, self._networks)

    def _refresh(self, line: Line) -> None:
        line.channel.rules = line if self.manners.concerns(lan=line.lan, wall=self._wall()) else None

    def _refresh_all(self) -> None:
        for line in self._lines:
            self._refresh(line)
        self._changed.set()
        self._changed = trio.Event()

    # -- counting ------------------------------------------------------------------------------------------------

    def count(self, *, lan: bool, sent: int, received: int) -> None:
        """Write bytes into the book."""
        self._book.add(self._today(), lan=lan, sent=sent, received=received)

    def relayed(self, ends: Sequence[str], size: int) -> bool:
        """Write ``size`` bytes into the book that went by way of this node from one of ``ends``, IP addresses, to the
        other; False when no more may be lent.
        """
        for remote in ends:
            self._book.add(self._today(), lan=self._is_lan(remote), relayed=size)
        return self.may_lend()

    def may_lend(self) -> bool:
        """Whether the line may be lent to others: not while it is paid by volume, paused, or used up for the month."""
        return not (self.paused or self.manners.metered or self.manners.cap_reached(self._counted()))

    def _today(self) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._wall()).astimezone().date()  # the person's month, not UTC's

    def moved(self) -> Moved:
        """What was moved this month, up to now."""
        for line in self._lines:
            line.settle()
        return self._book.between(*month_of(self._today(), self.manners.rules.cap_day))

    def _counted(self) -> int:
        if self.manners.rules.monthly_cap is None:
            return 0
        moved = self.moved()
        return self.manners.counted(lan=moved.lan, wan=moved.wan)

    # -- decisions, with clock and book --------------------------------------------------------------------------

    def why_not_serve(self, line: Line) -> Refusal | None:
        """See ``Line``."""
        others = sum(each.served and each is not line and not self.manners.exempt(lan=each.lan) for each in self._lines)
        if line.served:
            others = 0  # it has its place
        refusal = self.manners.why_not_serve(lan=line.lan, wall=self._wall(), counted=self._counted(), others=others)
        line.served = refusal is None
        return refusal

    def why_not_fetch(self, line: Line, *, for_others: bool) -> Refusal | None:
        """See ``Line``."""
        counted = self._counted()
        refusal = self.manners.why_not_fetch(lan=line.lan, counted=counted, for_others=for_others)
        if refusal is None or not self.manners.cap_reached(counted):
            return refusal
        _, anew = month_of(self._today(), self.manners.rules.cap_day)
        return Refusal(f"{refusal.words} until {anew.isoformat()}", refusal.seconds)

    def may_ask(self, line: Line) -> tuple[float, float]:
        """See ``Line``: one at a time, in the order in which they came, among all gets."""
        if self.paused:
            self._stop_asking(line)
            return 0.0, FOREVER
        committed = 0
        if self.manners.rules.monthly_cap is not None:
            committed = self._counted() + sum(
                each.owed for each in self._lines if not self.manners.exempt(lan=each.lan)
            )
        allowed, wait = self.manners.may_ask(trio.current_time(), lan=line.lan, committed=committed)
        if math.isinf(allowed):
            return allowed, 0.0
        if line not in self._asking:
            self._asking.append(line)
        if self._asking[0] is not line:
            return 0.0, max(wait, TURN_SECONDS)
        if allowed:
            self._asking.popleft()
        return allowed, wait

    def _stop_asking(self, line: Line) -> None:
        with contextlib.suppress(ValueError):
            self._asking.remove(line)

    async def wait_to_send(self, size: int) -> None:
        """Wait until ``size`` bytes may be sent by somebody under the upload limit."""
        async with self._sending:
            while (bucket := self.manners.upload) is not None:
                wait = bucket.wait(trio.current_time())
                if not wait:
                    bucket.take(size, trio.current_time())
                    return
                await trio.sleep(wait)

    # -- pausing -------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether nothing is to be moved."""
        return self.manners.paused(self._wall())

    async def not_paused(self) -> None:
        """Wait until nothing is paused."""
        while self.paused:
            with trio.move_on_after(max(0.01, min(self.manners.paused_until - self._wall(), LOOK_SECONDS))):
                await self._changed.wait()

    def paused_words(self) -> str:
        """For whoever waits, and for status; empty when not paused."""
        until = self.manners.paused_until
        if not self.paused:
            return ""
        if math.isinf(until):
            return "paused (`p2plearn node resume` goes on)"
        when = datetime.datetime.fromtimestamp(until).astimezone()
        return f"paused until {when:%Y-%m-%d %H:%M} (`p2plearn node resume` goes on at once)"

    async def pause(self, seconds: float) -> None:
        """Move nothing for so long (infinity: until resumed); durable when it returns.

        Raises P2plearnError when it can't be written down; it holds until the node is stopped all the same.
        """
        await self._pause_until(self._wall() + seconds)

    async def resume(self) -> None:
        """Go on; durable when it returns. Raises P2plearnError as ``pause`` does."""
        await self._pause_until(0.0)

    async def _pause_until(self, until: float) -> None:
        self.manners.paused_until = self._book.paused_until = until
        self._was_paused = self.paused
        self._refresh_all()
        try:
            await self._save()
        except OSError as error:
            raise P2plearnError(
                f"That holds until the node is stopped, but no longer: {self._book.path} can't be written "
                f"({error.strerror}).",
                "Make room on the disk and say it again.",
            ) from error

    # -- in the background ---------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the machine and save the book until cancelled; started once the machine was looked at."""
        await self.look()
        task_status.started()
        saved = trio.current_time()
        try:
            while True:
                left = self.manners.paused_until - self._wall()
                with trio.move_on_after(min(LOOK_SECONDS, left if left > 0 else LOOK_SECONDS)):
                    await self._changed.wait()
                await self.look()
                if trio.current_time() >= saved + SAVE_SECONDS:
                    saved = trio.current_time()
                    await self._save_quietly()
        finally:
            with trio.CancelScope(shield=True):
                await self._save_quietly()

    async def look(self) -> None:
        """Find out what the machine runs on, and act on it."""
        battery = await trio.to_thread.run_sync(self._battery)
        metered = await trio.to_thread.run_sync(self._metered)
        before = (self.manners.on_battery, self.manners.metered, self._was_paused)
        self.manners.circumstances(trio.current_time(), on_battery=battery, metered=metered)
        if bool(battery) != self._nice:
            self._nice = bool(battery)
            await trio.to_thread.run_sync(lambda: stand_back(back=self._nice, usual=self._usual_nice))
        self._was_paused = self.paused
        if before != (battery, metered, self._was_paused):
            self._refresh_all()

    async def _save(self) -> None:
        for line in self._lines:
            line.settle()
        if self._book.changed:
            raw = self._book.encode()
            await trio.to_thread.run_sync(self._book.write, raw)

    async def _save_quietly(self) -> None:
        try:
            await self._save()
        except OSError as error:
            logger.warning("how much was moved can't be written to %s: %s", self._book.path, error.strerror)

    # -- for status ----------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """What ``node status`` shows."""
        manners, rules = self.manners, self.manners.rules
        first, anew = month_of(self._today(), rules.cap_day)
        moved = self.moved()
        counted = manners.counted(lan=moved.lan, wan=moved.wan)
        return {
            **self.pause_figures(),
            "limits": {
                "upload": None if manners.upload is None else round(manners.upload.rate),
                "download": rules.download,
                "lan": rules.limit_lan,
                "monthly_cap": rules.monthly_cap,
                "cap_left": None if rules.monthly_cap is None else max(0, rules.monthly_cap - counted),
            },
            "month": {"since": first.isoformat(), "until": anew.isoformat(), **asdict(moved)},
            "moved": asdict(self._book.since_start),
            "power": {"on_battery": manners.on_battery, "metered": manners.metered},
            "manners": self._words(counted),
        }

    def pause_figures(self) -> dict[str, Any]:
        """Whether it is paused, and until when (seconds since 1970; None: until resumed)."""
        until = self.manners.paused_until
        return {"paused": self.paused, "paused_until": until if self.paused and not math.isinf(until) else None}

    def _words(self, counted: int) -> list[str]:
        """What is held back just now, and why; one sentence each."""
        manners = self.manners
        said = [self.paused_words()] if self.paused else []
        if manners.cap_reached(counted):
            held = (
                "nothing is served or fetched, on the LAN neither"
                if manners.rules.limit_lan
                else "peers on the LAN only"
            )
            said.append(f"the monthly data cap is used up: {held}")
        if manners.metered:
            whom = "no peer is" if manners.rules.limit_lan else "peers beyond the LAN are not"
            said.append(f"the line is metered: {whom} served")
        if manners.on_battery:
            said.append("on battery: lower priority, uploads limited")
        return said
