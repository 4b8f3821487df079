"""One place that keeps libp2p's own log lines out of a person's terminal.

libp2p reports a peer that hangs up as a seven-line ERROR, some warnings are empty, and its ``swarm_connection`` calls
the functions of the ``logging`` module itself: those speak for the root logger, and the first of them installs a
handler on stderr for the whole program. What matters of it is logged again by our own guard, one line a peer and
kind; the rest is shown only with ``--debug``.
"""

from __future__ import annotations

import logging

from libp2p.network.connection import swarm_connection

NOISY = ("libp2p", "multiaddr", "zeroconf", "noise", "async_service")
"""Loggers (with all below them) that never reach a handler of ours unless debugging."""


def mute_libp2p(*, debug: bool = False) -> None:
    """Silence libp2p's loggers; with ``debug`` let their records go where ours go. Safe to call again, either way."""
    for name in NOISY:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]  # none of its own: it is our formatter that writes lines
        logger.setLevel(logging.DEBUG if debug else logging.CRITICAL)
        logger.propagate = debug
    # This one sets a level of its own at import, so its parent's does not count.
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.NOTSET)
    # A logger has the functions of the module that are called there.
    vars(swarm_connection)["logging"] = logging.getLogger("libp2p.network.connection")
