"""Networks that are not the usual ones, and such as change under a running node."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import ip
from tests.nodes import RealNode, run_command
from tests.reach.lab import EVERY, Lab, random_course
from tests.reach.test_behind_routers import KIB, LISTEN, node, same, standing


def test_a_cable_with_nothing_but_link_local_ipv6_on_it_is_a_network(tmp_path: Path) -> None:
    course = random_course(tmp_path / "course", 300 * KIB)
    with Lab() as lab:
        one, two = lab.machine("one"), lab.machine("two")
        lab.cable(one, "fe80::1/64", two, "fe80::2/64")
        at = {"listen": ("/ip6/::/tcp/4017",), "mdns": True}
        with (
            RealNode(tmp_path / "a", prefix=["ip", "netns", "exec", one], **at) as teacher,  # type: ignore[arg-type]
            RealNode(tmp_path / "b", prefix=["ip", "netns", "exec", two], **at) as learner,  # type: ignore[arg-type]
        ):
            published = teacher.run("publish", course)["course"]
            facts = learner.wait_for(lambda s: s["peers"])
            assert facts["reach"]["standing"] == "lan-only"
            learner.run("get", published, "-o", tmp_path / "out", timeout=120)
            assert same(course, tmp_path / "out")


def fetched_at_last(learner: RealNode, course: str, out: Path) -> None:
    """Fetch it; others learn of a new address within some ten seconds, until when nobody can be reached."""
    deadline = time.monotonic() + 100
    while (ran := run_command("get", course, "-o", out, home=learner.home.path, timeout=150)).code:
        assert ran.code == 4, ran.stderr
        assert time.monotonic() < deadline, f"{ran.stderr}\n{learner.log}"
        time.sleep(1)


def test_a_node_outlives_a_change_of_network(tmp_path: Path) -> None:
    """Its address changes while it runs, and it is told, dialled and fetched from at the new one."""
    course = random_course(tmp_path / "course", 300 * KIB)
    with Lab() as lab:
        meeting_point, learners = lab.public(1), lab.public(2)
        travelling = lab.machine("train")
        first = lab.cable(lab.internet, "5.5.8.1/24", travelling, "5.5.8.2/24")
        ip("-n", travelling, "route", "add", "default", "via", "5.5.8.1")
        with (
            node(tmp_path / "r", meeting_point) as relay,
            RealNode(
                tmp_path / "a", prefix=["ip", "netns", "exec", travelling], listen=LISTEN, bootstrap=[relay.address]
            ) as teacher,
        ):
            published = teacher.run("publish", course)["course"]
            teacher.wait_for(lambda s: s["dht"]["announced"] and s["peers"])
            ip("-n", travelling, "link", "del", first[1])
            lab.cable(lab.internet, "5.5.9.1/24", travelling, "5.5.9.2/24")
            ip("-n", travelling, "route", "add", "default", "via", "5.5.9.1")
            teacher.wait_for(lambda s: s["peers"] and any("/5.5.9.2/" in a for a in s["addresses"]))
            relay.wait_for(lambda s: s["peers"])
            teacher.wait_for(lambda s: not s["dht"]["waiting"])
            with node(tmp_path / "b", learners, relay.address) as learner:
                learner.wait_for(lambda s: s["peers"])
                fetched_at_last(learner, published, tmp_path / "out")
                assert same(course, tmp_path / "out")


OTHER_CLOCK = """
import mmap, os, struct, time

with open(os.environ["OTHER_CLOCK"], "rb") as file:
    _ahead = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
