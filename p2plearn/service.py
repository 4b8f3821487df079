"""What a node does for the person it runs for: the local API's calls, carried out with store, network and transfer.

In: requests of ``operations``. Out: results of ``operations``, or a ``P2plearnError`` with words for a person. Store
calls block and run in threads; a call that is cancelled (its caller hung up) stops them and keeps what is done.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from p2plearn import clock
from p2plearn.archive_service import Archives
from p2plearn.course.names import cid_text, format_link
from p2plearn.custody_service import CustodyService
from p2plearn.errors import LastCopy, Refused, UsageProblem
from p2plearn.getting import Getting, course_facts
from p2plearn.gossip.service import People
from p2plearn.identity import SigningKey
from p2plearn.invite import Invite
from p2plearn.mending import Mended, Mending, told
from p2plearn.network import Network
from p2plearn.operations import (
    GetRequest,
    GetResult,
    LeaveRequest,
    LeaveResult,
    PublishRequest,
    PublishResult,
    Report,
    VerifyRequest,
    VerifyResult,
)
from p2plearn.store.publish import Published, PublishMeta
from p2plearn.store.store import Store
from p2plearn.supervision import Supervisor
from p2plearn.telling import Counting, in_thread, telling
from p2plearn.transfer.courtesy import Courtesy
from p2plearn.transfer.fetch import FetchLimits
from p2plearn.transfer.serve import Shelf

logger = logging.getLogger(__name__)

LINK_ADDRESSES = 2
"""Addresses that go into a link: enough for the LAN, short enough to be sent in a message."""


class NodeService:
    """``operations.NodeOperations`` over the parts of a running node."""

    def __init__(
        self,
        store: Store,
        author: SigningKey,
        people: People,
        limits: FetchLimits,
        *,
        courtesy: Courtesy,
        stop: Callable[[], None],
        supervisor: Supervisor,
    ) -> None:
        self._supervisor = supervisor
        self._custody: CustodyService | None = None
        self.leaves_on_stop = False
        """Whether a stop is a leave: this node's own setting, whoever stops it and whatever theirs is."""
        self.group: Invite | None = None
        """The closed group that this node is in."""
        self.not_in_force: Callable[[], list[str]] = list
        """Names of settings whose value in the file is another than the one this node runs with. Blocks briefly."""
        self.listen: Callable[[], dict[str, list[str]]] = dict
        """Multiaddrs: what this node was to listen on (``wanted``), and what it has (``bound``)."""
        self._store = store
        self.people = people
        self.archives = Archives(store, people, self._announce)
        self._courtesy = courtesy
        self._author = author
        self._stop = stop
        self._network: Network | None = None
        self._since = trio.current_time()
        self._getting = Getting(
            store, people, limits, courtesy, network=lambda: self.network, custody=lambda: self.custody
        )

    def join(self, network: Network, custody: CustodyService) -> None:
        """The network is up, or up again; called before anything is asked of this object."""
        self._network = network
        self._custody = custody

    @property
    def custody(self) -> CustodyService:
        """Who keeps copies."""
        if self._custody is None:
            raise AssertionError("joined before the first call")
        return self._custody

    @property
    def network(self) -> Network:
        """The running network."""
        if self._network is None:
            raise AssertionError("joined before the first call")
        return self._network

    def _announce(self, course: bytes) -> None:
        self.network.directory.announce(course)

    # -- for peers -----------------------------------------------------------------------------------------------

    async def shelf(self, course: bytes) -> Shelf | None:
        """What can be served of a course."""
        await self._getting.begun(course)
        row = await trio.to_thread.run_sync(self._store.course, course)
        if self.people.refusal(course, None if row is None else row.author):
            return None
        return await trio.to_thread.run_sync(self._store.holding, course)

    def called(self, course: bytes, peer: bytes) -> None:
        """The peer of that binary id asks for a course: when it is being fetched here, they may help each other."""
        fetch = self._getting.fetching.get(course)
        if fetch is not None:
            fetch.called_by(self.network.caller(peer))

    @property
    def fetches(self) -> bool:
        """A get is under way."""
        return bool(self._getting.fetching)

    # -- looking -------------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """See ``NodeOperations.status``."""
        usage = await trio.to_thread.run_sync(self._store.usage)
        network, goodbyes = self.network.figures(), self.custody.replication.goodbyes()
        network["unreachable"] = {who: why for who, why in network["unreachable"].items() if who not in goodbyes}
        return {
            "peer_id": self.network.peer_id,
            "author": self._author.public.hex(),
            "group": self.group.name if self.group else "",
            "group_tag": self.group.tag if self.group else "",
            "addresses": self.network.addresses(),
            "peers": len(self.network.connected()),
            "courses": len(await trio.to_thread.run_sync(self._store.names)),
            "complete": len(await trio.to_thread.run_sync(partial(self._store.names, complete=True))),
            "uptime": trio.current_time() - self._since,
            "pid": os.getpid(),
            "leaves_on_stop": self.leaves_on_stop,
            "listen": self.listen(),
            "restart_for": await trio.to_thread.run_sync(self.not_in_force),
            "fetching": [
                {"course": course.hex(), "waiting_for": fetch.standing.waiting_for}
                for course, fetch in self._getting.fetching.items()
            ],
            "storage": {
                "bytes": usage.bytes,
                "quota": usage.quota,
                "free_disk": usage.free_disk,
                "min_free": usage.min_free,
                "notices": list(self._store.notices),
            },
            **self._courtesy.figures(),
            **network,
            "network_restarts": self._supervisor.restarts,
            "last_fault": self._supervisor.last_fault,
            **await self.custody.replication.figures(),
            "people": await trio.to_thread.run_sync(self.people.figures),
        }

    async def peers(self) -> list[dict[str, Any]]:
        """See ``NodeOperations.peers``."""
        return self.network.connected()

    async def courses(self) -> list[dict[str, Any]]:
        """See ``NodeOperations.courses``."""
        rows = await trio.to_thread.run_sync(
            lambda: [(row, self._store.have_bytes(row)) for row in self._store.courses()]
        )
        return [
            {
                "course": row.course.hex(),
                "title": row.title,
                "bytes": row.bytes,
                "files": row.files,
                "have_bytes": have_bytes,
                "complete": row.complete,
                "why": row.why,
                "added": row.added,
                "version": row.seq,
                **self.custody.replication.facts(row),
            }
            for row, have_bytes in rows
        ]

    async def info(self, course: str) -> dict[str, Any]:
        """See ``NodeOperations.info``."""
        name = bytes.fromhex(course)
        row = await trio.to_thread.run_sync(self._store.course, name)
        signed = await trio.to_thread.run_sync(self._store.signed_manifest, name)
        if row is None or signed is None:
            raise _not_kept(course)
        await self.custody.replication.confirm([name])
        holding = await trio.to_thread.run_sync(self._store.holding, name)
        facts = course_facts(signed, None if holding is None else holding.index)
        warnings = await trio.to_thread.run_sync(self.people.warnings, name, row.author)
        return facts | {
            "warnings": warnings,
            "have_bytes": await trio.to_thread.run_sync(self._store.have_bytes, row),
            "complete": row.complete,
            "why": row.why,
            "added": row.added,
            **self.custody.replication.copies_of(name, row.bytes, complete=row.complete),
            "told_peers": self.network.directory.announced(name),
            "link": format_link(name, self.network.addresses()[:LINK_ADDRESSES]),
        }

    # -- publishing ----------------------------------------------------------------------------------------------

    async def publish(self, request: PublishRequest, report: Report) -> PublishResult:
        """See ``NodeOperations.publish``."""
        began = time.perf_counter()
        path = Path(request.path)
        meta = PublishMeta(request.title, request.description, request.tags, request.language, request.license)
        count = Counting("reading")

        def put_in(cancelled: Callable[[], bool]) -> Published:
            return self._store.publish(
                path,
                meta,
                sign=self._author.sign,
                author=self._author.public,
                now=int(time.time()),
                chunker=request.chunker,
                follow_symlinks=request.follow_symlinks,
                no_copy=request.no_copy,
                skip_special=request.skip_special,
                report=count,
                cancelled=cancelled,
                seen=self.people.newest_own,
            )

        warnings: list[str] = []
        async with telling(report, count.progress):
            await self.people.catch_up()  # a restored home doesn't know of its own newest version yet
            published = await in_thread(put_in)
            copied = published.copied
            # It is about to be called a copy, so it is looked at; what rotted has left the catalogue then.
            if not published.new and await in_thread(
                lambda cancelled: bool(self._store.verify(published.course, cancelled=cancelled))
            ):
                warnings.append("What was kept of it here was damaged; it was taken from the folder again.")
                published = await in_thread(put_in)
                copied += published.copied
        if doubt := await trio.to_thread.run_sync(_doubt_clock, path):
            warnings.append(doubt)
        self.network.directory.announce(published.course)
        manifest = published.manifest
        before = manifest.series.prev if manifest.series else None
        private = await self._stays_private(request, before if published.new else published.course)
        if not private:
            await self.people.announce_own(published.course, copies=1)
        wanted = request.copies or await self.custody.asked_before(published.course, before)
        kept = await self.custody.published(
            published.course, wanted, self._author, manifest.title, manifest.bytes, report
        )
        copies = int(kept["copies"])
        if not private and copies > 1:
            await self.people.announce_own(published.course, copies)
        logger.info("%s course %s", "published" if published.new else "republished", published.course.hex())
        return PublishResult(
            course=published.course.hex(),
            ipfs=cid_text(manifest.root),
            title=manifest.title,
            bytes=manifest.bytes,
            files=manifest.files,
            chunks=manifest.chunks,
            copies=copies,
            copies_wanted=int(kept["copies_wanted"]),
            copies_away=int(kept["copies_away"]),
            paused=self._courtesy.paused,
            private=private,
            copied_bytes=copied,
            new=published.new,
            version=manifest.series.seq if manifest.series else 1,
            seconds=time.perf_counter() - began,
            link=format_link(published.course, self.network.addresses()[:LINK_ADDRESSES]),
            warnings=(*published.warnings, *warnings),
        )

    async def _stays_private(self, request: PublishRequest, last: bytes | None) -> bool:
        """Whether to leave a course out of the catalogue. What its author doesn't say is as with the ``last`` version,
        if there is one: a word forgotten once must not show everybody what was kept among few.
        """
        if request.private or request.public or last is None:
            return request.private
        return not await self.people.is_listed(last)

    # -- fetching ------------------------------------------------------------------------------------------------

    async def get(self, request: GetRequest, report: Report) -> GetResult:
        """See ``NodeOperations.get``."""
        return await self._getting.get(request, report)

    async def contents(self, request: GetRequest, report: Report) -> dict[str, Any]:
        """See ``NodeOperations.contents``."""
        return await self._getting.contents(request, report)

    # -- keeping -------------------------------------------------------------------------------------------------

    async def verify(self, request: VerifyRequest, report: Report) -> VerifyResult:
        """See ``NodeOperations.verify``."""
        began = time.perf_counter()
        name = bytes.fromhex(request.course) if request.course else None
        rows = await trio.to_thread.run_sync(self._store.courses)
        if name is not None and not any(row.course == name for row in rows):
            raise _not_kept(request.course)
        count = Counting("verifying")
        async with telling(report, count.progress):
            damaged = await in_thread(lambda cancelled: self._store.verify(name, count, cancelled))
        mended = Mended()
        if request.repair and damaged:
            ask = GetRequest("", providers=request.providers)
            mending = Mending(self._store, lambda course: self._getting.new_fetch(course, ask))
            mended = await mending.mend(damaged, report, request.timeout or math.inf)
            for one in mended.repaired:
                self.network.directory.announce(bytes.fromhex(one["course"]))
        await self.custody.checked(one.course for one in damaged)
        return VerifyResult(
            courses=1 if name is not None else len(rows),
            bytes=count.done,
            seconds=time.perf_counter() - began,
            damaged=tuple(told(one) for one in damaged),
            repaired=tuple(mended.repaired),
            left=tuple(mended.left),
        )

    async def remove(self, course: str, *, last_copy: bool) -> dict[str, Any]:
        """See ``NodeOperations.remove``."""
        name = bytes.fromhex(course)
        if name in self._getting.fetching:
            raise Refused("This course is being fetched right now.", "Stop that get first (Ctrl-C), then remove it.")
        row = await trio.to_thread.run_sync(self._store.course, name)
        if row is None:
            raise _not_kept(course)
        if last_copy:
            self.custody.removed(name)
        elif not await self.custody.give_up(row, self.network.search):
            raise LastCopy(
                f"No other node that answers now has a copy of {row.title!r}: with this one it may be gone for good.",
                f"When other nodes are up, try again. To remove it all the same: p2plearn remove {course[:12]} --yes",
            )
        self.network.directory.withdraw(name)
        swept = await trio.to_thread.run_sync(self._store.remove, name)
        return {"course": course, "title": row.title, "freed": swept.freed, "left": list(swept.left)}

    async def gc(self, dry_run: bool) -> dict[str, Any]:
        """See ``NodeOperations.gc``."""
        return await self.custody.gc(dry_run)

    async def leave(self, request: LeaveRequest, report: Report) -> LeaveResult:
        """See ``NodeOperations.leave``."""
        if self._courtesy.paused:
            raise Refused(
                "This node is paused: nothing would be handed over.",
                "p2plearn node resume, then leave. To stop it as it is: p2plearn node stop",
            )
        return await self.custody.leave(request.deadline, report)

    # -- holding back --------------------------------------------------------------------------------------------

    async def pause(self, seconds: float) -> dict[str, Any]:
        """See ``NodeOperations.pause``."""
        await self._courtesy.pause(seconds or math.inf)
        return self._courtesy.pause_figures()

    async def resume(self) -> dict[str, Any]:
        """See ``NodeOperations.resume``."""
        await self._courtesy.resume()
        return self._courtesy.pause_figures()

    async def say_last_words(self) -> None:
        """Have the log name what has fewer copies without this node, as it is known now."""
        if self._custody is not None:
            await self._custody.say_last_words(ask=False)

    async def stop(self) -> dict[str, Any]:
        """See ``NodeOperations.stop``."""
        await self.custody.end_leave()
        words = await self.custody.last_words()
        self._stop()
        return words


# -- progress ----------------------------------------------------------------------------------------------------


def _not_kept(course: str) -> UsageProblem:
    return UsageProblem(
        f"Course {course[:12]} isn't kept on this node.",
        "p2plearn list shows what is; p2plearn get HASH fetches it.",
    )


def _doubt_clock(path: Path) -> str:
    """See ``clock.doubts``; the times of what was signed are of this clock."""
    newest = path.stat().st_mtime if path.exists() else 0.0
    return clock.doubts(time.time(), newest=newest, hardware=clock.hardware_clock(), kept_right=clock.clock_set())
