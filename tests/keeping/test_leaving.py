"""Leaving with real nodes: deadlines that pass, second signals, both ends of a handoff killed, coming back."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from p2plearn.store.store import Store
from tests.keeping.network import eventually, keepers, network, row
from tests.keeping.test_killed_in_a_handoff import EVERY, complete, died, dying
from tests.travel.course_folders import made_file, odd_folder


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
        leaving = leaver.begin("node", "leave", "--deadline", "4")
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


@pytest.mark.timeout(900)
def test_leaver_and_receiver_both_killed_in_a_handoff(tmp_path: Path) -> None:
    with network(tmp_path, 3, P2PLEARN_CUSTODY_GRACE="30") as nodes:
        stays, receiver, leaver = nodes
        for step in range(3, 60, 8) if EVERY else (19,):
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


@pytest.mark.timeout(300)
def test_who_leaves_and_comes_back_counts_again_and_gc_says_what_would_go(tmp_path: Path) -> None:
    with network(tmp_path, 4, P2PLEARN_CUSTODY_GRACE="30") as nodes:
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
        # What was let go of just before a crash is still on the disk: that is what would go.
        crashed = others[0]
        crashed.stop()
        with contextlib.closing(Store.open(crashed.home.path)) as store:
            assert store.custody.release(bytes.fromhex(course), 0)
        crashed.start()
        would = crashed.run("gc", "--dry-run")
        assert [each["course"] for each in would["courses"]] == [course]
        assert would["freed"] >= 200_000
        assert row(crashed, course)["complete"]
        crashed.run("gc")
        assert row(crashed, course) == {}
        eventually(lambda: row(teacher, course)["copies"] == 3, nodes)


def test_whether_a_stop_is_a_leave_is_the_nodes_own_setting(tmp_path: Path) -> None:
    # The environment that the command runs in, unlike the node's, doesn't say so.
    with network(tmp_path, 2, P2PLEARN_NODE_ON_STOP="leave") as nodes:
        stays, leaver = nodes
        course = leaver.run("publish", odd_folder(tmp_path / "odd"), "--copies", "1")["course"]
        left = leaver.run("node", "stop", timeout=120)
        assert [one["course"] for one in left["placed"]] == [course]
        eventually(lambda: keepers([stays], course), nodes)


@pytest.mark.timeout(300)
def test_an_only_copy_that_was_handed_over_and_who_came_back_with_it_learn_of_each_other(tmp_path: Path) -> None:
    with network(tmp_path, 2) as nodes:
        friend, leaver = nodes
        file = made_file(tmp_path / "one.bin", 200_000, "one")
        course = leaver.run("publish", file, "--copies", "1")["course"]
        leaver.run("node", "leave", "--deadline", "60", timeout=90)
        assert complete([friend], course) == 1
        leaver.stop()
        leaver.start()
        # Nothing is lacking, so nobody has to look; but nobody says either that there is one copy where there are two.
        eventually(lambda: row(leaver, course)["copies"] == 2 or not row(friend, course).get("complete"), nodes, 90.0)
        assert row(leaver, course)["complete"]
