"""A file for a bug report: what the doctor found, figures of the node, settings, the end of its log; redacted.

Imports ``config``, ``units``, ``redact``, ``facts``, ``judge`` and the standard library; runs journalctl.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import ipaddress
import json
import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from p2plearn import __version__, units
from p2plearn.config import Home, Settings, spell
from p2plearn.doctor.facts import Facts
from p2plearn.doctor.judge import Finding
from p2plearn.doctor.redact import Redactor
from p2plearn.errors import P2plearnError, UsageProblem

LOG_BYTES: Final = 64 * 1024
"""The end of the log: some hundred lines."""

JOURNAL_LINES: Final = 400
JOURNAL_SECONDS: Final = 10.0
"""Reading the end of a journal takes an instant; a huge one on a slow disk may take some."""

_LIBRARIES: Final = ("libp2p", "trio", "multiaddr", "cryptography", "zeroconf", "click")


def write_bundle(path: Path, home: Home, facts: Facts, findings: Sequence[Finding], knock: dict[str, Any]) -> None:
    """Write the report to ``path``, which must not exist yet, readable by its owner alone.

    Raises UsageProblem when there is something already, P2plearnError when it can't be written.
    """
    text = json.dumps(make_bundle(home, facts, findings, knock), indent=1, ensure_ascii=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise UsageProblem(f"{path} exists already.", "Name a file that doesn't.") from None
    except OSError as error:
        raise P2plearnError(f"{path} can't be written: {error.strerror}.") from None


def make_bundle(home: Home, facts: Facts, findings: Sequence[Finding], knock: dict[str, Any]) -> dict[str, Any]:
    """The report as JSON."""
    redactor = Redactor(_names(home) | _called(knock))
    return {
        "p2plearn": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "installed": {name: _version(name) for name in _LIBRARIES},
        "findings": [
            {**dataclasses.asdict(each), "words": redactor.text(each.words), "todo": redactor.text(each.todo)}
            for each in findings
        ],
        "knock": _texts(redactor, knock),
        "interfaces": [
            {"kind": each.kind, "addresses": [redactor.text(address) for address in each.addresses]}
            for each in facts.interfaces
        ],
        "facts": redactor.figures(
            {
                each.name: getattr(facts, each.name)
                for each in dataclasses.fields(facts)
                if each.name not in {"status", "peers", "interfaces", "bootstrap", "ports", "multicast"}
            }
        ),
        "status": redactor.figures(facts.status),
        "peers": redactor.figures(list(facts.peers)),
        "settings": _settings(home, redactor),
        "log": redactor.log(_log_lines(home)),
        "journal": redactor.log(_journal_lines(facts.node_pid)),
    }


def _names(home: Home) -> dict[str, str]:
    names = {str(home.path): "HOME", str(Path.home()): "~", socket.gethostname(): "HOST"}
    with contextlib.suppress(KeyError, OSError):  # a user without a name has none to hide
        names[getpass.getuser()] = "USER"
    names.pop("root", None)  # everybody's
    return names


def _called(knock: dict[str, Any]) -> dict[str, str]:
    """The name of the machine that was knocked at, where it was given as one: ``ada-laptop:4017``."""
    address = str(knock.get("address", ""))
    host = address.rpartition(":")[0] or address
    if not host or address.startswith("/"):  # of multiaddrs the redactor knows the parts
        return {}
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return {host: "…"}
    return {}


def _texts(redactor: Redactor, value: Any) -> Any:
    """Every text in ``value`` shortened: for what the doctor itself wrote."""
    if isinstance(value, str):
        return redactor.text(value)
    if isinstance(value, dict):
        return {key: _texts(redactor, each) for key, each in value.items()}
    return [_texts(redactor, each) for each in value] if isinstance(value, list | tuple) else value


def _settings(home: Home, redactor: Redactor) -> dict[str, str]:
    """What isn't as it comes. Numbers and choices only: any other text may be private."""
    try:
        settings = Settings.load(home.path)
    except P2plearnError as error:
        return {"problem": redactor.text(error.message)}
    return {
        each.row.name: "…"
        if each.row.kind in {"text", "texts"} and not each.row.choices
        else spell(each.value, each.row.kind)
        for each in settings
        if each.source != "default"
    }


def _log_lines(home: Home) -> list[str]:
    try:
        with home.log.open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - LOG_BYTES)
            file.seek(begin)
            lines = file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
            return lines[1:] if begin else lines  # the first is cut in the middle
    except OSError:
        return []


def _journal_lines(pid: int | None) -> list[str]:
    """The end of what a node said that runs as a service: its log is the journal's. Empty where there is none."""
    who = [f"_PID={pid}"] if pid else [f"_SYSTEMD_USER_UNIT={units.NAME}", "+", f"_SYSTEMD_UNIT={units.NAME}"]
    try:
        done = subprocess.run(
            ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={JOURNAL_LINES}", *who],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=JOURNAL_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout[-LOG_BYTES:].decode("utf-8", "replace").splitlines()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
