"""Keeping order, for one person and on one node: blocks, mutes, a list of one's own, and lists that one heeds.

Imports ``errors``, ``people``, ``identity``, ``store`` and siblings.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Any

from p2plearn.course.text import tidy_text
from p2plearn.errors import Refused, UsageProblem
from p2plearn.gossip import envelope as env
from p2plearn.gossip.envelope import CATALOGUE, Content
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.tables import Hiding, log_hiding
from p2plearn.gossip.voice import Voice
from p2plearn.identity import SigningKey
from p2plearn.people import HiddenRequest, LabelRequest, ShunnedRequest, ShunRequest, SubscribeRequest
from p2plearn.store.store import Store

log = logging.getLogger("p2plearn.gossip")


class Moderation(Voice):
    """What is refused here, and by whose word."""

    def __init__(self, feed: Feed, store: Store, author: SigningKey) -> None:
        super().__init__(feed, store, author)
        self._denied: dict[bytes, dict[str, str]] = self._reading.denied()

    # -- for the rest of the node ---------------------------------------------------------------------------------

    def follows(self) -> frozenset[bytes]:
        """The feeds kept here: the catalogue, those of courses kept here, and of those somebody here asked about."""
        with self._feed.reading() as db:
            asked = {row[0] for row in db.execute("SELECT course FROM following")}
        kept = self._store.names()
        self._denied = self._reading.denied()  # lists that this node subscribes to may have grown
        return frozenset({CATALOGUE, *asked, *kept}) - self._denied.keys()

    def refuses(self, content: Content) -> bool:
        """Whether an envelope is about, or by, what is blocked here."""
        denied = self._denied
        if not denied:
            return False
        target = getattr(content.body, "subject", None)
        return content.author in denied or (content.course in denied and target is None)

    def warnings(self, course: bytes, author: bytes) -> list[dict[str, Any]]:
        """What is said against a course and its author by whom this person heeds; see ``Reading.warnings``."""
        found = self._reading.warnings([course, author])
        return [*found[course], *found[author]]

    def refusal(self, course: bytes, author: bytes | None = None, /) -> str:
        """Why a course is blocked here; empty if it isn't."""
        for subject in (course, author):
            row = self._denied.get(subject) if subject is not None else None
            if row is not None:
                by = "here" if row["by"] == "you" else f"by the list of {row['by'][:12]}"
                return f"blocked {by}" + (f": {row['reason']}" if row["reason"] else "")
        return ""

    def blocks_anything(self) -> bool:
        """Whether ``refusal`` has anything to say of some course or author."""
        return bool(self._denied)

    async def _not_blocked(self, course: bytes) -> None:
        """Raises Refused for a course that is blocked here: nobody would get what was said of it."""
        facts = await self._blocking(lambda: self._reading.facts(course))
        why = self.refusal(course, None if facts is None else facts.author)
        if why:
            raise Refused(f"Course {course.hex()[:12]} is {why}.", "`p2plearn block --list` shows what is, and why.")

    # -- for the person -------------------------------------------------------------------------------------------

    async def shun(self, request: ShunRequest) -> dict[str, Any]:
        """See ``PeopleOperations.shun``."""
        if request.how not in ("mute", "block"):
            raise UsageProblem(f"There is no {request.how!r}; there are mute and block.")
        subject, target = await self._shunned(request) or await self._subject(request)

        def change() -> int:
            with self._feed.writing() as db:
                db.execute("DELETE FROM shunned WHERE subject = ? AND how = ?", (subject, request.how))
                if not request.remove:
                    row = (subject, target, request.how, tidy_text(request.reason), int(time.time()))
                    db.execute("INSERT OR REPLACE INTO shunned VALUES (?, ?, ?, ?, ?)", row)
                action = f"un{request.how}" if request.remove else request.how
                self._log(db, action, target, subject, tidy_text(request.reason))
            self._denied = self._reading.denied()
            if request.remove or request.how != "block":
                return 0
            if target == "author":
                return self._feed.purge(
                    "author = ? OR course IN (SELECT course FROM entries WHERE author = ?)", subject, subject
                )
            return self._feed.purge("course = ?", subject)

        freed = await self._blocking(change)
        log.info(
            "%s %s %s: %s",
            "un-" + request.how if request.remove else request.how,
            target,
            subject.hex(),
            request.reason,
        )
        return {
            "subject": subject.hex(),
            "target": target,
            "how": request.how,
            "removed": request.remove,
            "freed": freed,
        }

    async def _shunned(self, request: ShunRequest) -> tuple[bytes, str] | None:
        """What is to be shunned no longer: what was blocked is unknown to the record, but stands in the list."""
        wanted = request.subject.strip().lower()
        if not request.remove or not 8 <= len(wanted) <= 64 or set(wanted) - set("0123456789abcdef"):
            return None

        def look() -> list[tuple[bytes, str]]:
            with self._feed.reading() as db:
                rows = db.execute("SELECT subject, target FROM shunned WHERE how = ?", (request.how,)).fetchall()
            return [row for row in rows if row[0].hex().startswith(wanted) and request.target in ("", row[1])]

        found = await self._blocking(look)
        return found[0] if len(found) == 1 else None

    async def _subject(self, request: ShunRequest) -> tuple[bytes, str]:
        """What is to be shunned: a course or an author, told apart by what is known here."""
        if request.target not in ("", "course", "author"):
            raise UsageProblem(f"{request.target!r:.40} is neither course nor author.")
        if request.target != "author":
            try:
                course = await self._course(request.subject)
            except UsageProblem:
                if request.target:
                    raise
            else:
                known = await self._blocking(lambda: self._reading.facts(course))
                if known is not None or request.target:
                    return course, "course"
        if not request.target and len(request.subject) == 64:
            known_authors = await self._blocking(lambda: self._reading.authors_called(request.subject))
            with_words = await self._blocking(lambda: self._is_author(bytes.fromhex(request.subject)))
            if known_authors and not with_words:
                raise UsageProblem(
                    "This node knows neither a course nor an author of that name.", "Say which: --course or --author."
                )
        return await self._known_author(request.subject), "author"

    async def label(self, request: LabelRequest) -> dict[str, Any]:
        """See ``PeopleOperations.label``."""
        asked = ShunRequest(request.subject, "block", request.target)
        subject, target = await self._subject(asked)
        envelope = await self._say(env.Label(request.label, tidy_text(request.reason), subject, target), CATALOGUE)
        return {"id": envelope.id.hex(), "subject": subject.hex(), "target": target, "label": request.label}

    async def subscribe(self, request: SubscribeRequest) -> dict[str, Any]:
        """See ``PeopleOperations.subscribe``."""
        moderator = await self._known_author(request.author)

        def change() -> int:
            with self._feed.writing() as db:
                if request.remove:
                    db.execute("DELETE FROM subscriptions WHERE author = ?", (moderator,))
                else:
                    db.execute("INSERT OR IGNORE INTO subscriptions VALUES (?, ?)", (moderator, int(time.time())))
                self._log(db, "unsubscribe" if request.remove else "subscribe", "author", moderator, "")
            before, self._denied = self._denied, self._reading.denied()
            theirs = {subject: row for subject, row in self._denied.items() if row["by"] == moderator.hex()}
            with self._feed.writing() as db:
                for subject, row in theirs.items():
                    if subject not in before:  # what the list adds from here on is logged as it comes
                        line = Hiding(int(time.time()), "deny", row["target"], subject, moderator, row["reason"])
                        log_hiding(db, line)
            return len(theirs)

        denied = await self._blocking(change)
        return {"author": moderator.hex(), "subscribed": not request.remove, "denied": denied}

    def _log(self, db: sqlite3.Connection, action: str, target: str, subject: bytes, reason: str) -> None:
        log_hiding(db, Hiding(int(time.time()), action, target, subject, self._author.public, reason))

    async def hidden(self, request: HiddenRequest) -> dict[str, Any]:
        """See ``PeopleOperations.hidden``."""
        return {"hidden": await self._blocking(lambda: self._reading.hidings(min(max(1, request.limit), 1000)))}

    def _is_author(self, key: bytes) -> bool:
        with self._feed.reading() as db:
            row = db.execute(
                "SELECT 1 FROM envelopes WHERE author = ?1 UNION SELECT 1 FROM entries WHERE author = ?1", (key,)
            )
            return row.fetchone() is not None

    async def shunned(self, _: ShunnedRequest) -> dict[str, Any]:
        """See ``PeopleOperations.shunned``."""

        def look() -> dict[str, Any]:
            with self._feed.reading() as db:
                rows = db.execute("SELECT subject, target, how, reason, since FROM shunned ORDER BY since").fetchall()
                lists = [row[0].hex() for row in db.execute("SELECT author FROM subscriptions ORDER BY since")]
            names = ("subject", "target", "how", "reason", "since")
            out = [dict(zip(names, (row[0].hex(), *row[1:]), strict=True)) | {"by": "you"} for row in rows]
            out += [
                {"subject": subject.hex(), "how": "block", "since": 0, **row}
                for subject, row in self._reading.denied().items()
                if row["by"] != "you"
            ]
            return {"shunned": out, "subscriptions": lists}

        return await self._blocking(look)
