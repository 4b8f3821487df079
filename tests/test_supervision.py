"""A fault of ours in the network part costs a moment of network, not the node."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from nodes import RealNode

import p2plearn
from p2plearn.supervision import PAUSE, Restarts, Supervisor

FAULTY = Path(__file__).parent / "net" / "faulty"


def test_restarts_are_a_few_a_minute_at_most() -> None:
    restarts = Restarts(most=4, window=60.0)
    now, starts = 0.0, []
    for _ in range(40):  # it fails at once, each time
        now = restarts.next(now)
        starts.append(now)
    assert starts[:4] == pytest.approx([PAUSE * n for n in range(1, 5)])
    for first, fifth in zip(starts, starts[4:], strict=False):
        assert fifth - first > 59.99
    later = now + 1000.0
    assert restarts.next(later) == later + PAUSE


async def test_it_is_run_anew_after_a_fault_and_reported_started_once(autojump_clock: trio.abc.Clock) -> None:
    runs: list[float] = []
    supervisor = Supervisor("it")

    async def part(*, task_status: Any) -> None:
        runs.append(trio.current_time())
        task_status.started("up")
        if len(runs) == 2:
            return  # ending by itself is a fault, too
        await trio.sleep(10.0)
        raise ZeroDivisionError(f"number {len(runs)}")

    async with trio.open_nursery() as nursery:
        assert await nursery.start(supervisor.run, part) == "up"
        await trio.sleep(25.0)
        assert len(runs) == 4
        assert supervisor.restarts == 3
        assert supervisor.last_fault == "ZeroDivisionError: number 3"
        nursery.cancel_scope.cancel()


async def test_a_first_start_that_fails_is_told_and_not_tried_again() -> None:
    supervisor = Supervisor("it")

    async def part(*, task_status: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, part)
    assert caught.group_contains(ZeroDivisionError)
    assert supervisor.restarts == 0


def test_a_real_fault_in_the_network_part_of_a_real_node(tmp_path: Path) -> None:
    course = tmp_path / "course"
    course.mkdir()
    (course / "a.txt").write_text("hello")
    fault = tmp_path / "fault"
    path = os.pathsep.join((str(FAULTY), str(Path(p2plearn.__file__).parents[1])))
    with (
        RealNode(tmp_path / "a", env={"FAULT_AT": str(fault), "PYTHONPATH": path}) as a,
        RealNode(tmp_path / "b") as b,
    ):
        published = a.run("publish", course)["course"]
        pid, where = a.pid, a.run("node", "status")["addresses"]
        for number in (1, 2):
            fault.touch()
            deadline = time.monotonic() + 60
            while (status := a.run("node", "status"))["network_restarts"] < number:
                assert time.monotonic() < deadline, a.log
            assert status["pid"] == pid
            while (status := a.run("node", "status"))["addresses"] != where:
                assert time.monotonic() < deadline, a.log
            assert "ZeroDivisionError" in status["last_fault"]
        b.run("get", published, "--from", a.address, "-o", tmp_path / "out")
        assert (tmp_path / "out" / "a.txt").read_text() == "hello"
        assert "ends with a fault of ours" not in a.log
        assert "the network part ended with a fault of ours" in a.log
        assert "\x1b" not in a.log
        assert not any(line.startswith("2026 info forged") for line in a.log.splitlines())
        assert a.stop() == 0
