"""⊙ From facts to findings: what is wrong with this machine, in words, and what to do.

Each check is a function of the facts that returns a finding or None (nothing to say). They are in the order in which a
person should mend things: a later finding is often the consequence of an earlier one.

Imports ``facts``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from p2plearn.clock import MADE, SKEW_SECONDS, off_hardware
from p2plearn.doctor.facts import Facts

Grade = Literal["good", "note", "bad"]

SETTLED_SECONDS: Final = 600.0
"""After which a node that has company should have been called by somebody."""

ENOUGH_CALLS: Final = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """``check``: a stable word; ``words``: what is the case; ``todo``: what to do about it (empty when good)."""

    check: str
    grade: Grade
    words: str
    todo: str = ""


def judge(facts: Facts) -> list[Finding]:
    """All findings, in order; there is always at least one."""
    return [finding for check in CHECKS if (finding := check(facts)) is not None]


def _home(facts: Facts) -> Finding | None:
    if not facts.home_exists:
        return Finding("home", "note", f"There is no home at {facts.home} yet; the first start makes it.")
    if not facts.home_is_mine:
        return Finding(
            "home", "bad", f"The home {facts.home} belongs to another user.",
            "Run p2plearn as that user, or choose another home with --home DIR.",
        )  # fmt: skip
    if not facts.home_writable:
        return Finding(
            "home", "bad", f"Nothing can be written in the home {facts.home}: its file system is read-only, or the "
            "folder is.",
            "Systems make a disk read-only after errors: see `dmesg`, save what is on it (it can still be read), and "
            "have it checked. Else: mount it read-write, or `chmod u+w` the folder.",
        )  # fmt: skip
    if facts.key_problems:
        words = " ".join(words for words, _ in facts.key_problems)
        refuses = "The node refuses to start." if facts.status is None else "It will refuse to start the next time."
        todo = dict.fromkeys(todo for _, todo in facts.key_problems if todo)
        return Finding("home", "bad", f"{words} {refuses}", "; ".join(todo))
    if facts.home_mode & 0o077:
        return Finding("home", "note", f"Others can look into {facts.home}.", f"chmod 700 {facts.home}")
    return Finding("home", "good", "The home and its keys are private.")


def _config(facts: Facts) -> Finding | None:
    if facts.config_problem:
        return Finding(
            "settings", "bad", f"The settings can't be used: {facts.config_problem}",
            "Correct config.toml; `p2plearn paths` says where it is.",
        )  # fmt: skip
    changed = (facts.status or {}).get("restart_for") or []
    if changed:
        return Finding(
            "settings", "note", f"Changed, but not in force yet: {', '.join(map(str, changed))}.",
            "Stop the node and start it again.",
        )  # fmt: skip
    return None


def _disk(facts: Facts) -> Finding | None:
    if facts.free_disk is None:
        return None
    mib = 1 << 20
    words = f"{facts.free_disk // mib:,} MiB are free, and {facts.min_free // mib:,} MiB must stay free"
    if facts.free_disk < max(facts.min_free, mib):
        return Finding(
            "disk", "bad", f"The disk is full: {words}. Nothing can be published or fetched.",
            "Make room; `p2plearn gc --dry-run` says what p2plearn itself could free.",
        )  # fmt: skip
    return Finding("disk", "good", f"The disk has room: {words}.")


def _clock(facts: Facts) -> Finding | None:
    behind = 0.0 if facts.newest_file is None else facts.newest_file - facts.now
    if facts.now < MADE or behind > SKEW_SECONDS:
        far = f"at least {max(behind, MADE - facts.now) / 3600:,.1f} hours behind"
        return Finding(
            "clock", "bad", f"This machine's clock is {far}. What others say is taken for news from the future and "
            "refused.", "Set it: `timedatectl set-ntp true`, or by hand. A battery that is flat loses the time.",
        )  # fmt: skip
    offsets = facts.clock_offsets
    if offsets and (min(offsets) > SKEW_SECONDS or max(offsets) < 0):
        far = f"at least {min(map(abs, offsets)) / 3600:,.1f} hours {'behind' if offsets[0] > 0 else 'ahead of'}"
        if len(offsets) > 1:
            return Finding(
                "clock", "bad", f"This machine's clock is {far} those of all {len(offsets)} nodes that tell.",
                "Set it: `timedatectl set-ntp true`, or by hand; then stop the node and start it anew.",
            )  # fmt: skip
        return Finding(
            "clock", "note", f"This machine's clock is {far} that of the one node that tells: one of the two is wrong.",
            "Compare it with a watch, and set it: `timedatectl set-ntp true`; then stop the node and start it anew.",
        )  # fmt: skip
    apart = _off_hardware(facts)
    if apart:
        far = f"{abs(apart) / 3600:,.1f} hours {'behind' if apart > 0 else 'ahead of'}"
        return Finding(
            "clock", "bad", f"This machine's clock is {far} the one in its hardware (that with the battery), and no "
            "time service says which is right.",
            "Compare both with a watch (`date -u`, `hwclock --show`) and set the wrong one: `timedatectl set-ntp "
            "true`, then `hwclock --systohc`.",
        )  # fmt: skip
    people = (facts.status or {}).get("people", {})
    if ahead := int(people.get("ahead", 0)):
        return Finding(
            "clock", "bad", f"{ahead:,} things you said are dated ahead of this clock: nobody else takes them yet.",
            "If this clock is right now, withdraw them (`p2plearn withdraw ID`) and say them again; else "
            "set it: `timedatectl set-ntp true`.",
        )  # fmt: skip
    early = int(people.get("dropped", {}).get("early", 0))
    if early:
        return Finding(
            "clock", "note", f"{early:,} records of others were refused because they are dated after this clock.",
            "If this clock is behind, set it: `timedatectl set-ntp true`.",
        )  # fmt: skip
    if facts.clock_set is False:
        return Finding(
            "clock", "note", "The system says that no time service keeps this clock right.",
            "If it is more than ten minutes off, set it: `timedatectl set-ntp true`.",
        )  # fmt: skip
    return Finding("clock", "good", "The clock makes sense.")


def _off_hardware(facts: Facts) -> float:
    """Seconds by which the hardware's clock is ahead of the system's, 0 where that says nothing."""
    if facts.clock_offsets:  # some nodes agree with it
        return 0.0
    return off_hardware(facts.now, facts.hardware_clock, kept_right=facts.clock_set)


def _node(facts: Facts) -> Finding | None:
    if facts.status is not None:
        return Finding("node", "good", f"The node is running (process {facts.node_pid}).")
    if facts.node_pid is None:
        first = "First mend what is said of the home and its settings above, then start it: "
        refused = not (facts.home_is_mine and facts.home_writable) or facts.key_problems or facts.config_problem
        todo = f"{first if refused else 'Start it: '}{facts.start_command}"
        return Finding("node", "bad", "No node is running for this home.", todo)
    why, todo = facts.node_silence
    who = f"The node (process {facts.node_pid}) is there but doesn't answer"
    log = "Its log may say more (`p2plearn paths` says where)."
    return Finding("node", "bad", f"{who}: {why}." if why else f"{who}.", f"{todo}. {log}" if todo else log)


def _paused(facts: Facts) -> Finding | None:
    if (facts.status or {}).get("paused"):
        return Finding("pause", "note", "The node is paused: it neither serves nor fetches.", "p2plearn node resume")
    return None


def _port(facts: Facts) -> Finding | None:
    taken = sorted({each.port for each in facts.ports if each.taken})
    if not taken:
        return None
    ports = ", ".join(map(str, taken))
    if facts.status is not None:
        return Finding(
            "port", "note", f"Port {ports} was another program's when this node started, so it listens on another one, "
            "which changes at each start: addresses that others remember, and openings in firewalls, lead to the wrong "
            "place.",
            "Find who has it (`ss -ltnp`), end that and start the node anew; or choose a port of your own: "
            "network.listen in config.toml.",
        )  # fmt: skip
    return Finding(
        "port", "note", f"Port {ports} is taken by another program; a node would take any free one instead.",
        "Find who has it (`ss -ltnp`), or choose a port of your own: network.listen in config.toml.",
    )  # fmt: skip


def _listening(facts: Facts) -> Finding | None:
    if not _on_loopback(facts):
        return None
    return Finding(
        "listen", "bad", "Nobody else can call this node: it listens on this machine only "
        f"({', '.join(_bound(facts))}).",
        "Unless that is meant: take network.listen out of config.toml, or --listen off the command line, and start it "
        "anew.",
    )  # fmt: skip


def _bound(facts: Facts) -> list[str]:
    """The multiaddrs that the running node has."""
    return list(map(str, (facts.status or {}).get("listen", {}).get("bound", ())))


def _on_loopback(facts: Facts) -> bool:
    """Whether the running node listens on addresses of this machine's inside only."""
    hosts = [(*each.split("/"), "", "")[2] for each in _bound(facts)]
    return bool(hosts) and all(ipaddress.ip_address(host).is_loopback for host in hosts)


