"""p2plearn itself, by its command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from work import Node

from peers import Peer


class P2plearn(Peer):
    """A node in a process of its own."""

    name = "p2plearn"
    how: tuple[str, ...] = ()
    """Further words of ``publish``."""
    where: tuple[str, ...] = ()
    """Further words of ``get``."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self._node = Node(room / "home")
        self.address = self._node.address
        self._get: subprocess.Popen[str] | None = None
        self.got: dict[str, Any] = {}

    def pids(self) -> list[int]:
        """The node; commands come and go."""
        return [self._node.pid]

    def publish(self, source: Path) -> str:
        """Hash and name of the file, if it is one."""
        return f"{self._node.run('publish', source, *self.how)['course']}/{source.name if source.is_file() else ''}"

    def begin_fetch(self, name: str, dest: Path, others: list[str]) -> None:
        """Run ``get``."""
        course, _, file = name.partition("/")
        out = dest if file else dest / "course"
        sources = [part for other in others for part in ("--from", other)]
        words = ["get", course, *self.where, "-o", str(out), "--json", *sources]
        command = [sys.executable, "-P", "-m", "p2plearn", "--home", str(self._node.home), *words]
        self._get = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish_fetch(self) -> None:
        """Wait for ``get``."""
        if self._get is None:
            raise RuntimeError("nothing is being fetched")
        said, _ = self._get.communicate()
        if self._get.returncode:
            raise RuntimeError(said)
        self.got = json.loads(said.splitlines()[-1])

    def sent(self) -> int:
        """As its status tells."""
        return int(self._node.run("node", "status")["serving"]["sent"])

    def stop(self) -> None:
        """Stop the node."""
        self._node.stop()


class InPlace(P2plearn):
    """One that serves the files where they are when it publishes; what it gets is in the store and in the folder."""

    name = "p2plearn in place"
    how = ("--no-copy",)


class NoCopy(InPlace):
    """One that never has a second copy, as the others: what it gets is served from the folder, too."""

    name = "p2plearn --no-copy"
    where = ("--no-copy",)
