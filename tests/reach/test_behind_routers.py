"""Two homes behind routers, and a machine in the open: what is published in one arrives in the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.nodes import RealNode, run_command
from tests.reach.lab import Lab, Machine, random_course

LISTEN = ("/ip4/0.0.0.0/tcp/4017",)
KIB = 1024


def node(folder: Path, machine: Machine, *bootstrap: str, **env: str) -> RealNode:
    return RealNode(folder, prefix=machine.prefix, listen=LISTEN, bootstrap=bootstrap, env=env)


def standing(status: dict[str, Any]) -> str:
    return str(status["reach"]["standing"])


def same(folder: Path, out: Path) -> bool:
    return (folder / "lesson.bin").read_bytes() == (out / "lesson.bin").read_bytes()


def ways(one: RealNode) -> dict[str, str]:
    """By peer id: "direct" or "relay"."""
    return {row["peer_id"]: row["way"] for row in one.run("node", "peers")["peers"]}


def relayed_bytes(one: RealNode) -> int:
    return int(one.run("node", "status")["reach"]["relaying"]["moved"])


def test_a_course_gets_from_home_to_home(tmp_path: Path) -> None:
    """By a direct connection where routers allow one, through the relay where they don't."""
    course = random_course(tmp_path / "course", 600 * KIB)
    with (
        Lab() as lab,
        node(tmp_path / "r", lab.public(1)) as relay,
        node(tmp_path / "a", lab.home(1), relay.address) as teacher,
        node(tmp_path / "b", lab.home(2), relay.address) as learner,
        node(tmp_path / "c", lab.home(3, kind="symmetric"), relay.address) as unlucky,
    ):
        assert standing(relay.wait_for(lambda s: standing(s) == "public")) == "public"
        for number, one in enumerate((teacher, learner, unlucky), 1):
            facts = one.wait_for(lambda s: s["reach"]["relays"])
            assert standing(facts) == "behind-router"
            assert facts["reach"]["outside"] == [f"7.7.{number}.1"]
            assert any("/p2p-circuit/" in address for address in facts["addresses"])
        published = teacher.run("publish", course)["course"]
        teacher.wait_for(lambda s: s["dht"]["announced"] and not s["dht"]["waiting"])
        learner.run("get", published, "-o", tmp_path / "out", timeout=120)
        assert same(course, tmp_path / "out")
        assert ways(learner)[teacher.peer_id] == "direct"
        assert relayed_bytes(relay) < 500 * KIB
        unlucky.run("get", published, "-o", tmp_path / "out2", timeout=120)
        assert same(course, tmp_path / "out2")
        assert set(ways(unlucky).values()) == {"direct", "relay"}
        assert relayed_bytes(relay) > 500 * KIB


@pytest.mark.parametrize("way", ["pmp", "upnp"])
def test_a_router_that_forwards_ports_makes_a_home_public_until_the_node_stops(tmp_path: Path, way: str) -> None:
    """(The machine in the open listens for WebSockets alone, on the web's port.)"""
    course = random_course(tmp_path / "course", 300 * KIB)
    with (
        Lab() as lab,
        RealNode(tmp_path / "b", prefix=lab.public(1).prefix, listen=["/ip4/0.0.0.0/tcp/80/ws"]) as learner,
    ):
        with node(tmp_path / "a", lab.home(1, serve=way), learner.address, P2PLEARN_NETWORK_MAP_PORT="yes") as teacher:
            assert lab.said(1) == "forward 4017 192.168.1.2 4017\n"
            facts = teacher.wait_for(lambda s: standing(s) == "public")
            [peer] = teacher.run("node", "peers")["peers"]
            assert peer["addresses"] == [learner.address] == [f"/ip4/5.5.1.2/tcp/80/ws/p2p/{learner.peer_id}"]
            teacher.wait_for(lambda s: f"/ip4/7.7.1.1/tcp/4017/p2p/{teacher.peer_id}" in s["addresses"])
            assert "the router forwards port 4017" in facts["reach"]["port_mapping"]
            published = teacher.run("publish", course)["course"]
            learner.run("get", published, "-o", tmp_path / "out", timeout=120)
            assert same(course, tmp_path / "out")
        assert lab.said(1) == "unforward 4017 192.168.1.2 4017\n"


def test_a_closed_group_has_relays_of_its_own(tmp_path: Path) -> None:
    """Two homes whose routers let no hole be made, and a machine in the open, all of one group."""
    course = random_course(tmp_path / "course", 300 * KIB)
    homes = [tmp_path / name for name in "rab"]
    assert run_command("invite", "--new", "Village school", home=homes[0]).code == 0
    with Lab() as lab, node(homes[0], lab.public(1)) as relay:
        invite = relay.run("invite")["invite"]
        (tmp_path / "said").write_text(invite, "utf-8")
        for home in homes[1:]:
            with (tmp_path / "said").open("rb") as said:
                assert run_command("join", "--json", home=home, stdin=said.fileno()).code == 0
        with (
            node(homes[1], lab.home(1, kind="symmetric")) as teacher,
            node(homes[2], lab.home(2, kind="symmetric")) as learner,
            node(tmp_path / "stranger", lab.public(2), relay.address) as stranger,
        ):
            for one in (teacher, learner):
                one.wait_for(lambda s: s["reach"]["relays"] == [relay.peer_id])
            published = teacher.run("publish", course, "--copies", 1)["course"]
            facts = teacher.wait_for(lambda s: s["dht"]["announced"] and not s["dht"]["waiting"])
            learner.run("get", published, "-o", tmp_path / "out", timeout=120)
            assert same(course, tmp_path / "out")
            assert ways(learner)[teacher.peer_id] == "relay"
            month = relay.run("node", "status")["month"]
            assert month["wan_relayed"] > 2 * 300 * KIB  # in, and out again
            assert month["wan_sent"] + month["wan_received"] < KIB  # it was only asked whether it has the course
            through = next(address for address in facts["addresses"] if "/p2p-circuit/" in address)
            stranger.run("get", published, "--from", through, "-o", tmp_path / "stolen", code=4, timeout=180)
            assert not ways(stranger)
