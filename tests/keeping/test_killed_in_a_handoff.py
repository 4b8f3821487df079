"""A leaver, a receiver or both killed with SIGKILL all through a handoff: a copy too many, never one too few.

A sample of the steps runs always, every one with ``P2PLEARN_ALL_CRASHES=1`` (half an hour).
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
MOST_STEPS = 99
EVERY = bool(os.environ.get("P2PLEARN_ALL_CRASHES"))


def dying(node: RealNode, folder: Path, step: int) -> None:
    """Start ``node`` so that it dies at a step once the file ``armed`` is there, and the process in ``with`` too."""
    for name in ("armed", "with", "steps"):
        (folder / name).unlink(missing_ok=True)
    path = os.pathsep.join((str(HERE), str(Path(p2plearn.__file__).parents[1])))
    plain = dict(node.env)
    node.env |= {"DIE_AT": str(step), "DIE_ARMED": str(folder / "armed"), "DIE_LOG": str(folder / "steps")}
    node.env |= {"DIE_WITH": str(folder / "with"), "PYTHONPATH": path}
    node.start()
    node.env = plain


def died(node: RealNode) -> bool:
    assert node.process is not None
    dead = node.process.poll() is not None
    node.kill()
    return dead


def complete(nodes: list[RealNode], course: str) -> int:
    return sum(bool(row(node, course).get("complete")) for node in nodes)


@pytest.mark.timeout(3600 if EVERY else 600)
@pytest.mark.parametrize("both", [False, True], ids=["alone", "with_its_receiver"])
def test_a_leaver_killed_at_steps_all_through_a_handoff(tmp_path: Path, both: bool) -> None:
    with network(tmp_path, 3) as nodes:
        leaver = nodes[2]
        course, steps = "", list[str]()
        for step in range(1 if EVERY else 10, MOST_STEPS, 1 if EVERY else 32):
            leaver.stop()
            dying(leaver, tmp_path, step)
            leaver.wait_until("peers", 2)
            if course:
                leaver.run("remove", course)  # each handoff is one of one course, lest there be ever more steps
            file = made_file(tmp_path / f"{step}.bin", 300_000, f"l{step}")
            published = leaver.run("publish", file, "--copies", "2")
            assert published["copies"] == 2
            course = published["course"]
            (receiver,) = (node for node in nodes if not row(node, course).get("complete"))
            if both:
                assert receiver.process is not None
                (tmp_path / "with").write_text(str(receiver.process.pid), encoding="ascii")
            (tmp_path / "armed").touch()
            leaving = leaver.begin("node", "leave", "--deadline", "30")
            leaving.communicate(timeout=60)
            if leaving.returncode == 0:
                if both:  # the last step of all comes after the leaver has said that it is done
                    died(receiver)
                    receiver.start()
                break
            assert died(leaver), f"step {step}: exit {leaving.returncode}"
            steps = (tmp_path / "steps").read_text().splitlines()
            if both:
                assert died(receiver)
                receiver.start()
            leaver.start()
            assert complete(nodes, course) >= 2, steps
            # Nothing is left hanging: it leaves after all, and then the others have it.
            leaver.wait_until("peers", 2)
            leaver.run("node", "leave", "--deadline", "240", timeout=270)
            assert complete(nodes[:2], course) == 2, steps
        else:
            assert not EVERY, "no end of steps"
        assert complete(nodes[:2], course) == 2
        assert step > 8


@pytest.mark.timeout(3600 if EVERY else 600)
def test_a_receiver_killed_at_steps_all_through_a_handoff(tmp_path: Path) -> None:
    with network(tmp_path, 2) as nodes:
        giver, receiver = nodes
        for step in range(1, MOST_STEPS, 1 if EVERY else 10):
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
