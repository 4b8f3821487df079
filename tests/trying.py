"""True input with small changes (bits, bytes, runs, pieces of other input), and decoders that take it.

Fast, since ten million are wanted of each. What is to happen comes from the dice handed in.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import trio
from decoders import Decoder

LONGEST = 4096
"""Bytes of an input that is made: enough for each format's joints, and few enough to try many."""

AT_ONCE = 50
"""Inputs side by side in an event loop."""

_TIMES = (1, 1, 1, 2, 2, 3, 4, 12)
_EDGE_BYTES = b"\x00\x01\x7f\x80\xc0\xff\x20\x0a"
_EDGE_WORDS = [
    bytes.fromhex(word)
    for word in ("00000000", "7fffffff", "80000000", "ffffffff", "00000100", "01000000", "0a0d0a0d", "2f2e2e2f")
]
_RUNS = (1, 1, 2, 4, 8, 16, 64, 256)


def mutated(dice: random.Random, pool: Sequence[bytes]) -> bytes:
    """One of ``pool`` with one to twelve changes; ``pool`` must not be empty."""
    draw = dice.getrandbits
    raw = bytearray(pool[draw(32) % len(pool)])
    for _ in range(_TIMES[draw(3)]):
        bits = draw(64)
        kind, byte, run = bits & 7, bits >> 3 & 255, _RUNS[bits >> 11 & 7]
        # One change in four hits the head: kinds, lengths and counts are there.
        size = len(raw) + 1
        at = (bits >> 16) % (size if bits >> 62 or size < 16 else 16)
        if kind == 0:
            raw[at : at + 1] = bytes((byte,))
        elif kind == 1:
            raw[at : at + 1] = _EDGE_BYTES[byte & 7 : (byte & 7) + 1]
        elif kind == 2:
            raw[at:at] = draw(8 * (run & 15 or 1)).to_bytes(run & 15 or 1)
        elif kind == 3:
            del raw[at : at + run]
        elif kind == 4:
            raw[at:at] = raw[(start := draw(32) % size) : start + run]
        elif kind == 5:
            raw[at : at + 4] = _EDGE_WORDS[byte & 7]
        elif kind == 6 and at < size - 1:
            raw[at] ^= 1 << (byte & 7)
        else:
            other = pool[draw(32) % len(pool)]
            start = draw(32) % (len(other) + 1)
            # A run of it in place of ours, or all of the rest.
            raw[at : at + run if byte & 1 else size] = other[start : start + run if byte & 1 else len(other)]
    return bytes(raw[:LONGEST])


def try_all(decoder: Decoder, batch: list[bytes]) -> None:
    """Raises what the decoder must not."""
    if decoder.within is None:
        take, raises = decoder.take, decoder.raises
        for raw in batch:
            try:
                take(raw)
            except raises:
                pass
            except Exception as error:
                error.add_note(f"of {raw!r}")
                raise
    else:
        trio.run(_side_by_side, decoder.within, decoder.raises, batch)


async def _side_by_side(
    within: Callable[[bytes], Awaitable[object]], raises: tuple[type[Exception], ...], batch: list[bytes]
) -> None:
    """Many at once share the turns of the event loop, most of what one costs."""

    async def one(raw: bytes) -> None:
        try:
            await within(raw)
        except raises:
            pass
        except Exception as error:
            error.add_note(f"of {raw!r}")
            raise

    for first in range(0, len(batch), AT_ONCE):
        async with trio.open_nursery() as nursery:
            for raw in batch[first : first + AT_ONCE]:
                nursery.start_soon(one, raw)
