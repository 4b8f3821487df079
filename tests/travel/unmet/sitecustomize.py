"""Put first on a node's path: it begins no exchange of records by itself; one that is asked for has a minute."""

from __future__ import annotations

import sys


def _keep_to_itself() -> None:
    from p2plearn.gossip import service, sync
    from p2plearn.gossip.meetings import Meetings

    Meetings.due = lambda *_, **__: []  # type: ignore[method-assign,misc,assignment]
    sync.PERIOD_SECONDS = 3600.0  # type: ignore[misc]
    service.CATCH_UP_SECONDS = 60.0  # type: ignore[misc]


if [word for word in sys.orig_argv if word in {"node", "start"}] == ["node", "start"]:
    _keep_to_itself()
