"""What a fetch is given by whoever wants the course: how to find peers, and a place to put chunks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.transfer.session import Peer


class Landing(Protocol):
    """Where the chunks of a course go; the methods may block and are called in threads."""

    def missing(self) -> Sequence[int]:
        """Slots still to fetch, one for each distinct chunk."""
        ...

    def is_chunk(self, slot: int, pieces: Sequence[memoryview]) -> bool:
        """Whether the pieces have the slot's hash. Doesn't block but for hashing them."""
        ...

    def put_verified(self, chunks: Sequence[tuple[int, Sequence[memoryview]]]) -> None:
        """Write what ``is_chunk`` said yes to."""
        ...

    def commit(self) -> None:
        """Make what was put durable and known."""
        ...


Candidates = Callable[[Callable[[Peer], Awaitable[None]]], Awaitable[None]]
"""One round of looking for providers: awaits its argument with each as it is found, ends when there are no more."""

Land = Callable[[SignedManifest, bytes | None, Index], Awaitable[Landing]]
"""Makes the place where chunks go; gets the index's bytes too when they were fetched just now."""
