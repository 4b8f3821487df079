"""Honest providers of one course, for the tests of both ends of a fetch."""

from __future__ import annotations

import pytest
from courses import Course, MemoryShelf, make_course

from p2plearn.errors import PeerFault
from p2plearn.transfer import fetch, participants, scheduler, serve, session
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.serve import ChunkService

COURSE = make_course(60, 30_000, seed=2, twins=7)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """What takes seconds among people takes a moment here."""
    for module in (fetch, session):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(scheduler, "DROP_SECONDS", 4.0)
    monkeypatch.setattr(participants, "LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(fetch, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(serve, "NEWS_SECONDS", 0.02)


@pytest.fixture(autouse=True, params=[True, False], ids=["verified as it comes", "verified by who writes"])
def on_few_cores_and_on_many(request, monkeypatch):
    monkeypatch.setattr(fetch, "few_cores", lambda: request.param)


class Provider:
    """An honest provider of what is on ``shelf``."""

    def __init__(self, shelf: MemoryShelf | None, max_streams: int = 16) -> None:
        self.shelf = shelf
        self.service = ChunkService(self._find, max_streams=max_streams)
        self.faults: list[PeerFault] = []

    async def _find(self, wanted: bytes) -> MemoryShelf | None:
        return self.shelf if self.shelf is not None and wanted == self.shelf.course.hash else None

    async def __call__(self, channel: Channel) -> None:
        try:
            await self.service.serve(channel)
        except PeerFault as fault:
            self.faults.append(fault)
            raise


def full(course: Course = COURSE) -> Provider:
    return Provider(MemoryShelf.full(course))
