"""One decoder under a coverage-guided fuzzer: ``python fuzz/run.py NAME [SECONDS|keep]``; without arguments, the names.

Needs ``pip install -e '.[fuzz,test]'`` (atheris). Starts from the true input of ``tests/decoders.py`` and from what
``fuzz/corpus/NAME`` keeps; what it finds on its way goes to ``fuzz/.work/NAME``. A finding is written to a file
``crash-…`` there and ends the run with an error: mend the decoder and keep the file in ``fuzz/corpus/NAME``, where
``tests/test_decoders.py`` tries it ever after. ``keep`` adds to that folder, of what was found on the way, the
smallest inputs that reach code which those kept so far don't.
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

LONGEST = 4096


def main() -> None:
    """Fuzz one decoder, or keep what was found."""
    by_name = {decoder.name: decoder for decoder in DECODERS}
    if len(sys.argv) < 2:
        print("\n".join(by_name))
        return
    if sys.argv[1] not in by_name:
        sys.exit(f"there is no {sys.argv[1]!r}")
    decoder = by_name[sys.argv[1]]
    task = sys.argv[2] if len(sys.argv) > 2 else "60"
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

    options = [f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=1024", f"-artifact_prefix={work}/"]
    if task == "keep":
        options += ["-merge=1", str(kept), str(work)]
    else:
        options += [f"-max_total_time={task}", "-print_final_stats=1", str(work), str(kept)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
