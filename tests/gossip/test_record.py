"""A record that is lost or damaged is begun anew with everything that this person said and chose in it."""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest

from p2plearn.gossip import envelope as env
from p2plearn.gossip.envelope import CATALOGUE
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.record import open_record
from tests.gossip.people import COURSE, NOW, person, question

FEEDS = (CATALOGUE, COURSE)
ME = person("me")
OTHERS = [person(f"other {number % 7}").says(question(), time=NOW + number).raw for number in range(150)]


def say(feed: Feed, body: env.Body) -> env.Envelope:
    return feed.write(ME.key, ME.private.sign, body, COURSE, NOW)


def choices(feed: Feed) -> list[list[tuple[object, ...]]]:
    with feed.reading() as db:
        names = ("following", "trusted", "shunned", "subscriptions")
        return [db.execute(f"SELECT * FROM {name}").fetchall() for name in names]


def mine(feed: Feed) -> set[bytes]:
    with feed.reading() as db:
        return {row[0] for row in db.execute("SELECT raw FROM envelopes WHERE author = ?", (ME.key,))}


def everything(feed: Feed) -> list[tuple[int, bytes]]:
    return [feed.digest(each) for each in FEEDS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record in which much was said."""
    path = tmp_path / "people.sqlite"
    with open_record(path, ME.key) as (feed, words):
        assert words == ""
        feed.take(OTHERS, FEEDS, NOW + 300)
        say(feed, env.Rating("fine", 4))
        say(feed, env.Rating("better", 5))
        gone = say(feed, question())
        say(feed, env.Withdraw(gone.id, None))
        say(feed, question())
        with feed.writing() as db:
            db.execute("INSERT INTO trusted VALUES (?, 1, 5)", (person("ada").key,))
            db.execute("INSERT INTO trusted VALUES (?, 0, 6)", (person("bob").key,))
            db.execute("DELETE FROM trusted WHERE since = 6")
            db.execute("INSERT INTO shunned VALUES (?, 'author', 'block', 'spam', 7)", (person("eve").key,))
            db.execute("INSERT INTO following VALUES (?, 8)", (COURSE,))
            db.execute("INSERT INTO subscriptions VALUES (?, 9)", (person("mod").key,))
    return path


def harm(path: Path, how: str) -> None:
    match how:
        case "deleted":
            path.unlink()
        case "cut short":
            os.truncate(path, path.stat().st_size // 2)
        case "overwritten":
            path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
        case "torn":
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 2 // 4096 * 4096)
                file.write(bytes(8192))
            path.with_name("people.seal").unlink()  # as after a crash
        case "flipped":
            raw = bytearray(path.read_bytes())
            raw[len(raw) // 3] ^= 2
            path.write_bytes(raw)


@pytest.mark.parametrize("how", ["deleted", "cut short", "overwritten", "torn", "flipped"])
def test_what_this_person_said_and_chose_is_there_whatever_becomes_of_the_file(path: Path, how: str) -> None:
    with open_record(path, ME.key) as (feed, words):
        assert words == ""
        before, said, chosen, count = everything(feed), mine(feed), choices(feed), len(feed.keys(COURSE))
    assert len(said) == 3
    harm(path, how)
    with open_record(path, ME.key) as (feed, words):
        assert "begun anew with the" in words
        assert mine(feed) == said
        assert choices(feed) == chosen
        if how == "flipped":  # one bit harms one message at most
            assert len(feed.keys(COURSE)) >= count - 1
        # Peers bring the rest, as an exchange would.
        feed.take(OTHERS, FEEDS, NOW + 300)
        assert everything(feed) == before
    aside = [one for one in path.parent.iterdir() if ".damaged-" in one.name]
    assert bool(aside) == (how != "deleted")
    with open_record(path, ME.key) as (feed, words):
        assert (words, mine(feed), choices(feed)) == ("", said, chosen)


def hidings(feed: Feed) -> list[tuple[str, bytes, bytes, str]]:
    with feed.reading() as db:
        return db.execute("SELECT action, subject, author, reason FROM hidings ORDER BY number").fetchall()


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_the_log_names_what_is_still_blocked(path: Path, how: str) -> None:
    harm(path, how)
    with open_record(path, ME.key) as (feed, words):
        assert hidings(feed) == [
            ("block", person("eve").key, ME.key, "spam"), ("subscribe", person("mod").key, ME.key, "")
        ]  # fmt: skip
        assert "blocks, mutes, trusts" not in words


@pytest.mark.parametrize("notes", ["rotten", "deleted"])
def test_it_is_said_that_blocks_are_lost_when_the_notes_are_lost_too(path: Path, notes: str) -> None:
    harm(path, "overwritten")
    if notes == "rotten":
        path.with_name("people.notes").write_bytes(random.Random(2).randbytes(3000))
    else:
        path.with_name("people.notes").unlink()
    with open_record(path, ME.key) as (feed, words):
        assert "blocks, mutes, trusts and follows may be lost" in words
        assert choices(feed) == [[], [], [], []]


def test_a_damaged_line_of_the_notes_is_made_up_for_by_the_record(path: Path) -> None:
    notes = path.with_name("people.notes")
    lines = notes.read_bytes().splitlines(keepends=True)
    with open_record(path, ME.key) as (feed, _):
        chosen = choices(feed)
    notes.write_bytes(b"".join(b"0" * 16 + line[16:] if b'"shunned"' in line else line for line in lines))
    harm(path, "flipped")
    with open_record(path, ME.key) as (feed, words):
        assert choices(feed) == chosen
        assert "may be lost" in words


def test_what_was_taken_back_is_in_no_file(path: Path) -> None:
    with open_record(path, ME.key) as (feed, _):
        secret = say(feed, env.Post(role="comment", text="to be taken back", path="", reply=None))
        assert b"to be taken back".hex().encode() in path.with_name("people.notes").read_bytes()
        say(feed, env.Withdraw(secret.id, None))
        for file in path.parent.iterdir():
            assert b"to be taken back" not in file.read_bytes()
            assert b"to be taken back".hex().encode() not in file.read_bytes()


def test_an_older_record_without_notes_is_salvaged(path: Path) -> None:
    with open_record(path, ME.key) as (feed, _):
        said, chosen = mine(feed), choices(feed)
    path.with_name("people.notes").unlink()
    path.with_name("people.seal").unlink()
    with sqlite3.connect(path) as db:  # an index that lacks a row: found by the check after an unclean end
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'time, id', 'id, time') WHERE name = 'envelopes_feed'")
    db.close()
    with open_record(path, ME.key) as (feed, words):
        assert "begun anew" in words
        assert (mine(feed), choices(feed)) == (said, chosen)
