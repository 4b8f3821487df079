"""What killed processes left half-written in a home, deleted by the next node that starts there.

The store clears its own (``store.opening``, ``store.part_folders``) and ``identity`` that of the keys it makes. There
remain files that are written beside their place and renamed (``private_files.create_private``), and the folder that an
``export -o -`` or ``import -`` holds its pipe in. Only what has the very name that is given to such, and is this
user's, goes:

- of what only a node writes, at once, since whoever holds the home's lock is the only one;
- of what commands write beside a node (``invite``, ``join``), and of libp2p's files of a moment where the home has to
  take those (``private_files.have_temporary_folder``), once it is ``OLD``;
- a pipe's folder at once: its command asked a node that is gone now, and where it runs still both ends are open.

Imports ``config``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2plearn.config import Home

log = logging.getLogger(__name__)

OLD: Final = 3600.0
"""Seconds; a command that writes a small file is at it for less than one, unless it is suspended."""

PIPE: Final = "car"
"""What is in a pipe's folder."""

_TEMPORARY: Final = re.compile(r"tmp[a-z0-9_]{8}(\.pem)?")
_PIPE_FOLDER: Final = re.compile(r"\.pipe-[a-z0-9_]{8}")


def clear(home: Home, now: float) -> list[Path]:
    """Delete what was left; whoever calls holds the home's lock. ``now`` in seconds since 1970. Returns what went.

    What can't be looked at or deleted stays: a node starts without it being tidy.
    """
    beside_a_node = [*_half_of(home.network_key), *_half_of(home.network_tag), *_temporary(home.path / "tmp")]
    left = [path for path in beside_a_node if _is(path, stat.S_IFREG, before=now - OLD)]
    left += [path for path in _half_of(home.peers) if _is(path, stat.S_IFREG)]
    gone = [path for path in left if _deleted(path)]
    for folder in _named(home.path, _PIPE_FOLDER):
        with contextlib.suppress(OSError):
            # With anything else in it, it isn't what it seems.
            if _is(folder, stat.S_IFDIR) and all(_is(path, stat.S_IFIFO) for path in folder.iterdir()):
                _deleted(folder / PIPE)
                folder.rmdir()
                gone.append(folder)
    for path in gone:
        log.info("what a killed process had left was deleted: %s", path)
    return gone


def _half_of(path: Path) -> Iterator[Path]:
    """What ``create_private`` writes before it is ``path``."""
    return _named(path.parent, re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}"))


def _temporary(folder: Path) -> Iterator[Path]:
    """libp2p's; a link leads to a folder that others use, too."""
    return _named(folder, _TEMPORARY) if _is(folder, stat.S_IFDIR) else iter(())


def _named(folder: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    try:
        names = os.listdir(folder)
    except OSError:
        return iter(())
    return (folder / name for name in sorted(names) if pattern.fullmatch(name))


def _is(path: Path, kind: int, before: float = float("inf")) -> bool:
    """Whether it is of a kind (no link to one), this user's, and was last written ``before``."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_IFMT(facts.st_mode) == kind and facts.st_uid == os.geteuid() and facts.st_mtime <= before


def _deleted(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
