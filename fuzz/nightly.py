"""Every decoder under the fuzzer, one after the other: ``python fuzz/nightly.py [SECONDS_EACH] [NAME]...``.

Prints a line each: inputs tried, edges of our code that they reached (libFuzzer's ``cov``), and what was found. Exits
with 1 if anything was. ``fuzz/keep.py`` then keeps what reached new code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from decoders import DECODERS  # noqa: E402


def main() -> None:
    """Run all, or those that are named."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "600"
    names = sys.argv[2:] or [decoder.name for decoder in DECODERS]
    failed = []
    for name in names:
        done = subprocess.run([sys.executable, str(HERE / "run.py"), name, seconds], capture_output=True, text=True)
        tried = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        found = re.findall(r"Test unit written to (\S+)", done.stderr)
        reached = re.findall(r"\bcov: (\d+)", done.stderr)
        inputs, edges = int(tried[1]) if tried else 0, reached[-1] if reached else "0"
        print(f"{name}: {inputs:,} inputs, {edges} edges, {', '.join(found) or 'nothing found'}", flush=True)
        if found or done.returncode:
            failed.append(name)
            print(done.stderr[-3000:], flush=True)
    if failed:
        sys.exit(f"findings: {', '.join(failed)}")


if __name__ == "__main__":
    main()
