"""Export into a CAR file and import of one: MB/s and peak memory, of nodes of the real kind.

    python benchmarks/archive.py [--work DIR] [--runs N] [--mib N]

A file of N MiB (default 1024) is published on one node, exported, and imported by another; then the import is asked
for once more, with everything there already. Beside it: how long copying the file takes (``cp``, then ``sync``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from verdicts import spread
from work import made_file, nodes

MB = 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    given = parser.parse_args()
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=given.work) as temporary:
        room = Path(temporary)
        size = given.mib << 20
        source = made_file(room / "source.bin", size)
        for run in range(given.runs):
            car = room / f"{run}.car"
            with nodes(room, 2) as (a, b):
                course = a.run("publish", source, "--copies", "1")["course"]
                exported = a.run("export", course, "-o", car)
                imported = b.run("import", car)
                again = b.run("import", car)
                row = {
                    "export, MB/s": size / MB / exported["seconds"],
                    "import, MB/s": size / MB / imported["seconds"],
                    "import again, s": again["seconds"],
                    "exporter's peak memory, MiB": a.memory(),
                    "importer's peak memory, MiB": b.memory(),
                }
            began = time.perf_counter()
            subprocess.run(["cp", car, room / "copy"], check=True)
            subprocess.run(["sync", room / "copy"], check=True)
            row["cp and sync, MB/s"] = size / MB / (time.perf_counter() - began)
            for name, value in row.items():
                figures.setdefault(name, []).append(value)
            car.unlink()
            (room / "copy").unlink()
    for name, values in figures.items():
        print(f"{given.mib} MiB: {name:30} {spread(values, 1)}", flush=True)


if __name__ == "__main__":
    main()
