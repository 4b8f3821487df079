"""The doctor's judgement, on facts made up for it: each trouble is named, and what to do with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from p2plearn.doctor.facts import Facts, Interface, Multicast, Port, kind_of
from p2plearn.doctor.judge import SETTLED_SECONDS, Finding, judge
from p2plearn.doctor.ports import had_by_node
from p2plearn.doctor.reach import Tried, explain

NOW = 1_800_000_000.0
LAN = Interface("eth0", ("192.168.1.5/24", "fe80::1/64"))
SIX = Interface("eth1", ("fd00:66::2/64",))
LO = Interface("lo", ("127.0.0.1/8", "::1/128"))
STATUS: dict[str, Any] = {"peers": 3, "uptime": 5000.0, "paused": False, "lan": {"problem": ""}, "banned": []}
ON_LOOPBACK = {"wanted": ["/ip4/127.0.0.1/tcp/1"], "bound": ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"]}
GOOD = Facts(
    now=NOW, home="/h", free_disk=10 << 30, min_free=1 << 29, node_pid=7, status=STATUS, interfaces=(LO, LAN),
    ports=(Port("0.0.0.0", 4017, False),), multicast=Multicast(own=True, others=2), clock_set=True,
    newest_file=NOW - 5, bootstrap=(("/ip4/192.0.2.1/tcp/1", ""), ("/ip4/192.0.2.2/tcp/1", "tcp: refused")),
    peers=({"direction": "inbound"}, {"direction": "outbound"}, {"direction": "outbound"}),
)  # fmt: skip


def finding(check: str, **changed: Any) -> Finding:
    found = {each.check: each for each in judge(dataclasses.replace(GOOD, **changed))}
    return found[check]


def test_a_sound_machine_has_nothing_but_good_findings() -> None:
    assert {each.grade for each in judge(GOOD)} == {"good"}
    assert {each.check for each in judge(GOOD)} >= {
        "home",
        "disk",
        "clock",
        "node",
        "network",
        "lan",
        "peers",
        "inbound",
    }


@pytest.mark.parametrize(
    ("check", "grade", "words", "todo", "changed"),
    [
        ("home", "bad", "another user", "--home", {"home_is_mine": False}),
        ("home", "bad", "Nothing can be written in the home /h", "dmesg", {"home_writable": False}),
        ("node", "bad", "No node", "First mend", {"home_writable": False, "status": None, "node_pid": None}),
        ("home", "bad", "peer.key is open to others. It will refuse", "chmod 600",
         {"key_problems": (("peer.key is open to others.", "chmod 600"),)}),
        ("home", "bad", "The node refuses to start", "one; two",
         {"key_problems": (("a.", "one"), ("b.", "two"), ("c.", "")), "status": None, "node_pid": None}),
        ("node", "bad", "No node", "First mend",
         {"key_problems": (("a.", "one"),), "status": None, "node_pid": None}),
        ("home", "note", "look into", "chmod 700", {"home_mode": 0o755}),
        ("home", "note", "no home", "", {"home_exists": False}),
        ("settings", "bad", "misspelt", "config.toml", {"config_problem": "misspelt"}),
        ("settings", "note", "storage.give", "start it again", {"status": STATUS | {"restart_for": ["storage.give"]}}),
        ("disk", "bad", "full", "Make room", {"free_disk": 1 << 20}),
        ("clock", "bad", "behind", "set-ntp", {"now": 1_000_000_000.0, "newest_file": None}),
        ("clock", "bad", "2.0 hours behind", "set-ntp", {"newest_file": NOW + 7200}),
        ("clock", "bad", "48.0 hours ahead of", "set-ntp", {"clock_offsets": (-3 * 86400.0, -2 * 86400.0)}),
        ("clock", "bad", "24.0 hours behind", "set-ntp", {"clock_offsets": (86400.0, 90000.0)}),
        ("clock", "note", "one of the two is wrong", "watch", {"clock_offsets": (-86400.0,)}),
        ("clock", "good", "makes sense", "", {"clock_offsets": (-86400.0, 0.0)}),
        ("clock", "good", "makes sense", "", {"clock_offsets": (30.0,)}),
        ("disk", "bad", "The disk is full: 0 MiB are free", "Make room", {"free_disk": 0, "min_free": 0}),
        ("clock", "bad", "3 things you said", "withdraw ID", {"status": STATUS | {"people": {"ahead": 3}}}),
        ("clock", "note", "dated after", "set-ntp", {"status": STATUS | {"people": {"dropped": {"early": 4}}}}),
        ("clock", "note", "no time service", "set-ntp", {"clock_set": False}),
        ("clock", "bad", "30.2 hours ahead of the one in its hardware", "hwclock",
         {"clock_set": False, "hardware_clock": NOW - 30.2 * 3600}),
        ("clock", "bad", "0.3 hours behind the one in its hardware", "hwclock",
         {"clock_set": False, "hardware_clock": NOW + 1200}),
        # In local time; kept right; where others agree.
        ("clock", "note", "no time service", "set-ntp", {"clock_set": False, "hardware_clock": NOW + 7 * 3600 + 30}),
        ("clock", "good", "makes sense", "", {"hardware_clock": NOW - 9e6}),
        ("clock", "note", "no time service", "set-ntp",
         {"clock_set": False, "hardware_clock": NOW - 9e6, "clock_offsets": (0.0, 0.0)}),
        ("node", "bad", "No node", "node start", {"node_pid": None, "status": None}),
        ("node", "bad", "doesn't answer", "log", {"status": None}),
        ("node", "bad", "is suspended", "kill -CONT 7",
         {"status": None, "node_silence": ("its process 7 is suspended", "Let it go on: kill -CONT 7")}),
        ("pause", "note", "paused", "resume", {"status": STATUS | {"paused": True}}),
        ("port", "note", "when this node started", "network.listen", {"ports": (Port("0.0.0.0", 4017, True),)}),
        ("listen", "bad", "Nobody else can call", "--listen", {"status": STATUS | {"listen": ON_LOOPBACK}}),
        ("port", "note", "would take", "ss -ltnp",
         {"ports": (Port("0.0.0.0", 4017, True),), "status": None, "node_pid": None}),
        ("network", "bad", "no network", "Wi-Fi", {"interfaces": (LO,)}),
        ("network", "note", "gave itself", "DHCP", {"interfaces": (LO, Interface("eth0", ("169.254.3.4/16",)))}),
        ("network", "note", "default route", "LAN", {"route4": False}),
        ("network", "note", "IPv6 only", "both", {"interfaces": (Interface("eth0", ("2001:db8::7/64",)),),
                                                  "route6": True}),
        ("container", "note", "docker", "--network host", {"contained": "docker"}),
        ("container", "note", "WSL", "mirrored", {"contained": "wsl"}),
        ("vpn", "note", "wg0", "local network access", {"interfaces": (LAN, Interface("wg0", ("10.1.0.2/32",)))}),
        ("lan", "note", "switched off", "mdns", {"mdns": False}),
        ("lan", "bad", "can't be asked", "5353", {"multicast": Multicast(problem="Network is unreachable")}),
        ("lan", "bad", "can't be asked", "Allow multicast",
         {"multicast": Multicast(problem="Operation not permitted", forbidden=True)}),
        ("lan", "bad", "can't be asked", "the network is up",
         {"multicast": Multicast(problem="Network is unreachable")}),
        ("lan", "bad", "firewall here", "mdns", {"multicast": Multicast()}),
        ("lan", "note", "No other node", "isolation", {"multicast": Multicast(own=True)}),
        ("lan", "note", "No other node", "isolation",
         {"multicast": Multicast(), "status": STATUS | {"listen": ON_LOOPBACK}}),
        ("bootstrap", "note", "No bootstrap", "bootstrap_nodes.toml", {"bootstrap": ()}),
        ("bootstrap", "bad", "tcp: no answer", "p2plearn doctor /ip4/192.0.2.1/tcp/1",
         {"bootstrap": (("/ip4/192.0.2.1/tcp/1", "tcp: no answer"),)}),
        ("peers", "bad", "nobody", "from=", {"status": STATUS | {"peers": 0}, "peers": ()}),
        ("inbound", "note", "firewall", "ufw allow 4017/tcp", {"peers": ({"direction": "outbound"},) * 3}),
        ("inbound", "note", "call this node back", "forward it",
         {"status": STATUS | {"reach": {"standing": "behind-router", "words": "behind a router", "relays": []}}}),
        ("inbound", "good", "from outside", "", {"status": STATUS | {"reach": {"standing": "public"}}}),
        ("bans", "note", "1 peer is", "update", {"status": STATUS | {"banned": [{}]}}),
    ],
)  # fmt: skip
def test_each_trouble_is_named_with_what_to_do(
    check: str, grade: str, words: str, todo: str, changed: dict[str, Any]
) -> None:
    found = finding(check, **changed)
    assert found.grade == grade
    assert words in found.words
    assert todo in found.todo


def test_one_is_said_as_one_and_more_as_more() -> None:
    multicast = Multicast(own=True, others=1)
    assert finding("lan", multicast=multicast).words == "1 other node answers on the LAN."
    assert finding("lan").words == "2 other nodes answer on the LAN."
    assert finding("bootstrap").words == "1 bootstrap node answers."
    assert finding("peers", status=STATUS | {"peers": 1}).words == "Connected to 1 other node."
    assert finding("peers").words == "Connected to 3 other nodes."


def test_without_a_network_the_firewall_is_not_blamed() -> None:
    nowhere = Multicast("this machine is on no network", nowhere=True)
    found = judge(dataclasses.replace(GOOD, interfaces=(LO,), multicast=nowhere, status=None))
    assert "lan" not in {each.check for each in found}
    assert not [each for each in found if "firewall" in each.todo]


def test_a_cable_that_is_out_is_said_though_the_address_stays() -> None:
    cut = dataclasses.replace(LAN, connected=False)
    found = judge(dataclasses.replace(GOOD, interfaces=(LO, cut), multicast=Multicast("Network is unreachable")))
    network = next(each for each in found if each.check == "network")
    assert network.grade == "bad"
    assert f"nothing is connected at {LAN.name}" in network.words
    assert "lan" not in {each.check for each in found}
    both = dataclasses.replace(GOOD, interfaces=(LO, cut, dataclasses.replace(LAN, name="wlan0", connected=True)))
    assert next(each for each in judge(both) if each.check == "network").grade == "good"


def test_a_bootstrap_node_that_could_not_be_asked_is_not_blamed() -> None:
    assert "bootstrap" not in {each.check for each in judge(dataclasses.replace(GOOD, bootstrap=None))}


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ("/ip4/0.0.0.0/tcp/4017", True),  # it has that host on another port
        ("/ip4/0.0.0.0/tcp/4018/ws", False),  # it has exactly that
        ("/ip6/::/tcp/4017", None),  # it has no IPv6 at all
        ("/ip4/127.0.0.1/tcp/0", False),  # any port will do
    ],
)
def test_a_nodes_ports_are_told_by_what_it_has(wanted: str, taken: bool | None) -> None:
    bound = ["/ip4/0.0.0.0/tcp/42399", "/ip4/0.0.0.0/tcp/4018/ws", "/ip4/127.0.0.1/tcp/9"]
    assert [each.taken for each in had_by_node([wanted], bound)] == [taken]


def test_a_young_node_is_not_blamed_for_having_no_callers() -> None:
    young = STATUS | {"uptime": SETTLED_SECONDS - 1}
    facts = dataclasses.replace(GOOD, status=young, peers=({"direction": "outbound"},) * 5)
    assert "inbound" not in {each.check for each in judge(facts)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("lo", "loopback"), ("eth0", "lan"), ("enp3s0", "lan"), ("wlan0", "wifi"), ("wlp2s0", "wifi"),
     ("docker0", "bridge"), ("br-12ab", "bridge"), ("tun0", "vpn"), ("wg0", "vpn"), ("tailscale0", "vpn"),
     ("wwan0", "mobile")],
)  # fmt: skip
def test_interfaces_are_told_by_their_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind


BRIDGE = Interface("docker0", ("172.18.0.1/16",))


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (Tried("", "", "", "192.168.1.9", 4017), "can see each other"),
        (Tried("", "", "", "192.168.1.9", 4017, None, 7200.0), "2.0 hours ahead"),
        (Tried("", "", "", "192.168.1.9", 4017, None, -90.0, 700.0), "refused there"),
        (Tried("tls", "clock", "", "192.168.1.9", 4017, True, 3 * 86400.0), "3.0 days ahead"),
        (Tried("tls", "clock", "", "192.168.1.9", 4017, True, 3 * 86400.0, 0.0, True), "so set that one"),
        (Tried("tls", "clock", "valid until", "192.168.1.9", 4017), "clocks disagree"),
        (Tried("identify", "hung-up", "", "192.168.1.9", 4017, True, -1e6, 86400.0), "24.0 hours behind"),
        (Tried("membership", "group", "", "192.168.1.9", 4017, True, -1e6, 86400.0), "24.0 hours behind"),
        (Tried("read", "address", "no port", "", 0), "can't be used"),
        (Tried("resolve", "name", "not known", "", 4017), "looked up"),
        (Tried("tcp", "refused", "", "192.168.1.9", 4017), "nothing listens"),
        (Tried("tcp", "refused", "", "127.0.0.1", 4017), "this very machine"),
        (Tried("tcp", "refused", "", "192.168.1.5", 4017), "this very machine"),
        (Tried("tcp", "timeout", "", "192.168.1.9", 4017, True), "its firewall drops"),
        (Tried("tcp", "no-host", "", "192.168.1.9", 4017, False), "client isolation"),
        (Tried("tcp", "timeout", "", "8.8.4.4", 4017), "on the way drops it"),
        (Tried("tcp", "timeout", "", "10.9.9.9", 4017), "another network"),
        (Tried("tcp", "timeout", "", "172.17.0.2", 4017), "container's bridge"),
        (Tried("tcp", "no-host", "", "172.18.0.2", 4017), "container's bridge"),
        (Tried("route", "no-route", "", "8.8.4.4", 4017), "no route"),
        (Tried("route", "no-route", "", "2606:4700::9", 4017), "IPv6"),
        (Tried("tcp", "no-zone", "", "fe80::9", 4017), "one cable"),
        (Tried("tcp", "no-host", "", "8.8.4.4", 4017), "refuses to pass"),
        (Tried("tcp", "no-host", "", "fd00:66::9", 4017), "not even its network card"),
        (Tried("tcp", "no-host", "", "fe80::9", 4017), "not even its network card"),
        (Tried("tcp", "forbidden", "", "fd00:66::9", 4017), "refuses to pass"),
        (Tried("tcp", "no-host", "", "2606:4700::9", 4017), "refuses to pass"),
        (Tried("multistream", "stranger", "", "192.168.1.9", 4017), "Another program"),
        (Tried("multistream", "hung-up", "", "192.168.1.9", 4017), "closed group"),
        (Tried("group", "group", "hung up", "192.168.1.9", 4017), "another group"),
        (Tried("multistream", "timeout", "", "192.168.1.9", 4017), "says nothing"),
        (Tried("tls", "wrong-peer", "12D3… answers", "192.168.1.9", 4017), "Another node"),
        (Tried("tls", "protocol", "bad certificate", "192.168.1.9", 4017), "don't understand"),
        (Tried("identify", "hung-up", "", "192.168.1.9", 4017), "hangs up"),
        (Tried("", "", "", "192.168.1.5", 4017, itself=True), "this very node"),
        (Tried("tcp", "forbidden", "", "192.168.1.255", 4017), "no machine's address"),
        (Tried("route", "no-route", "", "255.255.255.255", 4017), "no machine's address"),
        (Tried("route", "no-route", "", "224.0.0.1", 4017), "no machine's address"),
        (Tried("tcp", "refused", "", "0.0.0.0", 4017), "this very machine"),
    ],
)  # fmt: skip
def test_why_a_knock_came_to_nothing(tried: Tried, words: str) -> None:
    found = explain(tried, (LO, LAN, BRIDGE, SIX))
    assert words in found.words + found.todo
    assert found.todo or found.grade == "good"
