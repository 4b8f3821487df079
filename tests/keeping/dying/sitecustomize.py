"""Put first on a node's path: the node kills itself with SIGKILL at one step of a handoff.

``DIE_AT`` is the number of the step, ``DIE_ARMED`` a file that must exist for steps to count; each step is written
to ``DIE_LOG``. A step is a custody message about to be sent or just received, a custody record about to be written or
just written, a commit about to be made or just made. Where ``DIE_WITH`` is there, it holds the number of a process
that is killed just before.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def _step(name: str) -> None:
    if not os.path.exists(os.environ["DIE_ARMED"]):
        return
    number = next(_steps)
    with open(os.environ["DIE_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{number} {name}\n")
    if number == int(os.environ["DIE_AT"]):
        if os.path.exists(os.environ["DIE_WITH"]):
            with open(os.environ["DIE_WITH"], encoding="ascii") as other:
                os.kill(int(other.read()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _around(kind: Any, name: str, label: str) -> None:
    inner: Callable[..., Any] = getattr(kind, name)

    def blocking(*given: Any, **named: Any) -> Any:
        _step(f"before {label}")
        result = inner(*given, **named)
        _step(f"after {label}")
        return result

    setattr(kind, name, blocking)


def _watch() -> None:
    from p2plearn.dht import line
    from p2plearn.dht.messages import Beat
    from p2plearn.store.custody import CustodyRecords
    from p2plearn.store.download import Download

    for name in ("reserve", "hold", "release", "abandon", "note"):
        _around(CustodyRecords, name, name)
    _around(Download, "commit", "commit")
    send, receive = line.Line.send, line.Line.receive

    async def sending(self: Any, message: Any, *rest: Any) -> None:
        if not isinstance(message, Beat):
            _step(f"sending {type(message).__name__}")
        await send(self, message, *rest)

    async def receiving(self: Any, seconds: float) -> Any:
        message = await receive(self, seconds)
        if not isinstance(message, Beat):
            _step(f"received {type(message).__name__}")
        return message

    line.Line.send, line.Line.receive = sending, receiving  # type: ignore[method-assign]


_steps = itertools.count(1)
if "DIE_AT" in os.environ and [word for word in sys.orig_argv if word in {"node", "start"}] == ["node", "start"]:
    _watch()
