"""Courses outlive the nodes that published and kept them: real nodes in processes of their own."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from p2plearn.dht.receipts import decode_receipt
from tests.keeping.network import GRACE, eventually, keepers, network, row
from tests.nodes import RealNode
from tests.travel.course_folders import assert_same, made_file, odd_folder


def give_ups(node: RealNode) -> int:
    return int(node.run("node", "status")["custody"]["given"])


def test_published_handed_over_and_fetched_when_the_publisher_is_gone(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "odd")
    with network(tmp_path, 5) as nodes:
        teacher, *others = nodes[1:]
        others.append(nodes[0])
        published = teacher.run("publish", folder)
        assert (published["copies"], published["copies_wanted"]) == (3, 3)
        course = published["course"]
        info = teacher.run("info", course)
        assert info["copies"] == 3
        assert {one["life"] for one in info["where"]} == {"this node", "alive"}
        assert {row(node, course)["why"] for node in keepers(others, course)} == {"custody"}
        assert all(give_ups(node) >= info["bytes"] for node in keepers(others, course))

        left = teacher.run("node", "leave", timeout=90)
        teacher.stop()
        assert left["unplaced"] == []
        (placed,) = left["placed"]
        receipts = [decode_receipt(bytes.fromhex(one["receipt"])) for one in placed["receipts"]]
        assert len({receipt.node for receipt in receipts}) == 3
        assert all(receipt.holds and receipt.unit.course.hex() == course for receipt in receipts)
        assert len(keepers(others, course)) == 3

        reader = next(node for node in others if not row(node, course))
        reader.run("get", course, "-o", tmp_path / "out")
        assert_same(folder, tmp_path / "out")
        for node in keepers(others, course):
            assert node.run("verify")["damaged"] == []


def test_two_of_three_killed_together_nothing_lost_and_back_at_three(tmp_path: Path) -> None:
    with network(tmp_path, 6) as nodes:
        file = made_file(tmp_path / "course" / "lecture.bin", 3_000_000)
        course = nodes[1].run("publish", file.parent)["course"]
        killed = [nodes[1], next(node for node in keepers(nodes, course) if node not in nodes[:2])]
        for node in killed:
            node.kill()
        alive = [node for node in nodes if node not in killed]
        eventually(lambda: len(keepers(alive, course)) >= 3, nodes)
        for node in keepers(alive, course):
            eventually(lambda node=node: row(node, course)["copies"] == 3, nodes)  # type: ignore[misc]
            assert node.run("node", "status")["custody"]["under_replicated"] == []
        assert len(keepers(alive, course)) == 3  # once each: no storm


def test_a_short_absence_moves_nothing_and_who_returns_counts_again(tmp_path: Path) -> None:
    with network(tmp_path, 5, P2PLEARN_CUSTODY_GRACE="20") as nodes:
        course = nodes[1].run("publish", odd_folder(tmp_path / "odd"))["course"]
        kept = keepers(nodes, course)
        assert len(kept) == 3
        sleeper = next(node for node in kept if node is not nodes[0])
        os.kill(sleeper.pid, signal.SIGSTOP)
        time.sleep(12)
        os.kill(sleeper.pid, signal.SIGCONT)
        time.sleep(3)
        assert len(keepers(nodes, course)) == 3
        sleeper.kill()
        sleeper.start()
        eventually(lambda: row(sleeper, course)["copies"] == 3, nodes)
        witness = next(node for node in kept if node is not sleeper)
        eventually(lambda: {w["life"] for w in witness.run("info", course)["where"]} == {"this node", "alive"}, nodes)
        assert len(keepers(nodes, course)) == 3


def test_alone_it_says_so_and_copies_are_made_as_nodes_come(tmp_path: Path) -> None:
    with network(tmp_path, 1) as nodes:
        published = nodes[0].run("publish", odd_folder(tmp_path / "odd"), "--copies", "2")
        assert (published["copies"], published["copies_wanted"]) == (1, 2)
        short = nodes[0].run("node", "status")["custody"]["under_replicated"]
        assert [(one["course"], one["copies"], one["copies_wanted"]) for one in short] == [(published["course"], 1, 2)]
        left = nodes[0].run("node", "leave", "--deadline", "20", code=9)
        assert [(one["course"], one["copies"]) for one in left["unplaced"]] == [(published["course"], 0)]
        nodes[0].stop()
        nodes[0].start()
        assert row(nodes[0], published["course"])["complete"]
        settings = {"P2PLEARN_STORAGE_GIVE": "1 GiB", "P2PLEARN_CUSTODY_GRACE": GRACE}
        nodes.append(RealNode(tmp_path / "late", bootstrap=[nodes[0].address], env=settings))
        nodes[1].start()
        eventually(lambda: row(nodes[1], published["course"]).get("complete"), nodes)
        stopped = nodes[1].run("node", "stop")
        assert [one["course"] for one in stopped["fewer_copies"]] == [published["course"]]
        nodes[1].stop()


def test_a_quota_is_never_exceeded_and_gc_says_what_would_go(tmp_path: Path) -> None:
    with network(tmp_path, 4, P2PLEARN_STORAGE_GIVE="5 MiB") as nodes:
        for n in range(3):
            nodes[1].run("publish", made_file(tmp_path / f"{n}.bin", 2_000_000, str(n)), "--copies", "4")
        time.sleep(3)
        for node in nodes:
            with sqlite3.connect(node.home.store / "catalogue.sqlite") as db:
                given = db.execute("SELECT coalesce(sum(given), 0) FROM custody").fetchone()[0]
                held = db.execute("SELECT coalesce(sum(bytes), 0) FROM extents").fetchone()[0]
            db.close()
            assert given <= 5 << 20
            assert node is nodes[1] or held <= 5 << 20
            assert node.run("gc", "--dry-run")["courses"] == []
        assert len(nodes[1].run("node", "status")["custody"]["under_replicated"]) >= 1


@pytest.mark.parametrize("how", ["setting", "flag"])
def test_a_stop_can_be_a_leave(tmp_path: Path, how: str) -> None:
    env = {"P2PLEARN_NODE_ON_STOP": "leave"} if how == "setting" else {}
    with network(tmp_path, 5, **env) as nodes:
        course = nodes[1].run("publish", odd_folder(tmp_path / "odd"))["course"]
        if how == "flag":
            nodes[1].run("node", "stop", "--handoff")
        nodes[1].stop(60)
        others = [node for node in nodes if node is not nodes[1]]
        assert len(keepers(others, course)) == 3
