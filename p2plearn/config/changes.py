"""Which settings were changed in the file since the node read it: they are in force only after a restart.

Imports ``errors`` and siblings.
"""

from __future__ import annotations

from pathlib import Path

from p2plearn.config.settings import Settings
from p2plearn.errors import P2plearnError


def not_in_force(home: Path, running: Settings) -> list[str]:
    """Names of settings that ``running`` has from the file or by default and of which the file now says otherwise.

    What the environment or the command line set stays theirs. A file that can't be used any more gives one entry in
    words. Blocks on a small file.
    """
    try:
        fresh = Settings.load(home, environment={})
    except P2plearnError as problem:
        return [problem.message]
    from_file = {"default", str(home / "config.toml")}
    return [
        each.row.name
        for each in running
        if each.source in from_file and fresh.setting(each.row.name).value != each.value
    ]
