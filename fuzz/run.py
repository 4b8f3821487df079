"""One decoder under a coverage-guided fuzzer: ``python fuzz/run.py NAME [SECONDS]``; without arguments, the names.

Needs ``pip install -e '.[fuzz,test]'`` (atheris). Starts from the true input of ``tests/decoders.py`` and from what
``fuzz/corpus/NAME.txt`` keeps; what it finds on its way goes to ``fuzz/.work/NAME``. A finding is written to a file
``crash-…`` there and ends the run with an error: mend the decoder, then let ``fuzz/keep.py NAME`` keep it, for
``tests/test_decoders.py`` to try ever after.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
logging.disable()

with atheris.instrument_imports(include=["p2plearn"], enable_loader_override=False):
    from decoders import DECODERS, kept_inputs
    from shapes import SHAPES, receipt_signed, reshaped

LONGEST = 4096


def main() -> None:
    """Fuzz one decoder."""
    by_name = {decoder.name: decoder for decoder in DECODERS}
    if len(sys.argv) < 2:
        print("\n".join(by_name))
        return
    if sys.argv[1] not in by_name:
        sys.exit(f"there is no {sys.argv[1]!r}")
    name = sys.argv[1]
    decoder = by_name[name]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    work = HERE / ".work" / name
    work.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate([*decoder.seeds(), *kept_inputs(name)]):
        (work / f"seed-{number}").write_bytes(seed)

    def one(raw: bytes) -> None:
        try:
            decoder.take(raw)
        except decoder.raises:
            return

    options = [f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=1024", f"-artifact_prefix={work}/"]
    options += [f"-max_total_time={seconds}", "-print_final_stats=1", str(work)]

    def change(raw: bytes, most: int, number: int) -> bytes:
        dice = random.Random(number)
        if name in SHAPES and dice.randrange(4):
            with contextlib.suppress(Exception):  # changed as bytes before, it may have no value any more
                return reshaped(SHAPES[name], raw, dice)[:most]
        mutated: bytes = atheris.Mutate(raw, most)
        return receipt_signed(mutated)[:most] if name == "receipt" and dice.randrange(4) else mutated

    shaped = {"custom_mutator": change} if name in SHAPES or name == "receipt" else {}
    atheris.Setup([sys.argv[0], *options], one, **shaped)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
