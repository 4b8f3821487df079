"""Several real nodes that keep courses for each other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.nodes import RealNode

GRACE = "4"


@contextlib.contextmanager
def network(folder: Path, count: int, **env: str) -> Iterator[list[RealNode]]:
    """``count`` nodes that keep courses for each other, the first one everybody's bootstrap node."""
    nodes: list[RealNode] = []
    try:
        for n in range(count):
            bootstrap = [nodes[0].address] if nodes else []
            settings = {"P2PLEARN_STORAGE_GIVE": "1 GiB", "P2PLEARN_CUSTODY_GRACE": GRACE} | env
            nodes.append(RealNode(folder / f"n{n}", bootstrap=bootstrap, env=settings))
            nodes[-1].start()
        for node in nodes:
            node.wait_until("peers", min(count - 1, 3))
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def row(node: RealNode, course: str) -> dict[str, Any]:
    return next((row for row in node.run("list")["courses"] if row["course"] == course), {})


def keepers(nodes: list[RealNode], course: str) -> list[RealNode]:
    return [node for node in nodes if node.process is not None and row(node, course).get("complete")]


def eventually(holds: Callable[[], Any], nodes: list[RealNode], seconds: float = 45.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        logs = "\n".join(f"--- {node.home.path}\n{node.log[-2000:]}" for node in nodes)
        assert time.monotonic() < deadline, logs
        time.sleep(0.3)
