"""Every decoder under the fuzzer, one after the other: ``python fuzz/nightly.py [SECONDS_EACH] [NAME]...``, guided by
the coverage of our code. Or ``python fuzz/nightly.py --inputs N [NAME]...``: until each has had N inputs in both ways
and in all runs, by plain changes, which are ten times as fast.

Prints a line each: inputs tried, and what was found; of the guided fuzzer also the edges of our code that they reached
(libFuzzer's ``cov``). Exits with 1 if anything was found. ``fuzz/keep.py`` then keeps what reached new code. Inputs are
added up outside the repository (``fuzz/counts.py``): stop it when you like, it goes on from there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import counts  # noqa: E402
from decoders import DECODERS  # noqa: E402


def guided(name: str, seconds: str) -> bool:
    """Run one for so long; whether nothing was found."""
    done = subprocess.run([sys.executable, str(HERE / "run.py"), name, seconds], capture_output=True, text=True)
    tried = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    found = re.findall(r"Test unit written to (\S+)", done.stderr)
    reached = re.findall(r"\bcov: (\d+)", done.stderr)
    inputs, edges = int(tried[1]) if tried else 0, reached[-1] if reached else "0"
    counts.add(name, guided=inputs)
    print(f"{name}: {inputs:,} inputs, {edges} edges, {', '.join(found) or 'nothing found'}", flush=True)
    if found or done.returncode:
        print(done.stderr[-3000:], flush=True)
    return not (found or done.returncode)


def plain(name: str, inputs: int) -> bool:
    """Go on with one until it has had so many; whether nothing was found."""
    missing = inputs - counts.tried(name)
    if missing > 0:
        done = subprocess.run([sys.executable, str(HERE / "plain.py"), name, str(missing)])
        return done.returncode == 0
    print(f"{name}: {counts.tried(name):,} inputs before", flush=True)
    return True


def main() -> None:
    """Run all, or those that are named."""
    words = sys.argv[1:]
    inputs = int(words[1]) if words[:1] == ["--inputs"] else 0
    seconds = words[0] if words and not inputs else "600"
    names = words[2 if inputs else 1 :] or [decoder.name for decoder in DECODERS]
    failed = [name for name in names if not (plain(name, inputs) if inputs else guided(name, seconds))]
    if failed:
        sys.exit(f"findings: {', '.join(failed)}")


if __name__ == "__main__":
    main()
