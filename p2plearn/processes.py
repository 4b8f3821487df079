"""Why another process of this machine says nothing: what the kernel knows of it, in words, and what to do.

Imports the standard library.
"""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """How a process stands, by the letter of proc(5) and ps(1): R runs, S sleeps, D waits for a disk, T is suspended,
    t is held by a debugger, Z has ended. Empty when it can't be told.
    """
    if pid <= 0:
        return ""
    try:
        # pid (name) state …: the name may have any character in it, brackets too.
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(") ")[2][:1]
    except OSError:
        pass
    import subprocess  # late: only here it is needed

    try:  # no /proc: macOS
        asked = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, timeout=5.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.decode("ascii", "replace").strip()[:1]


def why_silent(pid: int, state: str) -> tuple[str, str]:
    """What ``state`` says of a node's silence, to stand after "it doesn't answer", and what to do; both without
    full stops.
    """
    if state in {"T", "t"}:
        held = "is suspended (Ctrl-Z, SIGSTOP)" if state == "T" else "is held by a debugger"
        return f"its process {pid} {held}", f"Let it go on: kill -CONT {pid}"
    if state == "D":
        return (
            f"its process {pid} waits for the disk",
            "See that the disk is there and sound: a pulled stick, or a network drive that is gone, holds it up",
        )
    return (
        f"its process {pid} is busy or hangs",
        "Try again in a minute. If it stays so: p2plearn node stop, and start it anew",
    )
