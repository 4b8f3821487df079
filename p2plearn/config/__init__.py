"""Where things are kept, every setting, every limit: each in one place, with its reason.

``home``: where things are; ``table``: the settings, with defaults and reasons; ``settings``: what they are on this
node, and who said so; ``values``: how a value is written and read; ``limits``: what is no setting; ``changes``: what
the file says by now. Other rooms import from here.

Imports only ``errors`` and the standard library; ``platformdirs`` and ``tomllib`` late, so that ``--help`` is quick.
"""

from __future__ import annotations

from p2plearn.config.changes import not_in_force
from p2plearn.config.home import Home, choose_home
from p2plearn.config.limits import (
    API_BODY_BYTES,
    API_BODY_SECONDS,
    API_CONNECTIONS,
    API_HEADER_BYTES,
    API_HEADER_SECONDS,
    API_IDLE_SECONDS,
    API_WRITE_SECONDS,
    COPIES,
    LOG_BYTES,
    METRICS_CONNECTIONS,
    MOST_COPIES,
    PROGRESS_SECONDS,
)
from p2plearn.config.settings import Setting, Settings, environment_name
from p2plearn.config.table import SETTINGS
from p2plearn.config.values import GIB, KIB, MIB, Kind, Row, Value, parse_seconds, parse_size, spell

__all__ = [
    "API_BODY_BYTES", "API_BODY_SECONDS", "API_CONNECTIONS", "API_HEADER_BYTES", "API_HEADER_SECONDS",
    "API_IDLE_SECONDS", "API_WRITE_SECONDS", "COPIES", "GIB", "KIB", "LOG_BYTES", "METRICS_CONNECTIONS", "MIB",
    "MOST_COPIES", "PROGRESS_SECONDS", "SETTINGS", "Home", "Kind", "Row", "Setting", "Settings", "Value", "choose_home",
    "environment_name", "not_in_force", "parse_seconds", "parse_size", "spell",
]  # fmt: skip
