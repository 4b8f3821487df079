"""Keeping courses for others: offers taken and made, receipts passed on, challenges, letting go.

    offerer   OFFER ->                                                   one unit, the manifest with it
    receiver  <- ACCEPT (room reserved)  or  DECLINE (reason)  or  ACK (it has it)
    receiver  pulls over the chunk protocol, the offerer named first;  <- PROGRESS …
    receiver  <- ACK: a signed receipt, once every byte is verified, durable and on record
    offerer   RECEIPTS -> everybody who holds the unit

What must hold: no byte before room for it is reserved; no receipt before the bytes are durable; nothing is let go
before as many others as asked for have just said, signed, that they hold it and won't let go themselves. So a crash
anywhere leaves a copy too many, never one too few.

Imports ``dht`` siblings, ``course``, ``store``, ``transfer``, ``errors``.
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from p2plearn.course.index import FileEntry, Index
from p2plearn.course.manifest import SignedManifest, open_manifest
from p2plearn.dht.custody import COPIES, MOST_COPIES, SEGMENT, Node, Unit, segments, slots_of
from p2plearn.dht.duty import LettingGo, Promises, counted
from p2plearn.dht.heartbeat import Calls, Vigil
from p2plearn.dht.ledger import Entry, Ledger
from p2plearn.dht.line import Line
from p2plearn.dht.messages import (
    ANSWERED,
    ASKED,
    CUSTODY,
    MOST_RECEIPTS,
    Accept,
    Ack,
    Challenge,
    Decline,
    Message,
    Offer,
    Progress,
    Proof,
    Reason,
    Receipts,
    Release,
)
from p2plearn.dht.receipts import Receipt, decode_receipt
from p2plearn.errors import NobodyHasIt, NoSpace, P2plearnError, PeerFault
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.store import Store
from p2plearn.transfer.channel import StreamOver
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.fetch import Fetch, FetchLimits
from p2plearn.transfer.session import Peer, Unreachable

log = logging.getLogger("p2plearn.custody")

INCOMING: Final = 3
"""Units taken in at a time; who offers more is told to come back."""

ANSWER_SECONDS: Final = 20.0
"""For a question to come or be answered, and between two signs of progress."""

FIRST_SECONDS: Final = 10.0
"""For a node that opened a stream to begin its question."""

STALLED_SECONDS: Final = 120.0
"""A unit of which nothing came for so long gives its place to another: who has it may be paused for a week."""

OVER: Final = (StreamOver, PeerFault, Unreachable, trio.TooSlowError)
"""How a call to another node may fail."""

Find = Callable[[bytes, Node, Callable[[Peer], Awaitable[None]]], Awaitable[None]]
"""One round of looking for providers of a course, a node named first."""


@dataclass(frozen=True, slots=True)
class KeeperLimits:
    """``give``: bytes for courses of others; ``grace``, ``interval`` in seconds (see the settings of ``custody``)."""

    give: int
    grace: float
    interval: float
    fetch: FetchLimits


class _Incoming:
    """A unit on its way here."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.receipt: Receipt | None = None
        self.problem = Decline(Reason.FAILED, "")
        self.bytes = 0


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
        self._courtesy = courtesy
        self.calls = calls
        self.limits = limits
        self.ledger = Ledger(node, sign)
        self.leaving = False
        self.refuses: Callable[[bytes, bytes], str] = lambda _course, _author: ""
        """Why this node wants nothing to do with a course or its author; empty if it doesn't mind."""
        self.changed = trio.Event()
        """Set when something about copies may have changed; whoever waits for it makes a new one."""
        self.vigil = Vigil(calls, self._figures, self.ledger.circle, self._reconcile, limits.interval)
        self._find = find
        self._announce = announce
        self._withdraw = withdraw
        self._given = 0
        self._coming: dict[Unit, _Incoming] = {}
        self.promises = Promises()
        """Who lets go relying on this node."""
        self.releasing: set[Unit] = set()
        """Units that this node is about to let go; it promises them to nobody."""
        self._reconciled: dict[Node, float] = {}
        self._nursery: trio.Nursery | None = None

    # -- running -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take back what is on record; once, before peers come."""
        rows = await trio.to_thread.run_sync(self.store.custody.held)
        for row in rows:
            unit = Unit(row.course, row.segment)
            receipts = [decode_receipt(raw) for raw in row.receipts]
            self.ledger.restore(unit, row.size, receipts)
            if self.ledger.me not in {receipt.node for receipt in receipts}:
                await self._state(unit, row.size, 1, holds=True)
        for course in self.store.custody.unneeded:
            await trio.to_thread.run_sync(self.store.remove, course)
        self._given = await trio.to_thread.run_sync(self.store.custody.given)
        for course_row in await trio.to_thread.run_sync(self.store.courses):
            if course_row.why == "published" and course_row.complete:
                await self.adopt(course_row.course, 0)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Watch and answer until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self.vigil.run()

    def _figures(self, to: Node) -> tuple[int, bool, bytes]:
        return self.limits.give - self._given, self.leaving, self.ledger.digest(to)

    def _news(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _spawn(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._safely, work, *arguments)

    async def _safely(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception:  # a bug in the background must neither end the node nor be silent
            log.exception("custody: a task failed")

    # -- what this node holds ------------------------------------------------------------------------------------------

    async def adopt(self, course: bytes, copies: int) -> list[Unit]:
        """Take part in keeping a course that is here as a whole; ``copies`` 0: as many as were asked for before.

        Returns its units.
        """
        holding = await trio.to_thread.run_sync(self.store.holding, course)
        if holding is None or not holding.complete:
            return []
        units = []
        for segment in range(segments(holding.signed.manifest.bytes)):
            unit = Unit(course, segment)
            units.append(unit)
            entry = self.ledger.entry(unit)
            if entry is not None and (not copies or entry.receipts[self.ledger.me].copies == copies):
                continue
            size = slots_of(segment, holding.index.lengths)[2]
            wanted = copies or COPIES
            if entry is None:
                records, me = self.store.custody, self.ledger.me
                said = await trio.to_thread.run_sync(records.receipt, course, segment, me)
                if said is not None and not copies:
                    wanted = decode_receipt(said).copies
                await trio.to_thread.run_sync(records.reserve, holding.signed, segment, size, self.limits.give)
            await self._state(unit, size, wanted, holds=True)
        self._news()
        return units

    async def _state(self, unit: Unit, size: int, copies: int, *, holds: bool) -> Receipt:
        """Say, on record, that this node holds a unit, or no longer does."""
        receipt = self.ledger.state(unit, size, min(copies, MOST_COPIES), holds, int(time.time() * 1000))
        if holds:
            entry = self.ledger.entry(unit)
            assert entry is not None  # noqa: S101 - just stated
            records = [(each.node, each.encode()) for each in entry.receipts.values()]
            await trio.to_thread.run_sync(self.store.custody.hold, unit.course, unit.segment, records)
        return receipt

    def forgotten(self, course: bytes) -> None:
        """A course was removed from this disk: tell those who counted on it."""
        for unit in [unit for unit in self.ledger if unit.course == course]:
            entry = self.ledger.entry(unit)
            assert entry is not None  # noqa: S101 - from the ledger
            others = entry.holders - {self.ledger.me}
            receipt = self.ledger.state(unit, entry.size, entry.copies, False, int(time.time() * 1000))
            self._spawn(self._tell, others, [receipt])
        self._news()

    # -- answering -----------------------------------------------------------------------------------------------------

    async def serve(self, stream: Any, node: Node) -> None:
        """One question of a peer's. Raises PeerFault for one that breaks the protocol."""
        line = Line(stream, ASKED)
        try:
            match await line.receive(FIRST_SECONDS):
                case Offer() as offer:
                    await self._consider(line, node, offer)
                case Receipts(receipts):
                    await line.send(Receipts(tuple(await self._hear(node, receipts))))
                case Challenge() as challenge:
                    await line.send(Proof(await trio.to_thread.run_sync(self._prove, challenge)))
                case Release(unit):
                    await line.send(await self._grant(unit, node))
        except (StreamOver, trio.TooSlowError):
            return
        finally:
            await line.close()

    async def _consider(self, line: Line, node: Node, offer: Offer) -> None:
        signed = await trio.to_thread.run_sync(open_manifest, offer.manifest, offer.signature, None)
        unit = Unit(signed.course, offer.segment)
        if offer.segment >= segments(signed.manifest.bytes):
            raise PeerFault("custody: a segment that the course doesn't have")
        if self.refuses(signed.course, signed.manifest.author):
            await line.send(Decline(Reason.NO_QUOTA, "blocked"))
            return
        entry = self.ledger.entry(unit)
        if self.leaving or unit in self.releasing:
            await line.send(Decline(Reason.LEAVING, "this node is leaving"))
            return
        if entry is None:
            incoming = self._coming.get(unit)
            if incoming is None:
                declined = await self._reserve(signed, unit)
                if declined is not None:
                    await line.send(declined)
                    return
                incoming = self._coming[unit] = _Incoming()
                self._spawn(self._take, incoming, signed, unit, node, offer.copies)
            await line.send(Accept())
            while not incoming.done.is_set():
                with trio.move_on_after(1.0):
                    await incoming.done.wait()
                if not incoming.done.is_set():
                    await line.send(Progress(incoming.bytes))
            if incoming.receipt is None:
                await line.send(incoming.problem)
                return
            await line.send(Ack(incoming.receipt))
        else:
            copies = max(offer.copies, entry.receipts[self.ledger.me].copies)
            await line.send(Ack(await self._state(unit, entry.size, copies, holds=True)))
        # The offerer goes on with who else holds it.
        told = await line.receive(ANSWER_SECONDS)
        if isinstance(told, Receipts):
            await self._hear(node, told.receipts)

    async def _reserve(self, signed: SignedManifest, unit: Unit) -> Decline | None:
        """Take room for a unit before its first byte, or say why not."""
        if len(self._coming) >= INCOMING:
            return Decline(Reason.BUSY, "taking in others")
        if self._courtesy is not None and self._courtesy.paused:
            return Decline(Reason.FAILED, "paused")  # BUSY would have a publish wait for us
        size = signed.manifest.bytes if segments(signed.manifest.bytes) == 1 else SEGMENT + (1 << 20)
        try:
            await trio.to_thread.run_sync(
                self.store.custody.reserve, signed, unit.segment, size, self.limits.give
            )  # fmt: skip
        except NoSpace as full:
            return Decline(Reason.NO_QUOTA, full.message)
        self._given = await trio.to_thread.run_sync(self.store.custody.given)
        return None

    async def _take(self, incoming: _Incoming, signed: SignedManifest, unit: Unit, offerer: Node, copies: int) -> None:
        """Pull a unit whose room is reserved; ends with a receipt or with nothing of it left."""
        try:
            size = await self._pull(incoming, signed, unit, offerer)
            incoming.receipt = await self._state(unit, size, copies, holds=True)
            self._announce(unit.course)
            log.info("keeps %s.%d for others", unit.course.hex()[:12], unit.segment)
        except P2plearnError as error:
            kind = Reason.NO_SPACE if isinstance(error, NoSpace) else Reason.FAILED
            incoming.problem = Decline(kind, error.message)
            log.info("could not take %s.%d: %s", unit.course.hex()[:12], unit.segment, error.message)
        finally:
            with trio.CancelScope(shield=incoming.receipt is None):
                if incoming.receipt is None and await trio.to_thread.run_sync(
                    self.store.custody.abandon, unit.course, unit.segment
                ):
                    await self._remove(unit.course)
            del self._coming[unit]
            incoming.done.set()
            self._news()

    async def _pull(self, incoming: _Incoming, signed: SignedManifest, unit: Unit, offerer: Node) -> int:
        """Fetch a unit's chunks until they are committed; its bytes. Raises P2plearnError."""
        holding = await trio.to_thread.run_sync(self.store.holding, unit.course)
        fetch = Fetch(
            unit.course,
            lambda offer: self._find(unit.course, offerer, offer),
            signed=signed,
            index=None if holding is None else holding.index,
            roll=random.randrange,
            limits=self.limits.fetch,
            courtesy=self._courtesy,
            for_others=True,
        )
        size = 0
        opened = []

        async def land(manifest: SignedManifest, raw: bytes | None, index: Index) -> Any:
            nonlocal size
            first, count, size = slots_of(unit.segment, index.lengths)
            part = FileEntry("segment", size, first, count)
            begin = self.store.begin_download
            download = await trio.to_thread.run_sync(
                begin, manifest, raw or index.encode(), index, [part], "custody"
            )  # fmt: skip
            opened.append(download)
            return download

        failure: P2plearnError | None = None

        async def watch() -> None:
            nonlocal failure
            moved_at = trio.current_time()
            while trio.current_time() - moved_at < STALLED_SECONDS:
                await trio.sleep(0.5)
                if incoming.bytes != fetch.standing.verified_bytes or fetch.standing.stage == "committing":
                    moved_at = trio.current_time()
                incoming.bytes = fetch.standing.verified_bytes
            failure = NobodyHasIt(f"nothing came for {STALLED_SECONDS:.0f} s ({fetch.tally.words()})")
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                try:
                    await fetch.run(land)
                except P2plearnError as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                for download in opened:
                    await trio.to_thread.run_sync(download.close)
        if failure is not None:
            raise failure
        return size

    async def _hear(self, node: Node, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Take receipts in; what to answer: this node's own view of those units, and what it must deny."""
        news = self.ledger.merge(receipts)
        await self._keep(news)
        units = {receipt.unit for receipt in receipts}
        known = [each for unit in sorted(units) for each in self._receipts_of(unit)]
        fresh = [each for each in known if each not in receipts]
        return (fresh + self.ledger.denials(receipts, int(time.time() * 1000)))[:MOST_RECEIPTS]

    def _receipts_of(self, unit: Unit) -> list[Receipt]:
        entry = self.ledger.entry(unit)
        return list(entry.receipts.values()) if entry is not None else []

    async def _keep(self, news: Iterable[Receipt]) -> None:
        by_unit: dict[Unit, list[tuple[bytes, bytes]]] = {}
        for receipt in news:
            if not receipt.holds:
                self.promises.gone(receipt.unit, receipt.node)
            by_unit.setdefault(receipt.unit, []).append((receipt.node, receipt.encode()))
        for unit, records in by_unit.items():
            await trio.to_thread.run_sync(self.store.custody.note, unit.course, unit.segment, records)
        if by_unit:
            self._news()

    def _prove(self, challenge: Challenge) -> bytes:
        """Blocking: the answer to a challenge; empty when the bytes aren't here."""
        holding = self.store.holding(challenge.course)
        if holding is None or challenge.slot >= len(holding.index):
            return b""
        with holding:
            try:
                chunk = holding.read(challenge.slot)
            except (ChunkMissing, StoreDamage):
                return b""
        return answer_to(challenge, chunk)

    async def _grant(self, unit: Unit, node: Node) -> Message:
        """Whether another may let go of a unit, relying on this node's copy."""
        entry = self.ledger.entry(unit)
        if entry is None:
            return Decline(Reason.NOT_HELD, "")
        if self.leaving or unit in self.releasing:
            return Decline(Reason.LEAVING, "")
        if not self.promises.grant(unit, node, trio.current_time()):
            return Decline(Reason.BUSY, "")
        return Ack(await self._state(unit, entry.size, entry.copies, holds=True))

    # -- asking --------------------------------------------------------------------------------------------------------

    async def give(self, unit: Unit, to: Node) -> Decline | None:
        """Have ``to`` take a unit that is here; None once its receipt is on record, else why not."""
        signed = await trio.to_thread.run_sync(self.store.signed_manifest, unit.course)
        entry = self.ledger.entry(unit)
        if signed is None or entry is None:
            return Decline(Reason.NOT_HELD, "it is no longer here")
        if self._courtesy is not None and self._courtesy.paused:
            return Decline(Reason.FAILED, "this node is paused")
        try:
            with trio.fail_after(STALLED_SECONDS) as patience:
                line = Line(await self.calls.open(to, CUSTODY), ANSWERED)
                try:
                    await line.send(Offer(unit.segment, entry.copies, signed.signature, signed.raw))
                    answer = await self._verdict(line, patience)
                    if isinstance(answer, Decline):
                        return answer
                    if answer.receipt.unit != unit or answer.receipt.node != to or not answer.receipt.holds:
                        raise PeerFault("custody: a receipt for something else")
                    await self._keep(self.ledger.merge([answer.receipt]))
                    everything = self._receipts_of(unit)
                    await line.send(Receipts(tuple(everything)))
                finally:
                    await line.close()
        except OVER as error:
            return Decline(Reason.FAILED, str(error) or type(error).__name__)
        self._spawn(self._tell, entry.holders - {self.ledger.me, to}, everything)
        return None

    async def _verdict(self, line: Line, patience: trio.CancelScope) -> Ack | Decline:
        """How an offer ends; ``patience`` is renewed with each byte that the receiver gets."""
        most = -1
        while True:
            match await line.receive(ANSWER_SECONDS):
                case Ack() | Decline() as answer:
                    return answer
                case Progress(done) if done > most:
                    most = done
                    patience.deadline = trio.current_time() + STALLED_SECONDS

    async def _tell(self, nodes: Iterable[Node], receipts: Sequence[Receipt]) -> None:
        """Pass receipts on; who isn't reached learns them with its next heartbeat."""
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(self._exchange, node, receipts)

    async def _exchange(self, node: Node, receipts: Sequence[Receipt]) -> None:
        for at in range(0, len(receipts), MOST_RECEIPTS):
            answer = await self._question(node, Receipts(tuple(receipts[at : at + MOST_RECEIPTS])))
            if not isinstance(answer, Receipts):
                return
            await self._keep(self.ledger.merge(answer.receipts))

    async def _question(self, node: Node, question: Message) -> Message | None:
        """Ask one thing; None when it can't be answered."""
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                line = Line(await self.calls.open(node, CUSTODY), ANSWERED)
                try:
                    await line.send(question)
                    return await line.receive(ANSWER_SECONDS)
                finally:
                    await line.close()
        except OVER as error:
            log.debug("asking %s failed: %s", node.hex()[:8], error)
            return None

    async def _reconcile(self, node: Node) -> None:
        """``node`` knows other receipts about what we share: exchange them all, now and then."""
        now = trio.current_time()
        if now - self._reconciled.get(node, -1e9) >= self.limits.interval:
            self._reconciled[node] = now
            self._spawn(self._exchange, node, self.ledger.shared(node))

    async def challenge(self, unit: Unit, node: Node) -> bool | None:
        """Have ``node`` show a random range of a unit; None when it doesn't answer, which proves nothing."""
        holding = await trio.to_thread.run_sync(self.store.holding, unit.course)
        if holding is None:
            return None
        first, count, _ = slots_of(unit.segment, holding.index.lengths)
        if not count:
            return True
        slot = first + random.randrange(count)  # noqa: S311 - the nonce is what must not be guessed
        length = holding.index.length(slot)
        offset = random.randrange(length)  # noqa: S311
        challenge = Challenge(unit.course, slot, offset, length - offset, secrets.token_bytes(16))
        wanted = await trio.to_thread.run_sync(self._prove, challenge)
        if not wanted:
            return None
        answer = await self._question(node, challenge)
        return answer.digest == wanted if isinstance(answer, Proof) else None

    def disprove(self, unit: Unit, node: Node) -> None:
        """``node`` said that it holds a unit, and could not show it: it no longer counts."""
        entry = self.ledger.entry(unit)
        if entry is not None:
            entry.disproved.add(node)
            log.warning("%s could not show what it said it keeps of %s", node.hex()[:8], unit.course.hex()[:12])
            self._news()

    # -- letting go ------------------------------------------------------------------------------------------------

    async def let_go(self, unit: Unit, holders: Sequence[Node]) -> tuple[tuple[Receipt, ...], dict[Node, Reason]]:
        """Stop keeping a unit if as many of ``holders`` as asked for say, now and signed, that they keep it.

        ``holders`` come with the nearest to the unit first. Returns their receipts, none when it wasn't let go of; and
        who didn't say so, with the reason. The unit must be in ``releasing``. What the person of this node wants stays
        on the disk all the same.
        """
        granted: dict[Node, Receipt] = {}
        entry = self.ledger.entry(unit)
        if entry is None:
            return (), {}
        going = LettingGo(entry.copies, holders)
        while (node := going.next()) is not None:
            answer = await self._question(node, Release(unit))
            said = answer.receipt if isinstance(answer, Ack) else None
            if said is not None and said.unit == unit and said.node == node and said.holds:
                await self._keep(self.ledger.merge([said]))
                granted[node] = said
                going.answered(node, None)
            else:
                going.answered(node, answer.reason if isinstance(answer, Decline) else Reason.FAILED)
        if not going.may_drop(self.ledger.me):
            return (), going.failed
        # Whoever isn't there learns it with a heartbeat once it is back.
        others = {node for node in entry.holders if self.vigil.is_there(node)} - {self.ledger.me}
        # On record first: a crash after it leaves the bytes, a crash before it the duty.
        gone = await trio.to_thread.run_sync(self.store.custody.release, unit.course, unit.segment)
        receipt = await self._state(unit, entry.size, entry.copies, holds=False)
        note = self.store.custody.note
        await trio.to_thread.run_sync(note, unit.course, unit.segment, [(receipt.node, receipt.encode())])
        await self._tell(others, [receipt])
        if gone:
            await self._remove(unit.course)
        self._news()
        return tuple(granted.values()), going.failed

    async def _remove(self, course: bytes) -> None:
        self._withdraw(course)
        try:
            await trio.to_thread.run_sync(self.store.remove, course)
        except P2plearnError as error:
            log.warning("could not remove %s: %s", course.hex()[:12], error.message)
        self._given = await trio.to_thread.run_sync(self.store.custody.given)

    # -- looking -----------------------------------------------------------------------------------------------------

    def counted(self, entry: Entry) -> frozenset[Node]:
        """Who holds a unit as far as copies are counted: not those away for longer than the grace period."""
        now, detector = trio.current_time(), self.vigil.detector
        return counted(entry, self.ledger.me, lambda node: detector.gone_for(node, now), self.limits.grace)


def answer_to(challenge: Challenge, chunk: bytes) -> bytes:
    """SHA-256 of the nonce and the range asked for; empty when the chunk has no such range."""
    part = chunk[challenge.offset : challenge.offset + challenge.length]
    return hashlib.sha256(challenge.nonce + part).digest() if len(part) == challenge.length else b""
