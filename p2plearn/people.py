"""What is asked of a node about people and what they say: the requests of the local API, and who answers them.

Plain values, JSON-ready. Courses are 64 hex digits or the beginning of a hash that the node knows; posts and authors
64 hex digits or a beginning of at least 8; an author may also be named.

Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class RateRequest:
    """Give ``course`` 1 to 5 stars, with words if you like; 0 takes your rating back."""

    course: str
    stars: int
    review: str = ""


@dataclass(frozen=True, slots=True)
class RatingsRequest:
    """What ``course`` is worth to people you trust, and to everyone."""

    course: str


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Find courses in the catalogue; empty fields ask for nothing."""

    words: str = ""
    tags: tuple[str, ...] = ()
    language: str = ""
    author: str = ""
    order: str = "relevance"
    limit: int = 20


@dataclass(frozen=True, slots=True)
class PostRequest:
    """Say something: a ``question`` or ``comment`` on ``course`` (and its file ``path``), or a reply to a post."""

    role: str
    text: str
    course: str = ""
    reply: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class EditRequest:
    """Another text for your post."""

    post: str
    text: str


@dataclass(frozen=True, slots=True)
class WithdrawRequest:
    """Take your post back: its text is deleted everywhere it is known to be withdrawn."""

    post: str


@dataclass(frozen=True, slots=True)
class AcceptRequest:
    """Mark the answer that helped you (``undo``: none did)."""

    answer: str
    undo: bool = False


@dataclass(frozen=True, slots=True)
class ModerateRequest:
    """Hide or pin a post of your own course, or ``clear`` that."""

    post: str
    action: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DiscussionRequest:
    """What was said about ``course``; ``order`` is ``new`` or ``best``."""

    course: str
    order: str = "new"
    limit: int = 50


@dataclass(frozen=True, slots=True)
class TrustRequest:
    """Trust an author, or no longer (``remove``); ``private`` tells nobody."""

    author: str
    remove: bool = False
    private: bool = False


@dataclass(frozen=True, slots=True)
class TrustListRequest:
    """Whom you trust, and whom they bring along."""


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """Show an author (you when empty); with ``name``, say how you want to be called."""

    author: str = ""
    name: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class ShunRequest:
    """Don't show (``mute``) or don't keep at all (``block``) a course or an author; ``remove`` takes it back."""

    subject: str
    how: str
    target: str = ""
    reason: str = ""
    remove: bool = False


@dataclass(frozen=True, slots=True)
class ShunnedRequest:
    """What is muted and blocked here, by whom and why."""


@dataclass(frozen=True, slots=True)
class HiddenRequest:
    """The log of what was hidden here, the newest ``limit`` lines first."""

    limit: int = 50


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A line of your own list, for those who subscribe to you: ``deny``, ``warn`` or ``clear`` a course or author."""

    subject: str
    label: str
    target: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """Refuse what a moderator's list denies, or no longer (``remove``)."""

    author: str
    remove: bool = False


class PeopleOperations(Protocol):
    """What the local API asks about people. Each may raise a ``P2plearnError``."""

    async def rate(self, request: RateRequest) -> dict[str, Any]:
        """``course``, ``stars``, ``id``."""
        ...

    async def ratings(self, request: RatingsRequest) -> dict[str, Any]:
        """``trusted`` and ``everyone``, each with ``count``, ``mean``, ``histogram``, …; ``reviews``."""
        ...

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """``courses``: each with ``course``, ``title``, ``author``, ``ratings``, …

        ``copies`` are what others said there were at ``copies_at`` (seconds since 1970), not what there is now.
        """
        ...

    async def post(self, request: PostRequest) -> dict[str, Any]:
        """``id``, ``course``."""
        ...

    async def edit(self, request: EditRequest) -> dict[str, Any]:
        """``id``, ``post``."""
        ...

    async def withdraw(self, request: WithdrawRequest) -> dict[str, Any]:
        """``id``, ``post``."""
        ...

    async def accept(self, request: AcceptRequest) -> dict[str, Any]:
        """``id``, ``question``, ``answer``."""
        ...

    async def moderate(self, request: ModerateRequest) -> dict[str, Any]:
        """``id``, ``post``, ``action``."""
        ...

    async def discussion(self, request: DiscussionRequest) -> dict[str, Any]:
        """``course``, ``threads``, ``envelopes`` (how many are here) and their ``digest``."""
        ...

    async def trust(self, request: TrustRequest) -> dict[str, Any]:
        """``author``, ``trusted``."""
        ...

    async def trust_list(self, request: TrustListRequest) -> dict[str, Any]:
        """``trusted`` (your choice) and ``vouched`` (theirs), each with its weight."""
        ...

    async def profile(self, request: ProfileRequest) -> dict[str, Any]:
        """``author``, ``name``, ``fingerprint``, ``about``, …"""
        ...

    async def shun(self, request: ShunRequest) -> dict[str, Any]:
        """``subject``, ``target``, ``how``, ``freed`` envelopes."""
        ...

    async def shunned(self, request: ShunnedRequest) -> dict[str, Any]:
        """``shunned``: each with ``subject``, ``target``, ``how``, ``reason``, ``by``; ``subscriptions``."""
        ...

    async def hidden(self, request: HiddenRequest) -> dict[str, Any]:
        """``hidden``: each with ``time``, ``action``, ``target``, ``subject``, ``by``, ``reason``, …"""
        ...

    async def label(self, request: LabelRequest) -> dict[str, Any]:
        """``id``, ``subject``, ``target``, ``label``."""
        ...

    async def subscribe(self, request: SubscribeRequest) -> dict[str, Any]:
        """``author``, ``subscribed``, ``denied`` (how many that list refuses)."""
        ...
