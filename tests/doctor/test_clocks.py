"""Two machines whose clocks differ, each way: the doctor says so, whatever the connection breaks at."""

from __future__ import annotations

import os
from pathlib import Path

from p2plearn.clock import hardware_clock
from tests.nodes import RealNode, environment, run_command

HOUR, DAY = 3600, 86400

SHIFT = """
import datetime, os, time

OFF = int(os.environ["SHIFTED_SECONDS"])
seconds, nanoseconds = time.time, time.time_ns
time.time, time.time_ns = lambda: seconds() + OFF, lambda: nanoseconds() + OFF * 10**9


class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=OFF)


datetime.datetime = Shifted
"""
"""Run by Python before anything else: the whole program has another clock."""


def test_clocks_that_differ_are_named_from_either_side(tmp_path: Path) -> None:
    shifting = tmp_path / "shifting"
    shifting.mkdir()
    (shifting / "sitecustomize.py").write_text(SHIFT)
    path = os.pathsep.join(filter(None, [str(shifting), environment().get("PYTHONPATH", "")]))
    with RealNode(tmp_path / "node") as node:
        for off, code, words in (
            (0, 0, "Every step went well"),
            (3 * DAY, 1, "too far apart to connect: the clock there is at least 24.0 hours behind"),
            (-3 * DAY, 1, "too far apart to connect: the clock there is at least 3.0 days ahead"),
            (3660 * DAY, 1, "too far apart to connect: the clock there is at least 24.0 hours behind"),
            (2 * HOUR, 0, "can see each other, but the clock there is at least 0.2 hours behind"),
            (-2 * HOUR, 0, "can see each other, but the clock there is at least 2.0 hours ahead"),
        ):
            ran = run_command(
                "doctor", node.address, "--json", home=tmp_path / "here", PYTHONPATH=path, SHIFTED_SECONDS=str(off)
            )
            assert ran.code == code, (off, ran.stdout, ran.stderr)
            [found] = [each for each in ran.last["findings"] if each["check"] == "reach"]
            assert words in found["words"], off
        # Its own doctor, which is told of no other node than the one to join by, sees it too.
        ran = run_command(
            "doctor", "--json", home=tmp_path / "here", PYTHONPATH=path, SHIFTED_SECONDS=str(3 * DAY),
            P2PLEARN_NETWORK_BOOTSTRAP=node.address, P2PLEARN_NETWORK_MDNS="false",
        )  # fmt: skip
        [clock] = [each for each in ran.last["findings"] if each["check"] == "clock"]
        assert "at least 24.0 hours ahead of that of the one node that tells" in clock["words"]


def test_what_the_hardware_s_clock_says(tmp_path: Path) -> None:
    file = tmp_path / "since_epoch"
    assert hardware_clock(file) is None
    file.write_text("1790000000\n", "ascii")
    assert hardware_clock(file) == 1.79e9
    file.write_text("\n", "ascii")
    assert hardware_clock(file) is None


def test_where_no_node_to_join_by_is_known_the_connected_ones_tell_the_time(tmp_path: Path) -> None:
    """The node runs with the right clock, and the doctor with one that is three days ahead."""
    shifting = tmp_path / "shifting"
    shifting.mkdir()
    (shifting / "sitecustomize.py").write_text(SHIFT)
    path = os.pathsep.join(filter(None, [str(shifting), environment().get("PYTHONPATH", "")]))
    with RealNode(tmp_path / "other") as other, RealNode(tmp_path / "node", bootstrap=[other.address]) as node:
        node.wait_until("peers", 1, 60.0)
        ran = run_command("doctor", "--json", home=node.home.path, PYTHONPATH=path, SHIFTED_SECONDS=str(3 * DAY))
        [clock] = [each for each in ran.last["findings"] if each["check"] == "clock"]
        assert "at least 24.0 hours ahead of that of the one node that tells" in clock["words"]
