"""What every answer about people stands on: whose node it is, saying something, and finding what a person named.

Imports ``clock``, ``errors``, ``course``, ``identity``, ``store`` and siblings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

from p2plearn import clock
from p2plearn.course.manifest import Manifest
from p2plearn.errors import UsageProblem
from p2plearn.gossip.envelope import FUTURE_SECONDS, Body, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.reading import Reading
from p2plearn.gossip.sync import Sync
from p2plearn.identity import SigningKey
from p2plearn.store.store import Store

T = TypeVar("T")


class Voice:
    """The record and the exchanges in one person's name."""

    def __init__(self, feed: Feed, store: Store, author: SigningKey) -> None:
        self._feed = feed
        self._store = store
        self._author = author
        self._reading = Reading(feed, author.public, self._manifest)
        self._sync: Sync | None = None
        self._copies: Callable[[bytes], int] = lambda _: 0
        feed.spare(lambda: {author.public, *self._reading.weights()})

    @property
    def sync(self) -> Sync:
        """The running exchanges."""
        if self._sync is None:
            raise AssertionError("joined before the first call")
        return self._sync

    def join(self, sync: Sync, copies: Callable[[bytes], int]) -> None:
        """The network is up, before anything is asked of this object; ``copies`` of a course, 0 where none is known."""
        self._sync = sync
        self._copies = copies

    def _manifest(self, course: bytes) -> Manifest | None:
        signed = self._store.signed_manifest(course)
        return None if signed is None else signed.manifest

    async def _say(self, body: Body, course: bytes) -> Envelope:
        envelope = await self._blocking(
            lambda: self._feed.write(self._author.public, self._author.sign, body, course, time.time())
        )
        self.sync.announce(envelope)
        return envelope

    @staticmethod
    def _clock_warnings() -> list[str]:
        """See ``clock.doubts``: what is said while the clock is ahead waits for its date, unseen by others."""
        doubt = clock.doubts(time.time(), newest=0.0, hardware=clock.hardware_clock(), kept_right=clock.clock_set())
        return [doubt] if doubt else []

    def ahead(self, now: float) -> int:
        """How many of this person's own envelopes are dated so far ahead that others refuse them. Blocks briefly."""
        with self._feed.reading() as db:
            count = db.execute(
                "SELECT count(*) FROM envelopes WHERE author = ? AND time > ?",
                (self._author.public, int(now) + FUTURE_SECONDS),
            ).fetchone()[0]
        return int(count)

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work)

    async def _course(self, text: str) -> bytes:
        """A course by its hash or the beginning of one that is known here. Raises UsageProblem."""
        wanted = text.lower()
        if not 8 <= len(wanted) <= 64 or set(wanted) - set("0123456789abcdef"):
            raise UsageProblem(f"{text!r:.80} is no course hash: give 64 hex digits, or the first 8 or more.")
        if len(wanted) == 64:
            return bytes.fromhex(wanted)
        low, high = bytes.fromhex(wanted.ljust(64, "0")), bytes.fromhex(wanted.ljust(64, "f"))

        def look() -> set[bytes]:
            with self._feed.reading() as db:
                found = {
                    row[0] for row in db.execute("SELECT course FROM entries WHERE course BETWEEN ? AND ?", (low, high))
                }
            return found | {row.course for row in self._store.courses() if low <= row.course <= high}

        found = await self._blocking(look)
        if len(found) != 1:
            many = "No course that is known here begins" if not found else f"{len(found)} courses begin"
            raise UsageProblem(f"{many} with {wanted}.", "Give the whole hash.")
        return found.pop()

    async def _known_author(self, text: str) -> bytes:
        found = await self._blocking(lambda: self._reading.authors_called(text))
        if not found:
            raise UsageProblem(f"Nobody known here is {text!r:.80}.", "Give the author's key: 64 hex digits.")
        if len(found) > 1:
            keys = ", ".join(author.hex()[:12] for author in found)
            raise UsageProblem(f"{len(found)} people are {text!r:.80}: {keys}.", "Names aren't unique: give the key.")
        return found[0]
