"""Networks that are not the usual ones, and such as change under a running node."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.namespaces import ip
from tests.nodes import RealNode, run_command
from tests.reach.lab import Lab, random_course
from tests.reach.test_behind_routers import KIB, LISTEN, node, same

SLEEP = float(os.environ.get("P2PLEARN_SLEEP_SECONDS", "3"))
"""For which the lid is closed; 3600 for a long lunch."""


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


def test_a_node_outlives_a_change_of_network_and_a_sleep(tmp_path: Path) -> None:
    """Its address changes while it runs, and it is told, dialled and fetched from at the new one; then it is stopped
    for a while, as a closed lid does, and goes on."""
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
                os.kill(teacher.pid, signal.SIGSTOP)
                time.sleep(SLEEP)
                os.kill(teacher.pid, signal.SIGCONT)
                assert teacher.run("node", "status")["peers"] >= 0
                course2 = random_course(tmp_path / "course2", 100 * KIB)
                again = teacher.run("publish", course2)["course"]
                fetched_at_last(learner, again, tmp_path / "out2")
                assert same(course2, tmp_path / "out2")
