"""⊙ A course's discussion: what posts, edits, withdrawals, accepted answers and moderation add up to.

In: the envelopes of one course in any order, who the course's author is, whom the reader muted or trusts. Out: threads
as a reader sees them. Only its own author edits or withdraws a post; only who asked accepts an answer; only the
course's author hides or pins; envelopes of anyone else to that effect change nothing.

Sans-IO. Imports ``gossip.envelope``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from p2plearn.gossip.envelope import Accept, Edit, Envelope, Moderate, Post, Withdraw

MAX_DEPTH: Final = 32
"""Replies to replies shown inside each other; deeper ones stand beside each other. Bounds recursion, and eyes."""

Order = Literal["new", "best"]


@dataclass(slots=True)
class Item:
    """A post as a reader sees it. ``time`` is its first, ``edited`` of its last edit (0: none), ``path`` a file.

    ``hidden`` says why it isn't shown ("" if it is): ``withdrawn``, ``muted``, or the course author's reason.
    """

    id: bytes
    author: bytes
    role: str
    text: str
    time: int
    path: str = ""
    reply: bytes | None = None
    edited: int = 0
    accepted: bool = False
    pinned: bool = False
    hidden: str = ""
    orphan: bool = False
    replies: list[Item] = field(default_factory=list)


def threads(
    envelopes: Iterable[Envelope],
    *,
    course_author: bytes | None,
    muted: frozenset[bytes] = frozenset(),
    trusted: Mapping[bytes, float] | None = None,
    order: Order = "new",
) -> list[Item]:
    """The discussion, each thread with its replies inside; replies whose post is missing begin threads of their own.

    Pinned threads first, then the newest or the best (answered by an accepted answer, by trusted people, much
    answered). Within a thread the accepted answer comes first, then in the order of time.
    """
    weights = trusted or {}
    items: dict[bytes, Item] = {}
    rest: list[Envelope] = []
    for envelope in envelopes:
        content = envelope.content
        match content.body:
            case Post() as post:
                items[envelope.id] = Item(
                    envelope.id, content.author, post.role, post.text, content.time, post.path, post.reply
                )
            case _:
                rest.append(envelope)
    rest.sort(key=lambda envelope: envelope.rank)  # so that the last one counts
    for envelope in rest:
        if isinstance(envelope.content.body, Withdraw):
            _withdraw(items, envelope, envelope.content.body)
    for envelope in rest:
        _apply(items, envelope, course_author)
    for item in items.values():
        if not item.hidden and item.author in muted:
            item.hidden, item.text = "muted", ""
    return _arrange(items, weights, order)


def _withdraw(items: dict[bytes, Item], envelope: Envelope, body: Withdraw) -> None:
    content = envelope.content
    known = items.get(body.post)
    if known is None:
        # The text is gone, as it should be; its place stays for what answered it.
        items[body.post] = Item(
            body.post, content.author, "post", "", content.time, reply=body.reply, hidden="withdrawn"
        )
    elif known.author == content.author:
        known.text, known.hidden = "", "withdrawn"


def _apply(items: dict[bytes, Item], envelope: Envelope, course_author: bytes | None) -> None:
    content = envelope.content
    match content.body:
        case Edit() as edit:
            item = items.get(edit.post)
            if item is not None and item.author == content.author and item.hidden != "withdrawn":
                item.text, item.edited = edit.text, content.time
        case Accept() as accept:
            question = items.get(accept.question)
            if question is None or question.author != content.author:
                return
            for item in items.values():
                if item.reply == accept.question:
                    item.accepted = item.id == accept.answer
        case Moderate() as moderate:
            item = items.get(moderate.post)
            if item is None or content.author != course_author:
                return
            item.pinned = moderate.action == "pin"
            if item.hidden != "withdrawn":
                item.hidden = (moderate.reason or "hidden by the course's author") if moderate.action == "hide" else ""
        case _:
            return


def _arrange(items: dict[bytes, Item], weights: Mapping[bytes, float], order: Order) -> list[Item]:
    roots: list[Item] = []
    depth: dict[bytes, int] = {}

    def level(item: Item) -> int:
        """How deep it stands; a circle (ids can't make one) or a chain too long is cut."""
        chain: list[Item] = []
        at: Item | None = item
        while at is not None and at.id not in depth and len(chain) <= MAX_DEPTH:
            chain.append(at)
            at = items.get(at.reply) if at.reply is not None else None
        base = depth.get(at.id, 0) + 1 if at is not None else 0
        for place, one in enumerate(reversed(chain)):
            depth[one.id] = base + place
        return depth[item.id]

    for item in sorted(items.values(), key=lambda item: (item.time, item.id)):
        parent = items.get(item.reply) if item.reply is not None else None
        while parent is not None and level(parent) >= MAX_DEPTH:
            parent = items.get(parent.reply) if parent.reply is not None else None
        if parent is None:
            item.orphan = item.reply is not None
            roots.append(item)
        else:
            parent.replies.append(item)
    for item in items.values():
        item.replies.sort(key=lambda reply: (not reply.accepted, not reply.pinned, reply.time, reply.id))
    if order == "best":
        roots.sort(key=lambda root: (_merit(root, weights), root.time, root.id), reverse=True)
    else:
        roots.sort(key=lambda root: (_newest(root), root.id), reverse=True)
    roots.sort(key=lambda root: not root.pinned)  # stable: the order above holds among each
    return roots


def _newest(item: Item) -> int:
    pending, newest = [item], 0
    while pending:
        one = pending.pop()
        newest = max(newest, one.time, one.edited)
        pending += one.replies
    return newest


def _merit(item: Item, weights: Mapping[bytes, float]) -> tuple[bool, float, int]:
    voices = {item.author} | {reply.author for reply in item.replies}
    return (
        any(reply.accepted for reply in item.replies),
        round(sum(weights.get(voice, 0.0) for voice in voices), 6),
        len(item.replies),
    )
