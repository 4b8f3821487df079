"""The facts that the doctor judges, collected from this machine: files, sockets, the node, the LAN.

Nothing is changed, and no wait is longer than a few seconds. What can't be found out stays unknown; nothing raises.

Imports ``asking``, ``client``, ``config``, ``net`` and the standard library; ifaddr for the interfaces.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import ifaddr
import trio

from p2plearn.client import NodeClient, start_command
from p2plearn.clock import clock_set, hardware_clock
from p2plearn.config import Home, Settings
from p2plearn.doctor.asking import ask_lan
from p2plearn.doctor.facts import Facts, Interface, Port
from p2plearn.doctor.knocking import compare, key_of
from p2plearn.doctor.ports import had_by_node, try_port, untold
from p2plearn.errors import P2plearnError
from p2plearn.identity import refuse_if_rotten
from p2plearn.lock import holder
from p2plearn.membership import group_of
from p2plearn.net.bootstrap import gather, lists
from p2plearn.net.knock import Knock
from p2plearn.net.lan import service_type
from p2plearn.net.links import is_connected
from p2plearn.private_files import make_private_folder, read_private
from p2plearn.processes import state_of, why_silent

MOST_KEY_BYTES: Final = 4096
"""Of a key file that are looked at."""

NODE_SECONDS: Final = 20.0
"""For the node to say how it stands: far longer than one takes that works."""

BOOTSTRAP_SECONDS: Final = 4.0
MOST_BOOTSTRAP: Final = 4
ENOUGH_CLOCKS: Final = 2
"""Other clocks by which this one can be judged: with one alone, either may be wrong."""

_TIMES: Final = (Path("/var/lib/systemd/timesync/clock"), Path("/var/lib/chrony/drift"), Path("/var/lib/ntp/drift"))
"""What time services write, of which the date is what counts."""


def collect(home: Home, *, named: bool) -> Facts:
    """Everything that ``judge`` asks for; takes some seconds. ``named``: the home was given on the command line."""
    problem, settings = "", Settings()
    try:
        settings = Settings.load(home.path)
    except P2plearnError as error:
        problem = error.message
    pid = holder(home.lock)
    status, peers = _ask(home) if pid is not None else (None, ())
    interfaces = list_interfaces()
    bootstrap, offsets = _bootstrap(home, settings)
    if len(offsets) < ENOUGH_CLOCKS:
        _, more = _knock_at(_connected(peers), key_of(home))
        offsets += more
    # A node may run with another setting than the file has: --no-mdns.
    mdns = settings.flag("network.mdns") if status is None else bool(status.get("lan", {}).get("on"))
    return Facts(
        now=time.time(),
        home=str(home.path),
        config_problem=problem,
        **_of_home(home),
        min_free=settings.count("storage.min_free"),
        node_pid=pid,
        node_silence=why_silent(pid, state_of(pid)) if pid and status is None else ("", ""),
        status=status,
        peers=peers,
        start_command=start_command(home.path, named=named),
        ports=_ports(settings, status, running=pid is not None),
        mdns=mdns,
        interfaces=interfaces,
        route4=_has_route("198.51.100.1"),
        route6=_has_route("2001:db8::1"),
        multicast=ask_lan(interfaces, _service(home)) if mdns else None,
        contained=_contained(),
        clock_set=clock_set(),
        newest_file=_have_passed(home),
        hardware_clock=hardware_clock(),
        bootstrap=bootstrap,
        clock_offsets=offsets,
    )


def own_peer(home: Home) -> str:
    """The peer id of the node that runs in ``home``; empty if none answers."""
    status, _ = _ask(home) if holder(home.lock) is not None else (None, ())
    return str((status or {}).get("peer_id", ""))


def _of_home(home: Home) -> dict[str, Any]:
    """Whose the home is, who can look into it, how much room there is, when it was last written to."""
    try:
        facts = home.path.stat()
    except OSError:
        nearest = next((parent for parent in home.path.parents if parent.exists()), Path("/"))
        return {"home_exists": False, "free_disk": _free(nearest)}
    return {
        "home_mode": stat.S_IMODE(facts.st_mode),
        "home_is_mine": facts.st_uid == os.geteuid(),
        "home_writable": os.access(home.path, os.W_OK),  # a file system that is read-only says no to root, too
        "key_problems": key_problems(home),
        "free_disk": _free(home.path),
    }


def _have_passed(home: Home) -> float | None:
    """When the latest of some files was written that are only ever written with the time as it is."""
    files = (home.people, home.traffic, home.peers, home.providers, home.log, home.lock, Path(__file__), *_TIMES)
    moments = []
    for path in files:
        with contextlib.suppress(OSError):
            moments.append(path.stat().st_mtime)
    return max(moments, default=None)


def key_problems(home: Home) -> tuple[tuple[str, str], ...]:
    """What is wrong with the keys, and what to do: in the words that a start would refuse them with."""
    found = []
    if home.keys.exists():
        found += _refusals(partial(make_private_folder, home.keys))
    for path in (home.peer_key, home.author_key, home.network_key):
        found += _refusals(partial(read_private, path, MOST_KEY_BYTES))
    # Whose key it is, whether it is damaged or gone: asked only of what can be read.
    if not found:
        for look in (partial(refuse_if_rotten, home.peer_key), partial(refuse_if_rotten, home.author_key)):
            found += _refusals(look)
        found += _refusals(partial(group_of, home))
    return tuple(found)


def _refusals(look: Callable[[], object]) -> list[tuple[str, str]]:
    try:
        look()
    except P2plearnError as problem:
        return [(problem.message, problem.hint)]
    except OSError as problem:
        return [(f"{problem.filename} can't be read: {problem.strerror}.", "")]
    return []


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _ask(home: Home) -> tuple[dict[str, Any] | None, tuple[dict[str, Any], ...]]:
    client = NodeClient(home.path, patience=NODE_SECONDS)
    try:
        return client.status(), tuple(client.peers())
    except P2plearnError:
        return None, ()


def list_interfaces() -> tuple[Interface, ...]:
    """This machine's interfaces with their addresses; empty when it can't be told."""
    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return ()
    found = []
    for adapter in adapters:
        texts = [f"{ip.ip if isinstance(ip.ip, str) else ip.ip[0]}/{ip.network_prefix}" for ip in adapter.ips]
        name = str(adapter.name)
        found.append(Interface(name, tuple(text for text in texts if _is_address(text)), is_connected(name)))
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def _ports(settings: Settings, status: dict[str, Any] | None, *, running: bool) -> tuple[Port, ...]:
    """Of each address to listen on, whether another program has its port."""
    if status is not None:
        listen = status.get("listen", {})
        return had_by_node(listen.get("wanted", ()), listen.get("bound", ()))
    return tuple(map(untold if running else try_port, settings.texts("network.listen")))


def _has_route(target: str) -> bool:
    """Whether the system would know where to send to: a connected UDP socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
    except OSError:
        return False
    return True


