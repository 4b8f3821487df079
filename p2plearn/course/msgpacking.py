"""msgpack as courses use it: one way to write each value, nothing read that wasn't expected.

A value has several spellings in msgpack; a hash over bytes needs one. Ours: the shortest form of each integer,
string, binary and header, map keys sorted, no floats, no extensions. The packer writes no other; whoever reads
packs again and compares.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

import msgpack


def pack(value: Any) -> bytes:
    """The canonical bytes of a value made of maps (with sorted keys), lists, text, bytes, integers, None and bools.

    Raises TypeError, OverflowError or UnicodeEncodeError for a value that has none.
    """
    packed: bytes = msgpack.packb(value, use_bin_type=True, strict_types=False)
    return packed


def unpack(raw: bytes, *, longest: int, most: int) -> Any:
    """The value of ``raw``; no text or binary in it has more than ``longest`` bytes, no list or map ``most`` items.

    Lists come as tuples. Raises ValueError when it is no msgpack within these limits. They are checked before
    memory is taken, but a list is made as long as its header says: keep ``most`` small, headers can be nested some
    500 deep. Canonical or not is for the caller to compare.
    """
    try:
        return msgpack.unpackb(
            raw,
            raw=False,
            use_list=False,
            strict_map_key=True,
            max_str_len=longest,
            max_bin_len=longest,
            max_array_len=most,
            max_map_len=most,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as wrong:
        raise ValueError(f"not msgpack: {wrong}") from None
