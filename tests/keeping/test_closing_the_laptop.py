"""What a person is told before they switch their machine off, and what is so: real nodes, killed and rotten ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.keeping.network import eventually, network, row
from tests.nodes import RealNode
from tests.travel.course_folders import made_file

LONG = "600"
"""Grace period in seconds: nothing is repaired meanwhile, and nobody held for lost."""


def rot(node: RealNode) -> None:
    """Overwrite all that it stores, in place."""
    for extent in (node.home.store / "extents").iterdir():
        with extent.open("r+b") as file:
            file.write(bytes(extent.stat().st_size))


def stand(told: dict[str, Any]) -> tuple[int, int, int]:
    """Copies there, away, asked for."""
    return told["copies"], told["copies_away"], told["copies_wanted"]


@pytest.mark.timeout(400)
def test_what_is_said_of_copies_is_so_whoever_was_killed_or_rotted(tmp_path: Path) -> None:
    file = made_file(tmp_path / "lecture.bin", 300_000)
    with network(tmp_path, 3, P2PLEARN_CUSTODY_GRACE=LONG, P2PLEARN_CUSTODY_HEARTBEAT="1") as nodes:
        first, teacher, second = nodes
        published = teacher.run("publish", file, "--copies", "4")
        course = published["course"]
        assert stand(published) == (3, 0, 4)
        for node in (first, second):
            node.kill()
        # At once, and after a start at which nobody is there: their receipts are no copies. The wish is remembered.
        assert stand(teacher.run("publish", file)) == (1, 2, 4)
        teacher.stop()
        teacher.bootstrap = []
        teacher.start()
        assert stand(teacher.run("publish", file)) == (1, 2, 4)
        assert stand(teacher.run("info", course)) == (1, 2, 4)
        assert row(teacher, course)["copies"] == 1
        custody = teacher.run("node", "status")["custody"]
        assert [(short["course"], *stand(short)) for short in custody["under_replicated"]] == [(course, 1, 2, 4)]
        assert custody["lost"] == []
        # The teacher's own copy rots, and nobody is there to challenge it: publishing looks, and takes it from the
        # folder again.
        rot(teacher)
        again = teacher.run("publish", file)
        assert any("damaged" in warning for warning in again["warnings"])
        assert stand(again) == (1, 2, 4)
        assert teacher.run("verify", course)["damaged"] == []
        # Somebody who is there is used, and counts; then two are enough.
        third = RealNode(tmp_path / "third", bootstrap=[teacher.address], env=first.env)
        nodes.append(third)
        third.start()
        teacher.wait_until("peers", 1)
        eventually(lambda: stand(teacher.run("publish", file)) == (2, 2, 4), nodes)
        assert teacher.run("publish", file, "--copies", "2")["copies_wanted"] == 2
        for node in (teacher, third):
            eventually(lambda node=node: stand(node.run("info", course)) == (2, 2, 2), nodes)  # type: ignore[misc]
        # It rots again, is found, and the last good copy was killed a moment ago: that is not lost, it may come back.
        third.kill()
        teacher.wait_for(lambda status: not status["peers"])
        rot(teacher)
        assert len(teacher.run("verify", course, code=6)["damaged"]) == 1
        custody = teacher.run("node", "status")["custody"]
        assert custody["lost"] == []
        assert [short["course"] for short in custody["under_replicated"]] == [course]


@pytest.mark.timeout(300)
def test_room_given_that_is_lowered_is_said_and_nothing_new_is_taken_in(tmp_path: Path) -> None:
    with network(tmp_path, 2, P2PLEARN_CUSTODY_GRACE=LONG) as nodes:
        keeper, teacher = nodes
        course = teacher.run("publish", made_file(tmp_path / "a.bin", 300_000), "--copies", "2")["course"]
        keeper.stop()
        keeper.env["P2PLEARN_STORAGE_GIVE"] = "1 KiB"
        keeper.bootstrap = [teacher.address]
        keeper.start()
        custody = keeper.run("node", "status")["custody"]
        assert custody["given"] >= 300_000 > custody["give"]
        keeper.wait_until("peers", 1)
        small = teacher.run("publish", made_file(tmp_path / "b.bin", 100, "b"), "--copies", "2")
        assert stand(small) == (1, 0, 2)
        # What is there stays: others count on it.
        eventually(lambda: stand(teacher.run("info", course)) == (2, 0, 2), nodes)
        assert keeper.run("node", "status")["custody"]["given"] == custody["given"]
