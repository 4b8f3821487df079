"""What a node does about people for the person it runs for: ``people.PeopleOperations`` over record and exchanges.

In: requests. Out: JSON-ready answers, or a ``P2plearnError`` with words for a person. What is said here is on the
disk before the answer, and told to peers right after.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from p2plearn.course.manifest import SignedManifest
from p2plearn.course.text import tidy_text
from p2plearn.errors import Refused, UsageProblem, did_you_mean
from p2plearn.gossip import envelope as env
from p2plearn.gossip import listing, renewal
from p2plearn.gossip.discussion import Order
from p2plearn.gossip.envelope import CATALOGUE, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.moderation import Moderation
from p2plearn.net.contained import safely
from p2plearn.people import (
    AcceptRequest,
    DiscussionRequest,
    EditRequest,
    ModerateRequest,
    PostRequest,
    ProfileRequest,
    RateRequest,
    RatingsRequest,
    SearchRequest,
    TrustListRequest,
    TrustRequest,
    WithdrawRequest,
)

if TYPE_CHECKING:
    from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

log = logging.getLogger("p2plearn.gossip")

T = TypeVar("T")

FIRST_LOOK_SECONDS: Final = 6.0
"""How long a command waits for others when it asks about a course that wasn't followed so far."""

CATCH_UP_SECONDS: Final = 2.0
"""How long a publish waits for a first comparison with others. Where little differs it takes a round trip or two."""


