"""Whether this machine is on a network, asked in namespaces whose cables are pulled."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.namespaces import ip, join, namespaces

ASKING = "from p2plearn.net.links import on_a_network; print(on_a_network())"


def told(namespace: str) -> bool:
    asked = ["ip", "netns", "exec", namespace, sys.executable, "-c", ASKING]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() == "True"


def wait_until(namespace: str, wanted: bool) -> None:
    deadline = time.monotonic() + 60
    while told(namespace) is not wanted:  # the kernel tells of a carrier a moment later
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_pulled_cable_is_no_network_though_the_address_stays() -> None:
    with namespaces("one", "two") as (one, two):
        assert not told(one)  # loopback alone
        near, far = join(one, "10.9.0.1/24", two, "10.9.0.2/24", bare=True)
        wait_until(one, True)
        ip("-n", two, "link", "set", far, "down")  # the other end of the cable
        wait_until(one, False)
        listed = subprocess.run(["ip", "-n", one, "addr"], check=True, capture_output=True, text=True).stdout
        assert "10.9.0.1" in listed
        ip("-n", two, "link", "set", far, "up")
        wait_until(one, True)
        ip("-n", one, "link", "set", near, "down")
        wait_until(one, False)
