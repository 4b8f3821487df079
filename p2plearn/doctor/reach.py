"""⊙ Why a knock at another node's door came to nothing, in words, and what to do.

Imports ``facts`` and ``judge``.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2plearn.clock import SKEW_SECONDS
from p2plearn.doctor.facts import Interface
from p2plearn.doctor.judge import Finding

BEYOND: Final = "beyond-"
"""Before the names of the steps with the node itself, once a relay has put the call through (``net.knock``)."""

FIREWALL: Final = "There, allow the port: `sudo ufw allow {port}/tcp`, or in Windows let Python through the firewall."


@dataclass(frozen=True, slots=True)
class Tried:
    """What is judged: the step that failed and its fault, where it went, and what the neighbourhood says of the
    machine there (``answers_arp``: True, False, or None when it isn't on a network of ours).
    """

    step: str
    fault: str
    words: str
    target: str
    port: int
    answers_arp: bool | None = None
    ahead: float = 0.0
    """Seconds by which the other's clock is ahead of this one, at least."""
    behind: float = 0.0
    """Seconds by which the other's clock is behind this one, at least; 0: it isn't known to be."""
    clock_set: bool | None = None
    """Whether the system says that a time service keeps this machine's clock right."""
    relayed: bool = False
    """Whether the address leads there by way of a relay; then ``target`` is the relay's."""
    itself: bool = False
    """Whether the node that answered is this home's own."""


def explain(tried: Tried, interfaces: Sequence[Interface]) -> Finding:
    """The one finding of a knock."""
    if tried.itself:
        return Finding(
            "reach", "note", f"{tried.target} leads to this very node: that says nothing about another machine.",
            "Give an address of the other one: `p2plearn node status` over there shows them.",
        )  # fmt: skip
    if tried.behind > 0 or tried.ahead > SKEW_SECONDS:
        return _clocks(tried)
    if not tried.fault:
        by_way = " by way of the relay, and try to do without it once they talk" if tried.relayed else ""
        return Finding("reach", "good", f"Every step went well: the two can see each other{by_way}.")
    place = _place(tried.target, interfaces)
    if tried.step.startswith(BEYOND):
        return _beyond(tried)
    for reason in (_by_the_web, _by_relay, _by_step, place and _by_place, _by_connection):
        found = reason(tried, place) if callable(reason) else None
        if found is not None:
            words, todo = found
            if tried.relayed and tried.step not in {"read", "relay"}:
                words = f"The relay can't be reached, to begin with. {words}"
            return Finding("reach", "bad", words, todo)
    return Finding("reach", "bad", f"It failed at {tried.step}: {tried.words}.", "Try again; --debug shows more.")


def _clocks(tried: Tried) -> Finding:
    """Two clocks that differ; which of them is wrong, only their owners can see."""
    far, way, other = (
        (_span(tried.behind), "behind", "ahead") if tried.behind > 0 else (_span(tried.ahead), "ahead", "behind")
    )
    set_it = "See which is wrong (`date -u`) and set it: `timedatectl set-ntp true`"
    if tried.clock_set:
        set_it = "A time service keeps this machine's clock right, so set that one: `timedatectl set-ntp true` there"
    apart = f"the clock there is at least {far} {way}, or this machine's is {other}"
    if not tried.fault:
        early = "there" if tried.behind > 0 else "here"
        words = f"The two can see each other, but {apart}: what people say is refused {early} as news from the future."
        return Finding("reach", "note", words, f"{set_it}.")
    return Finding(
        "reach", "bad", f"The two clocks are too far apart to connect: {apart}.",
        f"{set_it}. Then start its node anew, whose certificate has the wrong date still.",
    )  # fmt: skip


def _span(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds < 2 * 86_400 else f"{seconds / 86_400:,.1f} days"


def _place(target: str, interfaces: Sequence[Interface]) -> str:
    """Where a target is: ``here``, ``own-network``, ``other-private``, ``loopback``, ``bridge``, ``everybody`` …"""
    try:
        ip = ipaddress.ip_address(target.partition("%")[0])
    except ValueError:
        return ""
    if ip.is_loopback or ip.is_unspecified:
        return "loopback"
    near = [each for each in interfaces if any(ip in network for network in each.networks())]
    ends = [network.broadcast_address for each in near for network in each.networks() if network.prefixlen < 31]
    if ip.is_multicast or str(ip) == "255.255.255.255" or (ip.version == 4 and ip in ends):
        return "everybody"
    if any(str(ip) == address.partition("/")[0] for each in interfaces for address in each.addresses):
        return "here"
    if any(each.kind == "bridge" for each in near) or (not near and ip in _DOCKER):
        return "bridge"
    if ip.is_link_local:
        return "link-local"
    if near:
        return "own-network"
    return "other-private" if any(ip in network for network in _PRIVATE) else "public"


# What routers and providers hand out again and again: RFC 1918, RFC 6598, RFC 4193.
_PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]
_DOCKER = ipaddress.ip_network("172.17.0.0/16")


def _beyond(tried: Tried) -> Finding:
    """What went wrong with the node itself, once the relay had put the call through."""
    found = _by_step(dataclasses.replace(tried, step=tried.step.removeprefix(BEYOND)), "")
    words, todo = found or (f"It failed at {tried.step}: {tried.words}.", "Try again; --debug shows more.")
    return Finding(
        "reach", "bad", f"The relay puts the call through, but not all is well with the node there. {words}", todo
    )


def _by_relay(tried: Tried, _: str) -> tuple[str, str] | None:
    """What a relay says of the call that it was asked for."""
    if tried.step != "relay":
        return None
    return _RELAYS.get(
        tried.fault,
        (
            f"The relay is there, but puts no call through: {tried.words}.",
            "Over there, `p2plearn node status` shows its addresses of now: copy a fresh one.",
        ),
    )


_RELAYS: Final = {
    "no-reservation": (
        "The relay is there, but the node has no place at it: it stopped, sleeps, or is at another relay by now.",
        "See that the node runs, and copy a fresh address from `p2plearn node status` over there.",
    ),
    "connection-failed": (
        "The relay is there and has a place for the node, but can't get through to it: it is off, or lost its network.",
        "See that the node there runs and is online; its place ends by itself.",
    ),
    "resource-limit-exceeded": (
        "The relay has as many calls as it lends at a time.",
        "Try again in some minutes. Whoever runs it can raise relay.calls; a public node more is better still.",
    ),
    "permission-denied": (
        "The node in between doesn't relay, or not now (relay.serve, metered, paused, or its monthly cap is used up).",
        "Use another address of the node: `p2plearn node status` over there shows those of now.",
    ),
    "protocol": (
        "The node in between is there, but it is no relay.",
        "Use another address of the node: `p2plearn node status` over there shows those of now.",
    ),
}


def _by_the_web(tried: Tried, _: str) -> tuple[str, str] | None:
    """What goes wrong where a web server should be, or a node that looks like one."""
    if tried.step == "web-tls":
        return (
            f"What answers at port {tried.port} there speaks no TLS, which …/wss and …/tls/ws ask for: {tried.words}.",
            "Without a web server in front, the node's address ends with /ws; with one, see that its HTTPS works.",
        )
    if tried.step == "websocket":
        return (
            f"What answers at port {tried.port} there opens no WebSocket: {tried.words}.",
            "A web server there must pass upgrades on to the node's /ws port (docs/reaching.md has the lines). If the "
            "node itself listens there, its address says whether it ends with /ws: `p2plearn node status` over there.",
        )
    return None


def _by_step(tried: Tried, _: str) -> tuple[str, str] | None:
    """What is clear from the step alone."""
    if tried.step == "read":
        return f"The address can't be used: {tried.words}.", "Copy it whole from `p2plearn node status` over there."
    if tried.step == "resolve":
        return (
            f"The name can't be looked up: {tried.words}.",
            "See that the internet, or the school's name server, works; or use the IP address instead.",
        )
    if tried.fault == "stranger":
        return (
            f"Another program answers at port {tried.port} there.",
            "The node there may have taken another port: see `p2plearn node status` over there.",
        )
    if tried.fault == "group" or tried.step == "group":
        return (
            f"It doesn't open the door of this machine's group: {tried.words}.",
            "It is in the open network or in another group: `p2plearn node status` over there says which.",
        )
    if tried.fault == "clock":
        return (
            f"The two clocks disagree: {tried.words}.",
            "Set the one that is wrong (`timedatectl set-ntp true`), and start the node there anew.",
        )
    if tried.fault == "hung-up":
        return (
            "It takes the connection and hangs up without a word.",
            "It may be of a closed group that this machine has no key of, full, or behind a proxy that cuts it; or it "
            "takes WebSockets there, and its address ends with /ws.",
        )
    if tried.fault == "wrong-peer":
        return (
            f"Another node answers at that address: {tried.words}.",
            "The address has gone to another machine, or that node has a new home: ask for a fresh link.",
        )
    if tried.step == "multistream" and tried.fault == "timeout":
        return (
            "It takes the connection and says nothing.",
            "That machine is overloaded or stopped, or a firewall in between lets only the first packets through.",
        )
    if tried.step in {"multistream", "tls", "identify"}:
        return (
            f"It answers, but the two don't understand each other ({tried.step}: {tried.words}).",
            "Update p2plearn at both ends; a filter that opens encrypted traffic (schools have them) breaks it too.",
        )
    return None


def _by_place(tried: Tried, place: str) -> tuple[str, str] | None:
    """What is clear from where the address leads."""
    if place in {"loopback", "here"}:
        return (
            f"{tried.target} is this very machine, and nothing listens at its port {tried.port}.",
            "Start the node here, or use the other machine's address on the network.",
        )
    if place == "everybody":
        return (
            f"{tried.target} is no machine's address: what is sent there goes to all of a network at once.",
            "Use one of the addresses that `p2plearn node status` over there shows.",
        )
    if place == "bridge":
        return (
            f"{tried.target} is an address inside a container's bridge: it means nothing on another machine.",
            "Over there, run the node with the host's network, or publish its port and use the host's address.",
        )
    if place == "link-local" and tried.fault in {"no-zone", "no-route"}:
        return (
            f"{tried.target} is good on one cable or Wi-Fi only, and doesn't say on which.",
            f"Use another of its addresses, or name the interface: [fe80::…%eth0]:{tried.port}.",
        )
    if place == "other-private" and tried.fault in {"timeout", "no-route", "no-host"}:
        return (
            f"{tried.target} is a private address of another network than this machine's.",
            "Join the same network, or use a public address of that node (its router must forward the port).",
        )
    return None


def _by_connection(tried: Tried, place: str) -> tuple[str, str] | None:
    """What is clear from how connecting failed."""
    there = FIREWALL.format(port=tried.port)
    if tried.fault == "refused":
        return (
            f"The machine at {tried.target} is there, but nothing listens at port {tried.port}.",
            "Start the node there, or see `p2plearn node status` over there for its port. If it runs at that port, it "
            "listens on 127.0.0.1 only: `p2plearn doctor` over there says so.",
        )
    if tried.fault in {"no-route", "no-family"}:
        kind = "IPv6" if ":" in tried.target else "IPv4"
        return (
            f"This machine has no route to {tried.target}: it is on no network that leads there over {kind}.",
            f"Join a network; if the other has an address of another kind than {kind}, try that.",
        )
    # Over IPv6 nobody in between says "no host" on one's own cable, where no router is: the system itself asked and
    # heard nothing (RFC 4861, 7.2.2); what a firewall refuses is "forbidden" (RFC 4443, 3.1).
    unheard = ":" in tried.target and tried.fault == "no-host"
    if place in {"own-network", "link-local"} and (tried.answers_arp is False or unheard):
        return (
            f"Nothing answers for {tried.target} on this network, not even its network card.",
            "It is off, asleep, or has another address now; or the Wi-Fi keeps its guests apart (“client isolation”): "
            "use a cable or another Wi-Fi.",
        )
    if tried.fault == "timeout" and place == "own-network":
        return f"The machine at {tried.target} is there, and its firewall drops what comes to port {tried.port}.", there
    if tried.fault == "timeout":
        return (
            f"Nothing comes back from {tried.target}: a firewall or a router on the way drops it, or it is off.",
            f"{there} Behind a router, forward the port to it.",
        )
    if tried.fault in {"no-host", "forbidden"}:
        return f"A router or a firewall on the way refuses to pass on to {tried.target}.", there
    return None
