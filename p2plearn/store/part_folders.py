"""Where checkouts were begun, so that what a killed one left beside its destination is deleted, wherever that was.

A checkout writes into a hidden folder beside its destination and renames it; one that is killed leaves that folder.
The next checkout to the same place deletes it, but nobody has to come back to that place. So each destination is noted
in ``HOME/store/begun`` before anything is written there, and looked at by ``clear`` at the next start and sweep: what
has the name that this program gives, is this user's and locked by nobody is deleted, nothing else. A note goes once
nothing of the kind is beside its destination; one of a place that isn't there (a drive that isn't plugged in) stays.

In the file: paths, each followed by a zero byte. What a power cut tore off is forgotten, and so a folder may stay.

Blocking and thread-safe. Imports ``named_file`` and siblings.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Final

from p2plearn.named_file import KnownFolder
from p2plearn.store.durable import write_atomic
from p2plearn.store.tree import parts_beside, remove_stale_parts

log = logging.getLogger("p2plearn.store")

NAME: Final = "begun"

MOST: Final = 256
"""Destinations that are noted, the latest; each costs a look into a folder at every start."""


class PartFolders:
    """The notes of one store, whose directory is given."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._folder = KnownFolder(directory)
        self._lock = threading.Lock()

    def note(self, dest: Path) -> None:
        """A checkout to ``dest`` begins. What can't be noted is only less tidy after a crash."""
        place = os.fsencode(os.path.realpath(dest))
        with self._lock, contextlib.suppress(OSError), self._folder.opened() as folder:
            if place not in self._read():
                with open(NAME, "ab", opener=lambda name, flags: os.open(name, flags, 0o600, dir_fd=folder)) as file:
                    file.write(place + b"\0")

    def clear(self) -> int:
        """Delete what killed checkouts left; returns how many folders. What can't be looked at stays as it is."""
        with self._lock, contextlib.suppress(OSError), self._folder.opened():
            places = self._read()
            removed, left = 0, []
            for place in places:
                gone, stays = _clear_beside(Path(os.fsdecode(place)))
                removed += gone
                left += [place] if stays else []
            if left != places:
                self._write(left)
            return removed
        return 0

    def _read(self) -> list[bytes]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        *whole, _torn = raw.split(b"\0")
        return [place for place in dict.fromkeys(whole) if place.startswith(b"/")][-MOST:]

    def _write(self, places: list[bytes]) -> None:
        if not places:
            self._path.unlink(missing_ok=True)
            return
        write_atomic(self._path, [b"".join(place + b"\0" for place in places)], within=self._folder)


def _clear_beside(dest: Path) -> tuple[int, bool]:
    """(folders deleted, whether to look again another time) beside one destination."""
    try:
        above = os.open(dest.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0, True
    try:
        before = set(parts_beside(dest.name, above))
        if not before:
            return 0, False
        remove_stale_parts(dest.name, above)
        after = set(parts_beside(dest.name, above))
    except OSError:
        return 0, True
    finally:
        os.close(above)
    for name in sorted(before - after):
        log.info("what a killed get had left was deleted: %s", dest.parent / name)
    return len(before - after), bool(after)
