"""Threads of a course out of the record: a bounded number of envelopes to build them from, and they as JSON.

Functions on a connection; what posts, edits and the rest add up to is ``discussion``'s.

Imports siblings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Sequence
from typing import Any, Final

from p2plearn.gossip.discussion import Item
from p2plearn.gossip.envelope import Envelope, Withdraw
from p2plearn.gossip.tables import envelopes

THREAD_WINDOW: Final = 200
"""Newest threads that are put in order, unless more are asked for."""
STRAY_WINDOW: Final = 1_000
"""Newest posts that are looked at for replies to what isn't here."""
WITHDRAWN_WINDOW: Final = 200
"""Newest withdrawn posts whose place is shown though nobody answered them."""
REPLY_WINDOW: Final = 5_000
"""Replies shown with them."""
_BATCH: Final = 500


def said(db: sqlite3.Connection, course: bytes, window: int) -> list[Envelope]:
    """The newest threads of a course with their replies, and what changes them: a bounded number of each."""
    found = envelopes(db, "course = ? AND kind = 'post' AND target IS NULL ORDER BY time DESC LIMIT ?", course, window)
    # Replies whose question is gone or hasn't come yet would be lost without these.
    found += envelopes(
        db,
        "number IN (SELECT number FROM envelopes WHERE course = ? AND kind = 'post' ORDER BY time DESC LIMIT ?) "
        "AND target IS NOT NULL AND NOT EXISTS (SELECT 1 FROM envelopes AS above WHERE above.id = envelopes.target)",
        course,
        STRAY_WINDOW,
    )
    posts = {envelope.id: envelope for envelope in found}
    pending = list(posts)
    while pending and len(posts) < window + REPLY_WINDOW:
        replies = _about(db, course, pending, "kind = 'post'")
        pending = [one.id for one in replies if one.id not in posts]
        posts |= {one.id: one for one in replies}
    orphaned = {one.content.body.reply for one in posts.values() if getattr(one.content.body, "reply", None)}  # type: ignore[union-attr]
    about = _about(db, course, [*posts, *(orphaned - set(posts))], "kind != 'post'")
    return [*posts.values(), *about, *_empty_places(db, course, posts, about)]


def _empty_places(
    db: sqlite3.Connection, course: bytes, posts: Container[bytes], about: Iterable[Envelope]
) -> list[Envelope]:
    """Withdrawals of what nobody had answered, in the threads that are shown or as threads of their own."""
    found = envelopes(db, "course = ? AND kind = 'withdraw' ORDER BY time DESC LIMIT ?", course, WITHDRAWN_WINDOW)
    there = {one.id for one in about}
    return [
        one
        for one in found
        if one.id not in there
        and isinstance(one.content.body, Withdraw)
        and (one.content.body.reply is None or one.content.body.reply in posts)
    ]


def _about(db: sqlite3.Connection, course: bytes, targets: Sequence[Any], condition: str) -> list[Envelope]:
    out: list[Envelope] = []
    for start in range(0, len(targets), _BATCH):
        batch = targets[start : start + _BATCH]
        marks = ",".join("?" * len(batch))
        out += [
            one
            for one in envelopes(db, f"target IN ({marks}) AND {condition} LIMIT {REPLY_WINDOW}", *batch)
            if one.content.course == course
        ]
    return out


def authors_of(items: list[Item]) -> set[bytes]:
    authors: set[bytes] = set()
    pending = list(items)
    while pending:
        item = pending.pop()
        authors.add(item.author)
        pending += item.replies
    return authors


def item_json(item: Item, people: dict[bytes, dict[str, Any]], course_author: bytes | None) -> dict[str, Any]:
    return {
        "id": item.id.hex(),
        "role": item.role,
        **people[item.author],
        "course_author": item.author == course_author,
        "text": item.text if not item.hidden else "",
        "file": item.path,
        "time": item.time,
        "edited": item.edited,
        "accepted": item.accepted,
        "pinned": item.pinned,
        "hidden": item.hidden,
        "replies": [item_json(reply, people, course_author) for reply in item.replies],
    }
