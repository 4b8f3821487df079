"""The record: idempotent, the same whatever the order, bounded, forgetful where it must be, and searchable."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.course.manifest import Series
from p2plearn.errors import Refused, StoreProblem, UsageProblem
from p2plearn.gossip import envelope as env
from p2plearn.gossip import feed as feed_module
from p2plearn.gossip import tables, words
from p2plearn.gossip.admission import HASTY_SECONDS, Taken
from p2plearn.gossip.envelope import CATALOGUE, ENTRY_SECONDS, FUTURE_SECONDS, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.reading import Reading
from p2plearn.people import SearchRequest
from tests.gossip.people import COURSE, NOW, person, question, reply

FEEDS = (CATALOGUE, COURSE)
ME = person("me")


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    feed = Feed(tmp_path / "people.sqlite")
    yield feed
    feed.close()


@pytest.fixture
def reading(feed: Feed) -> Reading:
    return Reading(feed, ME.key, lambda _: None)


def put(feed: Feed, *said: Envelope, now: float = NOW + 1000) -> Taken:
    return feed.take([one.raw for one in said], FEEDS, now)


def trust(feed: Feed, *authors: bytes) -> None:
    with feed.writing() as db:
        db.executemany("INSERT INTO trusted VALUES (?, 0, 0)", [(author,) for author in authors])


def test_putting_in_twice_is_as_once(feed: Feed) -> None:
    asked = person("ada").says(question())
    assert len(put(feed, asked, asked).new) == 1
    again = put(feed, asked)
    assert (again.new, again.dropped) == ([], {"known": 1})
    assert feed.digest(COURSE)[0] == 1


def test_what_is_written_is_numbered_and_survives(feed: Feed, tmp_path: Path) -> None:
    ada = person("ada")
    one = feed.write(ada.key, ada.private.sign, env.Rating("", 4), COURSE, NOW)
    two = feed.write(ada.key, ada.private.sign, env.Rating("", 5), COURSE, NOW - 3600)  # a clock set back
    assert two.content.seq == one.content.seq + 1
    feed.close()
    again = Feed(tmp_path / "people.sqlite")
    assert again.raws([one.id, two.id], FEEDS, 10_000) == [b"", two.raw]
    again.close()


def test_from_the_future_wrong_feed_and_blocked(feed: Feed) -> None:
    late = person("ada").says(question(), time=NOW + FUTURE_SECONDS + 1)
    taken = feed.take([late.raw], FEEDS, NOW)
    assert (taken.dropped["early"], taken.faults) == (1, [])
    assert feed.take([late.raw], FEEDS, NOW).dropped["waiting"] == 1  # not looked at again before
    assert feed.lacking([late.id]) == []
    feed.ripen(NOW + 2)
    assert feed.lacking([late.id]) == [late.id]
    assert feed.take([late.raw], FEEDS, NOW + 2).new  # its time came
    other = person("ada").says(question(), hashlib.sha256(b"elsewhere").digest())
    assert put(feed, other).dropped["elsewhere"] == 1
    assert feed.take([person("eve").says(question("x")).raw], FEEDS, NOW + 1, lambda _: True).dropped["blocked"] == 1
    assert feed.digest(COURSE)[0] == 1


def test_who_says_too_much_at_a_time_is_heard_later_and_nobody_pays_for_it(feed: Feed) -> None:
    said = [person("eve").says(question(f"{n}")) for n in range(5)]
    tokens = iter([True, True, False, False, False])
    taken = feed.take([one.raw for one in said], FEEDS, NOW, admit=lambda _: next(tokens))
    assert (len(taken.new), taken.dropped["hasty"], taken.faults) == (2, 3, [])
    assert feed.lacking([one.id for one in said]) == []
    feed.ripen(NOW + HASTY_SECONDS)
    assert len(feed.lacking([one.id for one in said])) == 3
    # An author's bucket is asked only once the signature was found good: nobody else empties it.
    asked: list[bytes] = []
    forged = bytes(64) + person("ada").says(question("not mine")).raw[64:]
    taken = feed.take([forged], FEEDS, NOW, admit=lambda content: bool(asked.append(content.author)) or True)
    assert (len(taken.faults), asked) == (1, [])


def test_a_withdrawn_text_is_gone_from_the_disk_and_does_not_come_back(feed: Feed, tmp_path: Path) -> None:
    ada = person("ada")
    secret = "my telephone number is 555-0199"
    asked = ada.says(question(secret))
    edited = ada.says(env.Edit(asked.id, secret + " or 555-0198"))
    bystander = person("bob").says(env.Withdraw(asked.id, None))
    put(feed, asked, edited, bystander)
    assert feed.digest(COURSE)[0] == 3  # somebody else's withdrawal changes nothing
    put(feed, ada.says(env.Withdraw(asked.id, None)))
    assert put(feed, asked, edited).dropped["stale"] == 2
    for file in tmp_path.iterdir():
        assert b"555-01" not in file.read_bytes(), file


def test_two_things_under_one_number_are_kept_as_evidence_and_shown(feed: Feed, reading: Reading) -> None:
    eve = person("eve")
    put(feed, eve.says(question("one"), seq=900), eve.says(question("another"), seq=900))
    assert feed.digest(COURSE)[0] == 2
    assert reading.people([eve.key, ME.key])[eve.key]["two_faced"] is True
    with feed.reading() as db:
        (row,) = db.execute("SELECT one, other FROM evidence").fetchall()
    assert {env.open_envelope(raw).content.seq for raw in row} == {900}
    # Also when both want the same place, of which only one can have it.
    put(feed, eve.says(env.Rating("", 5), seq=901), eve.says(env.Rating("", 1), seq=901))
    with feed.reading() as db:
        assert db.execute("SELECT count(*) FROM evidence").fetchone() == (2,)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_does_not_depend_on_the_order(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    said = [person(f"{n % 3}").says(env.Rating("", n % 6), seq=1 + rng.randrange(4)) for n in range(20)]
    said += [person(f"{n % 3}").says(env.Profile("", f"name {n}"), seq=1 + rng.randrange(9)) for n in range(9)]
    digests = set()
    for n in range(3):
        rng.shuffle(said)
        feed = Feed(tmp_path / f"{n}.sqlite")
        put(feed, *said)
        digests.add(feed.digest(CATALOGUE))
        feed.close()
    assert len(digests) == 1


def test_of_each_author_the_newest_are_kept(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_PER_AUTHOR", 10)
    flood = [person("eve").says(question(f"{n}"), time=NOW + n) for n in range(30)]
    honest = person("ada").says(question("honest"), time=NOW - 500)
    put(feed, honest, *reversed(flood))
    kept = {key[8:] for key in feed.keys(COURSE)}
    assert kept == {honest.id} | {one.id for one in flood[-10:]}


def test_over_its_budget_strangers_and_old_things_go_first(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "small.sqlite", course_budget=100)
    feed.spare(lambda: {person("ada").key})
    old = person("ada").says(question("old but trusted"), time=NOW - 9000)
    put(feed, old)
    flood = [person(f"sybil {n}").says(question(f"{n}"), time=NOW + n) for n in range(300)]
    put(feed, *flood)
    count, _ = feed.digest(COURSE)
    assert count <= 100
    kept = {key[8:] for key in feed.keys(COURSE)}
    assert old.id in kept
    assert flood[-1].id in kept
    assert flood[0].id not in kept
    assert put(feed, flood[0]).new == []  # and isn't taken in again
    feed.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "people.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreProblem, match="99"):
        Feed(tmp_path / "people.sqlite")


# -- search -----------------------------------------------------------------------------------------------------------


def titles(reading: Reading, words_: str = "", **more: object) -> list[str]:
    return [row["title"] for row in reading.search(SearchRequest(words_, **more))]  # type: ignore[arg-type]


def test_search_finds_words_in_any_script(feed: Feed, reading: Reading) -> None:
    ada = person("ada")
    put(
        feed,
        ada.announces(ada.course("分布式系统入门", language="zh-Hans", tags=("系统",))),
        ada.announces(ada.course("Programming in Python", description="Loops, functions")),
        ada.announces(ada.course("Café crème", language="fr")),
        ada.announces(ada.course("機械学習とPython", language="ja")),
        ada.announces(ada.course("बीजगणित", language="hi")),
        ada.announces(ada.course("데이터베이스", language="ko")),
    )
    assert titles(reading, "分布式") == titles(reading, "分布") == titles(reading, "统入") == ["分布式系统入门"]
    assert titles(reading, "布") == ["分布式系统入门"]
    assert titles(reading, "布分") == []
    assert sorted(titles(reading, "python")) == ["Programming in Python", "機械学習とPython"]
    assert titles(reading, "PYTH loops") == ["Programming in Python"]
    assert titles(reading, "学習") == ["機械学習とPython"]
    assert titles(reading, "cafe creme") == ["Café crème"]
    assert titles(reading, "बीज") == ["बीजगणित"]
    assert titles(reading, "데이터") == ["데이터베이스"]
    assert titles(reading, tags=("系统",)) == ["分布式系统入门"]
    assert titles(reading, language="zh") == ["分布式系统入门"]
    assert titles(reading, "python", language="ja") == ["機械学習とPython"]
    assert titles(reading, author=ada.key.hex()[:10], language="fr") == ["Café crème"]
    assert titles(reading, author="nobody") == []
    assert len(titles(reading)) == 6
    for odd in ('"', "AND OR NOT", "NEAR(", "*", "title:x", "a" * 5000, "'; DROP TABLE entries"):
        titles(reading, odd)
    with pytest.raises(UsageProblem):
        titles(reading, order="random")


@given(st.text(max_size=60))
def test_any_text_finds_itself(text: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE search USING fts5 (body, tokenize = 'ascii')")
    db.execute("INSERT INTO search VALUES (?)", (words.index_tokens(text),))
    expression = words.match(text)
    if expression:
        assert db.execute("SELECT count(*) FROM search WHERE search MATCH ?", (expression,)).fetchone() == (1,)
    db.close()


def test_only_the_newest_version_is_found_and_ratings_go_with_it(feed: Feed, reading: Reading) -> None:
    ada, bob = person("ada"), person("bob")
    first = ada.course("Loops")
    second = ada.course("Loops", created=NOW + 9, series=Series("Loops", 2, first.course))
    put(
        feed, ada.announces(first), ada.announces(second), bob.says(env.Rating("old", 2), first.course),
        person("cleo").says(env.Rating("fine", 5), second.course),
    )  # fmt: skip
    (row,) = reading.search(SearchRequest("loops"))
    assert (row["course"], row["version"]) == (second.course.hex(), 2)
    for course in (first.course, second.course):
        facts = reading.ratings(course)
        assert facts["everyone"]["mean"] == 3.5
        assert {(one["stars"], one["version"]) for one in facts["reviews"]} == {(2, 1), (5, 2)}
    put(feed, bob.says(env.Rating("", 4), second.course))  # one vote an author, whatever the version
    assert reading.ratings(first.course)["everyone"]["histogram"] == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 1}


def test_an_entry_is_forgotten_unless_renewed(feed: Feed, reading: Reading) -> None:
    ada, bob = person("ada"), person("bob")
    kept, lost = ada.course("Kept"), ada.course("Lost")
    put(feed, ada.announces(kept, time=NOW), ada.announces(lost, time=NOW))
    put(feed, bob.announces(kept, copies=7, time=NOW + 1000))
    assert feed.sweep(NOW + ENTRY_SECONDS) == 1
    assert [(row["title"], row["copies"]) for row in reading.search(SearchRequest())] == [("Kept", 7)]
    assert [row["copies_at"] for row in reading.search(SearchRequest())] == [NOW + 1000]
    assert put(feed, ada.announces(lost, time=NOW - 5), now=NOW + ENTRY_SECONDS).new == []


def test_of_two_entries_of_one_second_the_last_said_stands(feed: Feed, reading: Reading) -> None:
    ada = person("ada")
    course = ada.course("Kept")
    for copies in (1, 3, 2, 5, 4):
        entry = env.Entry(copies, course.raw, course.signature)
        feed.write(ada.key, ada.private.sign, entry, course.course, NOW)
        assert [row["copies"] for row in reading.search(SearchRequest())] == [copies]
    said = feed.keys(CATALOGUE)
    assert len(said) == 1
    assert int.from_bytes(said[0][:8], "big") == NOW + 4


def test_an_entry_from_a_clock_far_ahead_stands(feed: Feed) -> None:
    ada, bob = person("ada"), person("bob")
    course = ada.course("Kept")
    put(feed, bob.announces(course, time=NOW + FUTURE_SECONDS), now=NOW)
    with pytest.raises(Refused):
        feed.write(ada.key, ada.private.sign, env.Entry(3, course.raw, course.signature), course.course, NOW)


# -- named adversaries ------------------------------------------------------------------------------------------------


def test_the_stranger_who_moderates(feed: Feed, reading: Reading) -> None:
    ada, eve = person("ada"), person("eve")
    course = ada.course("Loops")
    asked = person("bob").says(question(), course.course)
    feed.take([ada.announces(course).raw, asked.raw], (CATALOGUE, course.course), NOW)
    hide = eve.says(env.Moderate("hide", asked.id, "because"), course.course)
    feed.take([hide.raw], (CATALOGUE, course.course), NOW)
    assert [one["hidden"] for one in reading.discussion(course.course, "new", 10)] == [""]


def test_threads_hang_together_when_a_post_in_the_middle_is_withdrawn(feed: Feed, reading: Reading) -> None:
    ada, bob = person("ada"), person("bob")
    asked = ada.says(question())
    answered = bob.says(reply(asked), time=NOW + 1)
    thanks = ada.says(reply(answered, "Thanks", "comment"), time=NOW + 2)
    put(feed, asked, answered, thanks, bob.says(env.Withdraw(answered.id, asked.id), time=NOW + 3))
    (thread,) = reading.discussion(COURSE, "new", 10)
    (middle,) = thread["replies"]
    assert (middle["hidden"], middle["text"], middle["replies"][0]["text"]) == ("withdrawn", "", "Thanks")


def test_an_empty_place_is_left_where_nobody_had_answered(feed: Feed, reading: Reading) -> None:
    ada, bob = person("ada"), person("bob")
    asked = ada.says(question())
    answered = bob.says(reply(asked, "Wrong"), time=NOW + 1)
    lonely = bob.says(question("Alone"), time=NOW + 2)
    put(feed, asked, answered, lonely)
    put(feed, bob.says(env.Withdraw(answered.id, asked.id)), bob.says(env.Withdraw(lonely.id, None), time=NOW + 3))
    first, second = reading.discussion(COURSE, "new", 10)
    assert (first["id"], first["hidden"], first["text"]) == (lonely.id.hex(), "withdrawn", "")
    assert [(one["hidden"], one["text"]) for one in second["replies"]] == [("withdrawn", "")]


# -- moderation -------------------------------------------------------------------------------------------------------


def heed(feed: Feed, *moderators: bytes) -> None:
    with feed.writing() as db:
        db.executemany("INSERT INTO subscriptions VALUES (?, 0)", [(one,) for one in moderators])


def test_warnings_are_shown_with_reason_and_by_whom_if_one_heeds_them(feed: Feed, reading: Reading) -> None:
    ada, school, stranger = person("ada"), person("school"), person("stranger")
    course = ada.course("Loops")
    put(
        feed, ada.announces(course), school.says(env.Profile("", "The school")),
        school.says(env.Label("warn", "out of date", course.course, "course")),
        school.says(env.Label("warn", "often wrong", ada.key, "author")),
        stranger.says(env.Label("warn", "I say so", course.course, "course")),
    )  # fmt: skip
    assert reading.search(SearchRequest("loops"))[0]["warnings"] == []
    heed(feed, school.key)
    (row,) = reading.search(SearchRequest("loops"))
    assert [(one["reason"], one["by"], one["by_name"]) for one in row["warnings"]] == [
        ("out of date", school.key.hex(), "The school")
    ]
    assert [one["reason"] for one in row["author_warnings"]] == ["often wrong"]
    assert [one["reason"] for one in reading.people([ada.key])[ada.key]["warnings"]] == ["often wrong"]
    asked = ada.says(question(), course.course)
    feed.take([asked.raw], (course.course,), NOW)
    (thread,) = reading.discussion(course.course, "new", 5)
    assert thread["warnings"][0]["reason"] == "often wrong"
    assert course.course not in reading.denied()  # a warning hides nothing
    put(feed, school.says(env.Label("clear", "", course.course, "course")))
    assert reading.search(SearchRequest("loops"))[0]["warnings"] == []


def test_the_log_tells_what_was_hidden_by_whom_and_why(feed: Feed, reading: Reading) -> None:
    ada, bob, school, stranger = person("ada"), person("bob"), person("school"), person("stranger")
    course = ada.course("Loops")
    heed(feed, school.key)
    put(feed, ada.announces(course), school.says(env.Label("deny", "spam", bob.key, "author")),
        stranger.says(env.Label("deny", "envy", ada.key, "author")))  # fmt: skip
    asked = bob.says(question(), course.course)
    feeds = (CATALOGUE, course.course)
    hide = ada.says(env.Moderate("hide", asked.id, "off topic"), course.course, time=NOW + 1)
    show = ada.says(env.Moderate("clear", asked.id, ""), course.course, time=NOW + 2)
    envy = stranger.says(env.Moderate("hide", asked.id, "envy"), course.course)
    for one in (asked, hide, show, envy):
        feed.take([one.raw], feeds, NOW + 5)
    assert [(row["action"], row["target"], row["subject"], row["by"], row["reason"]) for row in reading.hidings(9)] == [
        ("clear", "post", asked.id.hex(), ada.key.hex(), ""),
        ("hide", "post", asked.id.hex(), ada.key.hex(), "off topic"),
        ("deny", "author", bob.key.hex(), school.key.hex(), "spam"),
    ]


def test_the_log_is_bounded(feed: Feed, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_HIDINGS", 10)
    with feed.writing() as db:
        for n in range(25):
            tables.log_hiding(db, tables.Hiding(NOW + n, "mute", "author", bytes(32), ME.key, f"{n}"))
    assert [row["reason"] for row in reading.hidings(100)] == [str(n) for n in range(24, 14, -1)]


def test_what_goes_over_a_budget_is_gone_from_the_disk(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "small.sqlite", course_budget=50)
    put(feed, *(person(f"p{n}").says(question(f"ancient words {n:03}"), time=NOW + n) for n in range(80)))
    feed.sweep(NOW)
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    kept = feed.digest(COURSE)[0]
    assert kept <= 50
    assert b"ancient words 000" not in left
    assert b"ancient words 079" in left
    feed.close()
