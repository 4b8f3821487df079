"""One decoder under very many changed inputs, without coverage: ``python fuzz/plain.py NAME INPUTS``.

Tries so many inputs more, some ten times as fast as the guided fuzzer does. Starts from the true input of
``tests/decoders.py``, what ``fuzz/corpus`` keeps, and what the guided fuzzer left in ``fuzz/.work/NAME``: run that
first. Changed are bytes and, where ``fuzz/shapes.py`` knows the notation, values; what came of changed values is
changed on. An input that makes the decoder raise what it must not (``crash-…``), take 20 s (``timeout-…``), or more
memory than there is (``crash-…`` with a MemoryError) is written to ``fuzz/.work/NAME`` and ends the run with an error.

How many were tried is added up in a file that outlives runs (``fuzz/counts.py``), so that one may stop at any time
and go on later: another run makes other inputs. Needs no atheris.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import counts  # noqa: E402
from decoders import DECODERS, Decoder, kept_inputs  # noqa: E402
from shapes import SHAPES, SIGNATURE, Shape, receipt_signed, reshaped  # noqa: E402
from trying import LONGEST, mutated, try_all  # noqa: E402

BATCH = 500
"""Inputs between two looks at the clock."""

RECENT = 64
"""Inputs with changed values that are kept to be changed on."""

SECONDS = 20
"""Of processor time that an input may take, with all others of its batch; a stopped process doesn't count."""

MEMORY = 2 << 30
"""Bytes of address space beyond which there is no memory."""

SAVE_SECONDS = 5.0

STOPPED: list[int] = []
"""The signal that said so: what has begun is finished and counted."""


class TookTooLong(BaseException):
    """No decoder catches it."""


def inputs_of(name: str, pool: list[bytes], dice: random.Random) -> Iterator[bytes]:
    """Changed inputs without end."""
    shape, draw = SHAPES.get(name), dice.getrandbits
    readable = [] if shape is None else [raw for raw in pool if _has_value(shape, raw)]
    pool = list(pool)
    fixed = len(pool)
    # A signature costs as much as many inputs.
    one_in = 8 if shape is not None and shape.signed is not None else 4
    while True:
        if shape is not None and readable and not draw(32) % one_in:
            try:
                raw = reshaped(shape, readable[draw(32) % len(readable)], dice)[:LONGEST]
            except Exception:  # not all values can be written
                pass
            else:
                if len(pool) < fixed + RECENT:
                    pool.append(raw)
                else:
                    pool[fixed + draw(32) % RECENT] = raw
                yield raw
        raw = mutated(dice, pool)
        yield receipt_signed(raw)[:LONGEST] if name == "receipt" and not draw(3) else raw


def _has_value(shape: Shape, raw: bytes) -> bool:
    try:
        shape.read(raw if shape.signed is None else raw[SIGNATURE:])
    except Exception:
        return False
    return True


def culprit(decoder: Decoder, batch: list[bytes]) -> tuple[bytes, str]:
    """Which one it was, and what it is called."""
    for raw in batch:
        try:
            timed(decoder, [raw])
        except TookTooLong:
            return raw, "timeout"
        except Exception:
            return raw, "crash"
    sys.exit("one of a batch was a finding, and no more when tried alone")


def timed(decoder: Decoder, batch: list[bytes]) -> None:
    """``try_all``; raises TookTooLong, too."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        try_all(decoder, batch)
    except BaseExceptionGroup as group:  # from a nursery
        raise TookTooLong if group.subgroup(TookTooLong) else group from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def work_of(name: str) -> list[bytes]:
    """What the guided fuzzer left: inputs that reached something new, when they came."""
    folder = HERE / ".work" / name
    if not folder.is_dir():
        return []
    return sorted({path.read_bytes()[:LONGEST] for path in folder.iterdir() if "-" not in path.name})


def fuzz(decoder: Decoder, inputs: int) -> None:
    """Try so many; ends the process where one was found."""
    pool = list(dict.fromkeys([*decoder.seeds(), *kept_inputs(decoder.name), *work_of(decoder.name)]))
    made = inputs_of(decoder.name, pool, random.Random())
    for raw in pool:  # what is made once, such as a sample course, is made before anything is counted
        with contextlib.suppress(*decoder.raises):
            decoder.take(raw)
    gc.freeze()
    tried, told, saved, began = 0, 0, time.monotonic(), time.process_time()
    try:
        while tried < inputs and not STOPPED:
            batch = [next(made) for _ in range(min(BATCH, inputs - tried))]
            timed(decoder, batch)
            tried += len(batch)
            if time.monotonic() - saved > SAVE_SECONDS:
                counts.add(decoder.name, plain=tried - told)
                told, saved = tried, time.monotonic()
    except (Exception, TookTooLong):
        traceback.print_exc()
        raw, kind = culprit(decoder, batch)
        path = HERE / ".work" / decoder.name / f"{kind}-{hashlib.sha1(raw).hexdigest()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        sys.exit(f"Test unit written to {path}")
    finally:
        counts.add(decoder.name, plain=tried - told)
    took = time.process_time() - began
    print(
        f"{decoder.name}: {tried:,} inputs, {tried / took:,.0f} a second of processor time, nothing found", flush=True
    )


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TookTooLong


def main() -> None:
    """Fuzz one decoder."""
    by_name = {decoder.name: decoder for decoder in DECODERS}
    if len(sys.argv) != 3 or sys.argv[1] not in by_name or not sys.argv[2].isdecimal():
        sys.exit(f"python fuzz/plain.py NAME INPUTS, where NAME is one of: {' '.join(by_name)}")
    logging.disable()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, _too_long)
    signal.signal(signal.SIGTERM, lambda number, _: STOPPED.append(number))
    fuzz(by_name[sys.argv[1]], int(sys.argv[2]))


if __name__ == "__main__":
    main()
