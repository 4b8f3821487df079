"""What a terminal shows of people: nothing that a peer wrote is an escape code, and who says something is named."""

from __future__ import annotations

import time
from typing import Any

from p2plearn.commands import people_words
from p2plearn.gossip.figures import figure_json
from p2plearn.gossip.ratings import everyone_figure
from p2plearn.views import warning

EVIL = "\x1b[31mred\x07"
WARNING = {"target": "course", "reason": f"out of date {EVIL}", "by": "ab" * 32, "by_name": f"School {EVIL}"}


def test_a_course_that_is_warned_of() -> None:
    figure = figure_json(everyone_figure({}))
    row: dict[str, Any] = {
        "course": "cd" * 32, "title": f"Loops {EVIL}", "author": "ef" * 32, "author_name": "", "fingerprint": "ef" * 6,
        "impostor": False, "copies": 1, "ratings": {"trusted": figure, "everyone": figure}, "bytes": 1,
        "language": "en", "warnings": [WARNING], "author_warnings": [{**WARNING, "target": "author", "reason": ""}],
    }  # fmt: skip
    shown = people_words.found([row])
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "warning about the course by School" in shown
    assert "warning about the author" in shown
    assert "no reason given" in shown
    # What somebody said of copies may be long untrue: how old it is stands beside it.
    told = people_words.found([row | {"copies": 4, "copies_at": time.time() - 3 * 86400}])
    assert "COPIES SAID" in told
    assert "4 (3 d ago)" in told


def test_a_warning_by_somebody_without_a_name_shows_the_key() -> None:
    assert "by abababababab:" in warning({**WARNING, "by_name": ""})


def test_the_log_of_what_was_hidden() -> None:
    assert people_words.hidden([]) == "Nothing was hidden here so far."
    line = {
        "time": 1_790_000_000, "action": "hide", "target": "post", "subject": "cd" * 32, "by": "ab" * 32,
        "by_name": EVIL, "course": "", "reason": EVIL,
    }  # fmt: skip
    shown = people_words.hidden([line, {**line, "by": "you", "action": "mute"}])
    assert "\x1b" not in shown
    assert "you" in shown
    assert "mute" in shown
