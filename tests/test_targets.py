"""The table of targets: what is called met, missed and not measured; and that the command which measures still runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from nodes import environment

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def verdicts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_verdicts", BENCHMARKS / "verdicts.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("relation", "value", "verdict"),
    [
        ("at least", 1.3, "met"),
        ("at least", 1.2, "met"),
        ("at least", 1.19, "missed"),
        ("at most", 1.2, "met"),
        ("at most", 1.21, "missed"),
        ("under", 1.19, "met"),
        ("under", 1.2, "missed"),
        (None, 1.2, "no target"),
    ],
)
def test_a_figure_by_itself(verdicts: ModuleType, relation: str | None, value: float, verdict: str) -> None:
    target = verdicts.Target("idle", relation, 1.2, "MiB")
    assert verdicts.judge(target, [value]).verdict == verdict


def test_the_median_decides_and_the_spread_is_shown(verdicts: ModuleType) -> None:
    line = verdicts.judge(verdicts.Target("idle", "at most", 150.0, "MiB", digits=0), [149.0, 400.0, 120.0])
    assert line == ("idle", "at most 150 MiB", "149 (120-400) MiB", "-", "-", "met")


def test_a_ratio_is_that_of_the_same_run(verdicts: ModuleType) -> None:
    """A machine that grows slower meanwhile: the medians would say 1.0, each pair says more."""
    target = verdicts.Target("file", "at least", 1.2, "MB/s", "syncthing", digits=0)
    line = verdicts.judge(target, [400.0, 300.0, 250.0], [300.0, 250.0, 350.0])
    assert line.ratio == "1.20 (0.71-1.33)"
    assert line.verdict == "met"
    assert line.target == "at least 1.2 x syncthing"
    assert line.measured == "300 (250-400) MB/s"
    assert line.beside == "syncthing 300 (250-350)"


def test_a_peer_that_is_not_there_is_never_beaten(verdicts: ModuleType) -> None:
    target = verdicts.Target("small", "at most", 0.5, "s", "libtorrent")
    line = verdicts.judge(target, [0.1, 0.1], [], missing="libtorrent is not installed")
    assert line.verdict == "not measured"
    assert line.ratio == "libtorrent is not installed"
    assert line.measured.startswith("0.10")


def test_nothing_is_met_that_was_not_measured(verdicts: ModuleType) -> None:
    target = verdicts.Target("swarm", "at most", 1.2, "s", "libtorrent")
    assert verdicts.judge(target, [], []).verdict == "not measured"
    assert verdicts.judge(target, [], [1.0]).verdict == "not measured"
    assert verdicts.judge(verdicts.Target("idle", "at most", 1.0), []).verdict == "not measured"
    assert verdicts.judge(verdicts.Target("shown", None), []).verdict == "not measured"
    assert verdicts.count("the liar is named", []).verdict == "not measured"
    assert verdicts.not_measured("disk", "no folder").verdict == "not measured"


def test_figures_of_other_runs_are_no_pairs(verdicts: ModuleType) -> None:
    with pytest.raises(ValueError, match="shorter"):
        verdicts.judge(verdicts.Target("file", "at least", 1.2, "MB/s", "syncthing"), [1.0, 2.0], [1.0])


def test_what_has_to_be_so_every_time(verdicts: ModuleType) -> None:
    assert verdicts.count("banned", [True, True]).verdict == "met"
    line = verdicts.count("banned", [True, False, True])
    assert (line.measured, line.verdict) == ("2 of 3 runs", "missed")


def test_the_table_has_a_row_a_line_and_columns_of_one_width(verdicts: ModuleType) -> None:
    lines = [verdicts.not_measured("disk", "no folder"), verdicts.count("banned", [True])]
    head, rule, *rows = verdicts.table(lines).splitlines()
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == list(lines[0])
    assert len(rows) == 2
    assert {len(row) for row in (head, rule, *rows)} == {len(head)}
    assert rule.count("|") == head.count("|")


@pytest.mark.timeout(400)
def test_the_command_measures(tmp_path: Path) -> None:
    """Small, on two real nodes: what it prints is a table, and what was measured, and only that, is judged."""
    words = ["memory", "--gib", "1", "--runs", "1", "--scale", "0.002", "--work", tmp_path]
    done = subprocess.run(
        [sys.executable, "-P", str(BENCHMARKS / "targets.py"), *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=380,
        env={**environment(), "P2PLEARN_BENCH_ALONE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "says nothing about the targets" in done.stdout
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in done.stdout.splitlines() if "|" in row][2:]
    assert [row[1] for row in rows] == ["at most 150 MiB", "at most 150 MiB", "-", "-"]
    assert all(row[2].endswith(" MiB") and row[-1] in {"met", "missed"} for row in rows[:2])
    assert all(row[-2:] == ["--gib names one size", "not measured"] for row in rows[2:])
