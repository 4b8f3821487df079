"""Every decoder under the fuzzer, one after the other: ``python fuzz/nightly.py [SECONDS_EACH] [NAME]...``.

Prints a line each: inputs tried, and what was found. Exits with 1 if anything was.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

RUN = str(Path(__file__).resolve().parent / "run.py")


def main() -> None:
    """Run all, or those that are named."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "600"
    names = (
        sys.argv[2:]
        or subprocess.run([sys.executable, RUN], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    )
    failed = []
    for name in names:
        done = subprocess.run([sys.executable, RUN, name, seconds], capture_output=True, text=True)
        tried = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        found = re.findall(r"Test unit written to (\S+)", done.stderr)
        print(f"{name}: {int(tried[1]) if tried else 0:,} inputs, {', '.join(found) or 'nothing found'}", flush=True)
        if found or done.returncode:
            failed.append(name)
            print(done.stderr[-3000:], flush=True)
    if failed:
        sys.exit(f"findings: {', '.join(failed)}")


if __name__ == "__main__":
    main()
