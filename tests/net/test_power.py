"""Battery and metered lines, as the system tells them, and being nice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from p2plearn.net import power


def supply(root: Path, name: str, **facts: str) -> None:
    (root / name).mkdir(parents=True)
    for key, value in facts.items():
        (root / name / key).write_text(value + "\n")


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    assert power.read_battery(tmp_path / "none") is None
    assert power.read_battery(tmp_path) is None
    supply(tmp_path, "AC", type="Mains", online="0")
    assert power.read_battery(tmp_path) is None


@pytest.mark.parametrize(
    ("mains", "battery", "expected"),
    [
        ("1", "Charging", False),
        ("1", "Discharging", False),  # a weak charger: on mains all the same
        ("0", "Discharging", True),
        ("0", "Full", False),
    ],
)
def test_a_laptop(tmp_path: Path, mains: str, battery: str, expected: bool) -> None:
    supply(tmp_path, "AC", type="Mains", online=mains)
    supply(tmp_path, "BAT0", type="Battery", status="Unknown")
    supply(tmp_path, "BAT1", type="Battery", status=battery, scope="System")
    assert power.read_battery(tmp_path) is expected


def test_the_battery_of_a_mouse_is_not_the_machine_s(tmp_path: Path) -> None:
    supply(tmp_path, "hidpp_battery_0", type="Battery", status="Discharging", scope="Device")
    assert power.read_battery(tmp_path) is None


def test_the_answer_on_this_machine_is_one() -> None:
    assert power.read_battery() in (True, False, None)
    assert power.read_metered() in (True, False, None)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo u 1", True),
        ("echo u 2", False),
        ("echo u 3", True),
        ("echo u 4", False),
        ("echo u 0", None),
        ("echo nonsense", None),
        ("printf '\\377\\376'", None),
        ("true", None),
        ("exit 1", None),
        ("sleep 60", None),
    ],
)
def test_what_network_manager_says(tmp_path: Path, monkeypatch, script: str, expected: bool | None) -> None:
    busctl = tmp_path / "busctl"
    busctl.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    busctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(power, "ASK_SECONDS", 0.5 if "sleep" in script else 10.0)
    assert power.read_metered(tmp_path) is expected
    assert power.read_metered(tmp_path / "not running") is None


NICE = """
import os, threading
from p2plearn.net import power
go = threading.Event()
other = threading.Thread(target=go.wait); other.start()
start = os.getpriority(os.PRIO_PROCESS, 0)
assert power.stand_back(back=True)
assert os.getpriority(os.PRIO_PROCESS, 0) == max(power.NICE, start)
assert os.getpriority(os.PRIO_PROCESS, other.native_id) == max(power.NICE, start)
went = power.stand_back(back=False)
assert os.getpriority(os.PRIO_PROCESS, 0) == (start if went else max(power.NICE, start))
assert power.settle(0) == max(0, start) or not went
assert power.settle(12) == max(12, start)
assert os.getpriority(os.PRIO_PROCESS, other.native_id) == max(12, start)
assert power.stand_back(back=True, usual=12)
assert os.getpriority(os.PRIO_PROCESS, 0) == max(12, start)
go.set()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="niceness by thread is Linux's")
def test_nice_with_all_its_threads_and_back_where_the_system_lets_it() -> None:
    assert threading.current_thread().native_id
    subprocess.run([sys.executable, "-c", NICE], check=True, timeout=30)
