"""libtorrent: v2 torrents, unencrypted, no discovery. See ``torrent_session`` for the process.

``pip install libtorrent`` into some virtual environment and name its Python, or have it in this one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peers import Peer

SESSION = Path(__file__).with_name("torrent_session.py")


class Libtorrent(Peer):
    """A session in a process of its own; ``python`` is the Python that has the module."""

    name = "libtorrent"
    python = sys.executable

    def __init__(self, room: Path) -> None:
        self.room = room
        room.mkdir(parents=True)
        self._process = subprocess.Popen(
            [self.python, str(SESSION)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.address = self._answer()

    @classmethod
    def installed(cls) -> bool:
        """Whether that Python has the module."""
        return subprocess.run([cls.python, "-c", "import libtorrent"], capture_output=True, check=False).returncode == 0

    def _ask(self, *words: str) -> None:
        if self._process.stdin is None:
            raise RuntimeError("no pipe")
        self._process.stdin.write("\t".join(words) + "\n")

    def _answer(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("libtorrent ended")
        return line.strip()

    def pids(self) -> list[int]:
        """The process."""
        return [self._process.pid]

    def publish(self, source: Path) -> str:
        """A magnet link."""
        self._ask("publish", str(source))
        return self._answer()

    def begin_fetch(self, name: str, dest: Path, others: list[str]) -> None:
        """Add the magnet link, with its peers."""
        dest.mkdir(parents=True, exist_ok=True)
        self._ask("fetch", name, str(dest), *others)

    def finish_fetch(self) -> None:
        """Wait until it seeds and has written all."""
        self._answer()

    def sent(self) -> int:
        """Payload uploaded."""
        self._ask("sent")
        return int(self._answer())

    def stop(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.wait()
