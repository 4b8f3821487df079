"""The node's log: plain lines, one a record, that no peer can forge.

Control characters in a record are escaped, so that a peer's text can't begin a line of its own or reach the
terminal. libp2p logs ordinary disconnects as errors; its records are muted unless debugging was asked for.

Imports ``config`` and the standard library.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

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


class _JsonLines(_Lines):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``; ``fields`` (what was given as ``extra``)
    and ``exception`` where there are any. Texts are escaped as in the other format, then as JSON.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escape(record.getMessage()),
        }
        fields = {name: _plain_value(value) for name, value in vars(record).items() if name not in _STANDARD}
        if fields:
            line["fields"] = fields
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = [escape(text) for text in record.exc_text.split("\n") if text]
        return json.dumps(line, ensure_ascii=True, allow_nan=False)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _plain_value(value: object) -> str | int | float | bool | None:
    """A field as JSON has it; whatever else it is, as escaped text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return escape(str(value))


def escape(text: str) -> str:
    """``text`` with every character that isn't printable as its escape; stays on one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


class _Muted(logging.Filter):
    """Drops what others log below critical; what goes to the root logger is never ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] == "p2plearn" or record.levelno >= logging.CRITICAL


def start_logging(level: str, *, as_json: bool = False, debug: bool = False, file: Path | None = None) -> None:
    """Log to stderr, or to ``file`` (0600, set aside once it has 5 MiB). Before the node is built.

    ``level`` is the setting ``log.level``; ``debug`` logs everything, libp2p's records too; ``as_json`` one object a
    line.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=config.LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
    handler.setFormatter(_JsonLines() if as_json else _Lines())
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
