"""Leaving with real nodes: deadlines that pass, second signals, both ends of a handoff killed, coming back."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.keeping.network import eventually, keepers, network, row
from tests.keeping.test_killed_in_a_handoff import complete, died, dying
from tests.travel.course_folders import made_file


@pytest.mark.timeout(300)
def test_a_deadline_that_passes_gives_exit_9_and_a_list_and_what_stayed_is_served_again(tmp_path: Path) -> None:
    slow = {"P2PLEARN_TRANSFER_UPLOAD_LIMIT": "16 KiB", "P2PLEARN_TRANSFER_LIMIT_LAN": "true"}
    with network(tmp_path, 3, P2PLEARN_CUSTODY_GRACE="60") as nodes:
        leaver = nodes[2]
        course = leaver.run("publish", made_file(tmp_path / "a.bin", 3_000_000), "--copies", "1")["course"]
        leaver.stop()
        plain = dict(leaver.env)
        leaver.env |= slow  # so that three megabytes take minutes
        leaver.start()
        leaver.wait_until("peers", 2)
        leaving = leaver.begin("node", "leave", "--deadline", "8")
        out, err = leaving.communicate(timeout=120)
        assert leaving.returncode == 9, (out, err, leaver.log)
        assert course in out
        assert '"unplaced"' in out
        leaver.stop()
        leaver.env = plain
        leaver.start()
        assert row(leaver, course)["complete"]
        nodes[0].run("get", course, "-o", tmp_path / "out", timeout=120)
        # And now that there is time, it goes.
        left = leaver.run("node", "leave", "--deadline", "100", timeout=150)
        leaver.stop()
        assert left["unplaced"] == []
        assert keepers(nodes[:2], course)


@pytest.mark.timeout(300)
def test_a_second_signal_ends_a_leave_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    env = {
        "P2PLEARN_NODE_ON_STOP": "leave", "P2PLEARN_CUSTODY_GRACE": "60",
        "P2PLEARN_TRANSFER_UPLOAD_LIMIT": "16 KiB", "P2PLEARN_TRANSFER_LIMIT_LAN": "true",
    }  # fmt: skip
    with network(tmp_path, 3, **env) as nodes:
        leaver = nodes[2]
        course = leaver.run("publish", made_file(tmp_path / "a.bin", 3_000_000), "--copies", "1")["course"]
        os.kill(leaver.pid, signal.SIGTERM)
        eventually(lambda: leaver.run("node", "status")["custody"]["leaving"], nodes)
        assert row(leaver, course)["complete"]  # it serves on meanwhile
        process, leaver.process = leaver.process, None
        assert process is not None
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
        leaver.env["P2PLEARN_NODE_ON_STOP"] = "stop"
        leaver.start()
        assert row(leaver, course)["complete"]
        assert leaver.run("verify", course)["damaged"] == []
        for node in nodes[:2]:
            node.kill()


@pytest.mark.timeout(600)
def test_leaver_and_receiver_both_killed_in_a_handoff(tmp_path: Path) -> None:
    steps = range(3, 60, 8) if os.environ.get("P2PLEARN_ALL_CRASHES") else (9,)
    with network(tmp_path, 3, P2PLEARN_CUSTODY_GRACE="30") as nodes:
        stays, receiver, leaver = nodes
        for step in steps:
            receiver.stop()
            leaver.stop()
            one, other = tmp_path / f"one{step}", tmp_path / f"other{step}"
            one.mkdir()
            other.mkdir()
            dying(receiver, one, step)
            receiver.wait_until("peers", 1)
            dying(leaver, other, step)
            leaver.wait_until("peers", 2)
            file = made_file(tmp_path / f"{step}.bin", 300_000, f"b{step}")
            course = leaver.run("publish", file, "--copies", "1")["course"]
            for folder in (one, other):
                (folder / "armed").touch()
            leaving = leaver.begin("node", "leave", "--deadline", "30")
            leaving.communicate(timeout=90)
            killed = [node for node in (receiver, leaver) if died(node)]
            # Whatever each had said by then: what was acknowledged is on a disk, and comes back with it.
            for node in (receiver, leaver):
                node.start()
            eventually(lambda course=course: complete(nodes, course) >= 1, nodes)  # type: ignore[misc]
            holder = next(node for node in nodes if row(node, course).get("complete"))
            assert holder.run("verify", course)["damaged"] == [], (step, killed)
            receiver.wait_until("peers", 1)
            leaver.wait_until("peers", 1)
            leaver.run("node", "leave", "--deadline", "60", timeout=120)
            leaver.stop()
            assert complete([stays, receiver], course) >= 1, (step, killed)
            leaver.start()


def test_who_leaves_and_comes_back_counts_again_and_gc_says_what_would_go(tmp_path: Path) -> None:
    with network(tmp_path, 4, P2PLEARN_CUSTODY_GRACE="60") as nodes:
        teacher = nodes[1]
        course = teacher.run("publish", made_file(tmp_path / "a.bin", 200_000))["course"]
        left = teacher.run("node", "leave", timeout=90)
        teacher.stop()
        assert left["unplaced"] == []
        others = [node for node in nodes if node is not teacher]
        # Nobody is sent to the one that left: it has taken back what it said it has.
        assert all(course not in lost["course"] for n in others for lost in n.run("node", "status")["custody"]["lost"])
        teacher.start()
        eventually(lambda: row(teacher, course)["copies"] == 4, nodes)
        # A course whose last duty was released but whose bytes are still here (a crash between the two) would go.
        assert others[0].run("gc", "--dry-run")["courses"] == []
        begun = time.monotonic()
        teacher.run("remove", course)
        eventually(lambda: all(row(node, course)["copies"] == 3 for node in others), nodes)
        assert time.monotonic() > begun