_real = time.time
time.time = lambda: _real() + struct.unpack_from("d", _ahead)[0]
"""
"""Python runs this before all else in a node: a wall clock of its own, which a test can put forward as it runs."""


class Sleeper:
    """A node on a machine that can sleep: as when a lid is closed, its running time stands still (the process is
    stopped) and its wall clock goes on meanwhile."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(OTHER_CLOCK, "utf-8")
        self._ahead = folder / "ahead"
        self._ahead.write_bytes(bytes(8))
        self.env = {"PYTHONPATH": f"{folder}{os.pathsep}{os.getcwd()}", "OTHER_CLOCK": str(self._ahead)}

    @contextlib.contextmanager
    def asleep(self, node: RealNode, seconds: float) -> Iterator[None]:
        os.kill(node.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self.put_forward(seconds)
            os.kill(node.pid, signal.SIGCONT)

    def put_forward(self, seconds: float) -> None:
        """The wall clock alone: on a machine that did not sleep."""
        with self._ahead.open("r+b") as file:
            file.write(struct.pack("d", seconds))


@EVERY
@pytest.mark.timeout(600)
def test_after_an_hour_of_sleep_everything_that_others_forgot_is_there_again(tmp_path: Path) -> None:
    """The relay's and the routers' hour is made by having them forget: connections, places, forwarded ports."""
    course = random_course(tmp_path / "course", 100 * KIB)
    clock, other_clock, awake = (Sleeper(tmp_path / f"clock{number}") for number in range(3))
    give = {"P2PLEARN_STORAGE_GIVE": "1 GiB"}
    with (
        Lab() as lab,
        node(tmp_path / "r", lab.public(1), **give, **awake.env) as relay,
        node(tmp_path / "a", lab.home(1), relay.address, **give, **clock.env) as teacher,
        node(
            tmp_path / "b",
            lab.home(2, serve="pmp"),
            relay.address,
            P2PLEARN_NETWORK_MAP_PORT="yes",
            **other_clock.env,
        ) as learner,
    ):
        assert lab.said(2) == "forward 4017 192.168.1.2 4017\n"
        teacher.wait_for(lambda s: s["reach"]["relays"])
        learner.wait_for(lambda s: standing(s) == "public")
        teacher.run("publish", random_course(tmp_path / "shared", 50 * KIB), "--copies", 2)
        published = teacher.run("publish", course, "--copies", 1)["course"]  # only the one who sleeps has it
        teacher.wait_for(lambda s: s["dht"]["announced"] == 2 and not s["dht"]["waiting"])
        teacher.wait_for(lambda s: not s["custody"]["under_replicated"])
        with clock.asleep(teacher, 3600.0), other_clock.asleep(learner, 3600.0):
            for home in (1, 2):
                lab.forget(home)
            relay.stop()
            awake.put_forward(3600.0)
            relay.start()
        assert lab.said(2) == "forward 4017 192.168.1.2 4017\n"
        facts = teacher.wait_for(lambda s: s["reach"]["relays"])
        assert any("/p2p-circuit/" in address for address in facts["addresses"])
        relay.wait_for(lambda s: s["reach"]["relaying"]["places"])
        learner.wait_for(lambda s: standing(s) == "public")
        teacher.wait_for(lambda s: s["dht"]["announced"] == 2 and not s["dht"]["waiting"])
        teacher.wait_for(lambda s: not s["custody"]["under_replicated"])
        fetched_at_last(learner, published, tmp_path / "out")
        assert same(course, tmp_path / "out")


def test_ipv6_networks_with_a_router_between_are_one_network(tmp_path: Path) -> None:
    """Two networks of nothing but IPv6: no multicast reaches from one to the other, addresses do."""
    course = random_course(tmp_path / "course", 300 * KIB)
    with Lab() as lab:
        prefixes = []
        for number in (1, 2):
            machine = lab.machine(f"six{number}")
            near, _ = lab.cable(lab.internet, f"2600:5:{number}::1/64", machine, f"2600:5:{number}::2/64")
            # In its name a router asks who has an address that it is to pass something on to (RFC 4861, 7.2.2); Linux
            # asks nobody without one, and then a machine is reached only after it has spoken to its router itself.
            ip("-n", lab.internet, "addr", "add", "fe80::1/64", "dev", near, "nodad")
            ip("-n", machine, "-6", "route", "add", "default", "via", f"2600:5:{number}::1")
            prefixes.append(["ip", "netns", "exec", machine])
        six = ("/ip6/::/tcp/4017",)
        with (
            RealNode(tmp_path / "a", prefix=prefixes[0], listen=six) as teacher,
            RealNode(tmp_path / "b", prefix=prefixes[1], listen=six, bootstrap=[teacher.address]) as learner,
        ):
            assert teacher.address.startswith("/ip6/2600:5:1::2/tcp/4017/p2p/")
            published = teacher.run("publish", course)["course"]
            for one in (teacher, learner):
                facts = one.wait_for(lambda s: standing(s) == "public")
                assert "called back and reached this node" in facts["reach"]["words"]
                assert not facts["reach"]["relays"]
            learner.run("get", published, "-o", tmp_path / "out", timeout=120)
            assert same(course, tmp_path / "out")
            [peer] = learner.run("node", "peers")["peers"]
            assert peer["way"] == "direct"
