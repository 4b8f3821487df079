"""⊙ systemd units of a node as text: one for a person's session, one for a machine.

In: the command that starts the node, and where its home is. Out: the unit's text. Each hardening is there for a reason
(docs/operations.md): the node reads what strangers send, so it gets what it needs and nothing else. A person's unit
has none that needs a namespace of its own, because many systems deny those to ordinary users and the unit would not
start; and the whole of the person's files stays open to it, since that is where courses come from and go to.

Imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

NAME: Final = "p2plearn.service"

SYSTEM_HOME: Final = "/var/lib/p2plearn"
"""Home of a machine's node; systemd makes it (StateDirectory) for a user that it makes up (DynamicUser)."""

HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is put there
"""What a machine's unit keeps from the node (ProtectHome, PrivateTmp): its program can't be there either."""

WATCHDOG_SECONDS: Final = 60
"""Without a sign of life for this long the node counts as hung and is started anew. An event loop that is only busy
is late by a second or two."""

OPEN_FILES: Final = 8192
"""Connections, files of the store, local calls: 192 + some hundreds at most by default; a school's server may raise
network.max_connections to thousands. The usual 1,024 is too little for that."""

_COMMON: Final = f"""\
[Unit]
Description=p2plearn: courses from learner to learner
{{after}}
# A node that can't start (a damaged disk, say) is tried five times in ten minutes, then left for a person to see.
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={{start}}
{{environment}}Restart=on-failure
RestartSec=5
# Its home is gone (deleted, or its disk unplugged): a start would make an empty one, with new keys.
RestartPreventExitStatus=10
WatchdogSec={WATCHDOG_SECONDS}
# After a crash on a slow disk the catalogue may have to be built anew first.
TimeoutStartSec=600
TimeoutStopSec=60
# Others' courses must not slow down what the machine is there for.
Nice=5
IOSchedulingClass=best-effort
IOSchedulingPriority=7
LimitNOFILE={OPEN_FILES}
LimitCORE=0
UMask=0077
OOMPolicy=stop
{{home}}
# What strangers send is read by a process that can do little.
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""

_USER: Final = """\
SystemCallFilter=@system-service

[Install]
WantedBy=default.target
"""

_SYSTEM: Final = """\
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @setuid @keyring
CapabilityBoundingSet=
AmbientCapabilities=
DevicePolicy=closed
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes

[Install]
WantedBy=multi-user.target
"""


def user_unit(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The unit of a person's node: ``command`` with its arguments, ``environment`` besides the session's."""
    return (
        _COMMON.format(
            after="", start=_command(command), environment=_environment(environment), home="# (home: as ExecStart says)"
        )
        + _USER
    )


def system_unit(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The unit of a machine's node, whose home is ``SYSTEM_HOME``."""
    home = "DynamicUser=yes\nStateDirectory=p2plearn\nStateDirectoryMode=0700"
    after = "Wants=network-online.target\nAfter=network-online.target"
    return (
        _COMMON.format(after=after, start=_command(command), environment=_environment(environment), home=home) + _SYSTEM
    )


def out_of_sight(paths: Sequence[str]) -> list[str]:
    """Those of ``paths``, absolute ones with their links followed, that the node of a machine's unit can't read."""
    return [path for path in paths if any(f"{path}/".startswith(f"{folder}/") for folder in HIDDEN)]


def _command(words: Sequence[str]) -> str:
    """A command line as systemd.service(5) reads it: no shell; ``%`` and ``$`` are its own."""
    return " ".join(_quoted(word.replace("$", "$$")) for word in words)


def _environment(values: Mapping[str, str]) -> str:
    return "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in values.items())


def _quoted(word: str) -> str:
    if "\n" in word or "\0" in word:
        raise ValueError("a unit's word is one line")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if word and not set(word) & set(" \t'\"\\;") else f'"{escaped}"'