class People(Moderation):
    """See ``people.PeopleOperations``. ``sync`` is set once the network is there."""

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Exchange with peers and keep the catalogue fresh, until cancelled."""
        async with trio.open_nursery() as nursery:
            # Before the first sweep: what expired while this node was off is said again by it.
            await self._renew_once()
            await nursery.start(self.sync.run)
            nursery.start_soon(self._renew)
            task_status.started()

    @property
    def feed(self) -> Feed:
        """The record itself."""
        return self._feed

    # -- the catalogue --------------------------------------------------------------------------------------------

    def title(self, course: bytes) -> str:
        """What the catalogue calls a course; empty if it doesn't know it. Blocks briefly."""
        with self._feed.reading() as db:
            row = db.execute("SELECT title FROM entries WHERE course = ?", (course,)).fetchone()
        return str(row[0]) if row else ""

    def newest_own(self, series: str) -> SignedManifest | None:
        """The newest version of this person's ``series`` in the catalogue, published anywhere. Blocks briefly."""
        with self._feed.reading() as db:
            return listing.newest_of(db, self._author.public, series)

    async def catch_up(self) -> None:
        """Hear of what others know, before something is numbered; bounded, and nothing where nobody is connected."""
        await self.sync.compare_catalogue(CATCH_UP_SECONDS)

    async def is_listed(self, course: bytes) -> bool:
        """Whether the catalogue has the course."""
        return await self._blocking(lambda: self._reading.is_listed(course))

    async def announce_own(self, course: bytes, copies: int) -> None:
        """Put a course that was published here into the catalogue."""
        signed = await trio.to_thread.run_sync(self._store.signed_manifest, course)
        if signed is not None:
            await self.announce(signed, copies)

    async def announce(self, signed: SignedManifest, copies: int) -> None:
        """Put a course into the catalogue, for everyone.

        A no-op where an entry from a clock far ahead of ours stands: the course is listed, and publishing doesn't fail.
        """
        with contextlib.suppress(Refused):
            await self._say(env.Entry(copies, signed.raw, signed.signature), signed.course)

    async def _renew(self) -> None:
        """Say entries of courses that are here again, so that those whose author is away stay in the catalogue."""
        while True:
            await self._renew_once()
            await trio.sleep(renewal.LOOK_SECONDS * random.uniform(0.2, 1.0))  # noqa: S311 - no secret

    async def _renew_once(self) -> None:
        await safely(log, "saying entries of the catalogue again", self.renew, time.time())

    async def renew(self, now: float) -> int:
        """Look once through what is kept here and in the catalogue; how many entries were said again."""

        def look() -> list[tuple[bytes, int, int]]:
            here = set(self._store.names(complete=True))
            return [row for row in self._reading.entries(now - renewal.CORRECT_SECONDS) if row[0] in here]

        said = 0
        for course, told, copies in await self._blocking(look):
            current = self._copies(course)
            if renewal.due(told, copies, current, now, random.random()):  # noqa: S311
                what = f"saying the entry of {course.hex()[:12]} again"
                await safely(log, what, self.announce_own, course, current or copies)
                said += 1
        return said

    # -- saying ---------------------------------------------------------------------------------------------------

    async def rate(self, request: RateRequest) -> dict[str, Any]:
        """See ``PeopleOperations.rate``."""
        course = await self._course(request.course)
        if not 0 <= request.stars <= 5:
            raise UsageProblem("A rating has 1 to 5 stars.")
        await self._not_blocked(course)
        envelope = await self._say(env.Rating(tidy_text(request.review), request.stars), course)
        return {
            "course": course.hex(),
            "stars": request.stars,
            "id": envelope.id.hex(),
            "warnings": self._clock_warnings(),
        }

    async def post(self, request: PostRequest) -> dict[str, Any]:
        """See ``PeopleOperations.post``."""
        above = await self._above(request)
        if above is not None:
            course = above.content.course
        elif request.role == "answer":
            raise UsageProblem("An answer needs the id of its question.", "`p2plearn discussion HASH` shows it.")
        else:
            course = await self._course(request.course)
        await self._not_blocked(course)
        if request.path:
            await self._blocking(lambda: self._check_file(course, request.path))
        await self._follow(course)
        body = env.Post(request.path, None if above is None else above.id, request.role, tidy_text(request.text))
        envelope = await self._say(body, course)
        return {
            "id": envelope.id.hex(),
            "course": course.hex(),
            "role": request.role,
            "warnings": self._clock_warnings(),
        }

    def _check_file(self, course: bytes, path: str) -> None:
        """Raises UsageProblem for a path that isn't in the course, where its index is here to tell. Blocks."""
        holding = self._store.holding(course)
        if holding is None:
            return
        with holding:
            files = [entry.path for entry in holding.index.files]
        if path not in files and not any(name.startswith(f"{path}/") for name in files):
            hint = did_you_mean(path, files) or f"`p2plearn info {course.hex()[:12]}` names its files."
            raise UsageProblem(f"The course has no file {path!r:.200}.", hint)

    async def _above(self, request: PostRequest) -> Envelope | None:
        """The post that is replied to; a comment may name a post where a course could stand."""
        if request.reply:
            return await self._blocking(lambda: self._reading.post(request.reply))
        if request.role == "comment":
            try:
                return await self._blocking(lambda: self._reading.post(request.course))
            except UsageProblem:
                course = await self._course(request.course)
            # A post that hasn't come yet looks like a course that nobody told of: better ask than say it nowhere.
            facts = await self._blocking(lambda: self._reading.facts(course))
            if facts is None and course not in await self._blocking(self.follows):
                raise UsageProblem(
                    f"This node knows neither a post nor a course {request.course[:12]}.",
                    "A post may still be on its way. If it is a course, look at it first: p2plearn discussion HASH",
                )
        return None

    async def edit(self, request: EditRequest) -> dict[str, Any]:
        """See ``PeopleOperations.edit``."""
        post = await self._own_post(request.post, "edit")
        envelope = await self._say(env.Edit(post.id, tidy_text(request.text)), post.content.course)
        return {"id": envelope.id.hex(), "post": post.id.hex(), "warnings": self._clock_warnings()}

    async def withdraw(self, request: WithdrawRequest) -> dict[str, Any]:
        """See ``PeopleOperations.withdraw``."""
        post = await self._own_post(request.post, "withdraw")
        body = post.content.body
        above = body.reply if isinstance(body, env.Post) else None
        envelope = await self._say(env.Withdraw(post.id, above), post.content.course)
        return {"id": envelope.id.hex(), "post": post.id.hex()}

    async def accept(self, request: AcceptRequest) -> dict[str, Any]:
        """See ``PeopleOperations.accept``."""
        answer = await self._blocking(lambda: self._reading.post(request.answer))
        body = answer.content.body
        if not isinstance(body, env.Post) or body.role != "answer" or body.reply is None:
            raise UsageProblem("Only an answer can be accepted.")
        asked = body.reply.hex()
        question = await self._blocking(lambda: self._reading.post(asked))
        if question.content.author != self._author.public:
            raise Refused("Only who asked the question can accept an answer.")
        chosen = None if request.undo else answer.id
        envelope = await self._say(env.Accept(chosen, question.id), question.content.course)
        return {
            "id": envelope.id.hex(),
            "question": question.id.hex(),
            "answer": "" if request.undo else answer.id.hex(),
        }

    async def moderate(self, request: ModerateRequest) -> dict[str, Any]:
        """See ``PeopleOperations.moderate``."""
        post = await self._blocking(lambda: self._reading.post(request.post))
        facts = await self._blocking(lambda: self._reading.facts(post.content.course))
        if facts is None or facts.author != self._author.public:
            raise Refused("Only the course's author can hide or pin.", "`p2plearn mute AUTHOR` hides it for yourself.")
        body = env.Moderate(request.action, post.id, tidy_text(request.reason))
        envelope = await self._say(body, post.content.course)
        return {"id": envelope.id.hex(), "post": post.id.hex(), "action": request.action}

    async def _own_post(self, text: str, verb: str) -> Envelope:
        post = await self._blocking(lambda: self._reading.post(text))
        if post.content.author != self._author.public:
            raise Refused(f"Only its author can {verb} a post.")
        return post

    # -- reading --------------------------------------------------------------------------------------------------

    async def ratings(self, request: RatingsRequest) -> dict[str, Any]:
        """See ``PeopleOperations.ratings``."""
        course = await self._course(request.course)
        return await self._blocking(lambda: self._reading.ratings(course))

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """See ``PeopleOperations.search``."""
        query = dataclasses.replace(request, limit=min(request.limit, 200))
        return {"courses": await self._blocking(lambda: self._reading.search(query))}

    async def discussion(self, request: DiscussionRequest) -> dict[str, Any]:
        """See ``PeopleOperations.discussion``."""
        course = await self._course(request.course)
        order: Order = "best" if request.order == "best" else "new"
        if request.order != order:
            raise UsageProblem(f"There is no order {request.order!r}; there are new and best.")
        await self._follow(course)
        threads = await self._blocking(lambda: self._reading.discussion(course, order, request.limit))
        facts = await self._blocking(lambda: self._reading.facts(course))
        number, digest = await self._blocking(lambda: self._feed.digest(course))
        return {
            "course": course.hex(),
            "title": "" if facts is None else facts.title,
            "threads": threads,
            "envelopes": number,
            "digest": digest.hex(),
        }

    async def _follow(self, course: bytes) -> None:
        """Keep that course's discussion from here on; the first time, fetch it from whoever has it."""

        def begin() -> bool:
            if course in self.follows():
                return False
            with self._feed.writing() as db:
                db.execute("INSERT OR IGNORE INTO following VALUES (?, ?)", (course, int(time.time())))
            return course in self.follows()  # not if it is blocked

        if await self._blocking(begin):
            looked = self.sync.look_for(course)
            with trio.move_on_after(FIRST_LOOK_SECONDS):
                await looked.wait()

    # -- people ---------------------------------------------------------------------------------------------------

    async def trust(self, request: TrustRequest) -> dict[str, Any]:
        """See ``PeopleOperations.trust``."""
        subject = await self._known_author(request.author)
        if subject == self._author.public:
            raise UsageProblem("That is you.")

        def change() -> bool:
            with self._feed.writing() as db:
                row = db.execute("SELECT private FROM trusted WHERE subject = ?", (subject,)).fetchone()
                if request.remove:
                    db.execute("DELETE FROM trusted WHERE subject = ?", (subject,))
                    return row is not None and not row[0]
                values = (subject, int(request.private), int(time.time()))
                db.execute("INSERT OR REPLACE INTO trusted VALUES (?, ?, ?)", values)
            return not request.private or (row is not None and not row[0])

        if await self._blocking(change):
            await self._say(env.Trust(subject, not request.remove and not request.private), CATALOGUE)
        shown = (await self._blocking(lambda: self._reading.people([subject])))[subject]
        return shown | {"trusted": not request.remove, "private": request.private}

    async def trust_list(self, _: TrustListRequest) -> dict[str, Any]:
        """See ``PeopleOperations.trust_list``."""

        def look() -> dict[str, Any]:
            weights = self._reading.weights()
            with self._feed.reading() as db:
                chosen = {row[0]: bool(row[1]) for row in db.execute("SELECT subject, private FROM trusted")}
            people = self._reading.people(weights)
            rows = [people[author] | {"weight": round(weight, 4)} for author, weight in weights.items()]
            rows.sort(key=lambda row: (-row["weight"], row["author"]))
            keys = {author.hex(): private for author, private in chosen.items()}
            return {
                "trusted": [row | {"private": keys[row["author"]]} for row in rows if row["author"] in keys],
                "vouched": [row for row in rows if row["author"] not in keys],
            }

        return await self._blocking(look)

    async def profile(self, request: ProfileRequest) -> dict[str, Any]:
        """See ``PeopleOperations.profile``."""
        if request.name:
            if request.author:
                raise UsageProblem("Only your own profile can be changed.")
            await self._say(env.Profile(tidy_text(request.about), tidy_text(request.name)), CATALOGUE)
        author = await self._known_author(request.author) if request.author else self._author.public
        return await self._blocking(lambda: self._reading.profile(author))

    def figures(self) -> dict[str, Any]:
        """What ``status`` shows."""
        count, digest = self._feed.digest(CATALOGUE)
        figures = self.sync.figures
        return {
            "catalogue": count,
            "digest": digest.hex(),
            "ahead": self.ahead(time.time()),
            "exchanges": figures.exchanges,
            "received": figures.received,
            "sent": figures.sent,
            "dropped": dict(self.sync.intake.dropped),
            "bytes_in": figures.bytes_in,
            "bytes_out": figures.bytes_out,
            "lag": figures.lag,
            "compared": figures.equal,
        }
