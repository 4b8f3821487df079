"""Words for people: safe, aligned, and never more than fits."""

from __future__ import annotations

import dataclasses
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn import terminal, views
from p2plearn.commands.scope import Scope
from p2plearn.operations import GetResult, Progress, PublishResult, VerifyResult
from p2plearn.terminal import RareLines, cut, folder_name, plain, size, span, table, width

COURSE = "ab" * 32


@given(st.text())
def test_nothing_plain_can_move_a_cursor_or_turn_the_reading_direction(text: str) -> None:
    said = plain(text)
    assert len(said) <= len(text)
    for char in said:
        assert unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"}
        assert unicodedata.bidirectional(char) not in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_plain_leaves_honest_text_alone() -> None:
    for text in ("Größe", "课程", "مقدمة", "हिन्दी", "a b", "👩‍🏫"):
        assert plain(text) == text


@given(st.text())
def test_any_title_makes_a_folder_name_inside_the_folder(title: str) -> None:
    name = folder_name(title, COURSE)
    assert name not in {"", ".", ".."}
    assert not set(name) & set('/\\:*?"<>|\0')
    assert Path("/x", name).parent == Path("/x")
    assert len(name.encode("utf-8")) <= 255
    assert name == name.strip()
    assert not name.startswith(".")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Python für alle", "Python für alle"),
        ("课程 一", "课程 一"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\x", "C--x"),
        ("con", "course-abababababab"),
        ("NUL.txt", "course-abababababab"),
        ("...", "course-abababababab"),
        ("", "course-abababababab"),
        ("e\u0301", "\u00e9"),
        ("x" * 500, "x" * 120),
        ("课" * 100, "课" * 40),
    ],
)
def test_folder_names(title: str, name: str) -> None:
    assert folder_name(title, COURSE) == name


@given(st.text(), st.integers(1, 40))
def test_what_is_cut_fits(text: str, columns: int) -> None:
    assert width(cut(plain(text), columns)) <= columns


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**20 - 1, "1.0 MiB"), (2**50, "1024.0 TiB")],
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.42, "0.4 s"), (4, "4 s"), (9.99, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"),
        (7260, "2 h 1 min"), (190_800, "2 d 5 h"), (-1, "0 s"),
    ],
)  # fmt: skip
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_tables_are_aligned_for_wide_characters_too() -> None:
    lines = table(("A", "B"), [("课程", "1"), ("abc", "22"), ("e\u0301", "\x1b[31mx")], right=frozenset({1})).split(
        "\n"
    )
    assert len(lines) == 4
    assert {width(line) for line in lines} == {width(lines[0])}
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress("looking", waiting_for="providers"), ["waiting for providers"]),
        (
            Progress("fetching", 1024, 2048, 1, 3, rate=512, peers=2, eta=2.2),
            ["1.0 KiB of 2.0 KiB", "512 B/s", "2 s left", "2 peers", "1 of 3 files"],
        ),
        (
            Progress("fetching", 1024, 2048, rate=0, peers=1, waiting_for="a peer\x1b that answers"),
            ["1.0 KiB of 2.0 KiB", "waiting for a peer that answers", "1 peer"],
        ),
    ],
)
def test_a_progress_in_words(progress: Progress, said: list[str]) -> None:
    assert terminal.words(progress) == said


def test_lines_off_a_terminal_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = io.StringIO()
    with RareLines("Fetching", out) as lines:
        for _ in range(600):
            lines.show(Progress("fetching", 5, 10))
            now[0] += 0.1
    assert out.getvalue() == "Fetching: 5 B of 10 B\n" * 6


