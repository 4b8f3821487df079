"""A small storm over a real node: frames of every protocol, bombs and resets at once, while an honest node fetches.

``benchmarks/storm.py`` without ``--small`` is the large one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nodes import environment

STORM = Path(__file__).resolve().parents[2] / "benchmarks" / "storm.py"


@pytest.mark.timeout(400)
def test_a_small_storm() -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(STORM), "--small"],
        check=False,
        capture_output=True,
        text=True,
        timeout=380,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "frames" in done.stdout
