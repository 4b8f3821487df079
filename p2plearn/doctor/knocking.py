"""One knock, from code that isn't trio's."""

from __future__ import annotations

import functools

import trio

from p2plearn.config import Home
from p2plearn.errors import P2plearnError
from p2plearn.membership import group_of
from p2plearn.net.knock import STEP_SECONDS, Knock, knock


def knock_now(address: str, home: Home, seconds: float = STEP_SECONDS) -> Knock:
    """See ``net.knock.knock``; as a member of the closed group that ``home`` is in, if any. Blocks until it is over."""
    return trio.run(functools.partial(knock, address, seconds, key_of(home)))


def key_of(home: Home) -> bytes:
    """The key of the closed group that ``home`` is in; empty for the open network, or when it can't be read."""
    try:
        group = group_of(home)
    except P2plearnError:
        return b""
    return group.key if group is not None else b""
