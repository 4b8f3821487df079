"""⊙ Calls about people: one row each, all ``POST /v1/people/NAME`` with a JSON body; ``routes`` makes routes of them.

Imports ``people``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from p2plearn import people


@dataclass(frozen=True, slots=True)
class PeopleCall:
    """``name`` is that of the method of ``PeopleOperations``; ``answer``: the fields that are always there."""

    name: str
    summary: str
    body: type
    answer: dict[str, str | dict[str, Any]]


_ROWS: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_FIGURE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "mean": {"type": ["number", "null"]},
        "spread": {"type": ["number", "null"]},
        "bayesian": {"type": "number"},
        "histogram": {"type": "object"},
    },
    "required": ["count", "mean", "spread", "bayesian", "histogram"],
}

CALLS: tuple[PeopleCall, ...] = (
    PeopleCall("rate", "Rate a course.", people.RateRequest, {"course": "string", "stars": "integer", "id": "string"}),
    PeopleCall(
        "ratings",
        "What a course is worth to people you trust, and to everyone.",
        people.RatingsRequest,
        {"course": "string", "trusted": _FIGURE, "everyone": _FIGURE, "reviews": _ROWS},
    ),
    PeopleCall("search", "Find courses in the catalogue.", people.SearchRequest, {"courses": _ROWS}),
    PeopleCall("post", "Ask, answer or comment.", people.PostRequest, {"id": "string", "course": "string"}),
    PeopleCall("edit", "Another text for your post.", people.EditRequest, {"id": "string", "post": "string"}),
    PeopleCall("withdraw", "Take your post back.", people.WithdrawRequest, {"id": "string", "post": "string"}),
    PeopleCall("accept", "Mark the answer that helped.", people.AcceptRequest, {"id": "string", "question": "string"}),
    PeopleCall(
        "moderate", "Hide or pin in your own course.", people.ModerateRequest, {"id": "string", "action": "string"}
    ),
    PeopleCall(
        "discussion", "What was said about a course.", people.DiscussionRequest, {"course": "string", "threads": _ROWS}
    ),
    PeopleCall(
        "trust", "Trust an author, or no longer.", people.TrustRequest, {"author": "string", "trusted": "boolean"}
    ),
    PeopleCall("trust_list", "Whom you trust.", people.TrustListRequest, {"trusted": _ROWS, "vouched": _ROWS}),
    PeopleCall(
        "profile", "Show a person, or name yourself.", people.ProfileRequest, {"author": "string", "name": "string"}
    ),
    PeopleCall(
        "shun", "Mute or block a course or an author.", people.ShunRequest, {"subject": "string", "how": "string"}
    ),
    PeopleCall("shunned", "What is muted and blocked, and why.", people.ShunnedRequest, {"shunned": _ROWS}),
    PeopleCall("hidden", "The log of what was hidden, by whom.", people.HiddenRequest, {"hidden": _ROWS}),
    PeopleCall("label", "Put a line on your own list.", people.LabelRequest, {"id": "string", "label": "string"}),
    PeopleCall(
        "subscribe", "Heed a moderator's list.", people.SubscribeRequest, {"author": "string", "subscribed": "boolean"}
    ),
)