def test_what_publish_and_get_say() -> None:
    new = PublishResult(COURSE, "bafy", "T\x1b", 2048, 1, 2, 1, True, 3, 0.2, f"p2plearn:{COURSE}", ("odd\x07 name",))
    said = views.published(new)
    assert "Published T (version 3): 2.0 KiB in 1 file, 2 chunks" in said
    assert "Warning: odd name" in said
    assert "only copy" in said
    assert "store" not in said
    said = views.published(dataclasses.replace(new, copied_bytes=1024))
    assert "Copied into the store: 1.0 KiB; the rest is repeated in it, or was there." in said
    said = views.published(dataclasses.replace(new, new=False, copied_bytes=2048))
    assert "is published here already" in said
    assert "Copied into the store: 2.0 KiB." in said
    got = GetResult(COURSE, "T", "/x", 2048, 2, 1024, 2.0, 3, 1, ("a",), "/home/replaced")
    said = views.fetched(got)
    assert "Replaced a; your version is in /home/replaced" in said
    assert "1.0 KiB came from 3 providers in 2 s (512 B/s)" in said


def test_facts_of_a_newer_node_are_shown_and_missing_ones_are_not_missed() -> None:
    facts = {"schema": 1, "course": COURSE, "new_thing": {"inner": 3, "have_bytes": 1024}, "list": [], "created": 0}
    said = views.course(facts)
    assert "new thing inner" in said
    assert "1.0 KiB" in said
    assert "1970-01-01" in said
    assert views.course({}) == ""
    assert views.peers([{}])
    assert "50 %" in views.courses([{"course": COURSE, "title": "t", "bytes": 10, "have_bytes": 5, "complete": False}])


def test_who_keeps_a_course_is_said_in_words() -> None:
    where = [{"peer_id": "12D3A", "life": "this node", "since": 0}, {"peer_id": "12D3B", "life": "down"}]
    said = views.course({"where": where})
    assert "12D3A: this node, keeps it since 1970-01-01 00:00 UTC" in said
    assert "12D3B: down" in said
    assert "peer_id" not in said


def test_of_a_large_course_it_is_said_who_keeps_which_segments() -> None:
    where = [{"peer_id": "12D3A", "life": "alive", "segments": [0, 2]}, {"peer_id": "12D3B", "life": "gone",
             "segments": [1]}]  # fmt: skip
    segments = [{"segment": 0, "copies": 1, "copies_away": 0, "copies_wanted": 2}]
    said = views.course({"where": where, "segments": segments})
    assert "12D3A: alive, segments 0, 2" in said
    assert "12D3B: gone, segment 1" in said
    assert "0: 1 of 2" in said


def test_a_progress_is_a_line_of_json_only_when_it_is_news(capsys: pytest.CaptureFixture[str]) -> None:
    lines = terminal.JsonLines()
    paused = Progress("waiting", waiting_for="paused")
    for progress in (paused, dataclasses.replace(paused), Progress("fetching", 1, 2), paused):
        lines.show(progress)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["stage"] for one in said] == ["waiting", "fetching", "waiting"]


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_that_ends_a_pause_names_the_home(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr(terminal.RareLines, "_FIRST", -1.0)
    monkeypatch.setattr(terminal.RareLines, "_APART", -1.0)
    with Scope(home_option="/srv/p2p", as_json=as_json).display("Fetching") as shown:
        shown.show(Progress("fetching", waiting_for="paused (`p2plearn node resume` goes on)"))
        shown.show(Progress("fetching", waiting_for="a provider (it says `p2plearn node resume`)"))
    out, err = capsys.readouterr()
    first, second = (out if as_json else err).splitlines()
    assert "paused (`p2plearn --home /srv/p2p node resume` goes on)" in first
    assert "waiting for paused" not in first
    assert "--home" not in second  # what may have a peer's words in it stays as it is


def test_the_command_that_mends_a_folder_can_be_given_as_it_is_said() -> None:
    row = {"course": "8a" * 32, "title": "T", "bytes": 1, "providers": 1, "checkouts": ["/home/me/a b"]}
    result = VerifyResult(courses=1, bytes=1, seconds=1.0, damaged=(), repaired=(row,), left=())
    assert f"  p2plearn get {'8a' * 32} -o '/home/me/a b'" in views.verify_advice(result, repair=True).splitlines()
