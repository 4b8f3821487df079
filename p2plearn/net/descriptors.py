"""File descriptors: as many as the system gives, and never more connections than they are enough for.

Imports nothing of ours.
"""

from __future__ import annotations

import logging
import resource
from typing import Final

log = logging.getLogger("p2plearn.net")

WANTED: Final = 4096
"""Descriptors asked for: a thousand connections, and room for files, several times over. The system's own soft limit
is often 1,024, on macOS 256; going on to the hard limit, which may be a billion, helps nobody."""

SPARED: Final = 96
"""Kept from connections: databases, extents, the local API's callers, gets and publishes under way."""


def enough_for(connections: int) -> int:
    """Raise the soft limit as far as is sensible; how many of ``connections`` it is enough for, 8 at least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = WANTED if hard == unlimited else min(WANTED, hard)
    if soft != unlimited and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError) as error:
            log.info("the limit of %d open files stays: %s", soft, error)
    if soft == unlimited or soft - SPARED >= connections:
        return connections
    fewer = max(8, soft - SPARED)
    log.warning("only %d files may be open, so only %d connections are kept", soft, fewer)
    return fewer
