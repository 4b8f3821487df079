"""A node as a process of its own: started in the background, told to stop.

The new process says over a pipe when it is ready, or what went wrong; so ``node start --detach`` returns neither too
early nor without a reason.

Imports ``client``, ``config``, ``errors``, ``lock``, ``operations``, ``processes`` and the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import p2plearn
from p2plearn.client import NodeClient, as_error
from p2plearn.config import Home
from p2plearn.errors import NoNode, P2plearnError
from p2plearn.lock import holder
from p2plearn.processes import state_of, why_silent

READY_SECONDS = 60.0
"""A node is ready in two seconds; a slow disk after a crash, with a catalogue to rebuild, may take far longer."""

_STOP_SECONDS = 30.0
_TERM_SECONDS = 10.0
_MOST_MESSAGE_BYTES = 64 * 1024


def command(home: Path, arguments: Sequence[str]) -> list[str]:
    """The command line of this program, for the same home, in the same Python."""
    # -P: the working folder must not be able to put modules of its own in front of ours.
    return [sys.executable, "-P", "-m", "p2plearn", "--home", str(home), *arguments]


def source_environment() -> dict[str, str]:
    """What ``command`` needs in a fresh environment: where this p2plearn is, when it isn't installed in its Python."""
    package = Path(p2plearn.__file__).resolve().parent.parent
    return {} if package.is_relative_to(Path(sys.prefix).resolve()) else {"PYTHONPATH": str(package)}


def environment() -> dict[str, str]:
    """The environment for ``command``: this one, and Python finds the same p2plearn wherever it is run."""
    mine = os.environ.copy()
    package = Path(p2plearn.__file__).resolve().parent.parent
    before = [str(Path(entry).absolute()) for entry in mine.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if str(package) not in before:
        # Last, so that an installed package shadows nothing that the user put first.
        before.append(str(package))
    mine["PYTHONPATH"] = os.pathsep.join(before)
    return mine


def start(home: Home, arguments: Sequence[str]) -> dict[str, Any]:
    """Start a node in a session of its own and wait until it is ready; returns what it said: peer id, addresses.

    Raises the P2plearnError that stopped it. Interrupted while it waits, it takes the new process down again.
    """
    reading, writing = os.pipe()
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            command(home.path, ["node", "start", "--ready-fd", str(writing), *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            cwd=home.path,
            env=environment(),
        )
    finally:
        os.close(writing)
        os.close(log)
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            message = _await_message(pipe.fileno(), child, home)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if "ready" in message:
        child.returncode = 0  # it lives on; nobody waits for it here, and Popen must not warn of that
        return dict(message["ready"])
    if "problem" in message:
        child.wait()
        raise as_error(message["problem"])
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=1.0)
    if child.returncode is None:
        child.terminate()
        child.wait()
        raise P2plearnError(f"The node was not ready within {READY_SECONDS:.0f} s.", f"Its log: {home.log}")
    raise P2plearnError(
        f"The node ended before it was ready (exit code {child.returncode}).", f"Its log may say why: {home.log}"
    )


def _await_message(descriptor: int, child: subprocess.Popen[bytes], home: Home) -> dict[str, Any]:
    """What the new process says, in ``READY_SECONDS``; but however long its store's catalogue is built anew."""
    while True:
        message = _read_message(descriptor, time.monotonic() + READY_SECONDS)
        if message or child.poll() is not None or not home.rebuilding.exists():
            return message


def _read_message(descriptor: int, deadline: float) -> dict[str, Any]:
    """The JSON object that comes through the pipe; empty if none does."""
    line = read_line(descriptor, deadline)
    message = json.loads(line) if line else {}
    return message if isinstance(message, dict) else {}


def read_line(descriptor: int, deadline: float) -> bytes:
    """A whole line that comes through a pipe before its end and the deadline (of ``time.monotonic``), else empty."""
    arrived = b""
    while len(arrived) < _MOST_MESSAGE_BYTES and not arrived.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(descriptor, _MOST_MESSAGE_BYTES) if readable else b""
        if not part:
            return b""
        arrived += part
    return arrived


def say(descriptor: int, message: Mapping[str, Any]) -> None:
    """From the new process: the one message through the pipe, which closes; harmless when nobody listens any more."""
    with contextlib.suppress(OSError):
        os.write(descriptor, json.dumps(message).encode("ascii") + b"\n")
    with contextlib.suppress(OSError):
        os.close(descriptor)


def stop_with_stdin() -> None:
    """From a child process: end as by SIGTERM once stdin does, so that it never outlives whoever holds that pipe."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stop-with-stdin", daemon=True).start()


def wake(home: Home) -> int:
    """Have the node of ``home`` go on if its process is suspended: it can't stop, or answer, before. Its id, or 0."""
    pid = holder(home.lock) or 0
    if state_of(pid) != "T":
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return pid


def stop(home: Home, client: NodeClient) -> dict[str, Any]:
    """Stop the node of ``home`` and wait until its process is gone: then its disk may be taken away, too.

    Returns ``pid``, ``seconds``, ``signalled`` (it didn't react to the call and was sent SIGTERM), ``fewer_copies``
    (courses that have fewer copies than asked for without it) and ``unconfirmed`` (peer ids of nodes that may have
    copies of these, and didn't answer at once); ``told``: whether the node said so, else its log does. Raises NoNode
    when there is none, P2plearnError when it won't end.
    """
    begun = time.monotonic()
    pid = holder(home.lock)
    if pid is None:
        raise NoNode(f"No node is running for {home.path}.", "There is nothing to stop.")
    with _process(pid) as has_ended:
        asked = True
        words: dict[str, Any] = {}
        try:
            words = client.stop()
        except P2plearnError:
            asked = False
        signalled = False
        if not (asked and _wait_until_free(home, pid, _STOP_SECONDS)) and holder(home.lock) == pid and pid:
            signalled = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not _wait_until_free(home, pid, _TERM_SECONDS):
                why, _ = why_silent(pid, state_of(pid))
                raise P2plearnError(
                    f"The node has not ended {_TERM_SECONDS:.0f} s after SIGTERM: {why}.",
                    f"What it keeps survives this: kill -9 {pid}",
                )
        has_ended(_TERM_SECONDS)
    return {
        "pid": pid,
        "seconds": round(time.monotonic() - begun, 3),
        "signalled": signalled,
        "told": bool(words),
        "fewer_copies": list(words.get("fewer_copies", ())),
        "unconfirmed": list(words.get("unconfirmed", ())),
    }


@contextlib.contextmanager
def _process(pid: int) -> Iterator[Callable[[float], None]]:
    """A call that waits until that process has ended, for so many seconds at most.

    Where the system has no handles of processes (Linux has), or the process isn't to be seen from here, the call
    returns at once.
    """
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield lambda _seconds: None
        return
    try:

        def wait(seconds: float) -> None:
            select.select([handle], [], [], seconds)

        yield wait
    finally:
        os.close(handle)


def _wait_until_free(home: Home, pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while holder(home.lock) == pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
