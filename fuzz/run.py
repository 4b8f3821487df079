"""One decoder under a coverage-guided fuzzer: ``python fuzz/run.py NAME [SECONDS]``; without arguments, the names.

Needs ``pip install -e '.[fuzz,test]'`` (atheris). Starts from the true input of ``tests/decoders.py`` and from what
``fuzz/corpus/NAME`` keeps; what it finds on its way goes to ``fuzz/.work/NAME``. A finding is written to a file
``crash-…`` there and ends the run with an error: mend the decoder and keep the file in ``fuzz/corpus/NAME``, where
``tests/test_decoders.py`` tries it ever after.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
logging.disable()

with atheris.instrument_imports(include=["p2plearn"], enable_loader_override=False):
    from decoders import DECODERS


def main() -> None:
    """Fuzz one decoder."""
    by_name = {decoder.name: decoder for decoder in DECODERS}
    if len(sys.argv) < 2 or sys.argv[1] not in by_name:
        sys.exit("\n".join(by_name))
    decoder = by_name[sys.argv[1]]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    work, kept = HERE / ".work" / decoder.name, HERE / "corpus" / decoder.name
    for folder in (work, kept):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(decoder.seeds()):
        (work / f"seed-{number}").write_bytes(seed)

    def one(raw: bytes) -> None:
        try:
            decoder.take(raw)
        except decoder.raises:
            return

    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, "-print_final_stats=1", f"-artifact_prefix={work}/", str(work), str(kept)], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
