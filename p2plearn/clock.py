"""Whether this machine's clock can be right, by what the machine itself knows: words, where it can't. ⊙ but for the two
that ask the system.

Imports the standard library.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Final

MADE: Final = 1_767_225_600.0
"""2026-01-01: this program is younger, so a clock that says less is wrong."""

SKEW_SECONDS: Final = 600.0
"""What others sign may be this far in our future before it is refused, so that is where a clock begins to matter."""

ZONES_SECONDS: Final = 14 * 3600.0
"""The time zone farthest from UTC; all are whole quarters of an hour."""


def clock_set() -> bool | None:
    """Whether the kernel counts its clock as kept right: adjtimex(2), asked without changing anything."""
    if sys.platform != "linux":
        return None
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR


def hardware_clock(file: Path = Path("/sys/class/rtc/rtc0/since_epoch")) -> float | None:
    """What the hardware's clock says, seconds since 1970, read as UTC; None where there is none that can be read."""
    try:
        return float(file.read_text("ascii"))
    except (OSError, ValueError):
        return None


def off_hardware(now: float, hardware: float | None, *, kept_right: bool | None) -> float:
    """Seconds by which the hardware's clock is ahead of the system's ``now``, 0 where that says nothing."""
    if hardware is None or kept_right is not False:  # kept right, the system's is the better one
        return 0.0
    apart = hardware - now
    # Systems beside Windows keep local time in it: then they differ by a time zone.
    zone = abs(apart) <= ZONES_SECONDS and abs(apart - round(apart / 900.0) * 900.0) < 120.0
    return 0.0 if zone or abs(apart) <= SKEW_SECONDS else apart


def doubts(now: float, *, newest: float, hardware: float | None, kept_right: bool | None) -> str:
    """Why what is signed at ``now`` may bear a wrong time, and what to do; empty where nothing speaks for it.

    ``newest``: when a file was written that is signed for, as its system dated it (a stick from far away may be a time
    zone off).
    """
    apart = off_hardware(now, hardware, kept_right=kept_right)
    if now < MADE:
        why = f"This machine's clock is at least {(MADE - now) / 3600:,.0f} hours behind"
    elif newest - now > ZONES_SECONDS + SKEW_SECONDS:
        why = f"This machine's clock is behind: what is published was written {(newest - now) / 3600:,.0f} hours later"
    elif apart:
        way = "behind" if apart > 0 else "ahead of"
        why = f"This machine's clock is {abs(apart) / 3600:,.1f} hours {way} that of its hardware, and nothing sets it"
    else:
        return ""
    return f"{why}. Others refuse what is dated ahead, and a day off nobody connects. Set it: timedatectl set-ntp true."
