"""One place that keeps libp2p's own log lines out of a person's terminal.

libp2p reports a peer that hangs up as a seven-line ERROR, some warnings are empty, and ``swarm_connection`` logs
through the *root* logger, whose module functions install a stderr handler as a side effect. What matters of it is
logged again by our own guard, one line a peer and kind; the rest is shown only with ``--debug``.

Imports only the standard library.
"""

from __future__ import annotations

import logging
import os
import sys

NOISY = ("libp2p", "multiaddr", "zeroconf", "noise", "async_service")
"""Loggers (with all below them) that never reach a handler of ours unless debugging."""


class _FromLibp2p(logging.Filter):
    """Drops what libp2p says through the root logger; everything else passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` may go on."""
        return record.name != "root" or f"{os.sep}libp2p{os.sep}" not in record.pathname


_filter = _FromLibp2p()


def mute_libp2p(*, debug: bool = False) -> None:
    """Silence libp2p's loggers, or with ``debug`` send them to stderr. Safe to call again, in either direction."""
    root = logging.getLogger()
    root.removeFilter(_filter)
    if not debug:
        root.addFilter(_filter)
    if not root.handlers:
        # ``logging.debug(...)`` (libp2p uses the module function) would otherwise call basicConfig() for everyone.
        root.addHandler(logging.NullHandler())
    for name in NOISY:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.StreamHandler(sys.stderr) if debug else logging.NullHandler()]
        logger.setLevel(logging.DEBUG if debug else logging.CRITICAL)
        logger.propagate = False
    # This one sets a level of its own at import, so its parent's does not count.
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.NOTSET)
