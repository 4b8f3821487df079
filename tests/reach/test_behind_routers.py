"""Two homes behind routers, and a machine in the open: what is published in one arrives in the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.nodes import RealNode
from tests.reach.lab import Lab, Machine, random_course

LISTEN = ("/ip4/0.0.0.0/tcp/4017",)
KIB = 1024


def node(folder: Path, machine: Machine, *bootstrap: str, **env: str) -> RealNode:
    return RealNode(folder, prefix=machine.prefix, listen=LISTEN, bootstrap=bootstrap, env=env)


def standing(status: dict[str, Any]) -> str:
    return str(status["reach"]["standing"])


def same(folder: Path, out: Path) -> bool:
    return (folder / "lesson.bin").read_bytes() == (out / "lesson.bin").read_bytes()


@pytest.mark.parametrize("kind", ["cone", "symmetric"])
def test_a_course_gets_from_home_to_home(tmp_path: Path, kind: str) -> None:
    """By a direct connection where routers allow one, through the relay where they don't."""
    course = random_course(tmp_path / "course", 600 * KIB)
    with (
        Lab() as lab,
        node(tmp_path / "r", lab.public(1)) as relay,
        node(tmp_path / "a", lab.home(1, kind=kind), relay.address) as teacher,
        node(tmp_path / "b", lab.home(2, kind=kind), relay.address) as learner,
    ):
        assert standing(relay.wait_for(lambda s: standing(s) == "public")) == "public"
        for one in (teacher, learner):
            facts = one.wait_for(lambda s: s["reach"]["relays"])
            assert standing(facts) == "behind-router"
            assert facts["reach"]["outside"] == ["7.7.1.1" if one is teacher else "7.7.2.1"]
            assert any("/p2p-circuit/" in address for address in facts["addresses"])
        published = teacher.run("publish", course)["course"]
        teacher.wait_for(lambda s: s["dht"]["announced"] and not s["dht"]["waiting"])
        learner.run("get", published, "-o", tmp_path / "out", timeout=120)
        assert same(course, tmp_path / "out")
        ways = {row["peer_id"]: row["way"] for row in learner.run("node", "peers")["peers"]}
        assert ways[teacher.peer_id] == ("direct" if kind == "cone" else "relay")
        assert (relay.run("node", "status")["reach"]["relaying"]["moved"] > 500 * KIB) is (kind == "symmetric")
