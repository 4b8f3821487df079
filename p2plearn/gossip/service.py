"""What a node does about people for the person it runs for: ``people.PeopleOperations`` over record and exchanges.

In: requests. Out: JSON-ready answers, or a ``P2plearnError`` with words for a person. What is said here is on the
disk before the answer, and told to peers right after.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from p2plearn.course.manifest import Manifest, SignedManifest
from p2plearn.errors import Refused, UsageProblem
from p2plearn.gossip import envelope as env
from p2plearn.gossip.discussion import Order
from p2plearn.gossip.envelope import CATALOGUE, Body, Content, Envelope, tidy_text
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.reading import Query, Reading
from p2plearn.gossip.sync import Sync
from p2plearn.identity import SigningKey
from p2plearn.people import (
    AcceptRequest,
    DiscussionRequest,
    EditRequest,
    LabelRequest,
    ModerateRequest,
    PostRequest,
    ProfileRequest,
    RateRequest,
    RatingsRequest,
    SearchRequest,
    ShunnedRequest,
    ShunRequest,
    SubscribeRequest,
    TrustListRequest,
    TrustRequest,
    WithdrawRequest,
)
from p2plearn.store.store import Store

if TYPE_CHECKING:
    from trio import TaskStatus  # type: ignore[attr-defined]  # trio re-exports it, mypy overlooks it

log = logging.getLogger("p2plearn.gossip")

T = TypeVar("T")

FIRST_LOOK_SECONDS: Final = 6.0
"""How long a command waits for others when it asks about a course that wasn't followed so far."""
RENEW_SECONDS: Final = 20 * 86400
"""A catalogue entry as old as this is renewed by some node that has the course: ten days before it expires."""
RENEWAL_LOOK_SECONDS: Final = 3600.0


