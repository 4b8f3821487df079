"""⊙ Ids of envelopes that are not here and not asked for: let go on purpose, or not wanted before their time.

In: ids, with the time from which they are wanted, if ever. Out: whether an id is not to be asked for now.

What must hold: both tables are bounded; an id that falls out of them is merely offered, and dropped, again.

Imports nothing of ours.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final

MAX_FORGOTTEN: Final = 200_000
"""Ids of evicted envelopes remembered, so that they aren't taken in again at each exchange."""
MAX_LATER: Final = 20_000
"""Ids remembered that are not wanted before a certain time; what is beyond that may be offered, and dropped, again."""


class Unwanted:
    """See the head of this file. Not thread-safe."""

    def __init__(self) -> None:
        self._forgotten: OrderedDict[bytes, None] = OrderedDict()
        self._later: set[bytes] = set()
        self._ripening: list[tuple[float, bytes]] = []

    def __contains__(self, name: bytes) -> bool:
        return name in self._forgotten or name in self._later

    def forget(self, name: bytes) -> None:
        """It was here and was let go: it isn't wanted any more."""
        self._forgotten[name] = None
        while len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def wait(self, name: bytes, until: float) -> None:
        """It isn't wanted before ``until``."""
        if len(self._later) < MAX_LATER:
            self._later.add(name)
            heapq.heappush(self._ripening, (until, name))

    def ripen(self, now: float) -> None:
        """From here on, what was not wanted before ``now`` is."""
        while self._ripening and self._ripening[0][0] <= now:
            self._later.discard(heapq.heappop(self._ripening)[1])
