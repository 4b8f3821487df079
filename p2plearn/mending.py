"""What ``verify --repair`` does: what verify found damaged is fetched again from peers, and nothing else.

In: findings of ``Store.verify``. Out: what is whole again, and what is still damaged with the reason. What was damaged
has left the catalogue already, so a course is mended by an ordinary fetch of what it lacks; each chunk is held against
its hash before it counts. Folders that courses were checked out to are the user's: what is right in them is read before
anybody is asked, and they are left as they are.

Imports ``course``, ``store``, ``transfer``, ``operations``, ``errors``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.errors import P2plearnError
from p2plearn.operations import Progress, Report
from p2plearn.store.check import Damage
from p2plearn.store.download import Download
from p2plearn.store.store import Store
from p2plearn.transfer.fetch import Fetch
from p2plearn.transfer.landed import landed

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.2

NewFetch = Callable[[bytes], Awaitable[Fetch]]
"""Makes the fetch of a course; raises a P2plearnError when that course may not be fetched."""


@dataclass(slots=True)
class Mended:
    """``repaired``: one object a course (``course``, ``title``, ``bytes``, ``providers``, ``found_bytes``,
    ``checkouts``).

    ``left``: one object a finding that still holds, as verify tells them, with ``why`` it couldn't be mended.
    """

    repaired: list[dict[str, Any]] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)


class Mending:
    """Mends one course after the other."""

    def __init__(self, store: Store, new_fetch: NewFetch) -> None:
        self._store = store
        self._new_fetch = new_fetch

    async def mend(self, findings: Sequence[Damage], report: Report, seconds: float) -> Mended:
        """Fetch what ``findings`` say is damaged, for at most so long in all. Raises nothing for what can't be had.

        What is left is looked at when all is done: what came for one course may be what another lacked, too.
        """
        mended = Mended()
        deadline = trio.current_time() + seconds
        tried: list[tuple[bytes, list[Damage], str, int, int]] = []
        for course in dict.fromkeys(one.course for one in findings):
            harmed = [one for one in findings if one.course == course]
            why, gave, found = "", 0, 0
            with trio.move_on_at(deadline) as limit:
                try:
                    gave, found = await self._fetch(course, harmed, report)
                except P2plearnError as error:
                    why = f"{error.message} {error.hint}".strip()
            if limit.cancelled_caught:
                why = "The time given was over; the same command goes on from there."
            tried.append((course, harmed, why, gave, found))
        for course, harmed, why, gave, found in tried:
            await self._settle(course, harmed, why, gave, found, mended)
        return mended

    async def _settle(  # noqa: PLR0917
        self, course: bytes, harmed: Sequence[Damage], why: str, gave: int, found: int, mended: Mended
    ) -> None:
        left = await trio.to_thread.run_sync(self._store.still_damaged, harmed)
        for one in left:
            mended.left.append({**told(one), "why": why or "What came wasn't all that is lacking."})
        if len(left) == len(harmed):
            return
        logger.info("mended %s with the help of %d peers", course.hex(), gave)
        mended.repaired.append(
            {
                "course": course.hex(),
                "title": harmed[0].title,
                "bytes": sum(one.bytes for one in harmed) - sum(one.bytes for one in left),
                "providers": gave,
                "found_bytes": found,
                "checkouts": await trio.to_thread.run_sync(self._store.checkouts, course),
            }
        )

    async def _fetch(self, course: bytes, harmed: Sequence[Damage], report: Report) -> tuple[int, int]:
        """Have everything of a course here that was; how many peers gave something, and how many bytes were found in
        folders it was checked out to. Raises P2plearnError.
        """
        row = await trio.to_thread.run_sync(self._store.course, course)
        if row is None:
            return 0, 0  # removed meanwhile
        fetch = await self._new_fetch(course)
        paths = {one.path for one in harmed}
        folders = await trio.to_thread.run_sync(self._store.checkouts, course)

        async def begin(signed: SignedManifest, raw: bytes, index: Index) -> Download:
            # Of a course that was never all here only the harmed files come back; its index brings no file along.
            wanted = None if row.whole else [entry for entry in index.files if entry.path in paths]
            # What lies in the learner's files may stay there: a course kept in place isn't copied to be mended.
            return await trio.to_thread.run_sync(
                lambda: self._store.begin_download(
                    signed, raw, index, wanted, row.why, give=True, look_in=[Path(one) for one in folders]
                )
            )

        async with landed(fetch, begin, lambda: _tell(fetch, harmed[0].title, report)) as download:
            return len(fetch.tally.gave), download.found_bytes


async def _tell(fetch: Fetch, title: str, report: Report) -> None:
    while True:
        standing = fetch.standing
        report(
            Progress(
                "repairing",
                standing.verified_bytes,
                standing.wanted_bytes or standing.verified_bytes,
                peers=standing.peers,
                waiting_for=standing.waiting_for,
                title=title,
            )
        )
        await trio.sleep(REPORT_SECONDS)


def told(one: Damage) -> dict[str, Any]:
    """A finding as it crosses the local API."""
    return {"course": one.course.hex(), "title": one.title, "path": one.path, "what": one.what, "bytes": one.bytes}
