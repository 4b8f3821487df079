"""Bounds on the line-by-line talk (multistream-select) that opens every connection and every stream.

libp2p reads a line of whatever length its prefix claims, up to 2^64, and decodes it as UTF-8 where only its own
errors are caught: one line that is no UTF-8 ends a stock host, and one that claims a gigabyte fills its memory. Its
communicator class is imported by name into five modules, but the line reader it uses lives in one: that name is
replaced here, once for the process.

Imports only libp2p.
"""

from __future__ import annotations

from libp2p.exceptions import ParseError
from libp2p.io.abc import Reader
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

MAX_LINE = 1024
"""Bytes of one multistream line; the longest protocol names in use have about 60, go-libp2p stops at 1024 too."""


async def read_line(reader: Reader) -> bytes:
    """One multistream line without its newline; raises ParseError for one that is too long, unfinished or no text."""
    try:
        line = await read_varint_prefixed_bytes_limited(reader, MAX_LINE)
    except ParseError:
        raise
    except ValueError as error:  # MessageTooLarge
        raise ParseError(str(error)) from error
    if not line.endswith(b"\n"):
        raise ParseError("a multistream line without its newline")
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise ParseError("a multistream line that is no UTF-8") from error
    return line[:-1]


def bound_negotiation() -> None:
    """Make libp2p read multistream lines with ``read_line``. Safe to call again."""
    multiselect_communicator.read_delim = read_line
