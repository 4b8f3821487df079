"""A fetch into a download: opened when the fetch knows what it wants, closed whatever happens.

In: a ``Fetch``, and how its download is begun. Out: the download with all of it, for as long as the caller looks at it.
Errors come out as they were raised, not in a group.

Imports ``course``, ``store``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.errors import P2plearnError
from p2plearn.store.download import Download
from p2plearn.transfer.fetch import Fetch

Begin = Callable[[SignedManifest, bytes, Index], Awaitable[Download]]
"""Refuses what can't end well, and reserves the room; manifest, the index as it travels, the index."""


@contextlib.asynccontextmanager
async def landed(
    fetch: Fetch, begin: Begin, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Download]:
    """Run ``fetch`` into what ``begin`` opens; the body has it complete, and it is closed after the body.

    ``meanwhile`` runs beside the fetch and may end it by raising a P2plearnError. Raises what ``Fetch.run``, ``begin``
    and ``meanwhile`` raise; what came until then is kept.
    """
    opened: list[Download] = []

    async def land(signed: SignedManifest, raw: bytes | None, index: Index) -> Download:
        if raw is None:
            raw = await trio.to_thread.run_sync(index.encode)
        opened.append(await begin(signed, raw, index))
        return opened[-1]

    try:
        await _beside(lambda: fetch.run(land), meanwhile)
        yield opened[-1]
    finally:
        with trio.CancelScope(shield=True):
            for download in opened:
                await trio.to_thread.run_sync(download.close)


async def _beside(work: Callable[[], Awaitable[None]], meanwhile: Callable[[], Awaitable[None]] | None) -> None:
    """Do ``work``, and ``meanwhile`` for as long as it goes on; the first failure ends both."""
    if meanwhile is None:
        await work()
        return
    failure: P2plearnError | None = None

    async def one(task: Callable[[], Awaitable[None]], *, is_work: bool) -> None:
        nonlocal failure
        try:
            await task()
        except P2plearnError as error:  # taken out of the nursery, which would wrap it
            failure = failure or error
        if is_work or failure is not None:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: one(meanwhile, is_work=False))
        await one(work, is_work=True)
    if failure is not None:
        raise failure
