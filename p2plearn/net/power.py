"""What this machine runs on: battery or mains, a metered line or not, as far as the system tells. And nice.

Linux tells the first in ``/sys/class/power_supply``, NetworkManager the second over D-Bus (asked through ``busctl``,
which comes with systemd). Where either is absent the answer is None: unknown. Everything here blocks, briefly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

POWER_SUPPLIES: Final = Path("/sys/class/power_supply")
NETWORK_MANAGER: Final = Path("/run/NetworkManager")
"""There while NetworkManager runs; spares a machine without it a process a minute."""

ASK_SECONDS: Final = 3.0

NICE: Final = 10
"""Niceness on battery: other programs come first, and the node still gets what they leave."""

NICE_AT_START: Final = os.getpriority(os.PRIO_PROCESS, 0)

_QUESTION: Final = (
    "--system", "get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager", "Metered",
)  # fmt: skip
_METERED: Final = {"1": True, "2": False, "3": True, "4": False}
"""NMMetered: yes, no, guess yes, guess no; 0 is unknown."""


def read_battery(supplies: Path = POWER_SUPPLIES) -> bool | None:
    """Whether this machine runs on battery; None when it has none, or doesn't tell."""
    discharging: bool | None = None
    try:
        folders = sorted(supplies.iterdir())
    except OSError:
        return None
    for folder in folders:
        kind = _word(folder / "type")
        if kind in ("Mains", "USB", "Wireless") and _word(folder / "online") == "1":
            return False
        if kind == "Battery" and _word(folder / "scope") != "Device":  # a mouse has one too
            discharging = bool(discharging) or _word(folder / "status") == "Discharging"
    return discharging


def _word(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def read_metered(running: Path = NETWORK_MANAGER) -> bool | None:
    """Whether NetworkManager holds the line in use for metered; None when it isn't there, or doesn't know."""
    program = shutil.which("busctl") if running.is_dir() else None
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, *_QUESTION], check=True, capture_output=True, timeout=ASK_SECONDS, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    kind, _, value = answer.decode("ascii", "replace").strip().partition(" ")
    return _METERED.get(value) if kind == "u" else None


def settle(nice: int) -> int:
    """Make this process as nice as ``node.nice`` asks, unless it is nicer already; how nice it is from here on."""
    usual = max(nice, NICE_AT_START)
    return usual if _be(usual) else NICE_AT_START


def stand_back(*, back: bool, usual: int = NICE_AT_START) -> bool:
    """Make this process nice (or, with ``back`` false, as it is otherwise); whether the system let us.

    Most systems let an ordinary user go back only within RLIMIT_NICE: then it stays nice until it is started again.
    """
    return _be(max(NICE, usual) if back else usual)


def _be(nice: int) -> bool:
    """Give every thread of this process a niceness; whether the system let us."""
    if sys.platform == "linux":
        # Linux keeps niceness by thread: those there are now; new ones have that of whoever starts them.
        threads = [int(each.name) for each in Path("/proc/self/task").iterdir()]
    else:
        threads = [0]
    for thread in threads:
        try:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        except ProcessLookupError:  # it ended meanwhile
            continue
        except OSError:
            return False
    return True
