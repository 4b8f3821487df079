"""Limits that are part of how nodes and programs talk: not settings, because both ends count on them.

Imports ``values``.
"""

from __future__ import annotations

from typing import Final

from p2plearn.config.values import KIB, MIB

COPIES: Final = 3
"""Copies of a course that nodes shall keep when nobody says otherwise."""

MOST_COPIES: Final = 32
"""More than that costs everybody's disk and saves nothing that counts (see ``p2plearn plan``)."""

API_HEADER_BYTES: Final = 16 * KIB
"""Request line and headers of one local API call. Ours need 200 bytes, a browser with cookies a few KiB."""

API_BODY_BYTES: Final = MIB
"""Body of one local API call. The largest is a ``get`` with a long list of patterns; a mebibyte is thousands."""

API_HEADER_SECONDS: Final = 10.0
"""From the first byte to the end of the headers. Local programs send at once; a stuck one gives its place up."""

API_BODY_SECONDS: Final = 10.0
"""From the end of the headers to the end of the body."""

API_IDLE_SECONDS: Final = 30.0
"""A connection kept open with no request on it."""

API_WRITE_SECONDS: Final = 30.0
"""One write to a caller that doesn't read: long enough for a terminal stopped with Ctrl-S for a moment."""

API_CONNECTIONS: Final = 64
"""Open local connections at once. One person has a handful; a script gone wild must not eat the node's descriptors."""

METRICS_CONNECTIONS: Final = 8
"""Open connections at once to the port of ``metrics.listen``: a Prometheus has one, two of them two."""

PROGRESS_SECONDS: Final = 0.1
"""Between two progress events of one operation: smooth for an eye, next to nothing for the node."""

LOG_BYTES: Final = 5 * MIB
"""Size at which a background node's log is set aside (one old one is kept): a month of a busy node."""