def _is_cut_off(facts: Facts) -> bool:
    """Whether no interface is connected to anything, though there are some with addresses."""
    outward = [each for each in facts.interfaces if each.kind != "loopback" and each.addresses]
    return bool(outward) and all(each.connected is False for each in outward)


def _network(facts: Facts) -> Finding | None:
    outward = [each for each in facts.interfaces if each.kind != "loopback" and each.addresses]
    if _is_cut_off(facts):
        names = ", ".join(each.name for each in outward)
        return Finding(
            "network", "bad", f"This machine is on no network: nothing is connected at {names}.",
            "Plug in the cable, join the Wi-Fi, or switch the interface on (`ip link`).",
        )  # fmt: skip
    usable = [ip for each in outward for ip in _ips(each.addresses) if not ip.is_loopback]
    if not usable:
        return Finding("network", "bad", "This machine is on no network at all.", "Plug in a cable, or join the Wi-Fi.")
    if all(ip.is_link_local for ip in usable):
        return Finding(
            "network", "note", "It has only addresses that it gave itself (169.254.…, fe80:…): no router gave any.",
            "Nodes on the same cable still find each other; for more, see that the router's DHCP works.",
        )  # fmt: skip
    if not facts.route4 and not facts.route6:
        return Finding(
            "network", "note", "There is no way out of the local network (no default route).",
            "Fine for a class without internet: nodes on the LAN find each other. Else check router and DHCP.",
        )  # fmt: skip
    if not any(ip.version == 4 for ip in usable):
        return Finding(
            "network", "note", "This machine has IPv6 only.",
            "Nodes that have IPv4 only can't be reached from here; a node with both carries between them.",
        )  # fmt: skip
    return Finding("network", "good", "It is on a network" + (" and has a way out of it." if facts.route4 else "."))


