"""What was said while this machine's clock was ahead: doubted when it is said, counted once the clock is right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from p2plearn import clock
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.service import People
from p2plearn.identity import SigningKey
from p2plearn.people import PostRequest, RateRequest
from p2plearn.store.store import Store

YEARS = 10 * 365 * 86400


class Told:
    """The exchanges, of which only telling peers is needed here."""

    def announce(self, envelope: object) -> None: ...

    def look_for(self, course: bytes) -> Any:
        return self

    async def wait(self) -> None: ...


async def test_it_is_doubted_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.generate()
    store, feed = Store.open(tmp_path), Feed(tmp_path / "people.sqlite")
    try:
        people = People(feed, store, key)
        people.join(Told(), lambda _: 0)  # type: ignore[arg-type]
        now, course = time.time(), "ab" * 32
        monkeypatch.setattr(clock, "clock_set", lambda: False)
        monkeypatch.setattr(clock, "hardware_clock", lambda: now)
        assert (await people.rate(RateRequest(course, 3)))["warnings"] == []
        assert people.ahead(now) == 0
        monkeypatch.setattr(time, "time", lambda: now + YEARS)
        asked = await people.post(PostRequest("question", "Why?", course))
        rated = await people.rate(RateRequest(course, 4))
        for said in (asked, rated):
            (doubt,) = said["warnings"]
            assert "ahead of that of its hardware" in doubt
        assert people.ahead(now) == 2
        assert people.ahead(now + YEARS) == 0
    finally:
        feed.close()
        store.close()
