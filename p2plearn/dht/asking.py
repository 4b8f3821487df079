"""Asking other nodes about units: have one take a copy, pass receipts on, have it show what it said it keeps.

    offerer   OFFER ->, RECEIPTS ->
    receiver  <- ACCEPT, PROGRESS …, ACK   or  DECLINE
    offerer   RECEIPTS ->, CHALLENGE -> (on a stream of its own), RECEIPTS -> everybody else who holds the unit

A copy counts as made when its receiver has signed for it and then shown a random range of it.

Imports ``dht`` siblings, ``errors``, ``transfer``.
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from p2plearn.dht.custody import Node, Unit, slots_of
from p2plearn.dht.heartbeat import Calls
from p2plearn.dht.kept import Kept
from p2plearn.dht.line import Line
from p2plearn.dht.messages import (
    ANSWERED,
    CUSTODY,
    MOST_RECEIPTS,
    Ack,
    Challenge,
    Decline,
    Inquiry,
    Message,
    Offer,
    Progress,
    Proof,
    Reason,
    Receipts,
)
from p2plearn.dht.receipts import Receipt
from p2plearn.errors import PeerFault
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.transfer.channel import StreamOver
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.session import Unreachable

log = logging.getLogger("p2plearn.custody")

ANSWER_SECONDS: Final = 20.0
"""For a question to come or be answered, and between two signs of progress."""

STALLED_SECONDS: Final = 120.0
"""An offer of which nothing came for so long is over."""

OVER: Final = (StreamOver, PeerFault, Unreachable, trio.TooSlowError)
"""How a call to another node may fail."""


class Asking:
    """See the head of this file. ``spawn`` starts work that outlives the call."""

    def __init__(self, kept: Kept, calls: Calls, spawn: Callable[..., None], courtesy: Courtesy | None) -> None:
        self._kept = kept
        self._calls = calls
        self._spawn = spawn
        self._courtesy = courtesy
        self._looking: set[bytes] = set()
        """Courses that are being hashed."""
        self._taken: dict[Unit, dict[Node, int]] = {}
        """Of each unit that is being given, the bytes that its receivers say they have."""

    async def question(self, node: Node, question: Message) -> Message | None:
        """Ask one thing; None when it can't be answered."""
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                line = Line(await self._calls.open(node, CUSTODY), ANSWERED)
                try:
                    await line.send(question)
                    return await line.receive(ANSWER_SECONDS)
                finally:
                    await line.close()
        except OVER as error:
            log.debug("asking %s failed: %s", node.hex()[:8], error)
            return None

    @property
    def paused(self) -> bool:
        """Whether the person of this node wants no bytes of courses moved now."""
        return self._courtesy is not None and self._courtesy.paused

    # -- copies ------------------------------------------------------------------------------------------------------

    def on_the_way(self) -> int:
        """Bytes of what is being given that have arrived, as their receivers say; of several receivers the mean."""
        ledger = self._kept.ledger
        return sum(
            min(sum(taken.values()) // len(taken), entry.size)
            for unit, taken in self._taken.items()
            if (entry := ledger.entry(unit)) is not None
        )

    async def give(self, unit: Unit, to: Node) -> Decline | None:
        """Have ``to`` take a unit that is here; None once its receipt is on record and borne out, else why not."""
        taken = self._taken.setdefault(unit, {})
        taken[to] = 0
        try:
            return await self._give(unit, to, taken)
        finally:
            taken.pop(to, None)
            if not taken:
                self._taken.pop(unit, None)

    async def _give(self, unit: Unit, to: Node, taken: dict[Node, int]) -> Decline | None:
        kept = self._kept
        signed = await trio.to_thread.run_sync(kept.store.signed_manifest, unit.course)
        entry = kept.ledger.entry(unit)
        if signed is None or entry is None:
            return Decline(Reason.NOT_HELD, "it is no longer here")
        if self.paused:
            return Decline(Reason.FAILED, "this node is paused")
        try:
            with trio.fail_after(STALLED_SECONDS) as patience:
                line = Line(await self._calls.open(to, CUSTODY), ANSWERED)
                try:
                    await line.send(Offer(unit.segment, entry.copies, signed.signature, signed.raw))
                    await line.send(Receipts(tuple(kept.receipts_of(unit))))
                    answer = await self._verdict(line, patience, to, taken)
                    if isinstance(answer, Decline):
                        return answer
                    if answer.receipt.unit != unit or answer.receipt.node != to or not answer.receipt.holds:
                        raise PeerFault("custody: a receipt for something else")
                    if await self.challenge(unit, to) is False:
                        self.disprove(unit, to)
                        return Decline(Reason.FAILED, "it could not show what it signed for")
                    entry.disproved.discard(to)
                    await kept.learn([answer.receipt])
                    everything = kept.receipts_of(unit)
                    await line.send(Receipts(tuple(everything)))
                finally:
                    await line.close()
        except OVER as error:
            return Decline(Reason.FAILED, str(error) or type(error).__name__)
        self._spawn(self.tell, entry.holders - {kept.me, to}, everything)
        return None

    async def _verdict(self, line: Line, patience: trio.CancelScope, to: Node, taken: dict[Node, int]) -> Ack | Decline:
        """How an offer ends; ``patience`` is renewed with each byte that the receiver gets."""
        most = -1
        while True:
            match await line.receive(ANSWER_SECONDS):
                case Ack() | Decline() as answer:
                    return answer
                case Progress(done) if done > most:
                    most = taken[to] = done
                    patience.deadline = trio.current_time() + STALLED_SECONDS

    # -- receipts ----------------------------------------------------------------------------------------------------

    async def tell(self, nodes: Iterable[Node], receipts: Sequence[Receipt]) -> None:
        """Pass receipts on; who isn't reached learns them with its next heartbeat."""
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(self.exchange, node, receipts)

    async def exchange(self, node: Node, receipts: Sequence[Receipt]) -> None:
        """Tell ``node`` these receipts and take in what it knows of the same units."""
        for at in range(0, len(receipts), MOST_RECEIPTS):
            answer = await self.question(node, Receipts(tuple(receipts[at : at + MOST_RECEIPTS])))
            if not isinstance(answer, Receipts):
                return
            await self._kept.learn(answer.receipts)

    async def who_keeps(self, unit: Unit, node: Node) -> tuple[Receipt, ...] | None:
        """What ``node`` knows of who holds a unit: nothing if it isn't among them. None when it doesn't answer."""
        answer = await self.question(node, Inquiry(unit))
        if not isinstance(answer, Receipts):
            return None
        return tuple(receipt for receipt in answer.receipts if receipt.unit == unit)

    # -- proof -------------------------------------------------------------------------------------------------------

    def prove(self, challenge: Challenge) -> bytes:
        """Blocking: the answer to a challenge; empty when the bytes aren't here, or aren't what they were."""
        holding = self._kept.store.holding(challenge.course)
        if holding is None or challenge.slot >= len(holding.index):
            return b""
        with holding:
            try:
                chunk = holding.read(challenge.slot, afresh=True)
            except (ChunkMissing, StoreDamage):
                return b""
        return answer_to(challenge, chunk)

    async def challenge(self, unit: Unit, node: Node) -> bool | None:
        """Have ``node`` show a random range of a unit; None when it doesn't answer, which proves nothing.

        Nor does it when this node's own bytes are not what they were: then it is the one that is damaged.
        """
        holding = await trio.to_thread.run_sync(self._kept.store.holding, unit.course)
        if holding is None:
            return None
        first, count, _ = slots_of(unit.segment, holding.index.lengths)
        if not count:
            return True
        slot = first + random.randrange(count)  # noqa: S311 - the nonce is what must not be guessed
        length = holding.index.length(slot)
        offset = random.randrange(length)  # noqa: S311
        challenge = Challenge(unit.course, slot, offset, length - offset, secrets.token_bytes(16))
        wanted = await trio.to_thread.run_sync(self.prove, challenge)
        if not wanted:
            self._spawn(self.look_for_damage, unit.course)
            return None
        answer = await self.question(node, challenge)
        return answer.digest == wanted if isinstance(answer, Proof) else None

    async def look_for_damage(self, course: bytes) -> None:
        """Some of a course is not what it was: all of it is hashed, what isn't whole is denied, to be fetched again."""
        if course in self._looking:
            return
        self._looking.add(course)
        try:
            await trio.to_thread.run_sync(self._kept.store.verify, course)
            for others, denial in await self._kept.look_for_damage(course):
                self._spawn(self.tell, others, [denial])
        finally:
            self._looking.discard(course)

    def disprove(self, unit: Unit, node: Node) -> None:
        """``node`` said that it holds a unit, and could not show it: it no longer counts, until it shows it."""
        entry = self._kept.ledger.entry(unit)
        if entry is not None:
            entry.disproved.add(node)
            log.warning("%s could not show what it said it keeps of %s", node.hex()[:8], unit.course.hex()[:12])
            self._kept.news()


def answer_to(challenge: Challenge, chunk: bytes) -> bytes:
    """SHA-256 of the nonce and the range asked for; empty when the chunk has no such range."""
    part = chunk[challenge.offset : challenge.offset + challenge.length]
    return hashlib.sha256(challenge.nonce + part).digest() if len(part) == challenge.length else b""
