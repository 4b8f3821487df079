"""⊙ What the doctor looks at, as plain values: made by ``collect``, or made up by a test.

Imports nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["loopback", "lan", "wifi", "vpn", "bridge", "mobile"]

_KINDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("loopback", ("lo",)),
    ("bridge", ("docker", "br-", "veth", "cni", "podman", "virbr", "vboxnet", "vmnet", "lxcbr", "lxdbr", "vEthernet")),
    ("vpn", ("tun", "tap", "wg", "tailscale", "utun", "zt", "ipsec", "nordlynx")),
    ("mobile", ("wwan", "ppp", "rmnet", "wwp")),
    ("wifi", ("wl",)),
)


def kind_of(interface: str) -> Kind:
    """What an interface is, by the names that systems and programs give."""
    return next((kind for kind, heads in _KINDS if interface.startswith(heads)), "lan")


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface: its name and its addresses with their networks, such as ``192.168.1.7/24``; whether it
    is connected, None if that can't be told.
    """

    name: str
    addresses: tuple[str, ...]
    connected: bool | None = None

    @property
    def kind(self) -> Kind:
        """What it is."""
        return kind_of(self.name)

    def networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """The networks it is on."""
        return [ipaddress.ip_network(each, strict=False) for each in self.addresses]


@dataclass(frozen=True, slots=True)
class Port:
    """An address to listen on. ``taken``: another program has it, or had it when the node started; None: it could not
    be told.
    """

    host: str
    port: int
    taken: bool | None = None


@dataclass(frozen=True, slots=True)
class Multicast:
    """What came of asking the LAN for nodes. ``own``: this machine's node answered; ``others``: how many others;
    ``forbidden``: this machine itself refuses to send, which only a firewall does; ``nowhere``: it has no network.
    """

    problem: str = ""
    own: bool = False
    others: int = 0
    forbidden: bool = False
    nowhere: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything, and nothing that isn't needed. Where something couldn't be found out, it is None or empty."""

    now: float
    home: str
    home_exists: bool = True
    home_mode: int = 0o700
    home_is_mine: bool = True
    home_writable: bool = True
    key_problems: tuple[tuple[str, str], ...] = ()
    """Why a start would refuse the keys: what is wrong with each, and what to do."""
    free_disk: int | None = None
    min_free: int = 0
    config_problem: str = ""
    node_pid: int | None = None
    node_silence: tuple[str, str] = ("", "")
    """Why a node that is there may be silent, and what to do, as ``processes.why_silent`` says."""
    status: Mapping[str, Any] | None = None
    peers: tuple[Mapping[str, Any], ...] = ()
    start_command: str = "p2plearn node start --detach"
    ports: tuple[Port, ...] = ()
    mdns: bool = True
    """Whether the LAN is looked at for nodes: as the running node does, else as the settings say."""
    interfaces: tuple[Interface, ...] = ()
    route4: bool = True
    route6: bool = False
    multicast: Multicast | None = None
    contained: str = ""
    """The kind of container or subsystem this runs in: docker, podman, wsl, …"""
    clock_set: bool | None = None
    """Whether the system says that its clock is kept right by a time service."""
    clock_offsets: tuple[float, ...] = ()
    """Seconds by which the clocks of bootstrap nodes, or of connected ones where those are too few, are ahead of this
    one (negative: behind), at least; 0 for one that agrees.
    """
    newest_file: float | None = None
    """A moment that has passed, seconds since 1970: the latest change to this home, to the program, or to what the
    system keeps of the time. A clock that says less went back."""
    hardware_clock: float | None = None
    """What the machine's own clock (that with the battery) says, seconds since 1970, read as UTC."""
    bootstrap: tuple[tuple[str, str], ...] | None = ()
    """Bootstrap nodes: address, and the fault of reaching it (empty: it answers); None: they couldn't be asked."""
