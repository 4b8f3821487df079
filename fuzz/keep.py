"""Keep what the fuzzer found on its way: ``python fuzz/keep.py [NAME]...``, all decoders if none is named.

Reads ``fuzz/.work/NAME``, which ``fuzz/run.py`` and ``fuzz/nightly.py`` leave, and adds to ``fuzz/corpus/NAME.txt``
every finding (``crash-…``, ``timeout-…``, ``oom-…``) and the inputs that reach code which neither the true input of
``tests/decoders.py`` nor what is kept already does. Code reached is counted as pairs of bytecode instructions run one
after the other in ``p2plearn``, so both ways of each branch count. Which inputs: the one that adds most, the smaller of
two, until none adds any or there is no room (greedy set cover, at most about ln n times the fewest: V. Chvátal, "A
greedy heuristic for the set-covering problem", 1979). Findings are kept whatever they reach.

A line of a kept file is an input as Python writes bytes: text, so that a change to it can be read. Needs no atheris.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from decoders import CORPUS, DECODERS, MOST_KEPT, MOST_KEPT_BYTES, Decoder, kept_inputs  # noqa: E402

import p2plearn  # noqa: E402

WORK = HERE / ".work"
OURS = str(Path(p2plearn.__file__).parent)
FOUND = ("crash-", "timeout-", "oom-", "leak-")
LONGEST = 4096
"""Bytes of an input; the fuzzer makes none that are longer."""

Edges = frozenset[tuple[str, int, int, int]]
"""(file, first line of the function, instruction, the one run after it)."""


def reached(decoder: Decoder, raw: bytes) -> Edges:
    """What of our code one input runs through; raises what the decoder must not."""
    edges: set[tuple[str, int, int, int]] = set()

    def called(frame: FrameType, _event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        name, line, before = frame.f_code.co_filename, frame.f_code.co_firstlineno, -1

        def step(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal before
            if event in {"opcode", "line"} and frame.f_lasti != before:
                edges.add((name, line, before, frame.f_lasti))
                before = frame.f_lasti
            return step

        return step

    earlier = sys.gettrace()
    sys.settrace(called)
    try:
        with contextlib.suppress(*decoder.raises):
            decoder.take(raw)
    finally:
        sys.settrace(earlier)
    return frozenset(edges)


def cover(decoder: Decoder, have: Iterable[bytes], candidates: Iterable[bytes], most: int, room: int) -> list[bytes]:
    """At most ``most`` candidates, of ``room`` bytes together, that reach what ``have`` doesn't."""
    have = list(have)
    for raw in have:  # what is made once, such as a sample course, is made before anything is counted
        with contextlib.suppress(*decoder.raises):
            decoder.take(raw)
    known = frozenset().union(*(reached(decoder, raw) for raw in have))
    new = {raw: reached(decoder, raw) - known for raw in set(candidates)}
    chosen: list[bytes] = []
    while len(chosen) < most:
        new = {raw: edges for raw, edges in new.items() if edges and len(raw) <= room}
        if not new:
            break
        best = min(new, key=lambda raw: (-len(new[raw]), len(raw), raw))
        chosen.append(best)
        room -= len(best)
        added = new.pop(best)
        new = {raw: edges - added for raw, edges in new.items()}
    return chosen


def keep(decoder: Decoder) -> None:
    """Add to what is kept for one decoder, and say so."""
    files = sorted((WORK / decoder.name).glob("*"))
    kept = kept_inputs(decoder.name)
    found = {path.read_bytes() for path in files if path.name.startswith(FOUND)}
    kept += sorted(found - set(kept))
    candidates = [raw for path in files if len(raw := path.read_bytes()) <= LONGEST]
    room = MOST_KEPT_BYTES - sum(map(len, kept))
    kept += cover(decoder, [*decoder.seeds(), *kept], candidates, MOST_KEPT - len(kept), room)
    kept.sort(key=lambda raw: (len(raw), raw))
    if kept:
        CORPUS.mkdir(exist_ok=True)
        (CORPUS / f"{decoder.name}.txt").write_text("".join(f"{raw!r}\n" for raw in kept), "ascii")
    print(f"{decoder.name}: {len(kept)} kept of {len(files)}, {sum(map(len, kept)):,} bytes", flush=True)


def main() -> None:
    """All, or those that are named."""
    logging.disable()
    by_name = {decoder.name: decoder for decoder in DECODERS}
    for name in sys.argv[1:] or by_name:
        if name not in by_name:
            sys.exit(f"there is no {name!r}")
        keep(by_name[name])


if __name__ == "__main__":
    main()
