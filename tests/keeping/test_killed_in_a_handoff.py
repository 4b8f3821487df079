"""A leaver or a receiver killed with SIGKILL at steps all through a handoff: a copy too many, never one too few.

A sample of the steps runs always, many more with ``P2PLEARN_ALL_CRASHES=1`` (some minutes).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import p2plearn
from tests.keeping.network import eventually, network, row
from tests.nodes import RealNode
from tests.travel.course_folders import made_file

HERE = Path(__file__).parent / "dying"
MOST_STEPS = 40
EVERY = bool(os.environ.get("P2PLEARN_ALL_CRASHES"))


def dying(node: RealNode, folder: Path, step: int) -> None:
    """Start ``node`` so that it dies at a step once the file ``armed`` is there."""
    (folder / "armed").unlink(missing_ok=True)
    (folder / "steps").unlink(missing_ok=True)
    path = os.pathsep.join((str(HERE), str(Path(p2plearn.__file__).parents[1])))
    plain = dict(node.env)
    node.env |= {"DIE_AT": str(step), "DIE_ARMED": str(folder / "armed"), "DIE_LOG": str(folder / "steps")}
    node.env["PYTHONPATH"] = path
    node.start()
    node.env = plain


def died(node: RealNode) -> bool:
    assert node.process is not None
    dead = node.process.poll() is not None
    node.kill()
    return dead


def complete(nodes: list[RealNode], course: str) -> int:
    return sum(bool(row(node, course).get("complete")) for node in nodes)


@pytest.mark.timeout(600)
def test_a_leaver_killed_at_steps_all_through_a_handoff(tmp_path: Path) -> None:
    with network(tmp_path, 3) as nodes:
        leaver = nodes[2]
        steps: list[str] = []
        for step in range(2, 99, 8 if EVERY else 32):
            leaver.stop()
            dying(leaver, tmp_path, step)
            leaver.wait_until("peers", 2)
            file = made_file(tmp_path / f"{step}.bin", 300_000, f"l{step}")
            published = leaver.run("publish", file, "--copies", "2")
            assert published["copies"] == 2
            course = published["course"]
            (tmp_path / "armed").touch()
            leaving = leaver.begin("node", "leave", "--deadline", "30")
            leaving.communicate(timeout=60)
            if leaving.returncode == 0:
                break
            assert died(leaver), f"step {step}: exit {leaving.returncode}"
            steps = (tmp_path / "steps").read_text().splitlines()
            leaver.start()
            assert complete(nodes, course) >= 2, steps
            # Nothing is left hanging: it leaves after all, and then the others have it.
            leaver.run("node", "leave", "--deadline", "60", timeout=90)
            assert complete(nodes[:2], course) == 2, steps
        assert complete(nodes[:2], course) == 2
        assert step > 8


@pytest.mark.timeout(600)
def test_a_receiver_killed_at_every_other_step(tmp_path: Path) -> None:
    with network(tmp_path, 2) as nodes:
        giver, receiver = nodes
        for step in range(1, MOST_STEPS, 2 if EVERY else 10):
            receiver.stop()
            dying(receiver, tmp_path, step)
            receiver.wait_until("peers", 1)
            (tmp_path / "armed").touch()
            file = made_file(tmp_path / f"{step}.bin", 300_000, f"r{step}")
            published = giver.run("publish", file, "--copies", "2")
            course = published["course"]
            if not died(receiver):
                assert published["copies"] == 2
                break
            receiver.start()
            assert complete([giver], course) == 1
            # Whatever it had been doing, it ends with the course, once, and both know.
            eventually(lambda course=course: row(giver, course)["copies"] == 2, nodes)  # type: ignore[misc]
            assert complete(nodes, course) == 2
            assert receiver.run("verify", course)["damaged"] == []
        else:
            assert not EVERY, "no end of steps"
        assert step > 5