def _container(facts: Facts) -> Finding | None:
    if not facts.contained:
        return None
    if facts.contained == "wsl":
        return Finding(
            "container", "note", "This is WSL: by default others on the LAN can't reach it, nor hear it.",
            "In Windows' .wslconfig set networkingMode=mirrored under [wsl2], then `wsl --shutdown`.",
        )  # fmt: skip
    return Finding(
        "container", "note", f"This runs in a container ({facts.contained}): its addresses may lead nowhere from "
        "outside, and multicast doesn't get through a bridge.",
        "Give it the host's network (--network host), or publish its port (-p 4017:4017) and use `get --from`.",
    )  # fmt: skip


def _vpn(facts: Facts) -> Finding | None:
    names = [each.name for each in facts.interfaces if each.kind == "vpn" and each.addresses]
    if not names:
        return None
    return Finding(
        "vpn", "note", f"A VPN is up ({', '.join(names)}). Many keep a machine from its own LAN.",
        "If nodes on the LAN aren't found, allow “local network access” in the VPN, or switch it off for a try.",
    )  # fmt: skip


def _multicast(facts: Facts) -> Finding | None:
    if not facts.mdns:
        return Finding(
            "lan", "note", "Looking for nodes on the LAN is switched off, and this node isn't found there.",
            "To be found, start it without --no-mdns, and without network.mdns = false in config.toml.",
        )  # fmt: skip
    problem = str((facts.status or {}).get("lan", {}).get("problem", ""))
    if facts.multicast is None or facts.multicast.nowhere or _is_cut_off(facts):
        return None  # (on no network, of which _network speaks)
    if facts.multicast.problem or problem:
        firewall = "Allow multicast to 224.0.0.251 and ff02::fb, UDP port 5353, in this machine's firewall."
        return Finding(
            "lan", "bad", f"The LAN can't be asked for nodes: {facts.multicast.problem or problem}.",
            firewall if facts.multicast.forbidden else f"See that the network is up (`ip address`). {firewall}",
        )  # fmt: skip
    if facts.multicast.others:
        return Finding("lan", "good", f"{_nodes(facts.multicast.others, 'other', answer=True)} on the LAN.")
    if facts.status is not None and not facts.multicast.own and not _on_loopback(facts):
        return Finding(
            "lan", "bad", "Not even this machine's own node is heard on the LAN: a firewall here drops multicast.",
            "Allow UDP port 5353 (mDNS): `sudo ufw allow 5353/udp`, or `sudo firewall-cmd --add-service=mdns`.",
        )  # fmt: skip
    return Finding(
        "lan", "note", "No other node answers on the LAN.",
        "If one should: try `p2plearn doctor ADDRESS` with an address that its `p2plearn node status` shows. Guest "
        "Wi-Fi, and Wi-Fi with “client isolation”, keeps machines from each other: use another network or a cable.",
    )  # fmt: skip


