"""Put first on a node's path: a task of its network part fails, as a bug of ours would, each time a file appears.

``FAULT_AT`` is the file; it is removed before the fault.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def _break() -> None:
    import trio

    from p2plearn.net.joining import Joining

    async def broken(_self: Any) -> None:
        while not os.path.exists(os.environ["FAULT_AT"]):
            await trio.sleep(0.05)
        os.unlink(os.environ["FAULT_AT"])
        raise ZeroDivisionError("a fault of ours\x1b[31m\n2026 info forged")

    Joining._watch_network = broken  # type: ignore[method-assign]


if "FAULT_AT" in os.environ and [word for word in sys.orig_argv if word in {"node", "start"}] == ["node", "start"]:
    _break()