def _service(home: Home) -> str:
    """What its nodes announce themselves as on the LAN."""
    try:
        group = group_of(home)
    except P2plearnError:
        group = None
    return service_type(group.tag if group is not None else "")


def _contained() -> str:
    """The kind of container or subsystem this runs in; empty for none that can be told."""
    for file, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(file).exists():
            return kind
    with contextlib.suppress(OSError):
        if "microsoft" in Path("/proc/sys/kernel/osrelease").read_text("ascii", "replace").lower():
            return "wsl"
    return ""


def _bootstrap(home: Home, settings: Settings) -> tuple[tuple[tuple[str, str], ...] | None, tuple[float, ...]]:
    """Whether bootstrap nodes can be reached, from this machine and now (None where the group's key can't be used), and
    how their clocks differ from this one.
    """
    try:
        group = group_of(home)
    except P2plearnError:
        return None, ()
    try:
        flags = settings.texts("network.bootstrap")
        if group is not None:  # the shipped list is the open network's
            nodes = gather([home.bootstrap], (*flags, *group.addresses), "network.bootstrap")
        else:
            nodes = gather(lists(home.bootstrap), flags, "network.bootstrap")
    except P2plearnError as error:
        return (("bootstrap_nodes.toml", error.message),), ()
    addresses = [
        f"{address}/p2p/{node.peer.peer_id}" for node in nodes[:MOST_BOOTSTRAP] for address in node.peer.addrs[:1]
    ]
    found, offsets = _knock_at(addresses, group.key if group is not None else b"")
    return tuple((address, _fault(found[address])) for address in addresses), offsets


def _connected(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where some of the peers are that the running node called, and so can be called."""
    called = [peer for peer in peers if peer.get("direction") == "outbound" and peer.get("way") == "direct"]
    return [str(peer["addresses"][0]) for peer in called if peer.get("addresses")][:MOST_BOOTSTRAP]


def _knock_at(addresses: Sequence[str], key: bytes) -> tuple[dict[str, Knock], tuple[float, ...]]:
    """What came of each, and how the clocks of those that tell differ from this one."""
    found: dict[str, Knock] = {}
    offsets: list[float] = []

    async def ask(address: str) -> None:
        tried = await compare(address, key, BOOTSTRAP_SECONDS)
        found[address] = tried
        offset = _offset(tried, time.time())
        if offset is not None:
            offsets.append(offset)

    async def ask_all() -> None:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(ask, address)

    if addresses:
        trio.run(ask_all)
    return found, tuple(offsets)


def _fault(tried: Knock) -> str:
    failed = next((step for step in tried.steps if step.fault), None)
    return f"{failed.name}: {failed.words}" if failed else ""


def _offset(tried: Knock, now: float) -> float | None:
    """Seconds by which the clock there is ahead of this one, at least; None when nothing was learned of it."""
    if tried.their_latest:
        return tried.their_latest - now
    if tried.their_clock > now:
        return tried.their_clock - now
    return None if tried.fault else 0.0


def answers_arp(target: str) -> bool | None:
    """Whether something on our own network answers for an IPv4 address, as the kernel saw lately; None: not known."""
    for words in _neighbours():
        if words[0] == target:
            return words[2] != "0x0" and words[3] != "00:00:00:00:00:00"
    return None


def _neighbours() -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/arp").read_text("ascii", "replace").splitlines()[1:]:
            words = line.split()
            if len(words) >= 4:
                yield words