def _bootstrap(facts: Facts) -> Finding | None:
    if facts.bootstrap is None:
        return None
    if not facts.bootstrap:
        return Finding(
            "bootstrap", "note", "No bootstrap node is named: beyond the LAN this node finds only whom it knows.",
            "Ask whoever runs your network for an address, and put it into bootstrap_nodes.toml.",
        )  # fmt: skip
    failed = [(address, fault) for address, fault in facts.bootstrap if fault]
    if len(failed) < len(facts.bootstrap):
        answering = len(facts.bootstrap) - len(failed)
        return Finding("bootstrap", "good", f"{_nodes(answering, 'bootstrap', answer=True)}.")
    address, fault = failed[0]
    return Finding(
        "bootstrap", "bad", f"No bootstrap node can be reached; {address}: {fault}.",
        f"See why, step by step: p2plearn doctor {address}",
    )  # fmt: skip


def _nodes(number: int, kind: str, *, answer: bool = False) -> str:
    """So many nodes of a kind, and that they answer."""
    one = number == 1
    return f"{number} {kind} node{'' if one else 's'}" + (f" answer{'s' if one else ''}" if answer else "")


def _company(facts: Facts) -> Finding | None:
    if facts.status is None:
        return None
    connected = int(facts.status.get("peers", 0))
    if connected:
        return Finding("peers", "good", f"Connected to {_nodes(connected, 'other')}.")
    return Finding(
        "peers", "bad", "This node is connected to nobody.",
        "Mend what is above first; then see why one that should be reached isn't: p2plearn doctor ADDRESS; or fetch "
        "with a link that has an address: p2plearn get 'p2plearn:…?from=…'.",
    )  # fmt: skip


def _callers(facts: Facts) -> Finding | None:
    """Whether others get in: as they told when they called back on request, else judged by who called."""
    if facts.status is None:
        return None
    reach = facts.status.get("reach", {})
    port = next((each.port for each in facts.ports if each.port), 4017)
    if reach.get("standing") == "public":
        return Finding("inbound", "good", "Others called this node back when asked to: it can be reached from outside.")
    if reach.get("standing") == "behind-router":
        by_way = "; relays carry their calls here" if reach.get("relays") else ""
        return Finding(
            "inbound", "note", f"Others tried to call this node back and could not: {reach.get('words', '')}{by_way}.",
            f"Best: open TCP port {port} here (`sudo ufw allow {port}/tcp`) and forward it in the router, or switch on "
            "UPnP there. Fetching works without.",
        )  # fmt: skip
    if not facts.peers:
        return None
    inbound = [peer for peer in facts.peers if peer.get("direction") == "inbound"]
    if inbound:
        return Finding("inbound", "good", f"{len(inbound)} of {len(facts.peers)} nodes called this one themselves.")
    if float(facts.status.get("uptime", 0.0)) < SETTLED_SECONDS or len(facts.peers) < ENOUGH_CALLS:
        return None
    return Finding(
        "inbound", "note", "This node calls others, but none gets through to it: a firewall or a router is in front.",
        f"Open TCP port {port}: `sudo ufw allow {port}/tcp`, or `sudo firewall-cmd --add-port={port}/tcp`, and "
        "forward it in the router. Without it, fetching works, and others fetch from here only with help.",
    )  # fmt: skip


def _bans(facts: Facts) -> Finding | None:
    banned = (facts.status or {}).get("banned") or []
    if not banned:
        return None
    they = "1 peer is" if len(banned) == 1 else f"{len(banned)} peers are"
    return Finding(
        "bans", "note", f"{they} banned for now, for what came from there.",
        "An old version at the other end may be the cause: update both.",
    )  # fmt: skip


CHECKS: Final[tuple[Callable[[Facts], Finding | None], ...]] = (
    _home, _config, _disk, _clock, _node, _paused, _port, _listening, _network, _container, _vpn, _multicast,
    _bootstrap, _company, _callers, _bans,
)  # fmt: skip


def _ips(addresses: tuple[str, ...]) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for each in addresses:
        yield ipaddress.ip_interface(each).ip
