"""Ratings, questions and the catalogue between real nodes in processes of their own, as people would use them."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2plearn import people
from p2plearn.client import NodeClient
from p2plearn.web.people import CALLS
from tests.nodes import RealNode, run_command
from tests.travel.course_folders import made_file, odd_folder

Facts = dict[str, Any]

pytestmark = pytest.mark.timeout(600)
"""Each test runs some fifty commands, a process each, beside real nodes: minutes on a machine that is busy."""


def until(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What ``what`` answers, once it is true."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.2)
    return answer


def search(node: RealNode, words: str) -> Any:
    """``p2plearn search``, without a process for each time that is looked."""
    return NodeClient(node.home.path).people("search", people.SearchRequest(words))["courses"]


def ratings(node: RealNode, course: str) -> Facts:
    return NodeClient(node.home.path).people("ratings", people.RatingsRequest(course))


def discussion(node: RealNode, course: str) -> Facts:
    return NodeClient(node.home.path).people("discussion", people.DiscussionRequest(course))


def author(node: RealNode) -> str:
    return str(node.run("node", "status")["author"])


def test_a_private_course_stays_private_until_it_is_said_otherwise(tmp_path: Path) -> None:
    exam, lecture = made_file(tmp_path / "exam.bin", 1000), made_file(tmp_path / "lecture.bin", 1000)

    def listed() -> set[str]:
        return {row["course"] for row in node.run("search", "twilight")["courses"]}

    with RealNode(tmp_path / "a") as node:
        first = node.run("publish", exam, "--title", "Exam twilight", "--private")
        open_one = node.run("publish", lecture, "--title", "Lecture twilight")
        assert (first["private"], open_one["private"]) == (True, False)
        again = node.run("publish", exam, "--title", "Exam twilight")  # the very same, and no word of it
        assert (again["new"], again["private"]) == (False, True)
        for path in (exam, lecture):
            path.write_bytes(path.read_bytes()[::-1])
        second = node.run("publish", exam, "--title", "Exam twilight")
        assert (second["version"], second["private"]) == (2, True)
        newer = node.run("publish", lecture, "--title", "Lecture twilight")
        assert (newer["version"], newer["private"]) == (2, False)
        assert not listed() & {first["course"], second["course"]}
        assert newer["course"] in listed()
        assert node.run("publish", exam, "--title", "Exam twilight", "--public")["private"] is False
        assert second["course"] in listed()
        exam.write_bytes(b"a third")
        assert node.run("publish", exam, "--title", "Exam twilight")["private"] is False


def test_a_course_has_people(tmp_path: Path) -> None:
    with (
        RealNode(tmp_path / "c") as c,
        RealNode(tmp_path / "a", bootstrap=[c.address]) as a,
        RealNode(tmp_path / "b", bootstrap=[c.address]) as b,
    ):
        course = a.run(
            "publish", odd_folder(tmp_path / "odd"), "--title", "分布式系统入门", "--tag", "systems",
            "--language", "zh-Hans", "--description", "From one node to many",
        )["course"]  # fmt: skip
        secret = a.run("publish", made_file(tmp_path / "exam.bin", 100), "--title", "Exam systems", "--private")[
            "course"
        ]

        def finds(*words: str) -> Any:
            return b.run("search", *words)["courses"]

        until(lambda: search(b, "分布式"))
        (found,) = finds("分布式")
        assert (found["course"], found["title"], found["author"]) == (course, "分布式系统入门", author(a))
        assert found["copies"] >= 1
        assert found["ratings"]["everyone"]["count"] == 0
        for words in (
            ["分布"],
            ["系统入门"],
            ["node"],
            ["--tag", "systems"],
            ["--language", "zh"],
            ["--author", author(a)],
        ):
            assert [row["course"] for row in finds(*words)] == [course], words
        for words in (["布分"], ["--tag", "other"], ["exam"], ["--language", "en"], ["--author", author(b)]):
            assert finds(*words) == [], words
        assert secret not in str(finds())

        a.run("profile", "--name", " ", code=2)
        # What is said of a file is said of one that the course has, where its index is here to tell.
        typo = a.run("ask", course, "What is it?", "--file", "no/such.md", code=2)
        assert "no/such.md" in typo["message"]

        # Ratings reach everybody, whether they have the course or not; the latest counts.
        b.run("rate", course, "2", "--review", "Too short\x1b[31m")
        b.run("rate", course, "4", "--review", "Better now")
        until(lambda: ratings(a, course)["everyone"]["mean"] == 4)
        rated = a.run("ratings", course)
        assert rated["everyone"]["count"] == 1
        assert rated["everyone"]["histogram"] == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 0}
        assert rated["trusted"]["count"] == 0
        assert rated["trusted"]["mean"] is None
        assert [review["review"] for review in rated["reviews"]] == ["Better now"]
        a.run("trust", "add", author(b))
        assert a.run("ratings", course)["trusted"]["mean"] == 4
        # Two hops: c trusts a, who trusts b.
        c.run("trust", "add", author(a))
        trusted = until(lambda: (r := ratings(c, course)["trusted"])["count"] and r)
        assert trusted["histogram"]["4"] == 1
        assert [row["weight"] for row in c.run("trust", "list")["vouched"]] == [0.5]
        a.run("trust", "remove", author(b))
        until(lambda: ratings(c, course)["trusted"]["count"] == 0)

        # A question, its answers, the accepted one, an edit; between nodes that never heard of the course before.
        b.run("profile", "--name", "王芳", "--about", "asks a lot")
        asked = b.run("ask", course, "Why two phases?", "--file", "README.md")["id"]
        until(lambda: discussion(a, course)["threads"])
        (thread,) = a.run("discussion", course)["threads"]
        assert (thread["id"], thread["text"], thread["file"], thread["author"]) == (
            asked, "Why two phases?", "README.md", author(b),
        )  # fmt: skip
        until(lambda: discussion(a, course)["threads"][0]["name"] == "王芳")
        b.run("comment", "ab" * 32, "To whom?", code=2)
        answered = a.run("answer", asked[:12], "So that nobody is left half way.")["id"]
        comment = until(lambda: _try(b, "comment", answered, "Thank you!"))
        b.run("accept", answered)
        b.run("edit", asked, "Why are there two phases?")

        def seen_by(node: RealNode) -> Any:
            (thread,) = discussion(node, course)["threads"]
            (reply,) = thread["replies"]
            return thread["text"], reply["accepted"], [one["text"] for one in reply["replies"]]

        until(lambda: seen_by(a) == ("Why are there two phases?", True, ["Thank you!"]))
        b.run("withdraw", comment["id"])
        until(lambda: seen_by(a) == ("Why are there two phases?", True, [""]))  # its place stays
        assert b"Thank you!" not in (a.home.path / "people.sqlite").read_bytes()

        # Only the right person may.
        a.run("edit", asked, "mine", code=8)
        b.run("moderate", answered, "hide", code=8)
        a.run("moderate", asked, "hide", "--reason", "asked before")
        until(lambda: discussion(b, course)["threads"][0]["hidden"] == "asked before")

        # Live, for who waits for it.
        with b.begin("discussion", course, "--follow") as following, ended(following):
            assert following.stdout is not None
            assert json.loads(following.stdout.readline())["course"] == course
            a.run("comment", asked, "Hot from the press")
            line = json.loads(following.stdout.readline())
            assert (line["event"], line["text"]) == ("post", "Hot from the press")
            following.send_signal(signal.SIGINT)
            following.communicate()
            assert following.returncode == 130

        # Both ends hold the same.
        until(lambda: len({discussion(n, course)["digest"] for n in (a, b, c)}) == 1)
        until(lambda: len({n.run("node", "status")["people"]["digest"] for n in (a, b, c)}) == 1)
        for node in (a, b, c):
            dropped = node.run("node", "status")["people"]["dropped"]
            assert {name for name, number in dropped.items() if number} <= {"known", "stale", "waiting"}
        client = NodeClient(b.home.path)
        bodies: dict[str, Any] = {
            "ratings": people.RatingsRequest(course), "search": people.SearchRequest("系统"),
            "discussion": people.DiscussionRequest(course), "trust_list": people.TrustListRequest(),
            "profile": people.ProfileRequest(), "shunned": people.ShunnedRequest(),
            "trust": people.TrustRequest(author(a), private=True),
            "rate": people.RateRequest(course, 0), "post": people.PostRequest("comment", "Bye", course=course),
        }  # fmt: skip
        for row in CALLS:
            if row.name in bodies:
                assert set(row.answer) <= set(client.people(row.name, bodies[row.name])), row.name
        assert client.people("ratings", bodies["ratings"])["everyone"]["count"] == 0
        for args in (["ratings", course], ["search"], ["discussion", course], ["trust", "list"], ["profile"]):
            shown = run_command(*args, home=b.home.path)
            assert (shown.code, shown.stderr, "\x1b" in shown.stdout) == (0, "", False)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Killed when the test fails, or else the test would wait for it."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def _try(node: RealNode, *arguments: str) -> Facts | None:
    ran = run_command(*arguments, "--json", home=node.home.path)
    return ran.last if ran.code == 0 else None


def test_who_was_away_catches_up(tmp_path: Path) -> None:
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        b.wait_until("peers", 1)
        course = a.run("publish", made_file(tmp_path / "x.bin", 1000), "--title", "Loops")["course"]
        until(lambda: search(b, "loops"))
        asked = b.run("ask", course, "What did I miss?")["id"]
        until(lambda: discussion(a, course)["threads"])
        b.stop()
        for n in range(5):
            a.run("comment", asked, f"news {n}")
        a.run("rate", course, "5")
        a.stop()
        # What was said while nobody listened is told when both are there again, whoever calls whom.
        with RealNode(tmp_path / "b") as b2, RealNode(tmp_path / "a", bootstrap=[b2.address]) as a2:
            until(lambda: len(discussion(b2, course)["threads"][0]["replies"]) == 5)
            until(lambda: ratings(b2, course)["everyone"]["count"] == 1)
            until(lambda: discussion(a2, course)["digest"] == discussion(b2, course)["digest"])


def test_blocked_is_neither_fetched_nor_served_nor_shown(tmp_path: Path) -> None:
    gives = {"P2PLEARN_STORAGE_GIVE": "10 MiB"}
    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address], env=gives) as b:
        course = a.run("publish", made_file(tmp_path / "x.bin", 1000), "--title", "Spam", "--copies", "1")["course"]
        until(lambda: search(b, "spam"))
        b.run("block", course, "--reason", "advertising")
        problem = b.run("get", course, "-o", tmp_path / "out", code=8)
        assert "advertising" in problem["message"]
        assert b.run("search", "spam")["courses"] == []
        assert [row["reason"] for row in b.run("block", "--list")["shunned"]] == ["advertising"]
        b.run("block", course, "--remove", "--course")
        b.run("get", course, "-o", tmp_path / "out")
        # Nor kept for others: what was is given up and counts no longer; what was fetched stays with who fetched it.
        kept = a.run("publish", made_file(tmp_path / "z.bin", 1000, "z"), "--copies", "2")
        assert kept["copies"] == 2
        b.run("block", author(a), "--author")
        until(lambda: [row["course"] for row in b.run("list")["courses"]] == [course])
        until(lambda: a.run("info", kept["course"])["copies"] == 1)
        # Nobody would get what is said of it from here.
        assert b.run("ask", course, "Is it back?", code=8)["code"] == "refused"
        assert b.run("rate", course, "1", code=8)["code"] == "refused"
        other = a.run("publish", made_file(tmp_path / "y.bin", 1000, "y"), "--copies", "2")
        assert other["copies"] == 1
        # What it said is gone from the record, and still it can be named.
        b.run("block", author(a)[:12], "--remove")
        assert b.run("block", "--list")["shunned"] == []
        # The publisher blocks it: others can't have it from there.
        a.run("block", course)
        b.stop()
        with RealNode(tmp_path / "d", bootstrap=[a.address]) as d:
            assert run_command("get", course, "--timeout", "3", home=d.home.path, cwd=tmp_path).code in (4, 5)
        b.start()
        # A moderator's list, heeded by who subscribes to it.
        b.run("label", course, "deny", "--course", "--reason", "not for children")
        with RealNode(tmp_path / "e", bootstrap=[b.address]) as e:
            until(lambda: _try(e, "subscribe", author(b)))
            until(lambda: e.run("block", "--list")["shunned"])
            logged = {(row["action"], row["subject"], row["by"]) for row in e.run("hidden")["hidden"]}
            assert ("deny", course, author(b)) in logged
            problem = e.run("get", course, "-o", tmp_path / "e-out", code=8)
            assert "not for children" in problem["message"]


def posts_in(node: RealNode) -> int:
    """How many posts its record has; asking the node would make it follow the course."""
    with contextlib.closing(sqlite3.connect(f"file:{node.home.path / 'people.sqlite'}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM envelopes WHERE kind = 'post'").fetchone()[0])


def test_a_custodian_keeps_the_feed_alive_when_its_authors_are_away(tmp_path: Path) -> None:
    give = {"P2PLEARN_STORAGE_GIVE": "1 GiB"}
    with RealNode(tmp_path / "b", env=give) as b:
        with RealNode(tmp_path / "a", bootstrap=[b.address], env=give) as a:
            a.wait_until("peers", 1, 60)
            published = a.run("publish", made_file(tmp_path / "x.bin", 1000), "--title", "Loops", "--copies", "2")
            course = published["course"]
            until(lambda: b.run("list")["courses"])  # nobody there asked for it
            for n in range(3):
                a.run("ask", course, f"question {n}")
            a.run("rate", course, "4", "--review", "My own")
            until(lambda: posts_in(b) == 3 and ratings(b, course)["everyone"]["count"] == 1)
        with RealNode(tmp_path / "c", bootstrap=[b.address]) as c:  # whoever spoke is away
            until(lambda: len(discussion(c, course)["threads"]) == 3)
            until(lambda: ratings(c, course)["everyone"]["count"] == 1)
            until(lambda: [row["copies"] for row in search(c, "loops")] == [published["copies"]])
            assert discussion(c, course)["digest"] == discussion(b, course)["digest"]
