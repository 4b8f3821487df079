"""Who is on the LAN."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.net.neighbours import NETWORKS_SECONDS, Interface, Vicinity, is_neighbour, list_networks

OWN = [
    ipaddress.ip_interface(text)
    for text in (
        "127.0.0.1/8", "192.168.1.20/24", "10.8.0.2/32", "203.0.113.7/24", "2001:db8:5:1::20/64", "fd00:1::5/64",
        "2a00:1450::5/32", "198.51.100.9/32",
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("169.254.3.4", True),
        ("fe80::1%eth0", True),
        ("192.168.1.77", True),
        ("::ffff:192.168.1.77", True),
        ("192.168.2.77", False),  # private, but of another network: behind a VPN, or a router away
        ("10.8.0.1", False),  # the other end of a tunnel
        ("10.8.0.2", True),  # this very machine
        ("8.8.8.8", False),
        ("198.51.100.9", True),  # this very machine
        ("198.51.100.10", False),
        ("2001:db8:5:1::99", True),
        ("2001:db8:5:2::99", False),
        ("fd00:1::6", True),
        ("2a00:1450::6", False),  # a provider's network, not a home's
        ("", False),
        ("localhost", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
    ],
)
def test_who_is_on_the_lan(remote: str, expected: bool) -> None:
    assert is_neighbour(remote, OWN) is expected


def test_a_public_ipv4_network_is_the_provider_s() -> None:
    own = [ipaddress.ip_interface("84.16.30.7/22")]
    assert not is_neighbour("84.16.30.8", own)
    assert is_neighbour("84.16.30.7", own)


@given(st.ip_addresses())
def test_without_interfaces_only_what_names_itself_local(address) -> None:
    found = is_neighbour(str(address), [])
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert found == (mapped.is_loopback or mapped.is_link_local)


@given(st.text(max_size=20))
def test_any_text_has_an_answer(text: str) -> None:
    assert is_neighbour(text, OWN) in (True, False)


def test_this_machine_is_its_own_neighbour() -> None:
    own = list_networks()
    assert all(is_neighbour(str(interface.ip), own) for interface in own)


class Connection:
    """Stands for one: only which it is counts."""


def test_who_was_on_the_lan_is_not_beyond_it_when_our_address_goes() -> None:
    now, own = 0.0, [ipaddress.ip_interface("fd00:66::1/64")]
    vicinity = Vicinity(lambda: list(own), lambda: now)
    known, far, later = Connection(), Connection(), Connection()
    assert vicinity.is_near(known, "fd00:66::2")
    assert not vicinity.is_near(far, "2a00:1450::9")
    own.clear()  # the cable is pulled
    now += NETWORKS_SECONDS
    assert vicinity.networks() == []
    assert vicinity.is_near(known, "fd00:66::2")
    assert not vicinity.is_near(far, "2a00:1450::9")
    assert not vicinity.is_near(later, "fd00:66::2")


def test_a_connection_by_an_address_that_is_new_is_judged_by_it() -> None:
    own: list[Interface] = []
    looks = 0

    def look() -> list[Interface]:
        nonlocal looks
        looks += 1
        return list(own)

    vicinity = Vicinity(look, lambda: 0.0)
    assert vicinity.networks() == []
    own.append(ipaddress.ip_interface("fd00:66::1/64"))
    assert vicinity.is_near(Connection(), "fd00:66::2")
    far, before = Connection(), looks
    assert not any(vicinity.is_near(far, "2a00:1450::9") for _ in range(100))
    assert looks == before + 1  # who is known to be from beyond costs no further look
