"""What a machine alone can know of its clock."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from p2plearn.clock import MADE, doubts
from tests.nodes import RealNode

NOW = MADE + 3e7
DAY = 86400.0


@pytest.mark.parametrize(
    ("now", "newest", "hardware", "kept_right", "words"),
    [
        (MADE - 7200.0, 0.0, None, True, "at least 2 hours behind"),
        (NOW, NOW + 2 * DAY, None, True, "written 48 hours later"),
        (NOW, NOW + 3600.0, None, True, ""),  # a stick from another time zone
        (NOW, NOW, NOW - 3 * DAY, False, "72.0 hours ahead of that of its hardware"),
        (NOW, NOW, NOW - 3 * DAY, True, ""),  # the system's is kept right
        (NOW, NOW, NOW + 7 * 3600.0, False, ""),  # local time in the hardware's
        (NOW, NOW, None, False, ""),  # nothing to compare with
    ],
)
def test_it_is_doubted_for_a_reason_only(
    now: float, newest: float, hardware: float | None, kept_right: bool, words: str
) -> None:
    said = doubts(now, newest=newest, hardware=hardware, kept_right=kept_right)
    assert words in said
    assert ("Set it" in said) is bool(words)


def test_publish_warns_of_it_and_goes_on(tmp_path: Path) -> None:
    course = tmp_path / "course.txt"
    course.write_text("from the future", "utf-8")
    later = time.time() + 5 * DAY
    os.utime(course, (later, later))
    with RealNode(tmp_path / "home") as node:
        published = node.run("publish", course)
        assert published["new"]
        assert any("clock is behind" in each for each in published["warnings"])
