"""Networks for tests, made of network namespaces: an internet, machines in the open, homes behind routers.

    with Lab() as lab:
        open_machine = lab.public(1)            # 5.5.1.2, its own place in the internet
        home = lab.home(1, kind="symmetric")    # 192.168.1.2 behind a router that others see as 7.7.1.1
        RealNode(..., prefix=home.prefix, listen=["/ip4/0.0.0.0/tcp/4017"])

Nothing in it leads to a real network: the addresses are public ones only in name. Skips the test where namespaces or
TUN devices can't be made.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

from tests.namespaces import ip, join, namespaces
from tests.reach import router

EVERY = pytest.mark.skipif(
    not os.environ.get("P2PLEARN_ALL_REACH"), reason="takes as long as all others here; P2PLEARN_ALL_REACH=1"
)
"""Marks tests that a push does not wait for."""


@dataclass(frozen=True)
class Machine:
    """A namespace where a node can run: ``prefix`` goes before its command line."""

    namespace: str
    address: str
    router: str = ""

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


class Lab:
    """See the head of this file."""

    def __init__(self) -> None:
        self._made = contextlib.ExitStack()
        self.routers: list[subprocess.Popen[str]] = []
        """Of the homes, in order."""
        self._commands: list[tuple[str, list[str]]] = []

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as unless_done:
            unless_done.callback(self._made.close)
            self.internet = self.machine("net")
            forward(self.internet)
            unless_done.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.routers:
            _end(process)
        self._made.close()

    def public(self, number: int) -> Machine:
        """A machine in the open."""
        name = self.machine(f"pub{number}")
        self.cable(self.internet, f"5.5.{number}.1/24", name, f"5.5.{number}.2/24")
        ip("-n", name, "route", "add", "default", "via", f"5.5.{number}.1")
        return Machine(name, f"5.5.{number}.2")

    def home(self, number: int, *, kind: str = "cone", serve: str = "") -> Machine:
        """A machine behind a router; every home has the same addresses inside, as real ones do.

        ``serve`` has the router forward ports on request: "pmp" or "upnp".
        """
        name, gateway = self.machine(f"home{number}"), self.machine(f"gw{number}")
        self.cable(gateway, "192.168.1.1/24", name, "192.168.1.2/24")
        ip("-n", name, "route", "add", "default", "via", "192.168.1.1")
        forward(gateway)
        inside, outside, seen_as = "nat0", f"out{number}", f"7.7.{number}.1"
        for namespace, device in ((gateway, inside), (self.internet, outside)):
            try:
                ip("-n", namespace, "tuntap", "add", "dev", device, "mode", "tun")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"may not make TUN devices: {error.stderr.decode().strip()}")
            ip("-n", namespace, "link", "set", device, "up")
        ip("-n", gateway, "route", "add", "default", "dev", inside)
        ip("-n", self.internet, "route", "add", f"{seen_as}/32", "dev", outside)
        arguments = ["--inside", inside, "--outside", outside, "--outside-namespace", self.internet]
        arguments += ["--address", seen_as, "--kind", kind]
        self._commands.append((gateway, [*arguments, "--serve", serve] if serve else arguments))
        self.routers.append(self._router(len(self.routers)))
        return Machine(name, "192.168.1.2", gateway)

    def _router(self, at: int) -> subprocess.Popen[str]:
        gateway, arguments = self._commands[at]
        process = subprocess.Popen(
            ["ip", "netns", "exec", gateway, sys.executable, router.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the router did not start"
        return process

    def forget(self, number: int) -> None:
        """Have the router of home ``number`` (from 1) forget connections and forwarded ports, as it does in an hour."""
        _end(self.routers[number - 1])
        self.routers[number - 1] = self._router(number - 1)

    def said(self, number: int, seconds: float = 60.0) -> str:
        """The next line of what the router of home ``number`` (from 1, as they were made) says of ports it forwards."""
        stdout = self.routers[number - 1].stdout
        assert stdout is not None
        readable, _, _ = select.select([stdout], [], [], seconds)
        assert readable, "the router was asked for nothing"
        return stdout.readline()

    def cable(self, one: str, one_address: str, two: str, two_address: str) -> tuple[str, str]:
        """Join two namespaces by a cable; the names of its two ends."""
        return join(one, one_address, two, two_address, bare=True)  # no addresses but those given

    def machine(self, name: str) -> str:
        """A namespace with nothing but loopback."""
        (made,) = self._made.enter_context(namespaces(name))
        return made


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(60)


def forward(namespace: str) -> None:
    """Make a router of ``namespace``: it passes on what is for others."""
    for version in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        command = f"echo 1 > /proc/sys/net/{version}"
        with contextlib.suppress(subprocess.CalledProcessError):  # one of the two may be missing
            subprocess.run(["ip", "netns", "exec", namespace, "sh", "-c", command], check=True, capture_output=True)


def random_course(folder: Path, size: int) -> Path:
    """A course of one file with ``size`` bytes that no compression and no other course shares."""
    folder.mkdir(parents=True)
    (folder / "lesson.bin").write_bytes(os.urandom(size))
    return folder
