"""Knocking at a node, from code that isn't trio's, and finding out whether the two clocks agree.

A node refuses a certificate that isn't valid yet by its clock. So certificates that begin to be valid at chosen times
tell what its clock shows, and a refusal that another date lifts has the clock for its cause and nothing else.
"""

from __future__ import annotations

import functools
import time
from typing import Final

import trio

from p2plearn.clock import SKEW_SECONDS
from p2plearn.config import Home
from p2plearn.errors import P2plearnError
from p2plearn.membership import group_of
from p2plearn.net.knock import BEYOND, STEP_SECONDS, Knock, knock
from p2plearn.net.tls import BACKDATED_SECONDS

LONG_AGO: Final = 1.0
"""A date that has passed by every clock, seconds since 1970."""


def knock_now(address: str, home: Home, seconds: float = STEP_SECONDS) -> Knock:
    """See ``compare``; as a member of the closed group that ``home`` is in, if any. Blocks until it is over."""
    return trio.run(functools.partial(compare, address, key_of(home), seconds))


async def compare(address: str, key: bytes, seconds: float = STEP_SECONDS) -> Knock:
    """Knock as ``net.knock.knock`` does, then once or twice more where that tells how the other's clock stands."""
    found = await knock(address, seconds, key)
    now = time.time()
    if _refused(found):
        probe = await knock(address, seconds, key, LONG_AGO)
        if not probe.fault:
            found.their_clock, found.their_latest = probe.their_clock, now - BACKDATED_SECONDS
    elif not found.fault and found.their_clock <= now:
        probe = await knock(address, seconds, key, now - SKEW_SECONDS)
        # It may have had enough of us, or of everybody: only if another date is good enough is it the clock.
        if _refused(probe) and not (await knock(address, seconds, key)).fault:
            found.their_latest = now - SKEW_SECONDS
    return found


def _refused(found: Knock) -> bool:
    """Whether it hung up once it had seen the certificate."""
    failed = next((step for step in found.steps if step.fault), None)
    at = failed.name.removeprefix(BEYOND) if failed is not None else ""
    return failed is not None and at in {"membership", "identify"} and failed.fault != "timeout"


def key_of(home: Home) -> bytes:
    """The key of the closed group that ``home`` is in; empty for the open network, or when it can't be read."""
    try:
        group = group_of(home)
    except P2plearnError:
        return b""
    return group.key if group is not None else b""
