"""What publish, stop and leave say of copies: why there are too few, and who could not be asked."""

from __future__ import annotations

from p2plearn import views
from p2plearn.operations import LeaveResult, PublishResult


def test_a_publish_on_a_paused_node_names_the_pause_as_the_reason() -> None:
    def words(*, paused: bool, copies: int = 1) -> str:
        return views.published(
            PublishResult(
                course="00" * 32, ipfs="bafy", title="t", bytes=1, files=1, chunks=1, copies=copies, new=True,
                version=1, seconds=0.1, link="p2plearn:00", copies_wanted=3, paused=paused,
            )
        )  # fmt: skip

    assert "More are made as nodes come" in words(paused=False)
    assert "More are made as nodes come" not in words(paused=True)
    assert "paused: no copies are made until `p2plearn node resume`" in words(paused=True)
    assert "paused" not in words(paused=True, copies=3)


def test_a_stop_names_who_did_not_answer() -> None:
    rows = [{"course": "ab" * 32, "title": "t", "copies": 0, "copies_away": 2, "copies_wanted": 3}]
    words = views.fewer_copies(rows, ["12D3One", "12D3Two"])
    assert "0 of 3, 2 more on nodes that are away" in words
    assert "2 nodes with copies of these did not answer at once, and count as away: 12D3One, 12D3Two" in words
    assert "did not answer" not in views.fewer_copies(rows)


def test_a_leave_tells_what_was_elsewhere_what_is_away_and_what_it_had_no_time_for() -> None:
    def row(title: str, copies: int, away: int = 0) -> dict[str, object]:
        facts = {"copies": copies, "copies_away": away, "copies_wanted": 3}
        return {"course": title.encode().hex(), "segment": 0, "title": title, **facts}

    placed = ({"course": "cd" * 32, "segment": 0, "title": "p", "receipts": []},)
    assert views.left(LeaveResult(1, 5, 1.0, placed)) == "Handed over 1 of 1 course and stopped."
    short, untimely = row("short", 1, 1), row("untimely", 3)
    lines = views.left(LeaveResult(5, 5, 1.0, placed, (short, untimely))).splitlines()
    assert lines[1] == "2 courses had enough copies elsewhere before."
    assert lines[2].startswith("These could not be placed")
    assert lines[3].endswith("short: 1 of 3 copies elsewhere, 1 more on a node that is away")
    assert lines[4].startswith("There was no time to have these copies shown")
    assert lines[5].endswith("untimely: 3 of 3 copies elsewhere")


def test_a_large_course_is_named_once_with_the_fewest_copies_of_its_parts() -> None:
    parts = tuple(
        {"course": "ab" * 32, "segment": at, "title": "large", "copies": copies, "copies_wanted": 3, "copies_away": 0}
        for at, copies in enumerate((2, 0, 3))
    )
    lines = views.left(LeaveResult(3, 5, 1.0, (), parts)).splitlines()
    assert lines[0] == "Handed over 0 of 3 courses and parts of large ones and stopped."
    assert sum("large:" in line for line in lines) == 1
    assert lines[-1].endswith("large: 0 of 3 copies elsewhere")