class People:
    """See ``people.PeopleOperations``. ``sync`` is set once the network is there."""

    def __init__(self, feed: Feed, store: Store, author: SigningKey) -> None:
        self._feed = feed
        self._store = store
        self._author = author
        self._reading = Reading(feed, author.public, self._manifest)
        self._sync: Sync | None = None
        self._denied: dict[bytes, dict[str, str]] = self._reading.denied()
        feed.spare(lambda: {author.public, *self._reading.weights()})

    @property
    def sync(self) -> Sync:
        """The running exchanges."""
        if self._sync is None:
            raise AssertionError("joined before the first call")
        return self._sync

    def join(self, sync: Sync) -> None:
        """The network is up; called once, before anything is asked of this object."""
        self._sync = sync

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Exchange with peers and keep the catalogue fresh, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.sync.run)
            nursery.start_soon(self._renew)
            task_status.started()

    def _manifest(self, course: bytes) -> Manifest | None:
        signed = self._store.signed_manifest(course)
        return None if signed is None else signed.manifest

    # -- for the rest of the node ---------------------------------------------------------------------------------

    def follows(self) -> frozenset[bytes]:
        """The feeds kept here: the catalogue, those of courses kept here, and of those somebody here asked about."""
        with self._feed.reading() as db:
            asked = {row[0] for row in db.execute("SELECT course FROM following")}
        kept = {row.course for row in self._store.courses()}
        self._denied = self._reading.denied()  # lists that this node subscribes to may have grown
        return frozenset({CATALOGUE, *asked, *kept}) - self._denied.keys()

    def refuses(self, content: Content) -> bool:
        """Whether an envelope is about, or by, what is blocked here."""
        denied = self._denied
        if not denied:
            return False
        target = getattr(content.body, "subject", None)
        return content.author in denied or (content.course in denied and target is None)

    def refusal(self, course: bytes, author: bytes | None = None, /) -> str:
        """Why a course is blocked here; empty if it isn't."""
        for subject in (course, author):
            row = self._denied.get(subject) if subject is not None else None
            if row is not None:
                by = "here" if row["by"] == "you" else f"by the list of {row['by'][:12]}"
                return f"blocked {by}" + (f": {row['reason']}" if row["reason"] else "")
        return ""

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
        """Renew entries of courses that are here, so that those whose author is away stay in the catalogue."""
        while True:
            await trio.sleep(RENEWAL_LOOK_SECONDS * random.uniform(0.2, 1.0))  # noqa: S311 - no secret
            for signed, copies in await trio.to_thread.run_sync(self._to_renew, time.time()):
                await self.announce(signed, copies)

    def _to_renew(self, now: float) -> list[tuple[SignedManifest, int]]:
        """Courses here whose entry gets old: not all holders at the same time, the older the likelier."""
        with self._feed.reading() as db:
            rows = db.execute(
                "SELECT envelopes.course, time, copies FROM envelopes JOIN entries USING (course) "
                "WHERE kind = 'entry' AND feed = ? AND time < ?",
                (CATALOGUE, int(now) - RENEW_SECONDS),
            ).fetchall()
        out: list[tuple[SignedManifest, int]] = []
        for course, told, copies in rows:
            left = told + env.ENTRY_SECONDS - now
            if random.random() * left > RENEWAL_LOOK_SECONDS * 12:  # noqa: S311
                continue
            row = self._store.course(course)
            signed = self._store.signed_manifest(course) if row is not None and row.complete else None
            if signed is not None:
                out.append((signed, copies))
        return out

    # -- saying ---------------------------------------------------------------------------------------------------

    async def _say(self, body: Body, course: bytes) -> Envelope:
        envelope = await self._blocking(
            lambda: self._feed.write(self._author.public, self._author.sign, body, course, time.time())
        )
        self.sync.announce(envelope)
        return envelope

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work)

    async def rate(self, request: RateRequest) -> dict[str, Any]:
        """See ``PeopleOperations.rate``."""
        course = await self._course(request.course)
        if not 0 <= request.stars <= 5:
            raise UsageProblem("A rating has 1 to 5 stars.")
        envelope = await self._say(env.Rating(tidy_text(request.review), request.stars), course)
        return {"course": course.hex(), "stars": request.stars, "id": envelope.id.hex()}

    async def post(self, request: PostRequest) -> dict[str, Any]:
        """See ``PeopleOperations.post``."""
        above = await self._above(request)
        if above is not None:
            course = above.content.course
        elif request.role == "answer":
            raise UsageProblem("An answer needs the id of its question.", "`p2plearn discussion HASH` shows it.")
        else:
            course = await self._course(request.course)
        await self._follow(course)
        body = env.Post(request.path, None if above is None else above.id, request.role, tidy_text(request.text))
        envelope = await self._say(body, course)
        return {"id": envelope.id.hex(), "course": course.hex(), "role": request.role}

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
        return {"id": envelope.id.hex(), "post": post.id.hex()}

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
        query = Query(
            request.words, request.tags, request.language, request.author, request.order, min(request.limit, 200)
        )
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

    async def _course(self, text: str) -> bytes:
        """A course by its hash or the beginning of one that is known here. Raises UsageProblem."""
        wanted = text.lower()
        if not 8 <= len(wanted) <= 64 or set(wanted) - set("0123456789abcdef"):
            raise UsageProblem(f"{text!r:.80} is no course hash: give 64 hex digits, or the first 8 or more.")
        if len(wanted) == 64:
            return bytes.fromhex(wanted)
        low, high = bytes.fromhex(wanted.ljust(64, "0")), bytes.fromhex(wanted.ljust(64, "f"))

        def look() -> set[bytes]:
            with self._feed.reading() as db:
                found = {
                    row[0] for row in db.execute("SELECT course FROM entries WHERE course BETWEEN ? AND ?", (low, high))
                }
            return found | {row.course for row in self._store.courses() if low <= row.course <= high}

        found = await self._blocking(look)
        if len(found) != 1:
            many = "No course that is known here begins" if not found else f"{len(found)} courses begin"
            raise UsageProblem(f"{many} with {wanted}.", "Give the whole hash.")
        return found.pop()

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

    async def _known_author(self, text: str) -> bytes:
        found = await self._blocking(lambda: self._reading.authors_called(text))
        if not found:
            raise UsageProblem(f"Nobody known here is {text!r:.80}.", "Give the author's key: 64 hex digits.")
        if len(found) > 1:
            keys = ", ".join(author.hex()[:12] for author in found)
            raise UsageProblem(f"{len(found)} people are {text!r:.80}: {keys}.", "Names aren't unique: give the key.")
        return found[0]

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

    async def shun(self, request: ShunRequest) -> dict[str, Any]:
        """See ``PeopleOperations.shun``."""
        if request.how not in ("mute", "block"):
            raise UsageProblem(f"There is no {request.how!r}; there are mute and block.")
        subject, target = await self._subject(request)

        def change() -> int:
            with self._feed.writing() as db:
                db.execute("DELETE FROM shunned WHERE subject = ? AND how = ?", (subject, request.how))
                if not request.remove:
                    row = (subject, target, request.how, tidy_text(request.reason), int(time.time()))
                    db.execute("INSERT OR REPLACE INTO shunned VALUES (?, ?, ?, ?, ?)", row)
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
            self._denied = self._reading.denied()
            return sum(row["by"] == moderator.hex() for row in self._denied.values())

        denied = await self._blocking(change)
        return {"author": moderator.hex(), "subscribed": not request.remove, "denied": denied}

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

    def figures(self) -> dict[str, Any]:
        """What ``status`` shows."""
        count, digest = self._feed.digest(CATALOGUE)
        figures = self.sync.figures
        return {
            "catalogue": count,
            "digest": digest.hex(),
            "exchanges": figures.exchanges,
            "received": figures.received,
            "sent": figures.sent,
            "dropped": dict(self.sync.intake.dropped),
            "bytes_in": figures.bytes_in,
            "bytes_out": figures.bytes_out,
        }
