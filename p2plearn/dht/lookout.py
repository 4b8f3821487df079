"""Who has been away for how long, and what was lost with them: watched for, and remembered across restarts.

A node that runs eight hours a day would never see twelve hours of silence in one go, and nothing would ever be
repaired. So the silence that it has seen of each node is kept in a small file, and goes on where it was. It is counted
by the clock that never goes back, while this node runs: nobody's clock can make a death.

Imports ``dht`` siblings, ``named_file``, ``state_file``, ``store.durable``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from p2plearn.dht.custody import Node
from p2plearn.dht.keeper import Keeper
from p2plearn.dht.liveness import Life
from p2plearn.dht.watch import Watch
from p2plearn.named_file import KnownFolder
from p2plearn.net.contained import safely
from p2plearn.state_file import Unusable, read_state
from p2plearn.store.durable import write_atomic

log = logging.getLogger("p2plearn.custody")

FORMAT: Final = 1
MAX_FILE: Final = 16 * 1024 * 1024
SAVE_SECONDS: Final = 300.0
"""What a crash forgets of everybody's absence."""

RECORDS: Final = 6.0
"""Heartbeat intervals between two looks at the records of who has what."""

AT_ONCE: Final = 2
"""Nodes asked an interval whether they are there, besides those that heartbeats watch anyway."""


class Lookout:
    """``run`` it. ``records`` are the courses that others told this node they have, ``search`` asks the whole network
    who has one; ``path`` is the file.
    """

    def __init__(
        self,
        keeper: Keeper,
        records: Callable[[], Mapping[bytes, Collection[Node]]],
        search: Callable[[bytes], Awaitable[Collection[Node]]],
        path: Path,
    ) -> None:
        self._keeper = keeper
        self._records = records
        self._search = search
        self._path = path
        self._folder = KnownFolder(path.parent)
        limits = keeper.limits
        self.watch = Watch(max(limits.grace / 4, 5 * limits.interval), limits.grace)

    def load(self) -> None:
        """Take back what was saved; a file that can't be read is passed over: a node must start. Blocks briefly."""
        try:
            told = read_state(self._path, MAX_FILE, FORMAT, _read)
        except Unusable as error:
            log.warning("%s can't be used (%s); absences are counted anew", self._path, error)
            return
        if told is not None:
            away, lost = told
            self._keeper.vigil.been_away(away)
            self.watch.restore(lost, trio.current_time())

    async def run(self) -> None:
        """Look out until cancelled; saves at the end."""
        interval = self._keeper.limits.interval
        looked, saved = -1e9, trio.current_time()
        try:
            while True:
                now = trio.current_time()
                if now - looked >= RECORDS * interval:
                    looked = now
                    await safely(log, "custody: a look at the records of others", self._see, now)
                await safely(log, "custody: asking who is away", self._ask, now)
                if now - saved >= SAVE_SECONDS:
                    saved = now
                    await self._save()
                await trio.sleep(interval)
        finally:
            with trio.CancelScope(shield=True):
                await self._save()

    async def _see(self, now: float) -> None:
        """The records as they are, without what is here itself."""
        records = self._records()
        if records:
            whole = await trio.to_thread.run_sync(partial(self._keeper.store.names, complete=True))
            here = {*whole, *(unit.course for unit in self._keeper.ledger)}
            records = {c: nodes for c, nodes in records.items() if c not in here}
        self.watch.see(records, now)

    async def _ask(self, now: float) -> None:
        keeper = self._keeper
        if not keeper.calls.nodes():
            return  # this node is the one that is cut off
        async with trio.open_nursery() as nursery:
            for node in self.watch.due(now, AT_ONCE):
                nursery.start_soon(self._ask_one, node)
            course = self.watch.to_search(now)
            if course is not None:
                nursery.start_soon(self._search_for, course)

    async def _ask_one(self, node: Node) -> None:
        vigil = self._keeper.vigil
        life = vigil.detector.life(node) if node in vigil.detector else None
        there = await vigil.ask(node) is not None if life is None else life in {Life.ALIVE, Life.SUSPECT}
        self.watch.answered(node, there, trio.current_time())

    async def _search_for(self, course: bytes) -> None:
        """Look for somebody who has a course and is there."""
        there: list[Node] = []
        for node in await self._search(course):
            if await self._keeper.vigil.ask(node) is not None:
                there.append(node)
                break
        self.watch.searched(course, there, trio.current_time())

    async def _save(self) -> None:
        now = trio.current_time()
        told: dict[str, Any] = {
            "format": FORMAT,
            "away": {
                node.hex(): round(seconds)
                for node, seconds in self._keeper.vigil.absences(self._keeper.limits.grace).items()
            },
            "lost": [
                # Rounded up: less than the grace period would have it forgotten.
                [course.hex(), sorted(node.hex() for node in holders), math.ceil(seconds)]
                for course, (holders, seconds) in self.watch.export(now).items()
            ],
        }
        raw = json.dumps(told, indent=0).encode()
        try:
            await trio.to_thread.run_sync(partial(write_atomic, self._path, [raw], within=self._folder))
        except OSError as error:
            log.warning("can't write %s: %s", self._path, error)


def _read(document: Any) -> tuple[dict[Node, float], list[tuple[bytes, list[Node], float]]]:
    """Seconds of absence by node; and courses that were lost, whose holders they are, and for how long."""
    away = {bytes.fromhex(node): float(seconds) for node, seconds in document["away"].items()}
    lost = [(bytes.fromhex(c), [bytes.fromhex(n) for n in nodes], float(s)) for c, nodes, s in document["lost"]]
    if not all(map(math.isfinite, [*away.values(), *(seconds for _, _, seconds in lost)])):
        raise ValueError("somebody is away for ever")
    return away, lost
