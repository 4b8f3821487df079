"""Taking units in for others: an offer considered, its room reserved, its bytes pulled, a receipt given.

    offerer   OFFER ->, RECEIPTS ->                one unit, the manifest with it, and who holds it already
    receiver  <- ACCEPT (room reserved)  or  DECLINE (reason)  or  ACK (it has it)
    receiver  pulls over the chunk protocol, the offerer named first;  <- PROGRESS …
    receiver  <- ACK: a signed receipt, once every byte is verified, durable and on record
    offerer   RECEIPTS ->                          who holds it now

The first RECEIPTS are for the case that the offerer vanishes before the second: the receiver knows all the same whose
copies count beside its own, and they hear of it with its next heartbeat.

What must hold: no byte before room for it is reserved; no receipt before the bytes are durable; of what didn't come
nothing stays. A unit is taken once, whoever offers it, and however many do.

Imports ``dht`` siblings, ``course``, ``errors``, ``store``, ``transfer``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import MAX_CHUNK, SignedManifest, open_manifest
from p2plearn.dht.custody import SEGMENT, Node, Unit, segments, slots_of
from p2plearn.dht.kept import Kept
from p2plearn.dht.ledger import MOST_NODES
from p2plearn.dht.line import Line
from p2plearn.dht.messages import Accept, Ack, Decline, Offer, Progress, Reason, Receipts
from p2plearn.dht.receipts import Receipt
from p2plearn.errors import NobodyHasIt, NoSpace, P2plearnError, PeerFault
from p2plearn.store.download import Download
from p2plearn.transfer.channel import StreamOver
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.fetch import Fetch, FetchLimits
from p2plearn.transfer.landed import landed
from p2plearn.transfer.reliance import Reliance
from p2plearn.transfer.session import Peer

log = logging.getLogger("p2plearn.custody")

INCOMING: Final = 3
"""Units taken in at a time; who offers more is told to come back."""

ANSWER_SECONDS: Final = 20.0
"""For a question to come or be answered, and between two signs of progress."""

OTHERS_SECONDS: Final = 2.0
"""For the receipts that follow an offer to come; nodes of version 0.1 and before send none."""

STALLED_SECONDS: Final = 120.0
"""A unit of which nothing came for so long gives its place to another: who has it may be paused for a week."""

UNWANTED_SECONDS: Final = 86400.0
"""For which a course that was removed by this node's person is not taken in for others (until the node restarts)."""

Find = Callable[[bytes, Node | None, Callable[[Peer], Awaitable[None]]], Awaitable[None]]
"""One round of looking for providers of a course, a node named first if one is known."""


