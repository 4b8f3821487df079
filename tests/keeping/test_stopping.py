"""A stop is quick and names what has fewer copies, a leave keeps its deadline, whoever is asleep meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.keeping.network import network
from tests.nodes import RealNode
from tests.travel.course_folders import made_file

HEARTBEAT = {"P2PLEARN_CUSTODY_HEARTBEAT": "1", "P2PLEARN_CUSTODY_GRACE": "600"}


@contextlib.contextmanager
def asleep(*nodes: RealNode) -> Iterator[None]:
    """These are suspended, as by a closed lid: their connections stay open and nothing comes."""
    for node in nodes:
        os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for node in nodes:
            os.kill(node.pid, signal.SIGCONT)


@pytest.mark.timeout(300)
def test_with_a_keeper_asleep_a_stop_names_courses_and_a_leave_ends_with_a_list(tmp_path: Path) -> None:
    with network(tmp_path, 3, **HEARTBEAT) as nodes:
        teacher, awake, sleeper = nodes
        course = teacher.run("publish", made_file(tmp_path / "a.bin", 60_000))["course"]
        with asleep(sleeper):
            # Once it isn't heard any more, so that it would have to be asked.
            teacher.wait_for(lambda _: teacher.run("info", course)["copies"] == 2)
            stopped = teacher.run("node", "stop")
            assert not stopped["signalled"]
            assert [(each["course"], each["copies"]) for each in stopped["fewer_copies"]] == [(course, 1)]
            teacher.kill()
            left = awake.run("node", "leave", "--deadline", "3", code=9)
            assert [each["course"] for each in left["unplaced"]] == [course]
            assert left["stopped"]["signalled"] is False
            awake.kill()


@pytest.mark.timeout(300)
def test_a_second_leave_is_refused_and_a_stop_ends_the_first_which_still_says_how_it_stands(tmp_path: Path) -> None:
    slow = {"P2PLEARN_TRANSFER_UPLOAD_LIMIT": "16 KiB", "P2PLEARN_TRANSFER_LIMIT_LAN": "true"}
    with network(tmp_path, 2, **HEARTBEAT, **slow) as (_, leaver):
        course = leaver.run("publish", made_file(tmp_path / "a.bin", 3_000_000), "--copies", "1")["course"]
        leaver.run("node", "pause")
        assert "paused" in leaver.run("node", "leave", code=8)["message"]
        leaver.run("node", "resume")
        leaving = leaver.begin("node", "leave")
        leaver.wait_for(lambda facts: facts["custody"]["leaving"])
        assert "leaving already" in leaver.run("node", "leave", "--deadline", "5", code=8)["message"]
        assert not leaver.run("node", "stop")["signalled"]
        out, err = leaving.communicate(timeout=60)
        assert leaving.returncode == 9, (out, err, leaver.log)
        assert [each["course"] for each in json.loads(out.splitlines()[-1])["unplaced"]] == [course]
        leaver.kill()
