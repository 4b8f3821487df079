"""The node's log: plain lines, one a record, that no peer can forge.

Control characters in a record are escaped, so that a peer's text can't begin a line of its own or reach the
terminal. libp2p logs ordinary disconnects as errors; its records are muted unless debugging was asked for.

Imports ``config`` and the standard library.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from pathlib import Path

from p2plearn import config

_FOREIGN = ("libp2p", "multiaddr", "zeroconf", "async_service", "asyncio")


class _Lines(logging.Formatter):
    """Time in UTC, level, where, what; a traceback follows indented."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {record.levelname.lower():<7} {record.name}: {escape(record.getMessage())}"
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        trace = [escape(line) for line in (record.exc_text or "").split("\n") if line]
        return "\n    ".join([head, *trace])


def escape(text: str) -> str:
    """``text`` with every character that isn't printable as its escape; stays on one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


class _Muted(logging.Filter):
    """Drops what others log below critical; what goes to the root logger is never ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] == "p2plearn" or record.levelno >= logging.CRITICAL


def start_logging(level: str, *, debug: bool = False, file: Path | None = None) -> None:
    """Log to stderr, or to ``file`` (0600, set aside once it has 5 MiB). Before the node is built.

    ``level`` is the setting ``log.level``; ``debug`` logs everything, libp2p's records too.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=config.LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
    handler.setFormatter(_Lines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old.formatter, _Lines):
            old.close()
    root.addHandler(handler)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk under the log must not print tracebacks
    root.setLevel(logging.DEBUG if debug else level.upper())
    for name in _FOREIGN:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.CRITICAL)
    if not debug:
        handler.addFilter(_Muted())
