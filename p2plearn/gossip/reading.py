"""What a person reads: search, ratings, threads and names, from the record.

Answers are JSON-ready. Every call blocks (SQLite) and is quick: it looks at a bounded number of rows.

Imports ``errors``, ``course`` and siblings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from p2plearn.course.manifest import Manifest
from p2plearn.errors import UsageProblem
from p2plearn.gossip import conversation, figures, listing, words
from p2plearn.gossip.discussion import Order, threads
from p2plearn.gossip.envelope import CATALOGUE, Envelope, Label, Profile, Rating, Trust, reopen
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.figures import figure_json
from p2plearn.gossip.likeness import FINGERPRINT_DIGITS, likeness, pretends
from p2plearn.gossip.ratings import latest, trust_weights
from p2plearn.gossip.tables import envelopes
from p2plearn.people import SearchRequest

ORDERS: Final = ("relevance", "rating", "new", "title", "copies")
SEARCH_RANKED: Final = 60
"""Best of those whose ratings are looked up for the order; each takes some queries."""
SEARCH_RATED: Final = 200
"""The same when ratings alone decide about the order."""
REVIEWS: Final = 50


@dataclass(frozen=True, slots=True)
class CourseFacts:
    """What must be known of a course to tell its author's word from others', and its versions apart."""

    course: bytes
    author: bytes
    series: str
    version: int
    title: str


def fingerprint(author: bytes) -> str:
    """The short form of a key that is shown beside every name."""
    return author.hex()[:FINGERPRINT_DIGITS]


class Reading:
    """Questions to the record, asked for the person whose key is ``me``.

    ``manifest`` finds a course that is kept here though it is in no catalogue.
    """

    def __init__(self, feed: Feed, me: bytes, manifest: Callable[[bytes], Manifest | None]) -> None:
        self._feed = feed
        self._me = me
        self._manifest = manifest

    # -- people ---------------------------------------------------------------------------------------------------

    def weights(self) -> dict[bytes, float]:
        """Trust by author, from this person's own choice outwards; see ``ratings.trust_weights``."""
        with self._feed.reading() as db:
            seeds = [row[0] for row in db.execute("SELECT subject FROM trusted")]
            edges: dict[bytes, list[bytes]] = {}
            for seed in seeds:
                for envelope in envelopes(db, "kind = 'trust' AND author = ?", seed):
                    body = envelope.content.body
                    if isinstance(body, Trust) and body.trusted:
                        edges.setdefault(seed, []).append(body.subject)
        return trust_weights(seeds, edges, self._me)

    def people(self, authors: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
        """How each is shown: ``author`` (hex), ``name``, ``fingerprint``, ``impostor``, ``two_faced``, ``warnings``.

        ``impostor``: not trusted, and with the name of somebody who is. ``two_faced``: said two things by one number.
        """
        with self._feed.reading() as db:
            seeds = {row[0] for row in db.execute("SELECT subject FROM trusted")}
            known = {author: _name(db, author) for author in set(authors) | seeds}
            # Who has no name is shown by the fingerprint alone.
            taken = {likeness(known.get(seed) or fingerprint(seed)): seed.hex() for seed in seeds | {self._me}}
            liars = {row[0] for row in db.execute("SELECT DISTINCT author FROM evidence")}
        warned = self.warnings(known)
        return {
            author: {
                "author": author.hex(),
                "name": name,
                "fingerprint": fingerprint(author),
                "impostor": bool(name) and author not in seeds and pretends(name, author.hex(), taken),
                "two_faced": author in liars,
                "warnings": warned[author],
            }
            for author, name in known.items()
        }

    def profile(self, author: bytes) -> dict[str, Any]:
        """One author: how they are shown, their line, whether this person trusts them."""
        with self._feed.reading() as db:
            found = envelopes(db, "slot = ?", b"profile" + author)
            body = found[0].content.body if found else None
        return self.people([author])[author] | {
            "about": body.about if isinstance(body, Profile) else "",
            "weight": self.weights().get(author, 0.0),
            "self": author == self._me,
        }

    def denied(self) -> dict[bytes, dict[str, str]]:
        """Courses and authors that this node refuses: its own blocks, and lists of those it subscribes to."""
        with self._feed.reading() as db:
            out = {
                subject: {"target": target, "reason": reason, "by": "you"}
                for subject, target, reason in db.execute(
                    "SELECT subject, target, reason FROM shunned WHERE how = 'block'"
                )
            }
            for (moderator,) in db.execute("SELECT author FROM subscriptions").fetchall():
                for envelope in envelopes(db, "kind = 'label' AND author = ?", moderator):
                    body = envelope.content.body
                    if isinstance(body, Label) and body.label == "deny":
                        row = {"target": body.target, "reason": body.reason, "by": moderator.hex()}
                        out.setdefault(body.subject, row)
        return out

    def warnings(self, subjects: Iterable[bytes]) -> dict[bytes, list[dict[str, Any]]]:
        """What lists that this person heeds, and their own, warn of, by course or author: ``target``, ``reason``,
        ``by`` (a key), ``by_name``.
        """
        with self._feed.reading() as db:
            heeded = [self._me, *(row[0] for row in db.execute("SELECT author FROM subscriptions LIMIT 500"))]
            marks = ",".join("?" * len(heeded))
            out: dict[bytes, list[dict[str, Any]]] = {}
            for subject in set(subjects):
                said = out[subject] = []
                for one in envelopes(db, f"target = ? AND kind = 'label' AND author IN ({marks})", subject, *heeded):
                    body, by = one.content.body, one.content.author
                    if isinstance(body, Label) and body.label == "warn":
                        said.append(
                            {"target": body.target, "reason": body.reason, "by": by.hex(), "by_name": _name(db, by)}
                        )
        return out

    def hidings(self, limit: int) -> list[dict[str, Any]]:
        """The log of what was hidden, newest first; of posts only what their course's author did."""
        with self._feed.reading() as db:
            rows = db.execute(
                "SELECT time, action, target, subject, author, course, reason FROM hidings "
                "ORDER BY number DESC LIMIT ?",
                (2 * limit,),
            ).fetchall()
            names = {row[4]: _name(db, row[4]) for row in rows}
        out: list[dict[str, Any]] = []
        for when, action, target, subject, author, course, reason in rows:
            if course is not None:
                facts = self.facts(course)
                if facts is None or facts.author != author:
                    continue
            out.append(
                {
                    "time": when,
                    "action": action,
                    "target": target,
                    "subject": subject.hex(),
                    "by": "you" if author == self._me else author.hex(),
                    "by_name": names[author],
                    "course": "" if course is None else course.hex(),
                    "reason": reason,
                }
            )
        return out[:limit]

    def muted(self) -> frozenset[bytes]:
        """Authors and courses whose words this person doesn't want to see, blocked ones included."""
        with self._feed.reading() as db:
            return frozenset(row[0] for row in db.execute("SELECT subject FROM shunned")) | frozenset(self.denied())

    # -- courses --------------------------------------------------------------------------------------------------

    def facts(self, course: bytes) -> CourseFacts | None:
        """A course of the catalogue, or of this node's store; None when neither has it."""
        with self._feed.reading() as db:
            row = db.execute(
                "SELECT course, author, series, version, title FROM entries WHERE course = ?", (course,)
            ).fetchone()
        if row is not None:
            return CourseFacts(*row)
        manifest = self._manifest(course)
        if manifest is None:
            return None
        return CourseFacts(course, manifest.author, manifest.series.name, manifest.series.seq, manifest.title)

    def is_listed(self, course: bytes) -> bool:
        """Whether the catalogue has the course."""
        with self._feed.reading() as db:
            return db.execute("SELECT 1 FROM entries WHERE course = ?", (course,)).fetchone() is not None

    def entries(self, before: float) -> list[tuple[bytes, int, int]]:
        """Courses of the catalogue whose entry is from ``before`` a time: course, its time, copies it says."""
        with self._feed.reading() as db:
            return db.execute(
                "SELECT envelopes.course, time, copies FROM envelopes JOIN entries USING (course) "
                "WHERE kind = 'entry' AND feed = ? AND time < ?",
                (CATALOGUE, int(before)),
            ).fetchall()

    def versions(self, course: bytes) -> dict[bytes, int]:
        """The courses of the same series that are known here, with their version; at least this one (0: unknown)."""
        facts = self.facts(course)
        if facts is None:
            return {course: 0}
        with self._feed.reading() as db:
            rows = db.execute(
                "SELECT course, version FROM entries WHERE author = ? AND series = ? ORDER BY version DESC LIMIT 64",
                (facts.author, facts.series),
            ).fetchall()
        return {course: facts.version} | dict(rows)

    def ratings(self, course: bytes) -> dict[str, Any]:
        """Both figures of a course, all its versions together, and its reviews, those of trusted people first."""
        versions = self.versions(course)
        weights = self.weights()
        hidden = self.muted()
        with self._feed.reading() as db:
            trusted, everyone = figures.figures(db, list(versions), weights)
            marks = ",".join("?" * len(versions))
            rows = db.execute(
                f"SELECT raw FROM envelopes WHERE course IN ({marks}) AND kind = 'rating' "  # noqa: S608 - only "?"s
                "ORDER BY time DESC LIMIT ?",
                (*versions, 4 * REVIEWS),
            ).fetchall()
            own = [figures.vote(row) for row in db.execute(
                f"SELECT author, stars, seq, id FROM ratings WHERE course IN ({marks}) AND author = ?",  # noqa: S608
                (*versions, self._me),
            )]  # fmt: skip
        reviews = [self._review(reopen(row[0]), versions, weights) for row in rows]
        shown = [one for one in reviews if one["review"] and bytes.fromhex(one["author"]) not in hidden]
        shown.sort(key=lambda one: -one["weight"])
        people = self.people(bytes.fromhex(one["author"]) for one in shown)
        mine = latest(own)
        facts = self.facts(course)
        return {
            "course": course.hex(),
            "title": "" if facts is None else facts.title,
            "trusted": figure_json(trusted),
            "everyone": figure_json(everyone),
            "mine": mine[0].stars if mine else 0,
            "versions": len(versions),
            "reviews": [people[bytes.fromhex(one["author"])] | one for one in shown[:REVIEWS]],
        }

    def _review(self, envelope: Envelope, versions: dict[bytes, int], weights: dict[bytes, float]) -> dict[str, Any]:
        content = envelope.content
        body = content.body
        rating = body if isinstance(body, Rating) else Rating("", 0)
        return {
            "author": content.author.hex(),
            "stars": rating.stars,
            "review": rating.review,
            "time": content.time,
            "version": versions.get(content.course, 0),
            "weight": weights.get(content.author, 0.0),
        }

    def search(self, query: SearchRequest) -> list[dict[str, Any]]:
        """Courses of the catalogue, the newest version of each, best first. Raises UsageProblem for an odd order."""
        if query.order not in ORDERS:
            raise UsageProblem(f"There is no order {query.order!r}; there are {', '.join(ORDERS)}.")
        expression = self._expression(query)
        if expression is None:
            return []
        weights = self.weights()
        denied = self.muted()
        with self._feed.reading() as db:
            ranked = max(SEARCH_RATED if query.order == "rating" else SEARCH_RANKED, query.limit)
            rows = listing.hits(db, expression, query.order, 2 * ranked)
            rows = [row for row in rows if row["course"] not in denied and row["author"] not in denied]
            rows = listing.newest_versions(rows)[:ranked]
            versions = {row["course"]: listing.versions(db, row) for row in rows}
            for row in rows:
                trusted, everyone, row["score"] = figures.scored(db, versions[row["course"]], weights)
                row["ratings"] = {"trusted": figure_json(trusted), "everyone": figure_json(everyone)}
        orders: dict[str, Callable[[dict[str, Any]], Any]] = {
            # bm25 is negative, the better the lower; a course nobody rated stands where its words put it.
            "relevance": lambda row: (row["rank"] * (1 + (row["score"] - 3) / 4), -row["created"]),
            "rating": lambda row: (-row["score"], row["rank"], -row["created"]),
            "new": lambda row: -row["created"],
            "title": lambda row: words.index_tokens(row["title"]),
            "copies": lambda row: (-row["copies"], row["rank"]),
        }
        rows.sort(key=orders[query.order])
        shown = rows[: max(1, query.limit)]
        with self._feed.reading() as db:
            said_at = {row["course"]: listing.said_at(db, row["course"]) for row in shown}
        people = self.people(row["author"] for row in shown)
        warned = self.warnings(row["course"] for row in shown)
        return [
            listing.course_json(row, people[row["author"]])
            | {"copies_at": said_at[row["course"]]}
            | {"warnings": warned[row["course"]]}
            | {"author_warnings": people[row["author"]]["warnings"]}
            for row in shown
        ]

    def _expression(self, query: SearchRequest) -> str | None:
        """The FTS5 expression; "" for everything, None for nothing (an author nobody knows)."""
        parts = []
        found = words.match(query.words)
        if found:
            parts.append(f"{{title tags body}} : ({found})")
        elif query.words.strip():
            return None
        parts += [f'facets : "{words.facet("t", tag)}"' for tag in query.tags]
        if query.language:
            parts.append(f'facets : "{words.facet("l", query.language)}"')
        if query.author:
            authors = self.authors_called(query.author)
            if not authors:
                return None
            parts.append("(" + " OR ".join(f'facets : "a{author.hex()}"' for author in authors) + ")")
        return " AND ".join(parts)

    def authors_called(self, text: str) -> list[bytes]:
        """Authors by the beginning of their key (8 digits or more), or by name, which several may have."""
        wanted = text.strip().lower()
        with self._feed.reading() as db:
            if len(wanted) >= 8 and not set(wanted) - set("0123456789abcdef"):
                low, high = _prefix_range(wanted)
                rows = db.execute(
                    "SELECT author FROM envelopes WHERE author BETWEEN ?1 AND ?2 "
                    "UNION SELECT author FROM entries WHERE author BETWEEN ?1 AND ?2 LIMIT 17",
                    (low, high),
                ).fetchall()
                full = [bytes.fromhex(wanted)] if len(wanted) == 64 else []
                return list(dict.fromkeys([*full, *(row[0] for row in rows)]))
            named = envelopes(db, "kind = 'profile' LIMIT 20000")
        wanted_likeness = likeness(text)
        return [
            one.content.author
            for one in named
            if isinstance(one.content.body, Profile) and likeness(one.content.body.name) == wanted_likeness
        ][:16]

    # -- discussion -----------------------------------------------------------------------------------------------

    def discussion(self, course: bytes, order: Order, limit: int) -> list[dict[str, Any]]:
        """The newest or best threads of a course, with what was said in them."""
        facts = self.facts(course)
        with self._feed.reading() as db:
            said = conversation.said(db, course, max(limit, conversation.THREAD_WINDOW))
        built = threads(
            said,
            course_author=None if facts is None else facts.author,
            muted=self.muted(),
            trusted=self.weights(),
            order=order,
        )[: max(1, limit)]
        people = self.people(conversation.authors_of(built))
        return [conversation.item_json(item, people, None if facts is None else facts.author) for item in built]

    def post(self, text: str) -> Envelope:
        """A post by its id, or the beginning of it (8 digits or more); raises UsageProblem."""
        wanted = text.strip().lower()
        if not 8 <= len(wanted) <= 64 or set(wanted) - set("0123456789abcdef"):
            raise UsageProblem(f"{text!r:.80} is no post's id: `p2plearn discussion HASH` shows them.")
        low, high = _prefix_range(wanted)
        with self._feed.reading() as db:
            found = envelopes(db, "kind = 'post' AND id BETWEEN ? AND ? LIMIT 2", low, high)
        if not found:
            raise UsageProblem(f"No post that is here begins with {wanted}.", "It may have been withdrawn.")
        if len(found) > 1:
            raise UsageProblem(f"More than one post begins with {wanted}.", "Give more digits.")
        return found[0]


def _prefix_range(digits: str) -> tuple[bytes, bytes]:
    return bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))


def _name(db: sqlite3.Connection, author: bytes) -> str:
    found = envelopes(db, "slot = ?", b"profile" + author)
    body = found[0].content.body if found else None
    return body.name if isinstance(body, Profile) else ""