class _Incoming:
    """A unit on its way here."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        """Its room is reserved, or it is done."""
        self.done = trio.Event()
        self.receipt: Receipt | None = None
        self.problem = Decline(Reason.FAILED, "")
        self.bytes = 0
        self.others: dict[Node, Receipt] = {}
        """Who else holds it, as its offerers said before it was here."""


def size_at_most(size: int, segment: int) -> int:
    """Bytes of a segment at most, known before the index is: its chunks begin in it, so the last may reach beyond."""
    return size if segments(size) == 1 else min(SEGMENT + MAX_CHUNK, size - segment * SEGMENT)


class Intake:
    """See the head of this file. ``spawn`` starts work that outlives the stream it came over."""

    def __init__(
        self,
        kept: Kept,
        find: Find,
        spawn: Callable[..., None],
        *,
        fetch: FetchLimits,
        courtesy: Courtesy | None,
    ) -> None:
        self._kept = kept
        self._find = find
        self._spawn = spawn
        self._fetch = fetch
        self._courtesy = courtesy
        self.refuses: Callable[[bytes, bytes], str] = lambda _course, _author: ""
        """Why this node wants nothing to do with a course or its author; empty if it doesn't mind."""
        self._reliance = Reliance()
        self._coming: dict[Unit, _Incoming] = {}
        self._unwanted: dict[bytes, float] = {}

    def unwanted(self, course: bytes) -> None:
        """The person of this node removed a course: it isn't to come back by itself at once."""
        now = trio.current_time()
        self._unwanted = {each: until for each, until in self._unwanted.items() if until > now}
        self._unwanted[course] = now + UNWANTED_SECONDS

    async def consider(self, line: Line, node: Node, offer: Offer) -> tuple[Receipt, ...]:
        """Answer an offer to its end; what the offerer goes on to say about who holds the unit. Raises PeerFault."""
        kept = self._kept
        signed = await trio.to_thread.run_sync(open_manifest, offer.manifest, offer.signature, None)
        unit = Unit(signed.course, offer.segment)
        if offer.segment >= segments(signed.manifest.bytes):
            raise PeerFault("custody: a segment that the course doesn't have")
        if self.refuses(signed.course, signed.manifest.author):
            await line.send(Decline(Reason.NO_QUOTA, "blocked"))
            return ()
        if self._unwanted.get(signed.course, 0.0) > trio.current_time() and unit not in kept.ledger:
            await line.send(Decline(Reason.NO_QUOTA, "removed here"))
            return ()
        entry = kept.ledger.entry(unit)
        if kept.leaving or unit in kept.releasing:
            await line.send(Decline(Reason.LEAVING, "this node is leaving"))
            return ()
        if entry is None:
            incoming = self._incoming(signed, unit, node, offer.copies)
            if isinstance(incoming, Decline):
                await line.send(incoming)
                return ()
            await incoming.decided.wait()
            if not incoming.done.is_set():
                await line.send(Accept())
                for each in await self._others(line, OTHERS_SECONDS):
                    if each.unit == unit and len(incoming.others) < MOST_NODES:
                        incoming.others[each.node] = each
                if incoming.receipt is not None:  # it came before they did
                    await kept.learn(incoming.others.values())
            while not incoming.done.is_set():
                with trio.move_on_after(1.0):
                    await incoming.done.wait()
                if not incoming.done.is_set():
                    await line.send(Progress(incoming.bytes))
            if incoming.receipt is None:
                await line.send(incoming.problem)
                return ()
            await line.send(Ack(incoming.receipt))
        else:
            copies = entry.copies if entry.wish is not None else max(offer.copies, entry.receipts[kept.me].copies)
            await line.send(Ack(await kept.state(unit, entry.size, copies, holds=True)))
        # The offerer goes on with who holds it now; what it said with its offer may be before that.
        said: list[Receipt] = []
        with trio.move_on_after(ANSWER_SECONDS):
            for _ in range(2):
                said += await self._others(line, ANSWER_SECONDS)
        return tuple(said)

    @staticmethod
    async def _others(line: Line, seconds: float) -> tuple[Receipt, ...]:
        """Who holds the unit, as the offerer says next; nothing if it says nothing more. Raises PeerFault."""
        try:
            told = await line.receive(seconds)
        except (StreamOver, trio.TooSlowError):
            return ()
        return told.receipts if isinstance(told, Receipts) else ()

    async def mend(self, unit: Unit, copies: int) -> bool:
        """Fetch what is missing of a unit that was damaged here; whether it is whole again."""
        kept = self._kept
        signed = await trio.to_thread.run_sync(kept.store.signed_manifest, unit.course)
        if signed is None or not await trio.to_thread.run_sync(kept.store.custody.is_damaged, *unit):
            kept.damaged.pop(unit, None)
            return False
        incoming = self._incoming(signed, unit, None, copies)
        if isinstance(incoming, Decline):
            return False
        await incoming.done.wait()
        return incoming.receipt is not None

    def _incoming(self, signed: SignedManifest, unit: Unit, offerer: Node | None, copies: int) -> _Incoming | Decline:
        """The unit on its way here, begun now unless it was before; or why not now."""
        incoming = self._coming.get(unit)
        if incoming is not None:
            return incoming
        if len(self._coming) >= INCOMING:
            return Decline(Reason.BUSY, "taking in others")
        if self._courtesy is not None and self._courtesy.paused:
            return Decline(Reason.FAILED, "paused")  # BUSY would have a publish wait for us
        incoming = self._coming[unit] = _Incoming()
        self._spawn(self._take, incoming, signed, unit, offerer, copies)
        return incoming

    async def _take(
        self, incoming: _Incoming, signed: SignedManifest, unit: Unit, offerer: Node | None, copies: int
    ) -> None:
        """Reserve a unit's room and pull it; ends with a receipt or with nothing of it left."""
        kept = self._kept
        most = size_at_most(signed.manifest.bytes, unit.segment)
        reserve = kept.store.custody.reserve
        try:
            if unit not in kept.damaged:  # of which room and bytes are still here
                await trio.to_thread.run_sync(reserve, signed, unit.segment, most, kept.give)
                await kept.count_room()
            incoming.decided.set()
            size = await self._pull(incoming, signed, unit, offerer)
            incoming.receipt = await kept.state(unit, size, copies, holds=True)
            await kept.learn(incoming.others.values())
            kept.announce(unit.course)
            log.info("keeps %s.%d for others", unit.course.hex()[:12], unit.segment)
        except P2plearnError as error:
            full = Reason.NO_SPACE if incoming.decided.is_set() else Reason.NO_QUOTA
            kind = full if isinstance(error, NoSpace) else Reason.FAILED
            incoming.problem = Decline(kind, error.message)
            log.info("could not take %s.%d: %s", unit.course.hex()[:12], unit.segment, error.message)
        finally:
            try:
                with trio.CancelScope(shield=incoming.receipt is None):
                    if incoming.receipt is None and await trio.to_thread.run_sync(
                        kept.store.custody.abandon, unit.course, unit.segment
                    ):
                        await kept.remove(unit.course)
            finally:  # also if the disk fails: its place is for others, and nobody waits for it any more
                del self._coming[unit]
                incoming.done.set()
                incoming.decided.set()
                kept.news()

    async def _pull(self, incoming: _Incoming, signed: SignedManifest, unit: Unit, offerer: Node | None) -> int:
        """Fetch a unit's chunks until they are committed; its bytes. Raises P2plearnError."""
        store = self._kept.store
        holding = await trio.to_thread.run_sync(store.holding, unit.course)
        fetch = Fetch(
            unit.course,
            lambda offer: self._find(unit.course, offerer, offer),
            signed=signed,
            index=None if holding is None else holding.index,
            roll=random.randrange,
            limits=self._fetch,
            courtesy=self._courtesy,
            reliance=self._reliance,
            for_others=True,
        )
        size = 0

        async def begin(manifest: SignedManifest, raw: bytes, index: Index) -> Download:
            nonlocal size
            first, count, size = slots_of(unit.segment, index.lengths)
            part = FileEntry("segment", size, first, count)
            return await trio.to_thread.run_sync(store.begin_download, manifest, raw, index, [part], "custody")

        async def watch() -> None:
            moved_at = trio.current_time()
            while trio.current_time() - moved_at < STALLED_SECONDS:
                await trio.sleep(0.5)
                if incoming.bytes != fetch.standing.verified_bytes or fetch.standing.stage == "committing":
                    moved_at = trio.current_time()
                incoming.bytes = fetch.standing.verified_bytes
            raise NobodyHasIt(f"nothing came for {STALLED_SECONDS:.0f} s ({fetch.tally.words()})")

        async with landed(fetch, begin, watch):
            return size
