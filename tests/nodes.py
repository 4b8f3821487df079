"""Real nodes in processes of their own, driven through the command line: what end-to-end tests stand on.

    with RealNode(tmp_path / "a") as a, RealNode(tmp_path / "b", bootstrap=[a.address]) as b:
        course = a.run("publish", folder)["course"]
        b.run("get", course, "-o", out)

Every command runs with ``--json`` as a process, as a script would; ``run`` returns its last JSON object and fails
with everything the command and the node said when the exit code is another than expected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from p2plearn import background
from p2plearn.config import Home

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True)
class Ran:
    """How a command ended. ``events`` are the JSON lines of stdout, the last one is ``last``."""

    code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]


def command(*arguments: object, home: Path | None = None) -> list[str]:
    """The command line of p2plearn in this Python."""
    head = [sys.executable, "-P", "-m", "p2plearn"] + (["--home", str(home)] if home else [])
    return head + [os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment of a fresh user: nothing of p2plearn set, no colours asked for or refused."""
    env = background.environment()
    for name in list(env):
        if name.startswith("P2PLEARN_") or name in {"NO_COLOR", "FORCE_COLOR"}:
            del env[name]
    return env | more


def run_command(
    *arguments: object,
    home: Path | None = None,
    timeout: float = 60.0,
    cwd: Path | None = None,
    stdin: int | None = subprocess.DEVNULL,
    **env: str,
) -> Ran:
    """Run one command to its end; never raises for an exit code."""
    done = subprocess.run(
        command(*arguments, home=home),
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
        cwd=cwd,
        stdin=stdin,
        env=environment(**env),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class RealNode:
    """One node of the real kind, from ``node start`` to ``node stop``, in the home ``folder``.

    Listens on a free loopback port without mDNS unless told otherwise. It may be started again after ``stop`` or
    ``kill`` in the same home. Ended with the tests' process, whatever becomes of that.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bootstrap: Sequence[str] = (),
        listen: Sequence[str] = (LOOPBACK,),
        mdns: bool = False,
        extra: Sequence[str] = (),
        env: dict[str, str] | None = None,
        start_seconds: float = 60.0,
        prefix: Sequence[str] = (),
    ) -> None:
        self.home = Home(folder)
        self.bootstrap, self.listen, self.mdns, self.extra = list(bootstrap), list(listen), mdns, list(extra)
        # Nodes keep nothing for each other unless a test is about that: then who has what is the test's own doing.
        # And no router is asked for anything: whatever stands before the machine that tests is none of theirs.
        self.env = {"P2PLEARN_STORAGE_GIVE": "0", "P2PLEARN_NETWORK_MAP_PORT": "no"} | (env or {})
        self.start_seconds = start_seconds
        self.prefix = list(prefix)  # goes before the node's command line: "ip netns exec NAME"
        self.process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, Any] = {}
        self.ready_seconds = 0.0

    def __enter__(self) -> RealNode:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and "FAULT_AT" not in self.env:  # where no test put one
            assert "ended with a fault of ours" not in self.log, self.log

    # -- the node -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it is ready."""
        arguments = ["node", "start", "--json", "--stop-with-stdin", *self.extra]
        arguments += [part for address in self.listen for part in ("--listen", address)]
        arguments += [part for address in self.bootstrap for part in ("--bootstrap", address)]
        if not self.mdns:
            arguments.append("--no-mdns")
        self.home.prepare()
        begun = time.monotonic()
        with self.home.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.prefix + command(*arguments, home=self.home.path),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(**self.env),
            )
        assert self.process.stdout is not None
        line = background.read_line(self.process.stdout.fileno(), time.monotonic() + self.start_seconds)
        self.ready_seconds = time.monotonic() - begun
        self.facts = json.loads(line) if line else {}
        if self.facts.get("event") != "ready":
            said = self.facts
            self.kill()
            raise AssertionError(f"the node of {self.home.path} did not start: {said}\n{self.log}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def address(self) -> str:
        """Its first address, with ``/p2p/``."""
        return str(self.facts["addresses"][0])

    @property
    def peer_id(self) -> str:
        return str(self.facts["peer_id"])

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return self.home.log.read_text("utf-8", "replace") if self.home.log.exists() else ""

    def stop(self, seconds: float = 30.0) -> int:
        """End it as SIGTERM does; returns its exit code. Harmless when it isn't running."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the node of {self.home.path} did not end in {seconds} s\n{self.log}") from None
        finally:
            _close(process)

    def kill(self) -> None:
        """SIGKILL: what a crash or a power cut does to a process."""
        if self.process is not None:
            process, self.process = self.process, None
            process.kill()
            process.wait()
            _close(process)

    # -- commands -----------------------------------------------------------------------------------------------------

    def run(self, *arguments: object, code: int = 0, timeout: float = 60.0) -> dict[str, Any]:
        """Run a command for this home with ``--json``; its last JSON object. Fails unless it exits with ``code``."""
        ran = run_command(*arguments, "--json", home=self.home.path, timeout=timeout)
        assert ran.code == code, f"{arguments}: exit {ran.code}\n{ran.stdout}\n{ran.stderr}\nnode's log:\n{self.log}"
        return ran.last

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """Begin a command with ``--json`` and return its process: to be read, interrupted or killed."""
        return subprocess.Popen(
            command(*arguments, "--json", home=self.home.path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(**self.env),
        )

    def wait_for(self, what: Callable[[dict[str, Any]], object], seconds: float = 90.0) -> dict[str, Any]:
        """The status, once ``what`` is true of it."""
        deadline = time.monotonic() + seconds
        while not what(status := self.run("node", "status")):
            assert time.monotonic() < deadline, f"it did not come to that: {status}\n{self.log}"
            time.sleep(0.25)
        return status

    def wait_until(self, what: str, least: int, seconds: float = 30.0) -> dict[str, Any]:
        """The status, once its number ``what`` ("peers", "courses") is at least ``least``."""
        deadline = time.monotonic() + seconds
        while (status := self.run("node", "status"))[what] < least:
            assert time.monotonic() < deadline, f"{what} stays at {status[what]}\n{self.log}"
            time.sleep(0.1)
        return status


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
